"""The PE-by-PE array against numpy, against the closed forms, and against SCALE-Sim's cycle counts."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.arrays import DATAFLOWS, SCALE_SIM, arrays
from tilewright.arch.array import Array, Dataflow
from tilewright.sim.pe_array import PeArray

Matrix = npt.NDArray[Any]
Shape = tuple[int, int, int]
WS: Dataflow = "weight_stationary"
IS: Dataflow = "input_stationary"
OS: Dataflow = "output_stationary"
shapes = st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14))


def operands(m: int, k: int, n: int) -> tuple[Matrix, Matrix]:
    random = np.random.default_rng(m + 31 * k + 997 * n)
    return random.integers(-128, 128, (m, k)), random.integers(-128, 128, (k, n))


def clocks(pe: PeArray, a: Matrix, b: Matrix) -> Iterator[PeArray]:
    """The array after each clock of the tile."""
    pe.start(a, b)
    while pe.step():
        yield pe


def run(array: Array, a: Matrix, b: Matrix, accumulate: Matrix | None = None) -> PeArray:
    pe = PeArray(array)
    pe.start(a, b, accumulate)
    while pe.step():
        pass
    return pe


def busiest_folds(array: Array, m: int, k: int, n: int) -> int:
    """Folds of the array that gets most of them."""
    height, width = {WS: (k, n), IS: (k, m), OS: (m, n)}[array.dataflow]
    folds = -(-height // array.rows) * -(-width // array.cols)
    return -(-folds // array.count)


def closed_form(array: Array, m: int, k: int, n: int) -> int:
    """Cycles of a tile from its folds, streamed length, skew, and the time to load or drain a fold."""
    skew, shift = array.rows + array.cols - 2, array.rows
    later = busiest_folds(array, m, k, n) - 1
    streamed = {WS: m, IS: n, OS: k}[array.dataflow]
    alone = streamed + skew
    apart = (
        streamed if array.fold_overlap else alone
    )  # between two folds' starts if nothing else is in the way
    if array.dataflow == OS and array.output_drain == "ideal":
        return later * apart + alone
    hidden = array.stationary_buffers == 2 if array.dataflow != OS else array.output_drain == "shadow"
    return later * (max(apart, shift) if hidden else apart + shift) + alone + shift


@settings(max_examples=500, deadline=None)
@given(arrays, shapes)
@example(Array(rows=1, cols=1, dataflow=OS, output_drain="shadow"), (3, 1, 3))
@example(Array(rows=6, cols=1, dataflow=OS, output_drain="shadow", fold_overlap=True), (13, 1, 3))
@example(Array(rows=5, cols=3, dataflow=WS, stationary_buffers=2, fold_overlap=True), (1, 14, 7))
@example(Array(rows=5, cols=3, dataflow=IS, stationary_buffers=1, fold_overlap=True), (7, 14, 1))
def test_cycles_emerge_as_the_closed_form(array: Array, shape: Shape) -> None:
    """Stepping PE by PE takes the closed form's cycles, and the product and the count of MACs are exact."""
    a, b = operands(*shape)
    pe = run(array, a, b)
    assert pe.cycles == closed_form(array, *shape)
    assert pe.mac_cycles == prod(shape)
    assert pe.result.dtype == np.int64
    assert np.array_equal(pe.result, a @ b)


@settings(max_examples=100, deadline=None)
@given(arrays, shapes)
def test_no_sum_leaves_before_its_last_mac(array: Array, shape: Shape) -> None:
    """With ones as operands each sum that has left counts its MACs, all of which must have been done; and no
    clock does more MACs than there are PEs."""
    m, k, n = shape
    macs = 0
    for pe in clocks(PeArray(array), np.ones((m, k), int), np.ones((k, n), int)):
        assert pe.result.sum() <= pe.mac_cycles
        assert pe.result.max() <= k
        assert 0 <= pe.mac_cycles - macs <= array.macs_per_cycle
        macs = pe.mac_cycles
    assert np.all(pe.result == k)
    assert pe.active_cycles <= pe.cycles
    assert pe.mac_cycles <= pe.active_cycles * array.macs_per_cycle


def test_active_cycles_are_those_with_a_mac() -> None:
    """A weight-stationary fold computes in all its clocks but the R that load the weights."""
    pe = run(Array(rows=4, cols=3, dataflow=WS), *operands(10, 4, 3))
    assert (pe.cycles, pe.active_cycles) == (4 + 10 + 5, 10 + 5)


