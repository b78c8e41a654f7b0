"""Cycles of the streaming attention unit: the rules of docs/attention-unit.md as a recurrence over tiles, and
in closed form.

Every time is the maximum of times before it plus constants. With ideal streams two shortcuts are exact: a job
like one before takes as long (it finds the unit in the same state, with two Q tiles loaded), and a run of
neighbouring tiles that comes back to a state in which it was before, up to a shift in time, is periodic.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

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

SCORE_LATENCY = 7
"""From a K beat to the row's maximum, besides a cycle for each column."""
EXPONENTIAL_LATENCY = 7
"""From the exponential's start to the first V beat."""
OUTPUT_LATENCY = 8
"""From a V beat to its column being offered, besides a cycle for each row and column."""
_LONG_AGO = -(10**9)


def q_tiles(sizes: UnitSizes, job: Job) -> int:
    """Q tiles of a job."""
    return -(-job.queries // sizes.rows)


def k_tiles(sizes: UnitSizes, job: Job) -> int:
    """K tiles of a job."""
    return -(-job.keys // sizes.cols)


def tile_range(sizes: UnitSizes, job: Job, q_tile: int) -> range:
    """K tiles that the window and the number of keys leave to a Q tile; the bitmap is not looked at."""
    first_query = q_tile * sizes.rows
    last_query = min(first_query + sizes.rows, job.queries) - 1
    end = min(job.keys, last_query + job.high)
    return range(max(0, first_query + job.low) // sizes.cols, max(0, -(-end // sizes.cols)))


def visited(sizes: UnitSizes, job: Job, q_tile: int) -> Sequence[int]:
    """K tiles that a Q tile visits, in order; none at all is a visit of a dead tile."""
    tiles = tile_range(sizes, job, q_tile)
    if job.bitmap is None:
        return tiles
    bits = job.bitmap[q_tile]
    return [tile for tile in tiles if bits >> tile & 1]


def visits(sizes: UnitSizes, job: Job) -> int:
    """K tiles that a job visits, dead ones included."""
    return sum(max(1, len(visited(sizes, job, q))) for q in range(q_tiles(sizes, job)))


def cycles(
    sizes: UnitSizes, jobs: Sequence[Job], timing: Timing = IDEAL, *, fast_forward: bool = True
) -> UnitRun:
    """The recurrence: jobs one after another, with these pauses of the streams."""
    if timing.ideal and fast_forward:
        return _each_kind_once(sizes, jobs)
    unit = _Unit(sizes, timing)
    for job in jobs:
        unit.run(job)
    return unit.result()


def _each_kind_once(sizes: UnitSizes, jobs: Sequence[Job]) -> UnitRun:
    known: dict[tuple[Job, bool], UnitRun] = {}
    ends, tiles, stalls, now = [], 0, Counter[str](), 0
    for number, job in enumerate(jobs):
        key = job, number > 0
        if key not in known:
            unit = _Unit(sizes, IDEAL, loaded=number > 0, skip=True)
            unit.run(job)
            known[key] = unit.result()
        now += known[key].cycles
        ends.append(now - 1)
        tiles += known[key].tiles
        stalls.update(known[key].stalls)
    return UnitRun(now, tuple(ends), tiles, {cause: stalls[cause] for cause in CAUSES})


def least_cycles(sizes: UnitSizes, jobs: Sequence[Job]) -> int:
    """Closed form for ideal streams: fill, a period for each further tile, drain. Never more than the
    recurrence, and equal where `is_exact`."""
    return sum(_job_cycles(sizes, job, first=number == 0) for number, job in enumerate(jobs))


def period(sizes: UnitSizes) -> int:
    """Cycles between tiles that every pair of neighbours keeps: those of the slowest stage."""
    return max(sizes.score_beats, sizes.head_dim, sizes.cols, sizes.rows)


def is_exact(sizes: UnitSizes, job: Job) -> bool:
    """Whether nothing but the slowest stage ever holds a tile up, so that the closed form is exact.

    The score banks, the two tiles of probabilities and the output FIFO must be free again in time, and there
    must be no bitmap, whose words may hold no tile at all.
    """
    every, drain = period(sizes), sizes.head_dim + sizes.cols + sizes.rows + OUTPUT_LATENCY
    fewest = min(max(1, len(visited(sizes, job, q))) for q in range(q_tiles(sizes, job)))
    most = sizes.output_columns // sizes.head_dim
    return (
        job.bitmap is None
        and sizes.score_banks * every >= sizes.score_beats + sizes.cols + SCORE_LATENCY
        and 2 * every >= sizes.head_dim + EXPONENTIAL_LATENCY
        and most * fewest * every >= drain
    )


def _job_cycles(sizes: UnitSizes, job: Job, *, first: bool) -> int:
    """Of a job alone: from its command to its last beat of O, both counted."""
    more = visits(sizes, job) - 1
    start = max(_first_seen(sizes, job), sizes.head_dim + 1 if first else 0)
    banks = more // sizes.score_banks * (sizes.score_beats + sizes.cols + SCORE_LATENCY)
    chain = max(more * period(sizes), banks, more // 2 * (sizes.head_dim + EXPONENTIAL_LATENCY))
    fill = sizes.score_beats - 1 + sizes.cols + SCORE_LATENCY + EXPONENTIAL_LATENCY
    drain = sizes.head_dim - 1 + sizes.cols + sizes.rows + OUTPUT_LATENCY
    return start + fill + chain + drain + 1


def _first_seen(sizes: UnitSizes, job: Job) -> int:
    """When the first tile can be seen: found in the third cycle and pushed in the next one, or when the next
    word has been looked at; a dead one is pushed when nothing is found."""
    tiles = visited(sizes, job, 0)
    if not tiles:
        return 4
    return 7 if job.bitmap is None and len(tiles) > 1 and tiles[1] % WORD_TILES == 0 else 5


class _Input:
    """A stream's FIFO: when its beats can be popped."""

    def __init__(self, stream: str, timing: Timing, depth: int) -> None:
        self._stream, self._timing, self._depth = stream, timing, depth
        self._pauses = timing.pauses(stream)
        self._accepted = self.last = -1
        self._beat = 0
        self._pops = deque([_LONG_AGO] * depth, maxlen=depth)

    def pop(self, earliest: int) -> int:
        """When the next beat is popped; not before this cycle."""
        gap = self._timing.gap(self._stream, self._beat)
        self._accepted = max(self._accepted + 1 + gap, self._pops[0] + 1)
        self.last = max(earliest, self.last + 1, self._accepted + 1)
        self._pops.append(self.last)
        self._beat += 1
        return self.last

    def pops(self, earliest: int, count: int) -> Sequence[int]:
        """When the next beats are popped. Without pauses a FIFO of two or more never keeps anyone waiting."""
        if self._pauses:
            return [self.pop(earliest) for _ in range(count)]
        start = max(earliest, self.last + 1, 1)
        self.last = start + count - 1
        return range(start, start + count)


class _Unit:
    """Where everything stands. Tiles, Q tiles and columns of O count over all jobs."""

    def __init__(self, sizes: UnitSizes, timing: Timing, *, loaded: bool = False, skip: bool = False) -> None:
        self.sizes, self.timing, self.skip = sizes, timing, skip
        self.q, self.k, self.v, self.bitmap = (
            _Input(stream, timing, sizes.fifo_depth) for stream in ("q", "k", "v", "bitmap")
        )
        self.loaded = 2 if loaded else 0  # Q tiles that are there already
        self.last_k = deque([_LONG_AGO] * TILE_FIFO_DEPTH, maxlen=TILE_FIFO_DEPTH)
        self.last_k_of_q = deque([_LONG_AGO] * 2, maxlen=2)
        self.e = deque([_LONG_AGO] * sizes.score_banks, maxlen=sizes.score_banks)
        self.last_v = deque([_LONG_AGO] * 2, maxlen=2)
        self.first_v = _LONG_AGO
        self.columns: list[int] = []  # when each column of O was taken
        self.last_column = -1
        self.scan = self.q_ready = self.command = 0
        self.offered = 0
        self.taken = -1
        self.tiles = 0
        self.ends: list[int] = []
        self.stalls = Counter[str]()

    def result(self) -> UnitRun:
        """After the last job."""
        end = self.last_column + 1
        stalls = {cause: self.stalls[cause] for cause in CAUSES}
        stalls["fill_drain"] += end - self.last_k[-1] - 1
        return UnitRun(end, tuple(self.ends), self.tiles, stalls)

    def run(self, job: Job) -> None:
        """One job."""
        number = len(self.ends)
        offered = self.taken + 1 + self.timing.gap("command", number) if number else 0
        self.taken = max(offered, self.last_column + 1)
        free = self.last_k[-1] + 1 if number else 0
        self.stalls["fill_drain"] += self.taken - free
        self.free, self.scan = self.taken, self.taken + 1
        for q_tile in range(q_tiles(self.sizes, job)):
            self._q_tile(job, q_tile)
        self.ends.append(self.last_column)

    def _q_tile(self, job: Job, q_tile: int) -> None:
        self._load_q()
        tiles, first_word, last_word = _words(self.sizes, job, q_tile)
        use = job.bitmap is not None
        self.scan = self._word(self.scan + 1, use=use)
        self._words_on((tiles[0] // WORD_TILES if tiles else last_word) - first_word, use=use)
        self.scan += 1 if tiles else 0  # the first one is found
        seen: dict[tuple[int, ...], _Mark] = {}
        number, run_ends = 0, _run_ends(tiles) if self.skip else ()
        while number < len(tiles) - 1:
            if self.skip and number and tiles[number] % WORD_TILES == 0:
                number = self._skip(number, run_ends[number], seen)
                if number == len(tiles) - 1:
                    break
            self._words_on(tiles[number + 1] // WORD_TILES - tiles[number] // WORD_TILES, use=use)
            self._tile(self._push(), first=number == 0, last=False)
            number += 1
        self._words_on(last_word - (tiles[-1] // WORD_TILES if tiles else last_word), use=use)
        self._tile(self._push(), first=len(tiles) <= 1, last=True)

    def _load_q(self) -> None:
        if self.loaded:
            self.loaded, self.q_ready = self.loaded - 1, _LONG_AGO
            return
        self.q_ready = self.q.pops(self.last_k_of_q[0] + 1, self.sizes.head_dim)[-1] + 1

    def _word(self, at: int, *, use: bool) -> int:
        """The cycle after a word's; with a bitmap, it waits for it."""
        return (self.bitmap.pop(at) if use else at) + 1

    def _words_on(self, count: int, *, use: bool) -> None:
        """Each takes a cycle to find that nothing is left of the word before, and its own."""
        for _ in range(count):
            self.scan = self._word(self.scan + 1, use=use)

    def _push(self) -> int:
        """The held tile goes into the tile FIFO, in the cycle in which what follows it is known."""
        pushed = max(self.scan, self.last_k[0] + 1)
        self.scan = pushed + 1
        return pushed

    def _tile(self, pushed: int, *, first: bool, last: bool) -> None:
        sizes = self.sizes
        k = self._score(pushed + 1, first=first)
        wide = max(sizes.rows, sizes.cols)
        e = max(k[-1] + sizes.cols + SCORE_LATENCY, self.e[-1] + wide, self.last_v[0] + 1)
        start = max(e + EXPONENTIAL_LATENCY, self.last_v[-1] + 1, self.first_v + sizes.cols)
        if last:
            short = len(self.columns) + sizes.head_dim - sizes.output_columns
            start = max(start, self.columns[short - 1] + 1 if short > 0 else 0)
        v = self.v.pops(start, sizes.head_dim)
        self.last_k.append(k[-1])
        self.e.append(e)
        self.last_v.append(v[-1])
        self.first_v = v[0]
        self.tiles += 1
        if last:
            self.last_k_of_q.append(k[-1])
            self._out(v)

    def _score(self, seen: int, *, first: bool) -> Sequence[int]:
        """The K beats of a tile; what came last is charged with the wait."""
        free, cause = self.free, ""
        waits = {"prediction_stall": seen, "vector_stall": self.e[0] + 1}
        if first:
            waits["weight_stall"] = self.q_ready
        for name in ("prediction_stall", "weight_stall", "vector_stall"):
            if waits.get(name, 0) > free:
                free, cause = waits[name], name
        k = self.k.pops(free, self.sizes.score_beats)
        if k[0] > free:
            free, cause = k[0], "input_stall"
        if cause:
            self.stalls[cause] += free - self.free
        self.stalls["input_stall"] += k[-1] - k[0] + 1 - self.sizes.score_beats
        self.free = k[-1] + 1
        return k

    def _out(self, v: Sequence[int]) -> None:
        latency = self.sizes.cols + self.sizes.rows + OUTPUT_LATENCY
        for beat in v:
            gap = self.timing.gap("o", len(self.columns))
            self.last_column = max(beat + latency, self.last_column + 1 + gap)
            self.columns.append(self.last_column)

    def _skip(self, number: int, run_end: int, seen: dict[tuple[int, ...], _Mark]) -> int:
        """Jump ahead within a run of neighbouring tiles, if this state was there before; the tile to go on
        with."""
        now = self.last_k[-1]
        times = (*self.last_k, *self.e, *self.last_v, self.first_v, self.scan)
        before = seen.setdefault(
            (run_end, *(time - now for time in times)), _Mark(number, now, Counter(self.stalls))
        )
        distance = number - before.number
        periods = (run_end - number) // distance if distance else 0
        if not periods:
            return number
        for cause, count in (self.stalls - before.stalls).items():
            self.stalls[cause] += periods * count
        self._shift(periods * (now - before.time))
        self.tiles += periods * distance
        return number + periods * distance

    def _shift(self, later: int) -> None:
        for times in (self.last_k, self.e, self.last_v):
            times.extend([time + later for time in times])
        self.first_v += later
        self.scan += later
        self.free += later
        self.k.last += later
        self.v.last += later


@dataclass(frozen=True, slots=True)
class _Mark:
    """A state within a run of tiles, and what had been counted by then."""

    number: int
    time: int
    stalls: Counter[str]


def _words(sizes: UnitSizes, job: Job, q_tile: int) -> tuple[Sequence[int], int, int]:
    """Tiles visited, and the first and the last word that is looked at."""
    tiles = visited(sizes, job, q_tile)
    if job.bitmap is not None:
        return tiles, 0, (k_tiles(sizes, job) - 1) // WORD_TILES
    if not tiles:
        return tiles, 0, 0
    return tiles, tiles[0] // WORD_TILES, tiles[-1] // WORD_TILES


def _run_ends(tiles: Sequence[int]) -> list[int]:
    """For each number of a tile, the number of the last one that follows without a hole."""
    breaks: Iterator[int] = (i for i, (a, b) in enumerate(pairwise(tiles)) if b != a + 1)
    ends: list[int] = []
    for last in [*breaks, len(tiles) - 1]:
        ends += [last] * (last + 1 - len(ends))
    return ends
