"""The lanes' blocks against their numpy models, alone and as a chain of rows at the contract's times."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import data
from amaranth.sim import SimulatorContext
from numpy.typing import NDArray

from tests.hardware import simulate
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl import exponential, reciprocal, row_score
from tilewright.rtl.exponential import Exponential
from tilewright.rtl.job import Job, tiles, visited
from tilewright.rtl.model import attention
from tilewright.rtl.reciprocal import Reciprocal
from tilewright.rtl.row_score import RowScore
from tilewright.rtl.row_value import RowValue

Array = NDArray[np.int64]
SMALL = UnitSizes(rows=3, cols=4, head_dim=6)


# exponential


@pytest.mark.parametrize(("probability", "fraction"), [(4, 4), (8, 6), (11, 4), (16, 10)])
def test_the_held_table_rounds_as_the_definition_does(probability: int, fraction: int) -> None:
    """For every t, the table of one bit less gives the p of the contract's minimum."""
    unit = replace(SMALL, probability_bits=probability, exponent_fraction_bits=fraction)
    t = np.arange((probability + 3) << fraction)
    expected = exponential.model(unit, t, np.zeros(t.size, dtype=bool))
    entry, octaves = np.array(exponential.held_table(unit))[t % (1 << fraction)], t >> fraction
    half_units = (entry % (1 << (probability + 1))) >> octaves
    half_units |= (entry >> (probability + 1)) & (octaves == probability + 1)
    assert np.array_equal((half_units + 1) >> 1, expected)
    assert expected.max() == (1 << probability) - 1
    assert expected[-1] == 0


@pytest.mark.parametrize(("probability", "fraction"), [(4, 4), (8, 6), (16, 10)])
def test_exponential_equals_its_model(probability: int, fraction: int) -> None:
    """A key a cycle, near and far from the maximum, masked or not, `LATENCY` cycles later."""
    unit = replace(SMALL, probability_bits=probability, exponent_fraction_bits=fraction)
    rng = np.random.default_rng(1)
    count, top = 400, 1 << (14 - fraction)
    peak = rng.integers(-top, top + 1, count)
    reach = rng.choice([2, 12 << fraction, 40 << fraction, 1 << 15], count)
    x = np.maximum((peak << fraction) - rng.integers(0, reach), -(1 << 14))
    masked = rng.random(count) < 0.2
    x[masked] = rng.integers(-(1 << 14), 1 << 14, masked.sum())
    expected = exponential.model(unit, (peak << fraction) - x, masked)
    dut, seen = Exponential(unit), []

    async def bench(ctx: SimulatorContext) -> None:
        for n in range(count + exponential.LATENCY):
            if n >= exponential.LATENCY:
                seen.append(ctx.get(dut.probability))
            if n < count:
                ctx.set(dut.x, int(x[n]))
                ctx.set(dut.masked, bool(masked[n]))
            ctx.set(dut.peak, int(peak[min(n, count - 1)]))
            await ctx.tick()

    simulate(dut, bench)
    assert seen == expected.tolist()


# reciprocal


@pytest.mark.parametrize(("operand", "probability", "keys"), [(8, 8, 65536), (4, 4, 32), (16, 16, 4096)])
def test_reciprocal_equals_its_model(operand: int, probability: int, keys: int) -> None:
    """Sums of every length, 0 and the greatest included; shift and token first, the factor a cycle later."""
    unit = replace(SMALL, operand_bits=operand, probability_bits=probability, max_keys=keys)
    rng = np.random.default_rng(2)
    least, width = reciprocal.least_length(unit), unit.sum_bits
    lengths = rng.integers(least, width + 1, 300)
    sums = np.array([int(rng.integers(1 << (b - 1), 1 << b)) for b in lengths])
    sums[:4] = [0, 1 << (least - 1), (1 << width) - 1, 0]
    length, factor = reciprocal.model(unit, sums)
    dut = Reciprocal(unit)
    seen: dict[str, list[int]] = {"shift": [], "factor": [], "done": []}

    async def bench(ctx: SimulatorContext) -> None:
        for n in range(sums.size + reciprocal.LATENCY):
            total = int(sums[n]) if n < sums.size else 0
            ctx.set(dut.sums, total << (unit.sum_bits * (n % unit.rows)))
            ctx.set(dut.start.valid, n < sums.size and n % unit.rows == 0)
            seen["shift"].append(ctx.get(dut.shift))
            seen["done"].append(ctx.get(dut.done.valid))
            seen["factor"].append(ctx.get(dut.factor))
            await ctx.tick()

    simulate(dut, bench)
    shifts = np.array(seen["shift"][reciprocal.SHIFT_LATENCY :][: sums.size])
    assert np.array_equal(shifts[sums > 0], (length - least)[sums > 0])
    assert seen["factor"][reciprocal.LATENCY :] == factor.tolist()
    assert [n - reciprocal.SHIFT_LATENCY for n, done in enumerate(seen["done"]) if done] == list(
        range(0, sums.size, unit.rows)
    )