@pytest.mark.parametrize("row", SCALE_SIM, ids=lambda row: "-".join(list(row.values())[:6]))
def test_closed_form_of_the_bare_array_is_scale_sims(row: dict[str, str]) -> None:
    """The closed form above agrees with every run of SCALE-Sim, however large."""
    array = _bare(row)
    assert closed_form(array, *_shape(row)) == int(row["measured"])


@pytest.mark.parametrize(
    "row",
    [row for row in SCALE_SIM if int(row["measured"]) <= 12_000],
    ids=lambda row: "-".join(list(row.values())[:6]),
)
def test_stepping_the_bare_array_takes_scale_sims_cycles(row: dict[str, str]) -> None:
    """Stepped PE by PE, the bare array takes as long as SCALE-Sim's, ragged shapes included."""
    a, b = operands(*_shape(row))
    pe = run(_bare(row), a, b)
    assert pe.cycles == int(row["measured"])
    assert np.array_equal(pe.result, a @ b)


def _bare(row: dict[str, str]) -> Array:
    return Array.model_validate({key: row[f"arch.array.{key}"] for key in ("rows", "cols", "dataflow")})


def _shape(row: dict[str, str]) -> Shape:
    return int(row["workload.m"]), int(row["workload.k"]), int(row["workload.n"])


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_a_simpy_process_waits_one_timeout_per_clock(dataflow: Dataflow) -> None:
    """`while pe.step(): yield env.timeout(1)` ends at the closed form's time, tile after tile."""
    array = Array(rows=4, cols=3, dataflow=dataflow, fold_overlap=True, stationary_buffers=2)
    tiles = [(5, 9, 7), (1, 1, 1)]
    env = simpy.Environment()
    ends = []

    def process() -> Generator[simpy.Event, None, None]:
        pe = PeArray(array)
        for tile in tiles:
            pe.start(*operands(*tile))
            while pe.step():
                yield env.timeout(1)
            ends.append(env.now)

    env.process(process())
    env.run()
    first, second = (closed_form(array, *tile) for tile in tiles)
    assert ends == [first, first + second]


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_accumulates_onto_given_sums(dataflow: Dataflow) -> None:
    """A tile may go on from the sums of an earlier one, whose array it leaves as it was."""
    a, b = operands(5, 7, 6)
    before = np.arange(30).reshape(5, 6)
    pe = run(Array(rows=4, cols=4, dataflow=dataflow), a, b, before)
    assert np.array_equal(pe.result, a @ b + before)
    assert np.array_equal(before, np.arange(30).reshape(5, 6))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_floats_are_summed_in_double_precision(dataflow: Dataflow) -> None:
    """Operands that are no integers give numpy's product up to the order of additions."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(6, 11)), random.normal(size=(11, 5))
    pe = run(Array(rows=4, cols=4, dataflow=dataflow), a, b)
    assert pe.result.dtype == np.float64
    np.testing.assert_allclose(pe.result, a @ b, rtol=1e-13, atol=1e-13)


def test_narrow_integers_do_not_overflow() -> None:
    """Operands of a narrow type are widened before they are multiplied."""
    a = np.full((3, 300), 255, np.uint8)
    pe = run(Array(rows=4, cols=4, dataflow=WS), a, a.T)
    assert np.all(pe.result == 300 * 255 * 255)


def test_start_drops_the_tile_in_work() -> None:
    """A second `start` begins from scratch."""
    a, b = operands(5, 7, 6)
    pe = PeArray(Array(rows=4, cols=4, dataflow=OS))
    pe.start(b.T, a.T)
    for _ in range(9):
        pe.step()
    pe.start(a, b)
    while pe.step():
        pass
    assert np.array_equal(pe.result, a @ b)
    assert pe.cycles == closed_form(Array(rows=4, cols=4, dataflow=OS), 5, 7, 6)


def test_a_tile_waits_for_its_permits() -> None:
    """Nothing is shifted in before the weight is ready; nothing streams before the other operands are."""
    pe = PeArray(Array(rows=4, cols=3, dataflow=WS))
    a, b = operands(5, 4, 3)
    tile = pe.queue(a, b)
    steps(pe, 9)
    assert [tile.shifted, pe.moving] == [False, False]
    tile.weight_ready = True
    steps(pe, 4)
    assert tile.shifted
    steps(pe, 9)
    assert pe.mac_cycles == 0
    tile.may_stream = True
    steps(pe, 5 + 5)
    assert tile.streamed
    assert tile.done
    assert np.array_equal(tile.result, a @ b)


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_tiles_overlap_where_folds_do(dataflow: Dataflow) -> None:
    """The second tile's operands enter right behind the first's, whose results come later."""
    array = Array(rows=4, cols=4, dataflow=dataflow, fold_overlap=True, stationary_buffers=2)
    pe = PeArray(array)
    first, second = (pe.queue(*operands(4, 4, 4)) for _ in range(2))
    for tile in (first, second):
        tile.weight_ready = tile.may_stream = True
    preload = 0 if dataflow == OS else 4
    steps(pe, preload + 4)
    assert first.streamed
    assert not first.done
    steps(pe, 4)
    assert second.streamed
    steps(pe, 6)
    assert second.done
    assert pe.cycles == preload + 4 + 4 + 6
    assert not pe.step()


def test_arrays_take_up_a_tile_together() -> None:
    """An array with fewer folds waits for the others before it streams the next tile."""
    pe = PeArray(Array(rows=2, cols=2, count=2, dataflow=WS, fold_overlap=True, stationary_buffers=2))
    first, second = pe.queue(*operands(9, 6, 2)), pe.queue(*operands(9, 2, 4))
    for tile in (first, second):
        tile.weight_ready = tile.may_stream = True
    steps(pe, 2 + 9 + 9 - 1)  # three folds: the second array has done with its one
    second_macs = pe.mac_cycles - 9 * 6 * 2
    assert not first.streamed
    assert second_macs < 0
    while pe.step():
        pass
    assert pe.cycles == 2 + 9 + 9 + 9 + 2


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("size", [1, 3])
def test_nothing_moves_between_tiles(dataflow: Dataflow, size: int) -> None:
    """While a tile is in work something moves, even if it comes and goes in a clock; then nothing does."""
    pe = PeArray(Array(rows=size, cols=size, dataflow=dataflow))
    for _ in range(2):
        tile = pe.queue(*operands(1, 1, 2))
        tile.weight_ready = tile.may_stream = True
        while not tile.done:
            pe.step()
            assert pe.moving or tile.done
        assert not pe.moving


def test_floats_do_not_follow_on_integers_in_work() -> None:
    """The registers hold one kind of number at a time."""
    pe = PeArray(Array(rows=2, cols=2, dataflow=WS))
    pe.start(*operands(2, 2, 2))
    with pytest.raises(ValueError, match=r"^floats can't follow on integers in work$"):
        pe.queue(np.ones((2, 2)), np.ones((2, 2)))


def steps(pe: PeArray, clocks: int) -> None:
    for _ in range(clocks):
        pe.step()


def test_a_finished_array_stays_finished() -> None:
    """Without a tile, or after its last clock, a step does nothing and counts nothing."""
    pe = PeArray(Array(rows=2, cols=2, dataflow=WS))
    assert not pe.step()
    pe.start(*operands(1, 1, 1))
    while pe.step():
        pass
    assert not pe.step()
    assert pe.cycles == 2 + 1 + 2


@pytest.mark.parametrize(
    ("a", "b", "sums", "message"),
    [
        ((2, 3), (4, 5), None, "a tile is A[m, k] times B[k, n], none of them zero; got (2, 3) times (4, 5)"),
        ((2, 0), (0, 5), None, "a tile is A[m, k] times B[k, n], none of them zero; got (2, 0) times (0, 5)"),
        ((2,), (2, 5), None, "a tile is A[m, k] times B[k, n], none of them zero; got (2,) times (2, 5)"),
        ((2, 3), (3, 5), (5, 2), "the sums to accumulate onto must be (2, 5), not (5, 2)"),
    ],
)
def test_shapes_must_fit(
    a: tuple[int, ...], b: tuple[int, ...], sums: tuple[int, ...] | None, message: str
) -> None:
    """Operands that do not fit together are refused, and the message says which."""
    pe = PeArray(Array(rows=2, cols=2, dataflow=WS))
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        pe.start(np.zeros(a), np.zeros(b), None if sums is None else np.zeros(sums))
