"""The processing element and the systolic array, against their numpy models and the contract's latencies."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Shape, signed, unsigned
from amaranth.sim import SimulatorContext
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.hardware import simulate
from tilewright.rtl import array as systolic
from tilewright.rtl import pe
from tilewright.rtl.array import SystolicArray
from tilewright.rtl.pe import ProcessingElement
from tilewright.rtl.shared import rtlil_text

Array = NDArray[np.int64]


def extremes(shape: Shape) -> tuple[int, int]:
    if shape.signed:
        return -(1 << (shape.width - 1)), (1 << (shape.width - 1)) - 1
    return 0, (1 << shape.width) - 1


def pack(lanes: Array, width: int) -> int:
    return sum((int(lane) & ((1 << width) - 1)) << (i * width) for i, lane in enumerate(lanes))


def signed_lane(vector: int, lane: int, width: int) -> int:
    value = (vector >> (lane * width)) & ((1 << width) - 1)
    return value - (1 << width) if value >> (width - 1) else value


def run_array(array: SystolicArray, passes: list[tuple[Array, Array]], gaps: list[int]) -> Array:
    """Sums [beat, row] of `passes` (weights [row, col], beats [beat, col]), each read when the contract says;
    gap n is waited before beat n. Passes start at least C cycles apart."""
    schedule: dict[int, tuple[Array, Array | None]] = {}
    time, started, taken = 0, -array.cols, 0
    for weights, beats in passes:
        for index, beat in enumerate(beats):
            time += gaps[taken % len(gaps)]
            if index == 0:
                time = started = max(time, started + array.cols)
            schedule[time] = (beat, weights if index == 0 else None)
            taken, time = taken + 1, time + 1
    sums = np.zeros((taken, array.rows), dtype=np.int64)
    wanted = {
        (start + systolic.latency(array.cols) + row, row): n
        for n, start in enumerate(sorted(schedule))
        for row in range(array.rows)
    }
    bus: dict[tuple[int, int], int] = {}
    for start, (_, loaded) in schedule.items():
        if loaded is not None:
            for row, col in np.ndindex(array.rows, array.cols):
                bus[start + row + col, row] = int(loaded[row, col])

    async def bench(ctx: SimulatorContext) -> None:
        rng = np.random.default_rng(0)
        for cycle in range(max(time for time, _ in wanted) + 1):
            beat, loaded = schedule.get(cycle, (rng.integers(0, 2, array.cols), None))
            ctx.set(array.moving, pack(beat, array.moving_shape.width))
            ctx.set(array.load, int(loaded is not None))
            weights = np.array([bus.get((cycle, row), int(rng.integers(0, 2))) for row in range(array.rows)])
            ctx.set(array.weights, pack(weights, array.weight_shape.width))
            vector = ctx.get(array.sums)
            for row in range(array.rows):
                if (cycle, row) in wanted:
                    sums[wanted[cycle, row], row] = signed_lane(vector, row, array.sum_bits)
            await ctx.tick()

    simulate(array, bench)
    return sums


def test_a_pe_adds_its_product_three_cycles_after_the_operand_came_in() -> None:
    """`sum_out` of t + 3 is `sum_in` of t + 2 plus weight · `moving_in` of t, on a hundred random cycles."""
    element = ProcessingElement(signed(8), signed(8), 20)
    rng = np.random.default_rng(1)
    moving, weight, total = (
        rng.integers(-128, 128, 100),
        rng.integers(-128, 128, 100),
        rng.integers(-1000, 1000, 100),
    )
    load = rng.integers(0, 2, 100)
    load[0] = 1
    seen = np.zeros(100, dtype=np.int64)
    below = np.zeros((100, 2), dtype=np.int64)

    async def bench(ctx: SimulatorContext) -> None:
        for cycle in range(100):
            ctx.set(element.moving_in, int(moving[cycle]))
            ctx.set(element.load_in, int(load[cycle]))
            ctx.set(element.weight_in, int(weight[cycle]))
            ctx.set(element.sum_in, int(total[cycle]))
            seen[cycle] = ctx.get(element.sum_out)
            below[cycle] = ctx.get(element.moving_out), ctx.get(element.load_out)
            await ctx.tick()

    simulate(element, bench)
    held = weight[np.maximum.accumulate(np.where(load, np.arange(100), 0))]
    expected = pe.model(held[:-3], moving[:-3], total[2:-1])
    np.testing.assert_array_equal(seen[pe.LATENCY :], expected)
    np.testing.assert_array_equal(below[pe.HOP :], np.stack([moving, load], axis=1)[: -pe.HOP])


@pytest.mark.parametrize(
    ("rows", "cols", "weight", "moving"),
    [
        (2, 4, signed(8), signed(8)),
        (4, 4, unsigned(8), signed(8)),
        (4, 8, unsigned(6), signed(4)),
        (1, 4, signed(4), signed(4)),
        (3, 4, unsigned(16), signed(16)),
    ],
)
def test_sums_leave_the_array_when_the_contract_says(
    rows: int, cols: int, weight: Shape, moving: Shape
) -> None:
    """Row r's sum of the beat of cycle t is seen at t + C + 2 + r, whatever the gaps between beats."""
    rng = np.random.default_rng(rows * 10 + cols)
    (low, high), (least, most) = extremes(weight), extremes(moving)
    passes = [
        (rng.integers(low, high + 1, (rows, cols)), rng.integers(least, most + 1, (beats, cols)))
        for beats in (cols, 1, cols + 3, 2, cols)
    ]
    expected = np.concatenate([systolic.model(*one) for one in passes])
    for gaps in ([0], [0, 3, 0, 0, 1], [5]):
        sums = run_array(SystolicArray(rows, cols, weight, moving), passes, gaps)
        np.testing.assert_array_equal(sums, expected)


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 6), min_size=1, max_size=7))
@settings(max_examples=10, deadline=None)
def test_any_gaps_between_beats_leave_the_sums_alone(seed: int, gaps: list[int]) -> None:
    """Weights go in on their own clock: stalled beats meet the right ones."""
    rng = np.random.default_rng(seed)
    passes = [
        (rng.integers(-8, 8, (2, 4)), rng.integers(-8, 8, (int(beats), 4))) for beats in rng.integers(1, 7, 4)
    ]
    sums = run_array(SystolicArray(2, 4, signed(4), signed(4)), passes, gaps)
    np.testing.assert_array_equal(sums, np.concatenate([systolic.model(*one) for one in passes]))