def test_the_reciprocal_is_as_good_as_its_table() -> None:
    """y · l / 2^(b+16) is within the derived bound of 1, and comes to more than half of it."""
    for operand in (8, 16):
        unit = replace(SMALL, operand_bits=operand)
        sums = np.unique(np.geomspace(1 << 15, (1 << 32) - 1, 200_000).astype(np.int64))
        length, factor = reciprocal.model(unit, sums)
        error = np.abs(factor * (sums / 2.0 ** (length + 16)) - 1).max()
        assert reciprocal.relative_error(unit) / 2 < error <= reciprocal.relative_error(unit)


# the lanes as a chain of rows


class Lanes:
    """Rows of both halves and the reciprocal, wired as in the unit; the test plays the arrays."""

    def __init__(self, unit: UnitSizes) -> None:
        self.unit = unit
        self.scores = [RowScore(unit) for _ in range(unit.rows)]
        self.values = [RowValue(unit) for _ in range(unit.rows)]
        self.module = m = Module()
        m.submodules.reciprocal = shared = Reciprocal(unit)
        m.d.comb += [shared.start.eq(self.values[0].complete), self.values[0].done.eq(shared.done)]
        for r, (score, value) in enumerate(zip(self.scores, self.values, strict=True)):
            m.submodules[f"score_{r}"], m.submodules[f"value_{r}"] = score, value
            m.d.comb += [
                score.read.eq(value.exponential),
                value.peak.eq(score.peak),
                value.x.eq(score.x),
                value.masked.eq(score.masked),
                shared.sums.word_select(r, unit.sum_bits).eq(value.total),
                value.shift.eq(shared.shift),
                value.factor.eq(shared.factor),
            ]
            if r:
                self._hand_on(r)

    def _hand_on(self, r: int) -> None:
        above, value = self.values[r - 1], self.values[r]
        self.module.d.comb += [
            self.scores[r].token.eq(self.scores[r - 1].token_out),
            value.exponential.eq(above.exponential_out),
            value.weights.eq(above.weights_out),
            value.values.eq(above.values_out),
            value.done.eq(above.done_out),
        ]


@dataclass(frozen=True)
class Pass:
    """One visited tile and its times."""

    q_tile: int
    tile: int
    dead: bool
    first: bool
    last: bool
    a: list[int]
    e: int
    b: list[int]


def passes_of(unit: UnitSizes, job: Job, rng: np.random.Generator, stall: float) -> list[Pass]:
    """The contract's times, with V and K beats that come at random times (`stall` cycles late on average)."""

    def beats(start: int, count: int) -> list[int]:
        return list(np.cumsum(1 + rng.poisson(stall, count)) - 1 + start)

    done: list[Pass] = []
    for q_tile, visits in enumerate(visited(unit, job)):
        for n, visit in enumerate(visits):
            past = done[-1] if done else None
            room = done[-unit.score_banks].e + 1 if len(done) >= unit.score_banks else 0
            a = beats(max(room, past.a[-1] + 1 if past else 3), unit.score_beats)
            e = a[-1] + unit.cols + 7
            if past:
                e = max(e, past.e + max(unit.rows, unit.cols))
            if len(done) > 1:
                e = max(e, done[-2].b[-1] + 1)
            start = max(e + 7, past.b[-1] + 1, past.b[0] + unit.cols) if past else e + 7
            b = beats(start, unit.head_dim)
            done.append(Pass(q_tile, visit.tile, visit.dead, n == 0, n == len(visits) - 1, a, e, b))
    return done


Schedule = dict[int, list[tuple[data.View, dict[str, int]]]]


def score_tokens(unit: UnitSizes, job: Job, lanes: Lanes, passes: list[Pass], when: Schedule) -> None:
    for i, one in enumerate(passes):
        corner = one.q_tile * unit.rows - one.tile * unit.cols
        low, high = (int(np.clip(corner + at, -unit.rows, unit.cols)) for at in (job.low, job.high))
        count = 0 if one.dead else min(unit.cols, job.keys - one.tile * unit.cols)
        for n, a in enumerate(one.a):
            chunk, key = divmod(n, unit.cols)
            token = {
                "valid": 1,
                "key": key,
                "first_chunk": int(chunk == 0),
                "last_chunk": int(chunk == unit.chunks - 1),
                "bank": i % unit.score_banks,
                "low": low,
                "high": high,
                "count": count,
            }
            when.setdefault(a + unit.cols + 2, []).append((lanes.scores[0].token, token))


