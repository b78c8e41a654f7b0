"""The whole unit: its numbers are the numpy model's, its cycles those of docs/attention-unit.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.dataflows.attention_jobs import Job as PredictedJob
from tilewright.dataflows.attention_jobs import Timing
from tilewright.dataflows.attention_jobs import UnitRun as PredictedRun
from tilewright.dataflows.attention_unit import cycles
from tilewright.rtl import job as jobs
from tilewright.rtl.cosim_python import PythonSimulator
from tilewright.rtl.job import Job
from tilewright.rtl.model import attention
from tilewright.rtl.parameters import TILE_FIFO_DEPTH, WORD_TILES
from tilewright.rtl.unit import AttentionUnit
from tilewright.rtl.unit_run import Head, UnitRun, random_head, run_heads

Gaps = dict[str, list[int]]


@dataclass
class Fifo:
    """An input FIFO: beats accepted as the source and the room allow, popped when asked."""

    depth: int
    gaps: Sequence[int]
    accepted: list[int] = field(default_factory=list)
    popped: list[int] = field(default_factory=list)

    def pop(self, earliest: int) -> int:
        """The cycle of the next beat's pop."""
        n = len(self.popped)
        accept = (self.accepted[-1] if n else -1) + 1 + (self.gaps[n] if self.gaps else 0)
        if n >= self.depth:
            accept = max(accept, self.popped[n - self.depth] + 1)
        self.accepted.append(accept)
        self.popped.append(max(earliest, accept + 1, self.popped[-1] + 1 if n else 0))
        return self.popped[-1]


