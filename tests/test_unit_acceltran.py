"""AccelTran's runtime pruning, its lanes that skip zeros, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, exp

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tests.units import lawful
from tilewright.arch.array import Array
from tilewright.arch.sparse_search import AccelTran
from tilewright.dataflows.sparse import acceltran
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=4, cols=4, dataflow="output_stationary")


@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    tile=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=60, deadline=None)
def test_tiles_count_pairs_of_nonzero_elements(sizes: tuple[int, int, int], tile: int, seed: int) -> None:
    """Every product of two tiles needs as many multiplications as one counts element by element."""
    m, k, n = sizes
    rng = np.random.default_rng(seed)
    a, b = rng.random((m, k)) < 0.5, rng.random((k, n)) < 0.5
    starts = [range(0, size, tile) for size in (m, n, k)]
    expected = [
        sum(
            a[i, x] and b[x, j]
            for i in range(i0, min(m, i0 + tile))
            for j in range(j0, min(n, j0 + tile))
            for x in range(x0, min(k, x0 + tile))
        )
        for i0 in starts[0]
        for j0 in starts[1]
        for x0 in starts[2]
    ]
    assert acceltran.tile_products(a, b, tile).tolist() == expected


@given(durations=st.lists(st.integers(0, 20), max_size=30), lanes=st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_lanes_take_tiles_when_they_are_free(durations: list[int], lanes: int) -> None:
    """Stepped cycle by cycle, lanes that take the next tile once they are free end at the same time."""
    waiting, left, now = list(durations), [0] * lanes, 0
    while True:
        for lane in range(lanes):
            while left[lane] == 0 and waiting:
                left[lane] = waiting.pop(0)
        if not waiting and not any(left):
            break
        left = [max(0, cycles - 1) for cycles in left]
        now += 1
    assert acceltran.makespan(np.array(durations, dtype=np.int64), lanes) == now


@given(
    seed=st.integers(0, 2**32),
    threshold=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    queries=st.sampled_from([2, 4, 16]),
    causal=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_only_what_is_above_the_threshold_counts(
    seed: int, threshold: float, queries: int, causal: bool, random_head: Callable[..., Head]
) -> None:
    """A pair stays if its weight, from pruned queries and keys, reaches the threshold; a multiplication is
    made where both factors are left."""
    head = random_head(seed, 6, 7, 5, causal=causal)
    chosen = acceltran.select(AccelTran(kind="acceltran", threshold=threshold, queries=queries), head, ARRAY)
    macs, left = 0, np.zeros((6, 7), dtype=bool)
    for q in range(6):
        scores = []
        for k in range(7):
            factors = [(x, y) for x, y in zip(head.query[q], head.key[k], strict=True)]
            both = [x * y for x, y in factors if abs(x) >= threshold and abs(y) >= threshold]
            scores.append(sum(both) / 5**0.5)
            macs += len(both)
        total = sum(exp(s) for s, seen in zip(scores, head.seen[q], strict=True) if seen)
        for k in range(7):
            left[q, k] = head.seen[q, k] and exp(scores[k]) / total >= threshold
    macs += sum(int((np.abs(head.key[k]) >= threshold).sum()) for _, k in np.argwhere(left))
    assert (chosen.kept == left).all()
    assert sum(piece.macs for piece in chosen.pieces) == macs
    assert sum(piece.queries for piece in chosen.pieces) == 6
    assert sum(piece.scores for piece in chosen.pieces) == 6 * 7
    assert all(piece.macs <= ARRAY.macs_per_cycle * piece.streaming_cycles for piece in chosen.pieces)
    assert all(piece.streaming_cycles <= piece.array_cycles for piece in chosen.pieces)


def test_dense_cycles_by_hand(random_head: Callable[..., Head]) -> None:
    """Nothing pruned, 32 queries and keys of 16 on 4 lanes of 4 multipliers: 4 tiles for the scores and 4 for
    the context, 4096 / 4 cycles each, one to a lane; 4 tiles of weights through 2 pruners between."""
    head = random_head(0, 32, 32, 16)
    unit = AccelTran(kind="acceltran", threshold=0, lane_macs=4, pruners=2)
    (piece,) = acceltran.select(unit, head, ARRAY).pieces
    assert piece.array_cycles == 1024 + 1024 + ceil(4 / 2)
    assert piece.streaming_cycles == 2048
    assert piece.predict_cycles == (2 + 2 + 2) // 2  # tiles of Q, K and V
    assert piece.macs == 2 * 32 * 32 * 16


def test_a_threshold_of_zero_keeps_all(random_head: Callable[..., Head]) -> None:
    """No magnitude is below 0."""
    head = random_head(0, 9, 9, 4, causal=True)
    chosen = acceltran.select(AccelTran(kind="acceltran", threshold=0), head, ARRAY)
    assert (chosen.kept == head.seen).all()


@pytest.mark.parametrize("name", ["acceltran-edge", "acceltran-server"])
def test_a_higher_threshold_takes_less(name: str) -> None:
    """The higher the threshold, the fewer MACs and busy cycles; the laws hold at each."""
    graph = tw.load_workload("attention", ["batch=1", "heads=4", "seq=256", "head_dim=64"])
    results = []
    for threshold in (0, 0.01, 0.1, 0.5):
        machine = tw.load_accelerator(name, [f"attention_unit.threshold={threshold}"])
        results.append(lawful(machine, graph))
    macs = [result.macs for result in results]
    busy = [result.units["array"]["busy"] for result in results]
    assert macs[0] == 4 * 2 * 256 * 256 * 64
    assert macs == sorted(set(macs), reverse=True)
    assert busy == sorted(set(busy), reverse=True)


def test_a_negative_threshold_is_refused() -> None:
    """A magnitude is never below 0; the message says so and where."""
    with pytest.raises(InputError, match=r"attention_unit\.threshold: must be at least 0, not -1"):
        tw.load_accelerator("acceltran-edge", ["attention_unit.threshold=-1"])
