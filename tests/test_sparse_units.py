"""What all sparse-attention units have in common, shown on the simplest of them, which skips blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import preset_names
from tilewright.dataflows.sparse.base import Selection
from tilewright.dataflows.sparse.quality import quality
from tilewright.description.errors import InputError
from tilewright.workloads.attention.mask_file import MaskFile
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads
from tilewright.workloads.pairs import Head, Pairs

HEADS, WIDTH, BLOCK = 2, 8, 4


def machine(*overrides: str) -> Accelerator:
    unit = f"attention_unit={{kind: block_skip, rows: {BLOCK}, cols: {BLOCK}, sequencer_cycles: 0}}"
    return tw.load_accelerator("gemmini-default", [unit, *overrides])


def masked(mask: NDArray[np.bool_], folder: Path, batch: int = 1) -> OperatorGraph:
    """Attention whose scores are to be looked up in a mask."""
    np.save(folder / "mask.npy", mask)
    tokens = mask.shape[-1]
    graph = tw.load_workload(
        "attention", [f"batch={batch}", f"heads={HEADS}", f"head_dim={WIDTH}", f"seq={tokens}"]
    )
    pairs = Pairs(Heads(HEADS, HEADS, WIDTH), tokens, tokens, masks=MaskFile(path=str(folder / "mask.npy")))
    first, *others = graph.operators
    return replace(graph, operators=(replace(first, pairs=pairs), *others))


def blocks(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Sizes of the blocks that hold a pair, counted one by one."""
    tokens = mask.shape[-1]
    starts = range(0, tokens, BLOCK)
    held = [(i, j) for i in starts for j in starts if mask[i : i + BLOCK, j : j + BLOCK].any()]
    return [(min(BLOCK, tokens - i), min(BLOCK, tokens - j)) for i, j in held]


@given(
    mask=st.integers(1, 13).flatmap(
        lambda n: st.lists(st.booleans(), min_size=n * n, max_size=n * n).map(
            lambda seen: np.array(seen).reshape(n, n) | np.eye(n, dtype=bool)
        )
    ),
    batch=st.integers(1, 3),
)
@settings(max_examples=30, deadline=None)
def test_blocks_without_a_pair_cost_nothing(
    tmp_path_factory: pytest.TempPathFactory, mask: NDArray[np.bool_], batch: int
) -> None:
    """MACs done are those of the blocks that hold a pair, useful ones those of the pairs; the analytic answer
    is a lower bound; every unit's cycles add up."""
    graph = masked(mask, tmp_path_factory.mktemp("mask"), batch)
    event, analytic = tw.simulate(machine(), graph), tw.simulate(machine(), graph, fidelity="analytic")
    computed = sum(rows * cols for rows, cols in blocks(mask))

    assert event.macs == batch * HEADS * 2 * WIDTH * computed
    assert event.useful_macs == batch * HEADS * 2 * WIDTH * int(mask.sum())
    assert analytic.cycles <= event.cycles
    for states in event.units.values():
        assert sum(states.values()) == event.cycles
    rows = {row.name: row for row in event.operators}
    assert rows["softmax"].fused_into == "scores"
    found = event.sparse_attention["scores"]
    assert found["kept"] == HEADS * mask.sum()


def test_a_sparser_mask_takes_less(tmp_path: Path) -> None:
    """Of two masks, the one inside of the other never takes more cycles or energy."""
    dense = np.ones((64, 64), dtype=bool)
    band = np.abs(np.subtract.outer(np.arange(64), np.arange(64))) < 8
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, part = (
        tw.simulate(machine(), masked(mask, tmp_path / name)) for mask, name in ((dense, "a"), (band, "b"))
    )
    assert part.cycles < whole.cycles
    assert part.energy_j["total"] < whole.energy_j["total"]


def test_the_quality_of_a_choice() -> None:
    """Recall, kept mass and imbalance of a made-up choice, against a count by hand."""
    query, key = np.eye(4), np.diag([4.0, 3.0, 2.0, 1.0])
    head = Head(query, key, np.ones((4, 4), dtype=bool))
    kept = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
    found = quality([(head, Selection(kept, ()))])

    assert (found.pairs, found.kept) == (16, 5)
    assert found.recall == pytest.approx((1 + 1 + 1 + 0) / 4)
    weights = np.exp(query @ key.T / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    assert found.kept_mass == pytest.approx((weights * kept).sum(axis=1).mean())
    assert found.imbalance == pytest.approx(2 / (5 / 4))


def test_without_a_mask_all_pairs_count() -> None:
    """A workload that says nothing of its scores is worked on as a whole."""
    graph = tw.load_workload("attention", ["heads=2", "seq=16", "head_dim=8"])
    result = tw.simulate(machine(), graph)
    assert result.macs == graph.macs
    assert ceil(result.sparse_attention["scores"]["kept"]) == 2 * 16 * 16


@pytest.mark.parametrize("name", ["llama-3.2-1b", "gpt2"])
@pytest.mark.parametrize("kind", ["sanger", "elsa", "block_skip"])
def test_units_run_decoders(name: str, kind: str) -> None:
    """Heads that share keys, causal masks, a prompt and a decode step: pairs that a mask hides are never
    kept."""
    unit = f"attention_unit={{kind: {kind}}}"
    for phase in ("prefill", "decode"):
        graph = tw.load_workload(name, ["layers=1", "seq=40", f"phase={phase}"])
        result = tw.simulate(tw.load_accelerator("tpu-v3-core", [unit]), graph)
        (found,) = result.sparse_attention.values()
        heads = 12 if name == "gpt2" else 32
        assert found["pairs"] == heads * (40 * 41 // 2 if phase == "prefill" else 40)
        assert 0 < found["kept"] <= found["pairs"]
        assert result.useful_macs <= result.macs


def test_cycle_fidelity_refuses_units() -> None:
    """It steps one matmul at a time, and says what to do."""
    graph = tw.load_workload("attention", ["heads=1", "seq=8", "head_dim=4"])
    with pytest.raises(InputError, match="`attention_unit` out, or use fidelity event"):
        tw.simulate(machine(), graph, fidelity="cycle")


@pytest.mark.parametrize(
    "name", [name for name in preset_names() if tw.load_accelerator(name).attention_unit]
)
def test_results_of_units_are_plain_data(name: str) -> None:
    """What a run on a unit says can be written as JSON, whatever the sizes."""
    graph = tw.load_workload("attention", ["heads=2", "seq=100", "head_dim=64", "mask=causal"])
    made = tw.simulate(tw.load_accelerator(name), graph).to_dict()
    assert json.loads(json.dumps(made))["cycles"] > 0