@dataclass
class Contract:
    """The cycle rules of docs/attention-unit.md, event by event."""

    parameters: UnitSizes
    gaps: Gaps

    def __post_init__(self) -> None:
        depth = self.parameters.fifo_depth
        self.fifos = {name: Fifo(depth, self.gaps.get(name, [])) for name in ("bitmap", "q", "k", "v")}
        self.commands: list[int] = []
        self.o: list[int] = []
        self.q_ready: list[int] = []
        self.q_released: list[int] = []
        self.a: list[tuple[int, int]] = []  # first and last beat of each tile
        self.e: list[int] = []
        self.b: list[list[int]] = []
        self.last_tiles = 0

    def run(self, todo: Sequence[Job]) -> None:
        """All jobs, one after another."""
        for number, job in enumerate(todo):
            gaps = self.gaps.get("command", [])
            offered = (self.commands[-1] if self.commands else -1) + 1 + (gaps[number] if gaps else 0)
            self.commands.append(max(offered, self.o[-1] + 1 if self.o else 0))
            for seen, first, last in self._tiles(job, self.commands[-1]):
                self._visit(seen, first, last)

    def _tiles(self, job: Job, taken: int) -> Iterator[tuple[int, bool, bool]]:
        """Each tile's (cycle it is seen in, first, last of its Q tile)."""
        cycle = taken + 1
        for q_tile, visits in enumerate(jobs.visited(self.parameters, job)):
            cycle += 1  # START
            held = -1  # the tile found and not pushed, by its place
            words = self._words(job, q_tile)
            for word in words:
                if job.bitmap is not None:
                    cycle = self.fifos["bitmap"].pop(cycle)
                cycle += 1  # WORD
                for visit in visits:
                    if visit.dead or visit.tile // WORD_TILES != word:
                        continue
                    if held >= 0:
                        cycle = self._room(cycle)
                        yield cycle + 1, held == 0, False
                    held += 1
                    cycle += 1
                if word != words[-1]:
                    cycle += 1
            cycle = self._room(cycle)
            yield cycle + 1, held <= 0, True
            cycle += 1

    def _room(self, cycle: int) -> int:
        """The first cycle from `cycle` on in which the tile FIFO takes one more."""
        pushed = len(self.a)
        return max(cycle, self.a[pushed - TILE_FIFO_DEPTH][1] + 1 if pushed >= TILE_FIFO_DEPTH else 0)

    def _words(self, job: Job, q_tile: int) -> list[int]:
        rows, cols = self.parameters.rows, self.parameters.cols
        if job.bitmap is not None:
            return list(range(-(-job.keys // (cols * WORD_TILES))))
        i0 = q_tile * rows
        i1 = min(i0 + rows, job.queries) - 1
        first = max(0, i0 + job.low) // cols
        last = -(-min(job.keys, i1 + job.high) // cols) - 1
        return list(range(first // WORD_TILES, last // WORD_TILES + 1)) if last >= first else [0]

    def _visit(self, seen: int, first: bool, last: bool) -> None:
        p = self.parameters
        if first:
            self._load_queries()
        i = len(self.a)
        start = max(seen, self.q_ready[-1], self.e[i - p.score_banks] + 1 if i >= p.score_banks else 0)
        beats = [self.fifos["k"].pop(start) for _ in range(p.score_beats)]
        self.a.append((beats[0], beats[-1]))
        if last:
            self.q_released.append(beats[-1])
        e = beats[-1] + p.cols + 7
        if i >= 1:
            e = max(e, self.e[-1] + max(p.rows, p.cols))
        if i >= 2:
            e = max(e, self.b[i - 2][-1] + 1)
        self.e.append(e)
        self._values(e + 7, last)

    def _load_queries(self) -> None:
        tile = len(self.q_ready)
        earliest = self.q_released[tile - 2] + 1 if tile >= 2 else 0
        beats = [self.fifos["q"].pop(earliest) for _ in range(self.parameters.head_dim)]
        self.q_ready.append(beats[-1] + 1)

    def _values(self, b: int, last: bool) -> None:
        p = self.parameters
        if self.b:
            b = max(b, self.b[-1][-1] + 1, self.b[-1][0] + p.cols)
        if last:
            returned = (self.last_tiles + 1) * p.head_dim - p.output_columns  # beats of o wanted back
            b = max(b, self.o[returned - 1] + 1 if returned > 0 else 0)
            self.last_tiles += 1
        self.b.append([self.fifos["v"].pop(b) for _ in range(p.head_dim)])
        if last:
            for beat in self.b[-1]:
                self._put(beat + p.cols + p.rows + 6)

    def _put(self, entered: int) -> None:
        gaps = self.gaps.get("o", [])
        ready = (self.o[-1] if self.o else -1) + 1 + (gaps[len(self.o)] if gaps else 0)
        self.o.append(max(entered + 2, ready))


def predicted(parameters: UnitSizes, todo: Sequence[Job], gaps: Gaps) -> PredictedRun:
    """What `dataflows` says, which was written from the same page."""

    def bits(job: Job) -> tuple[int, ...] | None:
        if job.bitmap is None:
            return None
        return tuple(sum(1 << int(tile) for tile in np.flatnonzero(row)) for row in job.bitmap)

    same = [PredictedJob(job.queries, job.keys, job.low, job.high, bits(job)) for job in todo]
    timing = Timing({name: tuple(listed) for name, listed in gaps.items()})
    return cycles(UnitSizes(**asdict(parameters)), same, timing)


def check(parameters: UnitSizes, heads: Sequence[Head], gaps: Gaps) -> UnitRun:
    """Numbers and the cycle of every beat."""
    run = run_heads(PythonSimulator(lambda: AttentionUnit(parameters)), parameters, heads, gaps)
    contract = Contract(parameters, gaps)
    contract.run([head.job for head in heads])
    assert run.trace.taken["command"].tolist() == contract.commands
    for name, fifo in contract.fifos.items():
        assert run.trace.taken[name].tolist() == fifo.accepted, name
    assert run.trace.taken["o"].tolist() == contract.o
    assert run.cycles == contract.o[-1] + 1
    assert run.cycles == predicted(parameters, [head.job for head in heads], gaps).cycles
    visits = len(contract.a)
    assert run.trace.active["score_active"] == visits * parameters.score_beats
    assert run.trace.active["value_active"] == visits * parameters.head_dim
    for head, output in zip(heads, run.outputs, strict=True):
        np.testing.assert_array_equal(output, attention(parameters, head.job, head.q, head.k, head.v))
    return run


def random_job(parameters: UnitSizes, rng: np.random.Generator) -> Job:
    """Any mask, few tiles."""
    queries, keys = int(rng.integers(1, 3 * parameters.rows)), int(rng.integers(1, parameters.max_keys + 1))
    scale = int(rng.integers(0, 1 << 16)) >> int(rng.integers(0, 8))
    kind = rng.integers(5)
    if kind == 0:
        job = Job.full(queries, keys, scale)
    elif kind == 1:
        job = Job.causal(queries, keys, scale)
    elif kind == 2:
        job = Job.window(queries, keys, scale, int(rng.integers(0, 6)), int(rng.integers(0, 6)))
    else:
        low, high = (int(x) for x in rng.integers(-parameters.max_keys, parameters.max_keys + 1, 2))
        job = Job(queries, keys, scale, low, high)
    if rng.random() < 0.5:
        shape = (jobs.tiles(queries, parameters.rows), jobs.tiles(keys, parameters.cols))
        job = job.with_bitmap(rng.random(shape) < rng.choice([0.0, 0.3, 0.8]))
    return job


def random_gaps(parameters: UnitSizes, heads: Sequence[Head], rng: np.random.Generator) -> Gaps:
    """Gaps for each stream: none, some, or many."""
    beats = [jobs.streams(parameters, head.job, head.q, head.k, head.v) for head in heads]
    counts = {
        "command": len(heads),
        "bitmap": sum(len(each.bitmap) for each in beats),
        "q": sum(len(each.q) for each in beats),
        "k": sum(len(each.k) for each in beats),
        "v": sum(len(each.v) for each in beats),
        "o": sum(len(each.q) for each in beats),
    }
    gaps = {}
    for name, count in counts.items():
        chance = rng.choice([0.0, 0.1, 0.6])
        gaps[name] = np.where(rng.random(count) < chance, rng.integers(1, 6, count), 0).tolist()
    gaps["command"][0] = 0  # cycle 0 is that of the first command
    return gaps


SHAPES = [
    UnitSizes(4, 4, head_dim=8, max_keys=48, output_columns=8),
    UnitSizes(3, 4, head_dim=6, max_keys=40, output_columns=10, operand_bits=4, score_banks=4),
    UnitSizes(8, 4, head_dim=4, max_keys=32, output_columns=16, operand_bits=16, fifo_depth=2),
    UnitSizes(4, 8, head_dim=5, max_keys=48, output_columns=5, probability_bits=16),
    UnitSizes(4, 8, head_dim=16, max_keys=64, output_columns=40, exponent_fraction_bits=10),
    UnitSizes(1, 4, head_dim=13, max_keys=64, output_columns=13, exponent_fraction_bits=4),
]


@pytest.mark.parametrize("parameters", SHAPES, ids=lambda p: f"{p.rows}x{p.cols}-{p.head_dim}")
@pytest.mark.parametrize("stalls", [False, True], ids=["ideal", "stalled"])
def test_numbers_and_cycles(parameters: UnitSizes, stalls: bool) -> None:
    """Random jobs back to back: every result, and the cycle of every beat of every stream."""
    rng = np.random.default_rng(parameters.rows * 100 + parameters.head_dim)
    heads = [random_head(parameters, random_job(parameters, rng), rng) for _ in range(3)]
    check(parameters, heads, random_gaps(parameters, heads, rng) if stalls else {})


@pytest.mark.parametrize("operand_bits", [4, 8, 16])
def test_numbers_at_the_edge(operand_bits: int) -> None:
    """Operands that are all least, all greatest, or either by chance, at the greatest scale."""
    parameters = UnitSizes(4, 4, head_dim=8, max_keys=16, output_columns=8, operand_bits=operand_bits)
    low, high = -(1 << (operand_bits - 1)), (1 << (operand_bits - 1)) - 1
    rng = np.random.default_rng(operand_bits)
    job = Job.full(4, 16, (1 << 16) - 1)
    heads = [
        Head(
            job,
            *(
                np.full((count, 8), value, dtype=np.int64)
                for count, value in zip((4, 16, 16), case, strict=True)
            ),
        )
        for case in [(low, low, low), (low, high, high), (high, high, low)]
    ]
    heads.append(Head(job, *(rng.choice([low, high], (count, 8)) for count in (4, 16, 16))))
    check(parameters, heads, {})
