"""The sequencer against a plain model of the contract's state rules, cycle by cycle."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from amaranth.sim import SimulatorContext

from tests.hardware import simulate
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.sequencer import Sequencer

WORD = 16
FIFO_DEPTH = 4

Tile = dict[str, int]


@dataclass
class Job:
    queries: int
    keys: int
    low: int
    high: int
    bitmap: list[list[int]] | None = None
    """Words, Q tile by Q tile."""
    scale: int = 1

    def payload(self) -> dict[str, int]:
        return {
            "queries": self.queries,
            "keys": self.keys,
            "scale": self.scale,
            "low": self.low,
            "high": self.high,
            "use_bitmap": int(self.bitmap is not None),
        }


@dataclass
class Inputs:
    """What the surroundings do in a cycle."""

    command: Job | None
    word: int | None
    ready: bool
    closed: bool


@dataclass
class Model:
    """The contract's rules: a generator for the states, a queue for the tile FIFO."""

    parameters: UnitSizes
    fifo: deque[Tile] = field(default_factory=deque)
    at_work: int = 0
    job: Job | None = None
    """The last one taken: its keys and scale stay."""

    def __post_init__(self) -> None:
        self.states = self._states()
        self.ready, self.wants_word, self.pushed = next(self.states)

    def outputs(self) -> tuple[bool, bool, Tile | None]:
        """Command ready, bitmap ready, the tile offered."""
        return self.ready, self.wants_word, self.fifo[0] if self.fifo else None

    def step(self, inputs: Inputs) -> None:
        pushed = self.pushed if len(self.fifo) < FIFO_DEPTH else None
        if self.fifo and inputs.ready:
            self.fifo.popleft()
        if pushed is not None:
            self.fifo.append(pushed)
        self.at_work -= inputs.closed
        self.ready, self.wants_word, self.pushed = self.states.send((inputs, pushed is not None))

    def _states(self) -> Generator[tuple[bool, bool, Tile | None], tuple[Inputs, bool], None]:
        while True:
            idle = self.at_work == 0
            inputs, _ = yield idle, False, None
            if inputs.command is None or not idle:
                continue
            self.job = job = inputs.command
            for number, i0 in enumerate(range(0, job.queries, self.parameters.rows)):
                yield False, False, None  # START
                self.at_work += 1
                yield from self._q_tile(job, number, i0)

    def _q_tile(
        self, job: Job, number: int, i0: int
    ) -> Generator[tuple[bool, bool, Tile | None], tuple[Inputs, bool], None]:
        in_range = self._in_range(job, i0)
        held: Tile | None = None
        first = True
        for word_number in self._words(job, in_range):
            while True:
                inputs, _ = yield False, job.bitmap is not None, None
                if job.bitmap is None or inputs.word is not None:
                    break
            bits = 0xFFFF if job.bitmap is None else job.bitmap[number][word_number]
            for tile in range(WORD * word_number, WORD * (word_number + 1)):
                if tile in in_range and bits >> (tile % WORD) & 1:
                    while True:
                        _, pushed = yield False, False, held
                        if held is None or pushed:
                            break
                    held = self._tile(job, i0, tile, first)
                    first = False
            if word_number != self._words(job, in_range)[-1]:
                yield False, False, None  # SCAN sees that nothing is left
        last = (held or self._tile(job, i0, 0, True) | {"dead": 1}) | {"last": 1}
        while True:
            _, pushed = yield False, False, last
            if pushed:
                return

    def _in_range(self, job: Job, i0: int) -> range:
        """The tiles with an attended key: by all pairs, or by the formula if `low` is not below `high`."""
        rows, cols = self.parameters.rows, self.parameters.cols
        queries = range(i0, min(i0 + rows, job.queries))
        if job.low >= job.high:
            end = min(job.keys, queries[-1] + job.high)
            return range(max(0, i0 + job.low) // cols, max(0, -(-end // cols)))
        tiles = {j // cols for i in queries for j in range(job.keys) if i + job.low <= j < i + job.high}
        return range(min(tiles), max(tiles) + 1) if tiles else range(0)

    def _words(self, job: Job, in_range: range) -> list[int]:
        if job.bitmap is not None:
            return list(range(-(-job.keys // (WORD * self.parameters.cols))))
        return list(range(in_range[0] // WORD, in_range[-1] // WORD + 1)) if in_range else [0]

    def _tile(self, job: Job, i0: int, tile: int, first: bool) -> Tile:
        return {
            "low": i0 + job.low,
            "high": i0 + job.high,
            "index": tile,
            "first": int(first),
            "last": 0,
            "dead": 0,
        }


def words(job: Job) -> list[int]:
    return [word for q_tile in job.bitmap or [] for word in q_tile]


def random_job(rng: random.Random, parameters: UnitSizes) -> Job:
    queries, keys = rng.randint(1, 5 * parameters.rows), rng.randint(1, parameters.max_keys)
    kind = rng.choice(["none", "causal", "window", "any"])
    low, high = -queries, keys
    if kind == "causal":
        high = keys - queries + 1
    if kind == "window":
        low, high = -rng.randint(0, 20), rng.randint(1, 20)
    if kind == "any":
        bound = parameters.max_keys
        low, high = rng.randint(-bound, bound), rng.randint(-bound, bound)
    bitmap = None
    if rng.random() < 0.5:
        q_tiles = -(-queries // parameters.rows)
        count = -(-keys // (WORD * parameters.cols))
        kept = rng.choice([0x0000, 0x0100, 0x8421, 0xFFFF])
        bitmap = [[rng.getrandbits(16) & kept for _ in range(count)] for _ in range(q_tiles)]
    return Job(queries, keys, low, high, bitmap, scale=rng.randint(0, 65535))


@dataclass
class Surroundings:
    """Commands and words that wait, and a consumer: what they do next is random."""

    jobs: deque[Job]
    words: deque[int]
    rng: random.Random
    readiness: float
    word_offered: bool = False
    closing: int = 0
    """Q tiles whose last column is still to come out."""
    seen: int = 0
    """Tiles taken."""

    def inputs(self) -> Inputs:
        """Of the next cycle; what was offered stays so until it is taken."""
        self.word_offered = bool(self.words) and (self.word_offered or self.rng.random() < 0.7)
        closed = self.closing > 0 and self.rng.random() < 0.3
        ready = self.rng.random() < self.readiness
        command = self.jobs[0] if self.jobs else None
        return Inputs(command, self.words[0] if self.word_offered else None, ready, closed)

    def step(self, inputs: Inputs, ready: bool, wants_word: bool, tile: Tile | None) -> None:
        """Take note of what passed in the cycle."""
        if ready and inputs.command is not None:
            self.jobs.popleft()
        if wants_word and inputs.word is not None:
            self.words.popleft()
            self.word_offered = False
        self.closing -= inputs.closed
        if tile is not None and inputs.ready:
            self.seen += 1
            self.closing += tile["last"]


def apply(ctx: SimulatorContext, unit: Sequencer, inputs: Inputs, rng: random.Random) -> None:
    ctx.set(unit.command.valid, inputs.command is not None)
    if inputs.command is not None:
        ctx.set(unit.command.payload, inputs.command.payload())
    ctx.set(unit.bitmap.valid, inputs.word is not None)
    ctx.set(unit.bitmap.payload, rng.getrandbits(16) if inputs.word is None else inputs.word)
    ctx.set(unit.tiles.ready, inputs.ready)
    ctx.set(unit.closed, inputs.closed)


def check_outputs(ctx: SimulatorContext, unit: Sequencer, model: Model) -> None:
    ready, wants_word, tile = model.outputs()
    assert ctx.get(unit.idle) == ready
    assert ctx.get(unit.command.ready) == ready
    assert ctx.get(unit.bitmap.ready) == wants_word
    assert ctx.get(unit.tiles.valid) == (tile is not None)
    if tile is not None:
        offered = ctx.get(unit.tiles.payload)
        assert {name: offered[name] for name in tile} == tile
    if model.job is not None:
        assert ctx.get(unit.keys) == model.job.keys
        assert ctx.get(unit.scale) == model.job.scale


def compare(parameters: UnitSizes, jobs: list[Job], rng: random.Random, readiness: float) -> int:
    """Run both, cycle by cycle, in the same random surroundings; return the tiles seen."""
    unit, model = Sequencer(parameters), Model(parameters)
    around = Surroundings(deque(jobs), deque(word for job in jobs for word in words(job)), rng, readiness)

    async def run(ctx: SimulatorContext) -> None:
        for _ in range(20_000):
            if not (around.jobs or around.words or around.closing or model.fifo or model.at_work):
                return
            inputs = around.inputs()
            apply(ctx, unit, inputs, rng)
            check_outputs(ctx, unit, model)
            outputs = model.outputs()
            model.step(inputs)
            around.step(inputs, *outputs)
            await ctx.tick()
        pytest.fail("stuck")

    simulate(unit, run)
    return around.seen


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (3, 4), (8, 4), (4, 8), (1, 4)])
def test_tiles_and_cycles_are_those_of_the_contract(rows: int, cols: int) -> None:
    """On random jobs, bitmaps and stalls, every output of every cycle is the model's."""
    rng = random.Random(100 * rows + cols)
    parameters = UnitSizes(rows, cols, head_dim=8, max_keys=300)
    jobs = [random_job(rng, parameters) for _ in range(12)]
    assert compare(parameters, jobs, rng, readiness=0.6) > 20


def test_a_consumer_that_is_always_ready_sees_a_tile_a_cycle() -> None:
    """Command at 0, START 1, WORD 2, SCAN from 3: tile t is pushed at t + 4 and seen at t + 5."""
    unit = Sequencer(UnitSizes(4, 4, head_dim=8, max_keys=64))
    seen: dict[int, int] = {}

    async def run(ctx: SimulatorContext) -> None:
        ctx.set(unit.command.payload, Job(4, 64, -4, 64).payload())
        ctx.set(unit.tiles.ready, 1)
        for cycle in range(30):
            ctx.set(unit.command.valid, cycle == 0)
            if ctx.get(unit.tiles.valid):
                seen[cycle] = ctx.get(unit.tiles.payload.index)
            await ctx.tick()

    simulate(unit, run)
    assert seen == {tile + 5: tile for tile in range(16)}


def test_the_next_command_waits_for_the_last_column() -> None:
    """A command is refused while a Q tile is at work, and taken in the cycle after it closes."""
    unit = Sequencer(UnitSizes(4, 4, head_dim=8, max_keys=64))

    async def run(ctx: SimulatorContext) -> None:
        ctx.set(unit.command.payload, Job(4, 4, -4, 4).payload())
        ctx.set(unit.command.valid, 1)
        ctx.set(unit.tiles.ready, 1)
        assert ctx.get(unit.command.ready) == 1
        for cycle in range(1, 20):
            await ctx.tick()
            assert ctx.get(unit.command.ready) == 0
            ctx.set(unit.closed, cycle == 19)
        await ctx.tick()
        assert ctx.get(unit.command.ready) == 1

    simulate(unit, run)
