"""A3's search for candidates, its post-scoring, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tests.units import lawful
from tilewright.arch.array import Array
from tilewright.arch.sparse_search import A3
from tilewright.dataflows.sparse import a3
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=8, cols=2, dataflow="output_stationary")


def greedy_scores(query: NDArray[np.float64], key: NDArray[np.float64], iterations: int) -> list[float]:
    """The paper's search, literally: each column has a pointer to its largest and to its smallest product."""
    keys, width = key.shape
    down = [sorted(range(keys), key=lambda k: -query[d] * key[k, d]) for d in range(width)]
    best, worst = [0] * width, [keys - 1] * width
    score, total = [0.0] * keys, 0.0
    for _ in range(iterations):
        left = [d for d in range(width) if best[d] < keys]
        if left:
            d = max(left, key=lambda d: query[d] * key[down[d][best[d]], d])
            row = down[d][best[d]]
            best[d] += 1
            if query[d] * key[row, d] > 0:
                score[row] += query[d] * key[row, d]
                total += query[d] * key[row, d]
        left = [d for d in range(width) if worst[d] >= 0]
        if left and total >= 0:
            d = min(left, key=lambda d: query[d] * key[down[d][worst[d]], d])
            row = down[d][worst[d]]
            worst[d] -= 1
            if query[d] * key[row, d] < 0:
                score[row] += query[d] * key[row, d]
                total += query[d] * key[row, d]
    return score


@given(
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 5)),
    iterations=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_candidates_are_those_of_the_papers_search(
    sizes: tuple[int, int, int], iterations: int, seed: int, random_head: Callable[..., Head]
) -> None:
    """Sorting all products chooses what the walk with pointers down sorted columns does."""
    head = random_head(seed, *sizes)
    found = a3.candidates(head.query, head.key, head.seen, iterations)
    for query, row in zip(head.query, found, strict=True):
        scores = np.array(greedy_scores(query, head.key, iterations))
        # A sum of opposite terms may end a rounding away from 0 on either side.
        clear = np.abs(scores) > 1e-12
        expected = scores > 0 if (scores > 0).any() else np.arange(len(scores)) == scores.argmax()
        assert (row == expected)[clear].all()


def test_the_search_goes_deep_in_one_column(random_head: Callable[..., Head]) -> None:
    """Where one element of the query outweighs the others, nearly all steps are taken in its column."""
    head = random_head(7, 3, 80, 3)
    head.query[:, 1] *= 50
    found = a3.candidates(head.query, head.key, head.seen, 60)
    for query, row in zip(head.query, found, strict=True):
        assert (row == (np.array(greedy_scores(query, head.key, 60)) > 0)).all()
    assert 1 < found.sum() < found.size


@given(
    seed=st.integers(0, 2**32),
    threshold=st.sampled_from([0.01, 0.05, 0.1, 0.5]),
    causal=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_post_scoring_keeps_what_weighs_enough(
    seed: int, threshold: float, causal: bool, random_head: Callable[..., Head]
) -> None:
    """Of the candidates those stay whose weight is at least the threshold times that of the best one."""
    head = random_head(seed, 7, 11, 4, causal=causal)
    found = a3.candidates(head.query, head.key, head.seen, 8)
    unit = A3(kind="a3", iterations=8 / 11, threshold=threshold)
    kept = a3.select(unit, head, ARRAY).kept
    for q in range(7):
        logits = {k: float(head.query[q] @ head.key[k]) / 2 for k in range(11) if found[q, k]}
        best = max(logits.values())
        assert set(np.flatnonzero(kept[q])) == {k for k, x in logits.items() if exp(x - best) >= threshold}


@given(seed=st.integers(0, 2**32), queries=st.integers(1, 9), causal=st.booleans())
@settings(max_examples=30, deadline=None)
def test_pieces_do_what_was_chosen(
    seed: int, queries: int, causal: bool, random_head: Callable[..., Head]
) -> None:
    """Pieces' queries, scores and MACs add up; every query that sees a key keeps one, and none that it may
    not see; the array is never faster than its multipliers."""
    head = random_head(seed, 9, 9, 4, causal=causal)
    found = a3.candidates(head.query, head.key, head.seen, 5)
    chosen = a3.select(A3(kind="a3", queries=queries), head, ARRAY)
    assert not (chosen.kept & ~head.seen).any()
    assert chosen.kept.any(axis=1).all()
    assert sum(piece.queries for piece in chosen.pieces) == 9
    assert sum(piece.scores for piece in chosen.pieces) == chosen.kept.sum()
    assert sum(piece.macs for piece in chosen.pieces) == 4 * (found.sum() + chosen.kept.sum())
    assert all(piece.macs <= ARRAY.macs_per_cycle * piece.array_cycles for piece in chosen.pieces)


def test_without_search_and_threshold_all_is_kept(random_head: Callable[..., Head]) -> None:
    """`iterations: null` and `threshold: 0` are the paper's A3 without approximation: dense, no predictor."""
    head = random_head(0, 16, 16, 8, causal=True)
    chosen = a3.select(A3(kind="a3", iterations=None, threshold=0), head, ARRAY)
    assert (chosen.kept == head.seen).all()
    assert [piece.predict_cycles for piece in chosen.pieces] == [0]
    # Eight multipliers score a key of eight elements each cycle; the context is worked on beside.
    assert chosen.pieces[0].array_cycles == head.seen.sum()


def test_cycles_of_the_search(random_head: Callable[..., Head]) -> None:
    """The first piece waits for the sorters (n log2 n a column), each query for its iterations."""
    head = random_head(0, 32, 64, 8)
    unit = A3(kind="a3", iterations=0.25, sorters=4, queries=16)
    first, second = a3.select(unit, head, ARRAY).pieces
    assert second.predict_cycles == 16 * 16
    assert first.predict_cycles == 16 * 16 + 64 * 6 * ceil(8 / 4)
    assert first.loads_keys == 64
    assert second.loads_keys == 0
    assert second.predictor_macs == 2 * 16 * 16


def test_a_bolder_setting_takes_less() -> None:
    """The paper's aggressive setting keeps fewer pairs and takes fewer cycles than the conservative one, and
    that fewer than no approximation."""
    graph = tw.load_workload("attention", ["batch=1", "heads=2", "seq=96", "head_dim=64"])
    settings = (
        "iterations=null threshold=0",
        "iterations=0.5 threshold=0.05",
        "iterations=0.125 threshold=0.1",
    )
    results = []
    for setting in settings:
        machine = tw.load_accelerator("a3", [f"attention_unit.{each}" for each in setting.split()])
        results.append(lawful(machine, graph))
    kept = [result.sparse_attention["scores"]["kept"] for result in results]
    assert kept[0] == 2 * 96 * 96
    assert kept[0] > kept[1] > kept[2]
    assert results[0].cycles > results[1].cycles > results[2].cycles
    assert results[0].energy_j["predictor"] < results[1].energy_j["predictor"]


def test_a_threshold_of_one_is_refused() -> None:
    """A share of the best weight lies below 1; the message says so and where."""
    with pytest.raises(InputError, match=r"attention_unit\.threshold: must be less than 1, not 1"):
        tw.load_accelerator("a3", ["attention_unit.threshold=1"])