@pytest.mark.parametrize("weight", [signed(8), unsigned(8), signed(4), unsigned(16)])
def test_the_widest_sums_fit_and_one_bit_less_would_not(weight: Shape) -> None:
    """All operands at their extremes give the extreme sums; `sum_bits` is the least that holds them."""
    moving = signed(weight.width)
    array = SystolicArray(2, 4, weight, moving)
    low, high = extremes(weight)
    corners = [(w, x) for w in (low, high) for x in extremes(moving)]
    passes = [(np.full((2, 4), w), np.full((4, 4), x)) for w, x in corners]
    sums = run_array(array, passes, [0])
    np.testing.assert_array_equal(sums[::4, 0], [4 * w * x for w, x in corners])
    half = 1 << (array.sum_bits - 1)
    reached = max(max(value, -value - 1) for value in sums.ravel().tolist())
    assert half // 2 <= reached < half


def test_a_large_array_is_emitted_as_one_row_and_one_element() -> None:
    """Module count doesn't grow with the array; the text is the same every time."""
    text = rtlil_text(SystolicArray(32, 32, unsigned(8), signed(8)), "array")
    modules = [line for line in text.splitlines() if line.startswith("module ")]
    assert modules == ["module \\array", "module \\row32_u8_s8_21", "module \\pe_u8_s8_21"]
    assert text.count("cell \\row32_u8_s8_21") == 32
    assert text.count("attribute \\top 1") == 1
    small = [rtlil_text(SystolicArray(3, 4, unsigned(8), signed(8)), "array") for _ in range(2)]
    assert small[0] == small[1]
