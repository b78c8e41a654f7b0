"""The streaming attention unit stepped cycle by cycle: control here, data in `attention_datapath`.

In a cycle, all parts decide by what registers held when it began; then everything moves. No time is computed
anywhere: that the cycles are those of `tilewright.sim.attention_unit` is for tests to show.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

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
from tilewright.sim.attention_beats import Beats, Tensors
from tilewright.sim.attention_datapath import Datapath, Tile
from tilewright.sim.attention_numbers import Ints

_T = TypeVar("_T")


def step_jobs(
    sizes: UnitSizes,
    jobs: Sequence[Job],
    tensors: Sequence[Tensors],
    timing: Timing = IDEAL,
    most_cycles: int = 10**6,
) -> tuple[UnitRun, list[Ints]]:
    """Run jobs on real data: when, and O [queries, D] of each. Raises `RuntimeError` if it takes more
    cycles."""
    unit = _Unit(sizes, jobs, tensors, timing)
    while len(unit.ends) < len(jobs):
        if unit.now >= most_cycles:
            raise RuntimeError(f"not done after {most_cycles:,} cycles")
        unit.step()
    return unit.result()


class _Source(Generic[_T]):
    """Offers items, each after its pause, until it is taken."""

    def __init__(self, items: Iterator[_T], stream: str, timing: Timing) -> None:
        self.items, self.stream, self.timing = items, stream, timing
        self.beat = 0
        self.wait = timing.gap(stream, 0)
        self.offered = next(items, None)

    def step(self, *, ready: bool) -> _T | None:
        """A cycle: what is taken, if anything is."""
        if self.wait:
            self.wait -= 1
            return None
        if not ready or self.offered is None:
            return None
        taken, self.offered = self.offered, next(self.items, None)
        self.beat += 1
        self.wait = self.timing.gap(self.stream, self.beat)
        return taken


class _Input(Generic[_T]):
    """A source and the FIFO behind it. `head` is what can be popped in this cycle."""

    def __init__(self, items: Iterator[_T], stream: str, timing: Timing, depth: int) -> None:
        self.source = _Source(items, stream, timing)
        self.fifo: deque[_T] = deque()
        self.depth = depth

    @property
    def head(self) -> _T | None:
        """What is popped next."""
        return self.fifo[0] if self.fifo else None

    def step(self, *, pop: bool) -> _T | None:
        """A cycle: what is popped."""
        taken = self.source.step(ready=len(self.fifo) < self.depth)
        popped = self.fifo.popleft() if pop and self.fifo else None
        if taken is not None:
            self.fifo.append(taken)
        return popped


class _Unit:
    """Control: counters and flags, named after what they say."""

    def __init__(
        self, sizes: UnitSizes, jobs: Sequence[Job], tensors: Sequence[Tensors], timing: Timing
    ) -> None:
        self.sizes, self.jobs, self.tensors, self.timing = sizes, jobs, tensors, timing
        self.data = Datapath(sizes)
        beats = Beats(sizes, jobs, tensors)
        self.q = _Input(beats.q(), "q", timing, sizes.fifo_depth)
        self.k = _Input(beats.k(), "k", timing, sizes.fifo_depth)
        self.v = _Input(beats.v(), "v", timing, sizes.fifo_depth)
        self.words = _Input(beats.words(), "bitmap", timing, sizes.fifo_depth)
        # The first command is offered in cycle 0; what it would pause for is not looked at.
        self.commands = _Source(iter(range(len(jobs))), "command", timing)
        self.commands.wait = 0
        self.now = 0
        self.sequencer = _Sequencer(sizes)
        self.idle = True
        self.tiles: deque[Tile] = deque()
        self.q_column, self.q_loaded, self.q_free = 0, 0, 2
        self.k_beat, self.banks = 0, sizes.score_banks
        self.in_score: deque[Tile] = deque()  # scored, or about to be
        self.scored = 0
        self.e_key, self.e_rest, self.probabilities = sizes.cols, 0, 2
        self.weighing: Tile | None = None
        self.weighed: deque[Tile] = deque()
        self.weights_ready = 0
        self.v_column, self.v_rest = 0, 0
        self.credit = sizes.output_columns
        self.out: deque[tuple[Ints, bool]] = deque()
        self.entering: list[tuple[Ints, bool]] = []  # written, not yet read
        self.sink_wait, self.out_beat = timing.gap("o", 0), 0
        self.columns: list[Ints] = []
        self.ends: list[int] = []
        self.visited, self.stalls = 0, Counter[str]()
        self.waited, self.missing = 0, ""  # cycles without a K beat, and what was missing in the last one
        self.finished: list[Ints] = []

    def result(self) -> tuple[UnitRun, list[Ints]]:
        """When, and what."""
        self.stalls["fill_drain"] += self.waited
        stalls = {cause: self.stalls[cause] for cause in CAUSES}
        return UnitRun(self.now, tuple(self.ends), self.visited, stalls), self.finished

    def step(self) -> None:
        """A cycle."""
        sizes = self.sizes
        later: list[Callable[[], None]] = []
        k = self._score(later)
        q = self._load_q(later)
        e = self._weigh(later)
        v = self._value(later)
        self._take(later)
        self._sequence(later)
        entered = self.data.step(q, k, e, v)
        # Tokens that reach these ages in the next cycle make a pass possible then.
        k_token, e_token = self.data.k_line.tokens[sizes.cols + 6], self.data.e_line.tokens[6]
        if k_token[0] and k_token[2] == sizes.cols - 1 and k_token[3] == sizes.chunks - 1:
            self.scored += 1
        if e_token[0] and e_token[2] == 0:
            self.weights_ready += 1
        for each in later:
            each()
        self.out.extend(self.entering)
        self.entering = [] if entered is None else [entered]
        self.now += 1

    def _score(self, later: list[Callable[[], None]]) -> tuple[int, int, int, Ints] | None:
        """Pops a K beat, if a tile may be, or is being, scored."""
        sizes, begins = self.sizes, self.k_beat == 0
        tile = self.tiles[0] if self.tiles else None
        missing = self._missing(tile) if begins else ""
        beat = self.k.step(pop=not missing)
        if beat is None or tile is None:
            self.waited, self.missing = self.waited + 1, missing or "input_stall"
            return None
        self.stalls[self.missing] += self.waited
        self.waited = 0
        if begins:
            self.banks -= 1
            self.visited += 1
            self.in_score.append(tile)
            self.data.describe(tile)
            if tile.first:
                self.q_loaded -= 1
        place, (chunk, key) = tile.ordinal % 64, divmod(self.k_beat, sizes.cols)
        self.k_beat = (self.k_beat + 1) % sizes.score_beats
        if not self.k_beat:
            later.append(lambda: self._scored_last(tile))
        return place, key, chunk, beat

    def _missing(self, tile: Tile | None) -> str:
        """What keeps a pass from starting, K beats aside."""
        if tile is None:
            return "prediction_stall"
        if tile.first and not self.q_loaded:
            return "weight_stall"
        return "" if self.banks else "vector_stall"

    def _scored_last(self, tile: Tile) -> None:
        self.tiles.popleft()
        self.q_free += tile.last

    def _load_q(self, later: list[Callable[[], None]]) -> tuple[int, int, Ints] | None:
        beat = self.q.step(pop=self.q_free > 0)
        if beat is None:
            return None
        slot, column, elements = beat
        if column + 1 == self.sizes.head_dim:
            self.q_free -= 1

            def loaded() -> None:
                self.q_loaded += 1

            later.append(loaded)
        return slot, column, elements

    def _weigh(self, later: list[Callable[[], None]]) -> tuple[int, int] | None:
        sizes = self.sizes
        self.e_rest = max(0, self.e_rest - 1)
        if self.scored and self.probabilities and not self.e_rest:
            self.scored -= 1
            self.probabilities -= 1
            self.e_rest, self.e_key = max(sizes.rows, sizes.cols), 0
            self.weighing = self.in_score.popleft()
            self.weighed.append(self.weighing)

            def freed() -> None:
                self.banks += 1

            later.append(freed)
        if self.weighing is None or self.e_key == sizes.cols:
            return None
        self.e_key += 1
        return self.weighing.ordinal % 64, self.e_key - 1

    def _value(self, later: list[Callable[[], None]]) -> tuple[int, int, Ints] | None:
        sizes, begins = self.sizes, self.v_column == 0
        self.v_rest = max(0, self.v_rest - 1)
        tile = self.weighed[0] if self.weighed else None
        may = tile is not None and (
            not begins
            or (
                self.weights_ready > 0
                and not self.v_rest
                and (not tile.last or self.credit >= sizes.head_dim)
            )
        )
        beat = self.v.step(pop=may)
        if beat is None or tile is None:
            return None
        if begins:
            self.weights_ready -= 1
            self.v_rest = sizes.cols
            self.credit -= sizes.head_dim if tile.last else 0
        column = self.v_column
        self.v_column = (self.v_column + 1) % sizes.head_dim
        if not self.v_column:
            later.append(self._valued_last)
        return tile.ordinal % 64, column, beat

    def _valued_last(self) -> None:
        self.weighed.popleft()
        self.probabilities += 1

    def _take(self, later: list[Callable[[], None]]) -> None:
        """The sink takes a column of O."""
        if self.sink_wait:
            self.sink_wait -= 1
            return
        if not self.out:
            return
        column, ends_job = self.out.popleft()
        self.columns.append(column)
        self.out_beat += 1
        self.sink_wait = self.timing.gap("o", self.out_beat)
        if ends_job:
            self.ends.append(self.now)
            self._finish()

        def given_back() -> None:
            self.credit += 1
            self.idle = self.idle or ends_job

        later.append(given_back)

    def _finish(self) -> None:
        """Put a job's columns together."""
        job = self.jobs[len(self.ends) - 1]
        tiles = np.array(self.columns).reshape(-1, self.sizes.head_dim, self.sizes.rows)
        self.finished.append(tiles.swapaxes(1, 2).reshape(-1, self.sizes.head_dim)[: job.queries])
        self.columns = []

    def _sequence(self, later: list[Callable[[], None]]) -> None:
        number = self.commands.step(ready=self.idle)
        sequencer = self.sequencer
        word = self.words.head
        room = len(self.tiles) < TILE_FIFO_DEPTH
        pops, tile = sequencer.step(word, room=room)
        self.words.step(pop=pops)
        if tile is not None:
            later.append(lambda: self.tiles.append(tile))
        if number is not None:
            self.idle = False
            self.stalls["fill_drain"] += self.waited - 1  # but for this cycle, in which it was taken
            self.waited = 1
            job, scale = self.jobs[number], self.tensors[number].scale
            later.append(lambda: sequencer.start(job, scale))


