"""DOTA's low-rank detector against plain loops, and what parallel queries share."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Dota
from tilewright.dataflows.sparse.base import Mask
from tilewright.dataflows.sparse.dota import projection, select
from tilewright.dataflows.sparse.quality import quality
from tilewright.description.errors import InputError
from tilewright.workloads.attention.scores import ScoreModel, draw
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=4, cols=8, dataflow="output_stationary")


def unit(**fields: float) -> Dota:
    return Dota.model_validate({"kind": "dota", **fields})


def expected(unit: Dota, each: Head) -> Mask:
    """Projection, rounding, estimates and choice in loops."""
    signs = projection(unit, each.query.shape[1])

    def low(x: np.ndarray) -> tuple[list[list[int]], float]:
        rows = [
            [sqrt(3 / unit.rank) * sum(a * s for a, s in zip(row, column, strict=True)) for column in signs.T]
            for row in x
        ]
        largest = max(abs(v) for row in rows for v in row) or 1.0  # a projection may be all zeros
        scale = largest / (2 ** (unit.bits - 1) - 1)
        return [[round(v / scale) for v in row] for row in rows], scale

    (query, one), (key, other) = low(each.query), low(each.key)
    kept = np.zeros_like(each.seen)
    for i, row in enumerate(query):
        logits = {
            j: sum(a * b for a, b in zip(row, key[j], strict=True)) * one * other / sqrt(each.query.shape[1])
            for j in range(len(key))
            if each.seen[i, j]
        }
        ranked = sorted(logits, key=lambda j: (-round(logits[j] / (one * other), 6), j))
        if unit.threshold is not None:
            kept[i, [j for j in logits if logits[j] >= unit.threshold] or ranked[:1]] = True
        else:
            assert unit.keep is not None
            kept[i, ranked[: ceil(unit.keep * len(ranked))]] = True
    return kept


@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 8),
    extra=st.integers(0, 5),
    rank=st.integers(2, 6),
    bits=st.sampled_from([2, 4, 8]),
    what=st.sampled_from([{"keep": 0.25}, {"keep": 0.6}, {"threshold": 0.337}, {"threshold": 2.718}]),
    causal=st.booleans(),
)
@example(seed=666, queries=3, extra=2, rank=2, bits=2, what={"keep": 0.25}, causal=False)  # P is 0
@settings(max_examples=60, deadline=None)
def test_the_detected_set_is_the_definitions(
    seed: int,
    queries: int,
    extra: int,
    rank: int,
    bits: int,
    what: dict[str, float],
    causal: bool,
    random_head: Callable[..., Head],
) -> None:
    """The kept pairs are those that plain loops over the projected, rounded queries and keys keep."""
    detector = unit(rank=rank, bits=bits, seed=seed, rows=3, **what)
    each = random_head(seed, queries, queries + extra, 6, causal=causal)
    assert np.array_equal(select(detector, each, ARRAY).kept, expected(detector, each))


def test_the_projection_keeps_products_on_average() -> None:
    """Over many seeds, 3 / rank P P^T is the identity: (Q P)(K P)^T estimates Q K^T without bias."""
    draws = [projection(unit(rank=8, seed=seed, keep=1), 5) for seed in range(1500)]
    mean = sum(p @ p.T for p in draws) * 3 / 8 / len(draws)
    assert np.abs(mean - np.eye(5)).max() < 0.05


def test_each_query_keeps_its_share(random_head: Callable[..., Head]) -> None:
    """With `keep`, all queries that see as many keys keep equally many; under a causal mask, the share of
    what they see, rounded up."""
    each = random_head(1, 16, 16, 6, causal=True)
    kept = select(unit(keep=0.25), each, ARRAY).kept
    assert kept.sum(axis=1).tolist() == [ceil(0.25 * (i + 1)) for i in range(16)]
    assert not (kept & ~each.seen).any()


def test_keep_1_and_a_threshold_below_all_keep_everything(random_head: Callable[..., Head]) -> None:
    """Nothing is left out."""
    for what in ({"keep": 1.0}, {"threshold": -1e9}):
        assert select(unit(**what), random_head(2, 5, 9, 4), ARRAY).kept.all()


def test_parallel_queries_wait_for_the_one_of_most_pairs(random_head: Callable[..., Head]) -> None:
    """Queries that see 1, 2, 3 and 4 keys, all kept, one pair a cycle and query (8 lanes of 4, width 8, four
    queries): 2 x (4 x 4 / 8 = 2) slots of 2 cycles; one query at a time: 1 slot each."""
    each = random_head(3, 4, 4, 8, causal=True)
    together = select(unit(keep=1, parallel=4, keys_per_cycle=1000), each, ARRAY)
    alone = select(unit(keep=1, parallel=1, keys_per_cycle=1000), each, ARRAY)
    assert together.pieces[0].array_cycles == 2 * 2 * 2
    assert alone.pieces[0].array_cycles == 2 * 2 * (1 + 1 + 1 + 1)


def test_keys_that_parallel_queries_share_are_given_once(random_head: Callable[..., Head]) -> None:
    """Four equal queries keep the same 8 of 32 keys: given a key a cycle, together they take 8 cycles for
    scores and 8 for context, alone 4 times as long."""
    each = random_head(4, 1, 32, 4)
    same = Head(np.repeat(each.query, 4, axis=0), each.key, np.ones((4, 32), dtype=bool))
    wide = Array(rows=4, cols=64, dataflow="output_stationary")
    cycles = [
        select(unit(keep=0.25, parallel=parallel, keys_per_cycle=1), same, wide).pieces[0].array_cycles
        for parallel in (4, 1)
    ]
    assert cycles == [16, 64]


def test_a_larger_detector_finds_more() -> None:
    """On the score model, recall grows with rank and bits, and is far above chance."""
    query, key = draw(ScoreModel(), 1, 1, 256, 64)
    each = Head(query[0], key[0], np.tri(256, dtype=bool))
    recalls = [
        quality([(each, select(unit(keep=0.1, rank=rank, bits=bits), each, ARRAY))]).recall
        for rank, bits in ((4, 2), (16, 4), (64, 8))
    ]
    assert recalls == sorted(recalls)
    assert recalls[1] > 3 * 0.1
    assert recalls[2] > recalls[0] + 0.1


@pytest.mark.parametrize(
    ("override", "which"), [("threshold=1.5", "both"), ("keep=null", "neither")], ids=["both", "neither"]
)
def test_one_rule_says_what_is_kept(override: str, which: str) -> None:
    """`keep` and `threshold` exclude one another."""
    with pytest.raises(InputError) as error:
        tw.load_accelerator("dota", [f"attention_unit.{override}"])
    assert f"exactly one of `keep` and `threshold` says what is kept, not {which}" in str(error.value)
