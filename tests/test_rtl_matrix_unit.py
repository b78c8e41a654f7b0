"""The matrix unit: numbers against numpy, cycles against the recurrence, in both orders, with any stalls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from amaranth.lib.stream import Interface
from amaranth.sim import Simulator, SimulatorContext
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.arch.matrix_unit import MatrixJob, MatrixUnit, Order, matrix_job
from tilewright.dataflows.matrix_unit import StreamGaps, ideal_cycles, timing
from tilewright.description.errors import InputError
from tilewright.rtl import matrix_model as model
from tilewright.rtl.matrix_unit import MatrixCore
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import MatmulShape

Matrix = NDArray[np.int64]
Testbench = Callable[[SimulatorContext], Awaitable[None]]
ORDERS: tuple[Order, ...] = ("weight_stationary", "output_stationary")


def pack(lanes: Matrix, width: int) -> int:
    return sum((int(lane) & ((1 << width) - 1)) << (i * width) for i, lane in enumerate(lanes))


def unpack(vector: int, lanes: int, width: int) -> list[int]:
    values = [(vector >> (i * width)) & ((1 << width) - 1) for i in range(lanes)]
    return [value - (1 << width) if value >> (width - 1) else value for value in values]


class Bench:
    """The RTL between sources and a sink with gaps; records when beats move."""

    def __init__(self, unit: MatrixUnit, gaps: StreamGaps) -> None:
        self.unit = unit
        self.gaps = gaps
        self.core = MatrixCore(unit)
        self.commands: list[int] = []
        self.x: list[int] = []
        self.y: list[int] = []
        self.beats: list[list[int]] = []

    def run(self, jobs: Sequence[tuple[MatrixJob, Matrix, Matrix]]) -> list[Matrix]:
        """y beats of each job."""
        width = self.unit.operand_bits
        x = [pack(b, width) for job, x, _ in jobs for b in model.x_beats(self.unit, job, x)]
        w = [pack(b, width) for job, _, w in jobs for b in model.w_beats(self.unit, job, w)]
        commands = [
            {"m": job.m, "k_tiles": job.k_tiles, "n_tiles": job.n_tiles, "block": job.block}
            for job, *_ in jobs
        ]
        wanted = [job.y_beats for job, *_ in jobs]
        simulator = Simulator(self.core)
        simulator.add_clock(1e-6)
        simulator.add_testbench(
            self._source(self.core.command, commands, self.gaps.command, self.commands), background=True
        )
        simulator.add_testbench(self._source(self.core.x, x, self.gaps.x, []), background=True)
        simulator.add_testbench(self._source(self.core.w, w, self.gaps.w, []), background=True)
        simulator.add_testbench(self._watch, background=True)
        simulator.add_testbench(self._sink(sum(wanted)))
        simulator.run()
        return np.split(np.array(self.beats, dtype=np.int64), np.cumsum(wanted)[:-1])

    def _source(
        self, stream: Interface, payloads: list[Any], gaps: Sequence[int], taken: list[int]
    ) -> Testbench:
        async def offer(ctx: SimulatorContext) -> None:
            cycle = 0
            for index, payload in enumerate(payloads):
                for _ in range(gaps[index % len(gaps)]):
                    await ctx.tick()
                    cycle += 1
                ctx.set(stream.payload, payload)
                ctx.set(stream.valid, 1)
                accepted = 0
                while not accepted:
                    *_, accepted = await ctx.tick().sample(stream.ready)
                    cycle += 1
                taken.append(cycle - 1)
                ctx.set(stream.valid, 0)

        return offer

    def _sink(self, count: int) -> Testbench:
        async def take(ctx: SimulatorContext) -> None:
            cycle = 0
            y = self.core.y
            for index in range(count):
                for _ in range(self.gaps.y[index % len(self.gaps.y)]):
                    await ctx.tick()
                    cycle += 1
                ctx.set(y.ready, 1)
                valid = 0
                while not valid:
                    *_, valid, payload = await ctx.tick().sample(y.valid, y.payload)
                    cycle += 1
                self.y.append(cycle - 1)
                self.beats.append(unpack(payload, self.unit.rows, self.unit.accumulator_bits))
                ctx.set(y.ready, 0)

        return take

    async def _watch(self, ctx: SimulatorContext) -> None:
        cycle = 0
        while True:
            *_, active = await ctx.tick().sample(self.core.active)
            if active:
                self.x.append(cycle - 1)
            cycle += 1


def check(
    unit: MatrixUnit, shapes: Sequence[tuple[int, int, int, Order]], gaps: StreamGaps, seed: int = 0
) -> Bench:
    """RTL equals numpy's product and the recurrence's times, beat for beat."""
    rng = np.random.default_rng(seed)
    least, most = -(1 << (unit.operand_bits - 1)), 1 << (unit.operand_bits - 1)
    jobs = []
    for m, k, n, order in shapes:
        x, w = rng.integers(least, most, (m, k)), rng.integers(least, most, (k, n))
        jobs.append((matrix_job(unit, m, k, n, order), x, w))
    bench = Bench(unit, gaps)
    for beats, (job, x, w) in zip(bench.run(jobs), jobs, strict=True):
        np.testing.assert_array_equal(model.y_matrix(unit, job, beats, w.shape[1]), model.model(x, w))
    expected = timing(unit, [job for job, *_ in jobs], gaps)
    assert bench.commands == expected.commands
    assert bench.x == expected.x
    assert bench.y == expected.y
    return bench


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "unit", [MatrixUnit(2, 4, block_rows=8), MatrixUnit(4, 4, 4, 24, 5), MatrixUnit(3, 5, 16, 40, 6)]
)
def test_the_rtl_computes_the_product_in_the_cycles_of_the_contract(unit: MatrixUnit, order: Order) -> None:
    """Ragged in every dimension, streams always ready: numbers, the time of every beat, the total."""
    shapes = [(11, 9, 7, order), (5, 4, 3, order)]
    bench = check(unit, shapes, StreamGaps())
    jobs = [matrix_job(unit, *shape) for shape in shapes]
    assert bench.y[-1] + 1 == ideal_cycles(unit, jobs)


gap_lists = st.lists(st.sampled_from([0, 0, 0, 1, 2, 9]), min_size=1, max_size=9)


@given(
    shapes=st.lists(
        st.tuples(st.integers(1, 10), st.integers(1, 10), st.integers(1, 6), st.sampled_from(ORDERS)),
        min_size=1,
        max_size=2,
    ),
    gaps=st.builds(StreamGaps, gap_lists, gap_lists, gap_lists, gap_lists),
    depth=st.sampled_from([2, 3]),
)
@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.generate])
def test_stalls_on_any_stream_lose_nothing_and_cost_what_the_contract_says(
    shapes: list[tuple[int, int, int, Order]], gaps: StreamGaps, depth: int
) -> None:
    """Any gaps on all four streams, back-to-back jobs of both orders."""
    check(MatrixUnit(2, 4, 4, 16, 6, depth), shapes, gaps)


@pytest.mark.parametrize("m", [2, 3])
def test_an_accumulator_is_not_used_again_before_it_is_written(m: int) -> None:
    """A pass of fewer rows than an addition takes cycles, its last beat late, then one without gaps."""
    for late in (8, 9, 10):
        gaps = StreamGaps(x=[0] * (m + m - 1) + [late])
        check(MatrixUnit(1, 4, 4, 16, 4), [(m, 12, 1, "weight_stationary")], gaps)


def test_a_sink_that_stops_for_long_stops_the_array_and_loses_nothing() -> None:
    """With every credit spent the array waits; the beats come out whole afterwards."""
    unit = MatrixUnit(2, 4, 4, 16, 4)
    bench = check(unit, [(60, 4, 2, "weight_stationary")], StreamGaps(y=[100, *[0] * 100]))
    assert bench.x[unit.credits] > bench.y[0]


def test_the_widest_sums_fit_the_accumulators() -> None:
    """The longest k that a command can ask for, all operands at -8, on narrow accumulators."""
    unit = MatrixUnit(1, 4, 4, 10, 4)
    k = unit.most_k_tiles * unit.cols
    x = w = np.full((1, k), -8)
    job = matrix_job(unit, 1, k, 1)
    (beats,) = Bench(unit, StreamGaps()).run([(job, x, w.T)])
    assert beats.tolist() == [[64 * k]]
    assert 64 * k < 1 << 9 <= 64 * 2 * k
    with pytest.raises(
        InputError, match=r"^k is 5: sums of 10 bits are sure to hold 4 products of 4-bit operands; cut k"
    ):
        matrix_job(unit, 1, k + 1, 1)


def test_a_unit_that_cannot_work_is_refused_with_all_its_reasons() -> None:
    """Every limit of docs/matrix-unit.md, said at once."""
    with pytest.raises(InputError) as refused:
        MatrixUnit(rows=0, cols=2, operand_bits=7, accumulator_bits=64, block_rows=1, fifo_depth=1)
    assert str(refused.value).splitlines() == [
        "rows is 0: must be at least 1",
        "cols is 2: must be at least 4, for an accumulator is used again after cols cycles",
        "operand_bits is 7: must be 4, 8 or 16",
        "accumulator_bits is 64: must be 15 to 48, for it holds at least the sum of one row of the array",
        "block_rows is 1: must be at least cols (2), for weights take cols cycles to load",
        "fifo_depth is 1: must be at least 2",
    ]


def test_a_product_that_no_command_can_ask_for_is_refused() -> None:
    """An empty one, and one with more rows or columns than a command can say."""
    unit = MatrixUnit(4, 4)
    with pytest.raises(
        InputError, match=r"^a product of 3 x 0 and 0 x 5: every dimension must be at least 1$"
    ):
        matrix_job(unit, 3, 0, 5)
    with pytest.raises(InputError, match=r"^m is 1048576: a command's most is 1048575; cut m$"):
        matrix_job(unit, 1 << 20, 4, 4)
    with pytest.raises(InputError, match=r"^n is 4194301: a command's most is 4194300 on 4 rows; cut n$"):
        matrix_job(unit, 4, 4, (1 << 22) - 3)


job_lists = st.lists(
    st.builds(MatrixJob, st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(1, 8)),
    min_size=1,
    max_size=3,
)


def layer_shapes(order: Order, overrides: list[str]) -> list[tuple[int, int, int, Order]]:
    """(m, k, n, order) of every matmul of an encoder layer, one a head where there are heads."""
    shapes = [operator.shape for operator in load_workload("encoder_block", overrides).operators]
    matmuls = [shape for shape in shapes if isinstance(shape, MatmulShape)]
    return [(shape.m, shape.k, shape.n, order) for shape in matmuls for _ in range(shape.batch)]


@pytest.mark.parametrize("order", ORDERS)
def test_all_matmuls_of_an_encoder_layer_take_the_cycles_of_the_contract(order: Order) -> None:
    """Projections, scores, context and feed-forward, back to back on one unit."""
    small = ["workload.d=8", "workload.heads=2", "workload.ffn=16", "workload.seq=9"]
    unit = MatrixUnit(4, 4, block_rows=8)
    shapes = layer_shapes(order, small)
    assert len(shapes) == 10
    bench = check(unit, shapes, StreamGaps())
    assert bench.y[-1] + 1 == ideal_cycles(unit, [matrix_job(unit, *shape) for shape in shapes])


@pytest.mark.parametrize("order", ORDERS)
def test_the_array_is_busy_on_an_encoder_layer_of_full_size(order: Order) -> None:
    """BERT-base's layer at 512 tokens on 16 x 16 loses less than 1/1000 to fills and commands."""
    unit = MatrixUnit(16, 16, block_rows=64)
    full = ["workload.d=768", "workload.heads=12", "workload.ffn=3072", "workload.seq=512"]
    shapes = layer_shapes(order, full)
    cycles = ideal_cycles(unit, [matrix_job(unit, *shape) for shape in shapes])
    useful = sum(m * k * n for m, k, n, _ in shapes) / 256
    assert useful < cycles < useful * 1.001


@given(job_lists, st.integers(1, 6), st.integers(4, 8))
@settings(max_examples=200, deadline=None)
def test_the_closed_form_is_the_recurrence_with_ideal_streams(
    jobs: list[MatrixJob], rows: int, cols: int
) -> None:
    """Also for blocks smaller than the array's columns, where loading w is what takes the time."""
    unit = MatrixUnit(rows, cols, block_rows=8, fifo_depth=2)
    assert ideal_cycles(unit, jobs) == timing(unit, jobs).cycles


@given(job_lists, st.builds(StreamGaps, gap_lists, gap_lists, gap_lists, gap_lists))
@settings(max_examples=50, deadline=None)
def test_stalls_never_save_a_cycle(jobs: list[MatrixJob], gaps: StreamGaps) -> None:
    """Cycles with any gaps are at least those without, and at least one a beat of each stream."""
    unit = MatrixUnit(4, 4, block_rows=8)
    cycles = timing(unit, jobs, gaps).cycles
    assert cycles >= ideal_cycles(unit, jobs)
    assert cycles > max(sum(job.x_beats for job in jobs), sum(job.w_beats(unit) for job in jobs))
