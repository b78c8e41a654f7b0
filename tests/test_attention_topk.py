"""Block top-k: its reference against frozen results, its costs in closed form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer, work
from tilewright.workloads import primitives
from tilewright.workloads.attention.topk import MECHANISM, BlockTopK, chosen, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "topk.npz"
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("name", ["encoder", "causal", "all"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """PyTorch's pooling, top-k and masked attention give the same numbers, in float64."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[f"{name}_{part}"] for part in ("query", "key", "value", "out"))
        p = BlockTopK(block=int(frozen[f"{name}_block"]), blocks=int(frozen[f"{name}_blocks"]))
        causal = bool(frozen[f"{name}_causal"])
    np.testing.assert_allclose(reference(query, key, value, p, causal=causal), out, rtol=0, atol=1e-14)


@given(blocks=st.integers(1, 6), seen=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_visible_blocks_are_the_useful_ones(blocks: int, seen: int, seed: int) -> None:
    """What the lowering calls useful is the number of chosen blocks that a causal model lets be seen."""
    query, key = np.random.default_rng(seed).normal(size=(2, 2, 3 * blocks, 4))
    p = BlockTopK(block=3, blocks=seen)
    visible = (chosen(query, key, p, causal=True) & np.tri(blocks, dtype=bool)).sum()
    graph = lowered(p, Heads(2, 2, 4), 3 * blocks, causal=True)
    scores = next(op for op in graph.operators if op.name == "scores")
    assert scores.useful_macs == visible * 3 * 3 * 4


@given(
    batch=st.integers(1, 3),
    g=st.integers(1, 3),
    share=st.integers(1, 3),
    e=st.integers(1, 5),
    b=st.integers(2, 6),
    blocks=st.integers(1, 7),
    k=st.integers(1, 8),
    causal=st.booleans(),
)
def test_costs_are_the_closed_forms(
    batch: int, g: int, share: int, e: int, b: int, blocks: int, k: int, causal: bool
) -> None:
    """Averages, scores of blocks, selections, gathers, k blocks a query: all counted."""
    n, h = b * blocks, g * share
    d, seen = h * e, min(k, blocks)
    graph = lowered(BlockTopK(block=b, blocks=k), Heads(h, g, e), n, batch=batch, causal=causal)
    projections = 2 * n * d * d + 2 * n * d * g * e
    assert graph.macs == batch * (projections + blocks * blocks * d + 2 * n * seen * b * d)
    assert work(graph, "softmax")["exp"] == batch * h * n * seen * b
    assert work(graph, "topk") == dict(primitives.topk(batch * h * blocks, blocks, seen))
    assert work(graph, "gather") == {"move": batch * 2 * blocks * seen * b * d}
    means = batch * (h + g) * blocks * e
    assert work(graph, "reduce") == {"add": means * (b - 1), "multiply": means}
    written = 2 * n * g * e + blocks * g * e if causal else 0
    assert work(graph, "scatter")["move"] == batch * written
    assert graph.useful_macs == graph.macs if not causal or seen == 1 else graph.useful_macs < graph.macs


@given(batch=st.integers(1, 3), g=st.integers(1, 3), share=st.integers(1, 3), m=st.integers(1, 90))
def test_a_decode_step_reads_the_chosen_blocks(batch: int, g: int, share: int, m: int) -> None:
    """One token scores all blocks and reads k of them; with k or fewer it reads them all, unscored."""
    h, e, b, k = g * share, 3, 5, 4
    d, blocks = h * e, -(-m // b)
    graph = lowered(BlockTopK(block=b, blocks=k), Heads(h, g, e), m, batch=batch, causal=True, decode=True)
    core = 2 * m * d if blocks <= k else blocks * d + 2 * k * b * d
    assert graph.macs == batch * (2 * d * d + 2 * d * g * e + core)
    assert work(graph, "gather")["move"] == (0 if blocks <= k else batch * 2 * k * b * d)
    assert work(graph, "scatter") == {"move": batch * 3 * g * e}


def test_sequences_are_filled_up_to_whole_blocks() -> None:
    """13 tokens in blocks of 4 cost what 16 do, but for the output projection and the copy that fills up."""
    p, heads = BlockTopK(block=4, blocks=2), Heads(2, 2, 4)
    short, full = lowered(p, heads, 13), lowered(p, heads, 16)
    assert full.macs - short.macs == 3 * 8 * 8
    assert work(short, "gather")["move"] - work(full, "gather")["move"] == 16 * 8