def value_tokens(unit: UnitSizes, lanes: Lanes, passes: list[Pass], when: Schedule) -> None:
    lane = lanes.values[0]
    for i, one in enumerate(passes):
        parity = {"valid": 1, "parity": i % 2}
        ends = {"first": int(one.first), "last": int(one.last), "bank": i % unit.score_banks}
        for key in range(unit.cols):
            when.setdefault(one.e + key, []).append((lane.exponential, parity | ends | {"key": key}))
            when.setdefault(one.b[0] + key, []).append((lane.weights, parity | {"key": key}))
        for column, b in enumerate(one.b):
            token = parity | {"column": column, "first": int(one.first)}
            when.setdefault(b + unit.cols + 1, []).append((lane.values, token))


class Arrays:
    """Plays both arrays: what is at their right edges, by cycle and row, and nothing a cycle early."""

    def __init__(self, unit: UnitSizes, passes: list[Pass], q: Array, k: Array, v: Array) -> None:
        """`q`, `k` and `v` whole tiles long, `q` and `k` whole chunks wide."""
        self.unit, self.passes, self.v = unit, passes, v
        self.weights = np.zeros((len(passes), unit.rows, unit.cols), dtype=np.int64)
        self.scores: dict[tuple[int, int], int] = {}
        self.weight_at: dict[tuple[int, int], tuple[int, int]] = {}
        self.value_at: dict[tuple[int, int], tuple[int, int]] = {}
        self.output_at: dict[tuple[int, int], tuple[int, int]] = {}
        for i, one in enumerate(passes):
            for r in range(unit.rows):
                self._expect(i, one, r, q, k)

    def _expect(self, i: int, one: Pass, r: int, q: Array, k: Array) -> None:
        cols, row = self.unit.cols, one.q_tile * self.unit.rows + r
        for n, a in enumerate(one.a):
            chunk, key = divmod(n, cols)
            span = slice(chunk * cols, (chunk + 1) * cols)
            self.scores[a + cols + 3 + r, r] = int(q[row, span] @ k[one.tile * cols + key, span])
        for key in range(cols):
            self.weight_at[one.b[0] + 1 + r + key, r] = (i, key)
        for column, b in enumerate(one.b):
            self.value_at[b + cols + 3 + r, r] = (i, column)
            if one.last:
                self.output_at[b + cols + 7 + r, r] = (row, column)

    def take_weight(self, cycle: int, row: int, weight: int) -> None:
        if (cycle, row) in self.weight_at:
            i, key = self.weight_at[cycle, row]
            self.weights[i, row, key] = weight

    def value(self, cycle: int, row: int, junk: int) -> int:
        if (cycle, row) not in self.value_at:
            return junk
        i, column = self.value_at[cycle, row]
        first = self.passes[i].tile * self.unit.cols
        return int(self.weights[i, row] @ self.v[first : first + self.unit.cols, column])


def whole_tiles(values: Array, size: int, width: int, rng: np.random.Generator) -> Array:
    """`values` and garbage after the last row; the columns past the head are 0, as Q's are in the unit."""
    length = tiles(values.shape[0], size) * size
    whole = np.zeros((length, width), dtype=np.int64)
    whole[:, : values.shape[1]] = rng.integers(-8, 8, (length, values.shape[1]))
    whole[: values.shape[0], : values.shape[1]] = values
    return whole


