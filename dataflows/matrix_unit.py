"""The matrix unit's cycles (docs/matrix-unit.md): beat by beat for any streams, in one formula for ideal."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tilewright.arch.matrix_unit import MatrixJob, MatrixUnit

REUSE = 4
"""Cycles from one use of an accumulator to the next."""


@dataclass(frozen=True)
class StreamGaps:
    """Cycles that a source waits before it offers beat n, the sink before it takes it; repeated."""

    command: Sequence[int] = (0,)
    x: Sequence[int] = (0,)
    w: Sequence[int] = (0,)
    y: Sequence[int] = (0,)


@dataclass(frozen=True)
class MatrixTiming:
    """When a run's beats moved, in cycles from the first command's offer."""

    commands: list[int]
    x: list[int]
    """When each beat of x went into the array."""
    y: list[int]
    """When each beat of y was taken."""

    @property
    def cycles(self) -> int:
        """Until the last beat of y was taken."""
        return self.y[-1] + 1


def ideal_cycles(unit: MatrixUnit, jobs: Sequence[MatrixJob]) -> int:
    """Cycles of `jobs` (at least one), one after another, with streams that are always ready.

    A pass takes as many cycles as it has rows, or `cols` if it has fewer: so long the next tile of w takes.
    The next command costs a cycle, which a short last pass hides.
    """
    cols = unit.cols
    start = cols + 1
    for job in jobs:
        passes, sizes = job.k_tiles * job.n_tiles, job.block_sizes()
        start += sum(passes * max(size, cols) for size in sizes[:-1]) + (passes - 1) * max(sizes[-1], cols)
        end = start + sizes[-1]
        start = max(end + 1, start + cols)
    return end + cols + unit.rows + 7


def timing(unit: MatrixUnit, jobs: Sequence[MatrixJob], gaps: StreamGaps | None = None) -> MatrixTiming:
    """Every beat of `jobs`, one after another, by the rules of docs/matrix-unit.md."""
    run = _Run(unit, gaps or StreamGaps())
    for job in jobs:
        run.take_command()
        for size in job.block_sizes():
            for _tile in range(job.n_tiles):
                for k_tile in range(job.k_tiles):
                    run.fill()
                    run.stream(size, last_k=k_tile == job.k_tiles - 1)
    return MatrixTiming(run.commands, run.x, run.y)


@dataclass
class _Fifo:
    """An input FIFO: a source with gaps on one side, pops at given times on the other."""

    depth: int
    gaps: Sequence[int]
    accepted: int = -1
    count: int = 0
    pops: deque[int] = field(default_factory=deque)

    def pop(self, earliest: int) -> int:
        """The cycle of the next pop, at `earliest` or later."""
        self.accepted += 1 + self.gaps[self.count % len(self.gaps)]
        if len(self.pops) == self.depth:
            self.accepted = max(self.accepted, self.pops.popleft() + 1)
        time = max(earliest, self.accepted + 1)
        self.pops.append(time)
        self.count += 1
        return time


class _Run:
    def __init__(self, unit: MatrixUnit, gaps: StreamGaps) -> None:
        self.unit = unit
        self.gaps = gaps
        self.x_fifo = _Fifo(unit.fifo_depth, gaps.x)
        self.w_fifo = _Fifo(unit.fifo_depth, gaps.w)
        self.commands: list[int] = []
        self.x: list[int] = []
        self.y: list[int] = []
        self.filled = -1
        self.free = 0
        # Starts of the pass before the last and of the last: none yet, so long ago.
        self.starts = (-unit.cols, -unit.cols)

    def take_command(self) -> None:
        """When the next command is taken."""
        before = self.commands[-1] if self.commands else -1
        offered = before + 1 + self.gaps.command[len(self.commands) % len(self.gaps.command)]
        self.commands.append(max(offered, self.x[-1] + 1 if self.x else 0))

    def fill(self) -> None:
        """Pop the next pass's tile of w."""
        earliest = max(self.filled + 1, self.starts[0] + self.unit.cols)
        for _beat in range(self.unit.cols):
            self.filled = self.w_fifo.pop(earliest)
            earliest = self.filled + 1

    def stream(self, rows: int, *, last_k: bool) -> None:
        """Pop a pass's x beats; with the last k tile their sums go out."""
        earliest = max(self.commands[-1] + 1, self.starts[1] + self.unit.cols, self.filled + 1)
        earliest = max(earliest, self.free)
        first = len(self.x)
        for _beat in range(rows):
            if last_k and len(self.y) >= self.unit.credits:
                earliest = max(earliest, self.y[len(self.y) - self.unit.credits] + 1)
            time = self.x_fifo.pop(earliest)
            self.x.append(time)
            if last_k:
                self._take(time + self.unit.cols + self.unit.rows + 7)
            earliest = time + 1
        self.starts = (self.starts[1], self.x[first])
        self.free = self.x[-1] + max(1, REUSE + 1 - rows)

    def _take(self, earliest: int) -> None:
        """The sink takes the next beat of y, at `earliest` or later."""
        gap = self.gaps.y[len(self.y) % len(self.gaps.y)]
        before = self.y[-1] if self.y else -1
        self.y.append(max(earliest, before + 1 + gap))
