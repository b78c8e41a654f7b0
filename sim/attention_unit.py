"""The streaming attention unit in SimPy (docs/attention-unit.md): a process a part, and tokens between.

A token (a beat, a tile, a free place) can be taken from a cycle after it was given, as a register's value is
seen. What a part does in a known number of cycles is one event; a stream that pauses goes beat by beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import simpy

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.dataflows.attention_jobs import (
    CAUSES,
    IDEAL,
    TILE_FIFO_DEPTH,
    WORD_TILES,
    Job,
    Timing,
    UnitRun,
)

Process = Generator[simpy.Event, Any, None]
Q_TILES = 2
"""Room in the Q memory."""
PROBABILITY_TILES = 2
"""Tiles of probabilities: one with the value array, one being made."""


def run_jobs(
    sizes: UnitSizes, jobs: Sequence[Job], timing: Timing = IDEAL, *, fast_forward: bool = True
) -> UnitRun:
    """Run jobs one after another.

    With ideal streams each later job finds the unit as the one before did, so equal ones run once; and a
    stretch of tiles that brings all parts back to where they were is repeated without being run.
    """
    if not (timing.ideal and fast_forward):
        return _Machine(sizes, timing, jobs, skip=False).run()
    once = list(dict.fromkeys(jobs[1:]))
    marks = _Machine(sizes, timing, (*jobs[:1], *once), skip=True).marks()
    first, later = marks[0], dict(zip(once, map(_less, marks[1:], marks), strict=True))
    ends, whole = [first.cycles - 1], first
    for job in jobs[1:]:
        whole = _less(whole, later[job], factor=1)
        ends.append(whole.cycles - 1)
    return UnitRun(whole.cycles, tuple(ends), whole.tiles, whole.stalls)


def _less(one: UnitRun, other: UnitRun, factor: int = -1) -> UnitRun:
    """What one has more than the other; or, with 1, both together."""
    stalls = {cause: count + factor * other.stalls[cause] for cause, count in one.stalls.items()}
    return UnitRun(one.cycles + factor * other.cycles, (), one.tiles + factor * other.tiles, stalls)


@dataclass(slots=True)
class _Visit:
    """A K tile on its way, and when it got where."""

    first: bool
    """Of its Q tile."""
    last: bool
    command: int | None
    """When its job was taken; only of a job's first tile."""
    ends_job: bool = False
    pushed: int = -1
    scored: int = -1
    weighed: int = -1
    """When its exponential pass began."""
    valued: int = -1
    """When its value pass began."""


class _Input:
    """A source and its FIFO."""

    def __init__(self, env: simpy.Environment, stream: str, timing: Timing, depth: int) -> None:
        self.env, self.stream, self.timing = env, stream, timing
        self.pauses = timing.pauses(stream)
        if self.pauses:
            self.ready = simpy.Container(env)
            self.room = simpy.Container(env, init=depth)
            env.process(self._source())

    def _source(self) -> Process:
        beat = 0
        while True:
            yield self.env.timeout(self.timing.gap(self.stream, beat) + (beat > 0))
            yield self.room.get(1)
            _give(self.env, self.ready)
            beat += 1

    def beats(
        self, count: int, each: Callable[[int], None] | None = None
    ) -> Generator[simpy.Event, Any, int]:
        """Pop so many, until the cycle of the last one; when the first one was. A source without pauses has
        its first beat there in cycle 1 and never keeps anyone waiting again."""
        if self.env.now < 1:
            yield self.env.timeout(1 - self.env.now)
        if not self.pauses and each is None:
            first = int(self.env.now)
            yield self.env.timeout(count - 1)
            return first
        first = -1
        for beat in range(count):
            if self.pauses:
                yield self.ready.get(1)
                _give(self.env, self.room)
            first = int(self.env.now) if beat == 0 else first
            if each is not None:
                each(beat)
            if beat + 1 < count:
                yield self.env.timeout(1)
        return first


def _give(env: simpy.Environment, tokens: simpy.Container, after: int = 1) -> None:
    """A token that is there so many cycles later."""

    def give(_: simpy.Event) -> None:
        tokens.put(1)

    env.timeout(after).callbacks.append(give)


def _hand(env: simpy.Environment, store: simpy.Store, item: object, after: int) -> None:
    """The same with something in it."""

    def hand(_: simpy.Event) -> None:
        store.put(item)

    env.timeout(after).callbacks.append(hand)


