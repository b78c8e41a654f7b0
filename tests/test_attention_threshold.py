"""Threshold: its reference against frozen results, its costs from the pairs that data choose."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer, work
from tilewright.description.errors import InputError
from tilewright.workloads.attention.counted import Counted, counted_blocks, counted_mask
from tilewright.workloads.attention.patterns import Blocks, from_mask
from tilewright.workloads.attention.scores import Scores, draw
from tilewright.workloads.attention.threshold import MECHANISM, Threshold, chosen, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "threshold.npz"
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("name", ["encoder", "causal", "eight", "blocks"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """PyTorch's fake quantisation, softmax and masked attention give the same numbers."""
    with np.load(FROZEN) as frozen:
        case = {key.removeprefix(f"{name}_"): frozen[key] for key in frozen if key.startswith(f"{name}_")}
    p = Threshold.model_validate({key: case[key].item() for key in ("block", "threshold", "of", "bits")})
    out = reference(case["query"], case["key"], case["value"], p, causal=bool(case["causal"]))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


def same(ours: Blocks, theirs: Blocks) -> bool:
    """Whether counts are equal."""
    names = ("rows", "key_blocks", "stretches", "nnz")
    return all(np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in names)


@given(
    n=st.integers(1, 30),
    block=st.integers(1, 9),
    density=st.floats(0, 1),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_counts_are_those_of_the_dense_mask(
    n: int, block: int, density: float, causal: bool, seed: int
) -> None:
    """Counting a mask, or the blocks that it is made of, gives what the pattern of the mask has."""
    rng = np.random.default_rng(seed)
    mask = (rng.random((n, n)) < density) | np.eye(n, dtype=bool)
    assert same(counted_mask(mask, block), from_mask(mask).blocks(block))
    sees = (rng.random((-(-n // block),) * 2) < density) | np.eye(-(-n // block), dtype=bool)
    if causal:
        sees = np.tril(sees)
    dense = sees.repeat(block, axis=0).repeat(block, axis=1)[:n, :n] & (np.tri(n, dtype=bool) | (not causal))
    counted = counted_blocks(sees, n, block, causal=causal)
    assert same(counted, from_mask(dense).blocks(block))
    assert Counted(n, block, counted).nnz() == dense.sum()


def test_counts_are_for_one_size_of_block() -> None:
    """Asking for another is a defect of the caller."""
    with pytest.raises(ValueError, match="counted in blocks of 4, not 8"):
        Counted(8, 4, counted_mask(np.eye(8, dtype=bool), 4)).blocks(8)


@given(
    batch=st.integers(1, 2),
    g=st.integers(1, 2),
    share=st.integers(1, 2),
    n=st.integers(1, 40),
    b=st.integers(2, 6),
    threshold=st.floats(0.001, 0.5),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_costs_are_those_of_the_chosen_pairs(
    batch: int, g: int, share: int, n: int, b: int, threshold: float, causal: bool, seed: int
) -> None:
    """Rounding, the estimate of every pair, and attention over the blocks that hold a chosen one; useful are
    the pairs themselves."""
    e, h = 3, g * share
    d = h * e
    p = Threshold(threshold=threshold, block=b, scores=Scores(seed=seed, shortest=2, longest=20))
    graph = lowered(p, Heads(h, g, e), n, batch=batch, causal=causal)
    queries, keys = draw(p.scores, h, g, n, e)
    masks = [chosen(query, keys[number // share], p, causal=causal) for number, query in enumerate(queries)]
    pairs = sum(int(mask.sum()) for mask in masks)
    counts = [counted_mask(mask, b) for mask in masks]
    worked = sum(int((c.rows * np.minimum(c.key_blocks * b, n)).sum()) for c in counts)
    gathered = sum(int(np.minimum(c.key_blocks * b, n).sum()) for c in counts)
    projections = 2 * n * d * (d + g * e)
    assert graph.macs == batch * (projections + n * n * d + 2 * worked * e)
    assert work(graph, "softmax")["exp"] == batch * (h * n * n + worked)
    assert work(graph, "gather")["move"] == batch * (pairs + 2 * gathered * e)
    low = [op for op in graph.operators if op.function == "round"]
    assert sum(dict(op.primitives)["add"] for op in low) == batch * n * (d + g * e)
    assert {graph.tensors[op.outputs[0]].element for op in low} == {"int4"}
    useful = sum(op.useful_macs for op in graph.operators if op.useful_macs is not None)
    assert useful == batch * 2 * pairs * e
    assert graph.metadata["chosen_pairs"].startswith(f"{pairs} ")


@given(n=st.integers(1, 40), b=st.integers(2, 6), threshold=st.floats(0.01, 0.5), causal=st.booleans())
def test_blocks_are_estimated_as_blocks(n: int, b: int, threshold: float, causal: bool) -> None:
    """With `of: blocks` the estimate costs n_B^2 d, and the useful pairs are those of the dense mask."""
    heads, blocks = Heads(2, 2, 3), -(-n // b)
    p = Threshold(of="blocks", threshold=threshold, block=b, scores=Scores(shortest=2, longest=20))
    graph = lowered(p, heads, n, causal=causal)
    estimate = next(op for op in graph.operators if op.name == "block_scores")
    assert estimate.macs == blocks * blocks * 6
    queries, keys = draw(p.scores, 2, 2, n, 3)
    pairs = sum(
        int(chosen(query, key, p, causal=causal).sum()) for query, key in zip(queries, keys, strict=True)
    )
    assert sum(op.useful_macs for op in graph.operators if op.useful_macs is not None) == 2 * pairs * 3


def test_too_many_pairs_are_refused() -> None:
    """What grows with the square has a limit, and the message says what to do."""
    with pytest.raises(InputError) as error:
        lowered(Threshold(), Heads(1, 1, 2), 16_385)
    assert str(error.value) == (
        "attention.of: an estimate for each of 16,385^2 pairs is too large, the most is 16,384 tokens; "
        "choose `of: blocks`, or fewer tokens"
    )


def test_blocks_of_65536_tokens_are_no_matter() -> None:
    """Block averages need (n / b)^2 numbers only."""
    p = Threshold(of="blocks", block=512, threshold=0.01)
    graph = lowered(p, Heads(1, 1, 16), 65_536, causal=True)
    assert 0 < graph.useful_macs < 65_536**2 * 16


def test_estimates_are_made_part_by_part() -> None:
    """A sequence longer than the part of rows held at a time has the mask of one made at once."""
    p = Threshold(threshold=0.01, block=48, scores=Scores(longest=100))
    (query,), (key,) = draw(p.scores, 1, 1, 1300, 8)
    mask = chosen(query, key, p, causal=True)
    graph = lowered(p, Heads(1, 1, 8), 1300, causal=True)
    assert mask.shape == (1300, 1300)
    assert graph.metadata["chosen_pairs"].startswith(f"{mask.sum()} ")
    assert not np.triu(mask, 1).any()
