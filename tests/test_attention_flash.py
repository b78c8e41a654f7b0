"""FlashAttention: exact, whatever its tiles; and what the order spares and costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.workloads.attention.dense import reference as dense
from tilewright.workloads.attention.flash import reference
from tilewright.workloads.training_memory import training_report

FROZEN = Path(__file__).parent / "data" / "oracles" / "flash.npz"
BLOCK = ["d=128", "heads=2", "ffn=128", "seq=2048"]


@pytest.mark.parametrize(("name", "causal"), [("both_ways", False), ("causal", True)])
@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (5, 16), (37, 37), (64, 3)])
def test_reference_equals_the_public_implementation(name: str, causal: bool, rows: int, cols: int) -> None:
    """Frozen inputs and outputs of torch's scaled_dot_product_attention, with sharp rows."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[part] for part in ("query", "key", "value", name))
    np.testing.assert_allclose(
        reference(query, key, value, rows, cols, causal=causal), out, rtol=0, atol=1e-13
    )


@given(
    n=st.integers(1, 20),
    kv=st.integers(1, 2),
    share=st.integers(1, 3),
    rows=st.integers(1, 24),
    cols=st.integers(1, 24),
    causal=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_it_is_dense_attention(
    n: int, kv: int, share: int, rows: int, cols: int, causal: bool, seed: int
) -> None:
    """The order changes nothing in the result, with shared KV heads either."""
    rng = np.random.default_rng(seed)
    query, key, value = (rng.normal(size=(heads, n, 4)) * 3 for heads in (kv * share, kv, kv))
    made = reference(query, key, value, rows, cols, causal=causal)
    np.testing.assert_allclose(made, dense(query, key, value, causal=causal), rtol=0, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_the_graph_is_that_of_dense_attention_in_another_order(causal: bool) -> None:
    """The same operators, MACs and useful MACs; on the machine the scores never leave the chip, while dense
    attention writes and reads them here."""
    flash, plain = (
        tw.load_workload("encoder_block", [*BLOCK, f"causal={causal}", f"attention.kind={kind}"])
        for kind in ("flash", "dense")
    )
    assert flash.macs == plain.macs
    assert flash.useful_macs == plain.useful_macs
    assert [op.name for op in flash.operators] == [op.name for op in plain.operators]

    machine = tw.load_accelerator("gemmini-default")
    fused, unfused = tw.simulate(machine, flash), tw.simulate(machine, plain)
    scores_bytes = 2 * 2048 * 2048
    spared = unfused.traffic_bytes["dram"].write - fused.traffic_bytes["dram"].write
    assert spared >= scores_bytes
    rows = {row.name: row for row in fused.operators}
    assert rows["attention.softmax"].fused_into == "attention.scores"
    assert rows["attention.scores"].mapping.startswith("flash, ")


def test_training_keeps_no_scores() -> None:
    """What training holds is what it holds with dense attention and the strategy of fused attention."""
    flash, plain = (
        training_report(tw.load_workload("encoder_block", [*BLOCK, f"attention.kind={kind}"]))
        for kind in ("flash", "dense")
    )
    fused = {row.strategy: row.total_bytes for row in plain}
    assert flash[0].total_bytes == fused["fused_attention"] < plain[0].total_bytes


def test_a_decode_step_has_it_too() -> None:
    """One token against the cache, the cache a tile at a time."""
    graph = tw.load_workload("gpt2", ["layers=1", "phase=decode", "seq=512", "attention.kind=flash"])
    result = tw.simulate(tw.load_accelerator("gemmini-default"), graph)
    assert any(row.fused_into.endswith("attention.scores") for row in result.operators)