class _Sequencer:
    """The state machine that finds the tiles to visit."""

    def __init__(self, sizes: UnitSizes) -> None:
        self.sizes = sizes
        self.state = "IDLE"
        self.ordinal = self.q_tile = 0
        self.word, self.bits, self.query = 0, 0, 0
        self.held: int | None = None
        self.any = False
        self.job, self.scale = Job(1, 1, 0, 1), 0

    def start(self, job: Job, scale: int) -> None:
        """A command was taken."""
        self.job, self.scale, self.query, self.state = job, scale, 0, "START"

    def step(self, word: int | None, *, room: bool) -> tuple[bool, Tile | None]:
        """A cycle: whether the bitmap's word is popped, and the tile that is pushed."""
        if self.state == "START":
            self._begin()
        elif self.state == "WORD":
            if self.job.bitmap is not None and word is None:
                return False, None
            self.bits = (word if word is not None and self.job.bitmap is not None else 0xFFFF) & self._mask()
            self.state = "SCAN"
            return self.job.bitmap is not None, None
        elif self.state == "SCAN":
            return False, self._scan(room=room)
        return False, None

    def _begin(self) -> None:
        job, cols = self.job, self.sizes.cols
        last_query = min(self.query + self.sizes.rows, job.queries) - 1
        self.lowest = max(0, self.query + job.low) // cols
        self.highest = -(-min(job.keys, last_query + job.high) // cols) - 1
        used = job.bitmap is not None
        empty = self.lowest > self.highest
        self.word = 0 if used or empty else self.lowest // WORD_TILES
        end = -(-job.keys // cols) - 1 if used else 0 if empty else self.highest
        self.last_word = end // WORD_TILES
        self.held, self.any, self.state = None, False, "WORD"

    def _mask(self) -> int:
        tiles = range(WORD_TILES * self.word, WORD_TILES * (self.word + 1))
        return sum(1 << i for i, tile in enumerate(tiles) if self.lowest <= tile <= self.highest)

    def _scan(self, *, room: bool) -> Tile | None:
        if self.bits:
            pushed = None
            if self.held is not None:
                if not room:
                    return None
                pushed = self._tile(last=False)
            self.held = WORD_TILES * self.word + (self.bits & -self.bits).bit_length() - 1
            self.bits &= self.bits - 1
            return pushed
        if self.word < self.last_word:
            self.word, self.state = self.word + 1, "WORD"
            return None
        if not room:
            return None
        pushed = self._tile(last=True)
        self.query += self.sizes.rows
        self.q_tile += 1
        self.state = "START" if self.query < self.job.queries else "IDLE"
        return pushed

    def _tile(self, *, last: bool) -> Tile:
        job, dead = self.job, self.held is None
        made = Tile(
            self.ordinal, self.q_tile, not self.any, last, self.query, (self.held or 0) * self.sizes.cols,
            job.low, job.high, 0 if dead else job.keys, self.scale,
            ends_job=last and self.query + self.sizes.rows >= job.queries,
        )  # fmt: skip
        self.ordinal += 1
        self.any = True
        return made