def run_lanes(unit: UnitSizes, job: Job, q: Array, k: Array, v: Array, stall: float, seed: int) -> Array:
    """O [queries, D] at the contract's times; whatever is not wanted at the lanes' inputs is garbage."""
    rng = np.random.default_rng(seed)
    lanes, passes = Lanes(unit), passes_of(unit, job, rng, stall)
    when: Schedule = {}
    score_tokens(unit, job, lanes, passes, when)
    value_tokens(unit, lanes, passes, when)
    whole_q = whole_tiles(q, unit.rows, unit.score_beats, rng)
    whole_k = whole_tiles(k, unit.cols, unit.score_beats, rng)
    arrays = Arrays(unit, passes, whole_q, whole_k, whole_tiles(v, unit.cols, unit.head_dim, rng))
    o = np.zeros((whole_q.shape[0], unit.head_dim), dtype=np.int64)
    first = lanes.values[0]
    inputs = [lanes.scores[0].token, first.exponential, first.weights, first.values]

    async def bench(ctx: SimulatorContext) -> None:
        for lane in lanes.scores:
            ctx.set(lane.scale, job.scale)
        for cycle in range(max(t for t, _ in arrays.output_at) + 1):
            for token in inputs:
                ctx.set(token.as_value(), int(rng.integers(1 << min(30, len(token.as_value())))) & ~1)
            for token, fields in when.get(cycle, []):
                for name, value in fields.items():
                    ctx.set(token[name], value)
            for r, (score, value) in enumerate(zip(lanes.scores, lanes.values, strict=True)):
                junk = int(rng.integers(-8, 8))
                arrays.take_weight(cycle, r, ctx.get(value.weight))
                ctx.set(score.sum, arrays.scores.get((cycle, r), junk))
                ctx.set(value.sum, arrays.value(cycle, r, junk))
                if (cycle, r) in arrays.output_at:
                    o[arrays.output_at[cycle, r]] = ctx.get(value.o)
            await ctx.tick()

    simulate(lanes.module, bench)
    return o[: job.queries]


UNITS = {
    "3x4": SMALL,
    "2x4, one chunk": UnitSizes(2, 4, 4, probability_bits=4, exponent_fraction_bits=4, max_keys=64),
    "5x4, 16 bits": UnitSizes(5, 4, 5, 16, 16, exponent_fraction_bits=8, max_keys=256),
    "4x8, 4 bits, 4 banks": UnitSizes(4, 8, 12, operand_bits=4, score_banks=4),
    "1x4, 10 fraction bits": UnitSizes(1, 4, 4, probability_bits=12, exponent_fraction_bits=10),
}


@pytest.mark.parametrize("name", UNITS)
def test_lanes_equal_the_model_at_the_contracts_times(name: str) -> None:
    """Tiles back to back at the smallest distances, and late beats: O is the model's, bit for bit.

    The last job visits one tile a Q tile, of 4 keys and of 1: one reciprocal follows another.
    """
    unit = UNITS[name]
    rng = np.random.default_rng(len(name))
    half = 1 << (unit.operand_bits - 1)
    keys = min(29, unit.max_keys)
    q, k, v = (rng.integers(-half, half, (n, unit.head_dim)) for n in (7, keys, keys))
    scale = int(rng.integers(1 << 12, 1 << 16))
    single = np.zeros((tiles(7, unit.rows), tiles(9, unit.cols)), dtype=bool)
    single[::2, 0] = single[1::2, -1] = True
    ragged = rng.random((tiles(7, unit.rows), tiles(keys, unit.cols))) < 0.5
    jobs = [
        (Job.full(7, keys, scale), 0.0),
        (Job.causal(7, 11, scale), 0.6),
        (Job.window(7, keys, 65535, 3, 2), 0.0),
        (Job(7, 13, scale, -100, -2), 0.6),
        (Job.full(7, keys, scale >> 4).with_bitmap(ragged), 0.3),
        (Job.full(7, 9, scale >> 8).with_bitmap(single), 1.5),
    ]
    for n, (job, stall) in enumerate(jobs):
        job_k, job_v = k[: job.keys], v[: job.keys]
        expected = attention(unit, job, q, job_k, job_v)
        assert np.ptp(expected[-1]) > half / 8
        assert np.array_equal(run_lanes(unit, job, q, job_k, job_v, stall, n), expected), job


def test_lanes_hold_the_worst_sums() -> None:
    """All operands -2^(W-1) and all N keys at the maximum, where every accumulator is at its edge."""
    unit = UnitSizes(2, 4, 4, probability_bits=8, max_keys=32)
    q, k, v = (np.full((n, 4), -128) for n in (2, 32, 32))
    job = Job.full(2, 32, 1 << 15)
    assert run_lanes(unit, job, q, k, v, 0.0, 0).tolist() == [[-128] * 4] * 2
    assert run_lanes(unit, job, q, k, -v - 1, 0.0, 0).tolist() == [[127] * 4] * 2


def test_scores_are_scaled_without_a_clamp() -> None:
    """The greatest score and the greatest scale come to 2^14, half of what the contract clamps at."""
    for operand in (4, 8, 16):
        unit = replace(SMALL, operand_bits=operand, head_dim=8)
        most = 8 << (2 * operand - 2)
        x = row_score.model(unit, np.array([most, -most]), 65535)
        assert np.abs(x).max() == 1 << 14