class _Machine:
    """All parts, and what passes between them."""

    def __init__(self, sizes: UnitSizes, timing: Timing, jobs: Sequence[Job], *, skip: bool) -> None:
        self.env = env = simpy.Environment()
        self.sizes, self.timing, self.jobs = sizes, timing, jobs
        self.q, self.k, self.v, self.words = (
            _Input(env, stream, timing, sizes.fifo_depth) for stream in ("q", "k", "v", "bitmap")
        )
        self.idle = simpy.Container(env, init=1)
        self.tile_room = simpy.Container(env, init=TILE_FIFO_DEPTH)
        self.q_room = simpy.Container(env, init=Q_TILES)
        self.q_ready = simpy.Container(env)
        self.banks = simpy.Container(env, init=sizes.score_banks)
        self.probabilities = simpy.Container(env, init=PROBABILITY_TILES)
        self.credit = simpy.Container(env, init=sizes.output_columns)
        self.pushed, self.scored, self.weighed, self.columns = (simpy.Store(env) for _ in range(4))
        self.visits: list[_Visit] = []
        self.ends: list[UnitRun] = []
        self.stalls = Counter[str]()
        self.ended = env.event()
        self.q_busy = self.free = 0
        self.skipped = 0
        self.steady = _Steady(self) if skip else None
        for part in (self._load_q, self._score, self._weigh, self._value, self._take_columns):
            env.process(part())
        env.process(self._command())

    def run(self) -> UnitRun:
        """Until the last job's last beat of O."""
        last = self.marks()[-1]
        return UnitRun(last.cycles, tuple(mark.cycles - 1 for mark in self.ends), last.tiles, last.stalls)

    def marks(self) -> list[UnitRun]:
        """What had been done by each job's last beat of O."""
        self.env.run(self.ended)
        return self.ends

    def _mark(self) -> UnitRun:
        now = int(self.env.now) + 1
        self.stalls["fill_drain"] += now - self.free
        self.free = now
        tiles = len(self.visits) + (self.steady.tiles if self.steady else 0)
        return UnitRun(now + self.skipped, (), tiles, {cause: self.stalls[cause] for cause in CAUSES})

    def _command(self) -> Process:
        for number, job in enumerate(self.jobs):
            if number:
                yield self.env.timeout(1 + self.timing.gap("command", number))
            yield self.idle.get(1)
            taken = int(self.env.now)
            self.env.process(self._sequence(job, taken))

    def _sequence(self, job: Job, taken: int) -> Process:
        """START, WORD and SCAN, a cycle each at least."""
        env, rows = self.env, self.sizes.rows
        count = -(-job.queries // rows)
        for number in range(count):
            yield env.timeout(1)  # START
            finder = _Finder(self.sizes, job, number)
            held, word = _Visit(first=True, last=False, command=None if number else taken), finder.first_word
            found = False
            while word <= finder.last_word:
                yield env.timeout(1)  # WORD
                if job.bitmap is not None:
                    yield from self.words.beats(1)
                yield env.timeout(1)  # SCAN
                if self.steady is not None and found and finder.full(word):
                    word = self.steady.jump(finder, word)
                for _ in range(finder.tiles(word)):
                    if found:
                        yield from self._push(held)
                        held = _Visit(first=False, last=False, command=None)
                    found = True
                    yield env.timeout(1)
                word += 1
            held.last, held.ends_job = True, number + 1 == count
            yield from self._push(held)

    def _push(self, visit: _Visit) -> Process:
        yield self.tile_room.get(1)
        visit.pushed = int(self.env.now)
        self.visits.append(visit)
        _hand(self.env, self.pushed, visit, 1)

    def _load_q(self) -> Process:
        while True:
            yield self.q_room.get(1)
            yield from self.q.beats(self.sizes.head_dim)
            self.q_busy = int(self.env.now) + 1
            _give(self.env, self.q_ready)
            yield self.env.timeout(1)

    def _score(self) -> Process:
        env = self.env
        while True:
            cause, visit = "prediction_stall", (yield self.pushed.get())
            if visit.command is not None:
                self.stalls["fill_drain"] += visit.command - self.free
                self.free = visit.command
            last = int(env.now)
            if visit.first:
                yield self.q_ready.get(1)
                cause = "weight_stall" if env.now > last else cause
                last = int(env.now)
            yield self.banks.get(1)
            cause = "vector_stall" if env.now > last else cause
            last = int(env.now)
            visit.scored = first = yield from self.k.beats(self.sizes.score_beats)
            cause = "input_stall" if first > last else cause
            self.stalls[cause] += first - self.free
            self.stalls["input_stall"] += int(env.now) - first + 1 - self.sizes.score_beats
            self.free = int(env.now) + 1
            _give(env, self.tile_room)
            if visit.last:
                _give(env, self.q_room)
            _hand(env, self.scored, visit, self.sizes.cols + 7)
            yield env.timeout(1)

    def _weigh(self) -> Process:
        """Exponentials."""
        while True:
            visit = yield self.scored.get()
            yield self.probabilities.get(1)
            visit.weighed = int(self.env.now)
            _give(self.env, self.banks)
            _hand(self.env, self.weighed, visit, 7)
            yield self.env.timeout(max(self.sizes.rows, self.sizes.cols))

    def _value(self) -> Process:
        env, sizes = self.env, self.sizes
        while True:
            visit = yield self.weighed.get()
            each: Callable[[int], None] | None = None
            if visit.last:
                yield self.credit.get(sizes.head_dim)
                each = self._column_of(visit)
            visit.valued = yield from self.v.beats(sizes.head_dim, each)
            _give(env, self.probabilities)
            yield env.timeout(max(1, visit.valued + sizes.cols - int(env.now)))

    def _column_of(self, visit: _Visit) -> Callable[[int], None]:
        """Sends a column on its way to the output; whether it is its job's last goes with it."""
        entered = self.sizes.cols + self.sizes.rows + 6

        def send(beat: int) -> None:
            is_end = visit.ends_job and beat + 1 == self.sizes.head_dim
            _hand(self.env, self.columns, is_end, entered + 2)

        return send

    def _take_columns(self) -> Process:
        beat = 0
        while True:
            yield self.env.timeout(self.timing.gap("o", beat) + (beat > 0))
            is_end = yield self.columns.get()
            _give(self.env, self.credit)
            if is_end:
                self.ends.append(self._mark())
                _give(self.env, self.idle)
                if len(self.ends) == len(self.jobs):
                    self.ended.succeed()
            beat += 1


class _Finder:
    """The tiles that a Q tile visits, word by word."""

    def __init__(self, sizes: UnitSizes, job: Job, number: int) -> None:
        start = number * sizes.rows
        last_query = min(start + sizes.rows, job.queries) - 1
        self.low = max(0, start + job.low) // sizes.cols
        self.high = -(-min(job.keys, last_query + job.high) // sizes.cols) - 1
        self.bits = None if job.bitmap is None else job.bitmap[number]
        empty = self.low > self.high
        self.first_word = 0 if self.bits is not None or empty else self.low // WORD_TILES
        end = -(-job.keys // sizes.cols) - 1 if self.bits is not None else 0 if empty else self.high
        self.last_word = end // WORD_TILES

    def tiles(self, word: int) -> int:
        """How many a word holds."""
        start = word * WORD_TILES
        if self.bits is None:
            return max(0, min(self.high, start + WORD_TILES - 1) - max(self.low, start) + 1)
        inside = range(max(self.low, start), min(self.high + 1, start + WORD_TILES))
        return sum(self.bits >> tile & 1 for tile in inside)

    def full(self, word: int) -> bool:
        """Whether it holds as many as there is room for."""
        return self.tiles(word) == WORD_TILES


class _Steady:
    """Finds out, at full words of a Q tile, whether all parts are as they were at an earlier one."""

    def __init__(self, machine: _Machine) -> None:
        self.machine = machine
        self.finder: _Finder | None = None
        self.seen: dict[tuple[int, ...], tuple[int, int, int, Counter[str]]] = {}
        self.tiles = 0

    def jump(self, finder: _Finder, word: int) -> int:
        """The word to go on with: beyond whole periods, if this is one."""
        m, now = self.machine, int(self.machine.env.now)
        if finder is not self.finder:
            self.finder, self.seen = finder, {}
        before = self.seen.setdefault(self._state(now), (word, now, len(m.visits), Counter(m.stalls)))
        distance = word - before[0]
        if not distance or any(not finder.full(w) for w in range(before[0], word)):
            return word
        end = word
        while finder.full(end + 1):
            end += 1
        periods = (end - word) // distance
        self.tiles += periods * (len(m.visits) - before[2])
        for cause, count in (m.stalls - before[3]).items():
            m.stalls[cause] += periods * count
        m.skipped += periods * (now - before[1])
        return word + periods * distance

    def _state(self, now: int) -> tuple[int, ...]:
        """Of all parts, relative to now: all that is to come follows from when each tile got where."""
        m = self.machine
        on_their_way = TILE_FIFO_DEPTH + m.sizes.score_banks + PROBABILITY_TILES + 2
        recent = m.visits[-on_their_way:]
        stages = (t - now if t >= 0 else 1 for v in recent for t in (v.pushed, v.scored, v.weighed, v.valued))
        levels = int(m.credit.level), int(m.q_ready.level)
        return (len(recent), *levels, max(0, m.q_busy - now), *stages)
