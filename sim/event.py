"""The machine in SimPy: a region, piece by piece.

A piece of a program runs in an environment of its own (`tilewright.sim.piece`), from the state in which the
piece before left the units. That is exact because no unit ever takes jobs out of order; so a loop that has
become periodic can be skipped without being run (`dataflows.program.drive`). Time is in cycles.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from tilewright.dataflows.program import Program, Tick, drive, unrolled
from tilewright.sim.array_model import MakeArrays, TimedArrays
from tilewright.sim.piece import Piece
from tilewright.sim.result import Slice
from tilewright.sim.state import State, shifted
from tilewright.sim.tally import Log, Tally


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state at a cut, with what had been counted by then."""

    key: Hashable
    time: int
    counts: tuple[int, ...]
    state: State


@dataclass(frozen=True)
class RegionRun:
    """What a region's run showed."""

    cycles: int
    tally: Tally
    last_array: int
    """When the array's last result was complete (0: none)."""
    last_vector: int
    slices: tuple[Slice, ...]


@dataclass
class EventMachine:
    """Runs one region, piece by piece."""

    buffers: int
    credit_bytes: int
    arrays: MakeArrays = TimedArrays
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        self.state = State(ports=(0,) * self.buffers, credit_bytes=self.credit_bytes)

    def ticks(self, ticks: tuple[Tick, ...]) -> None:
        """Run these, in order."""
        self.state = self._piece(ticks).run()

    def snapshot(self) -> Snapshot:
        """The state up to a shift in time: no job still to come starts before `floor`."""
        s = self.state
        floor = min(s.release, *s.older, s.array if s.behind.array else s.release)
        times = (
            s.dma, s.array, s.vector, s.predictor, s.done, s.release, s.behind_ready, s.behind_side,
            s.leaving_ready, s.leaving_gone, s.stores, *s.older, *s.slots, *s.fed, *s.ports,
        )  # fmt: skip
        relative = tuple(max(0, time - floor) for time in times)
        key = (s.credit_bytes, id(s.behind), id(s.leaving), s.array - s.shadow, relative)
        return Snapshot(key, floor, self.log.tally.values(), s)

    def skip(self, periods: int, since: Snapshot) -> None:
        """Do at once what was done since then, so many times more."""
        now = self.snapshot()
        cycles = periods * (now.time - since.time)
        if self.log.trace and cycles:
            for unit in ("array", "dma", "stores", "vector"):
                free = int(getattr(self.state, unit))
                if free != getattr(since.state, unit):
                    self.log.slices.append(Slice(unit, "steady state", free, free + cycles, max(2, periods)))
        self.log.tally.add(tuple(a - b for a, b in zip(now.counts, since.counts, strict=True)), periods)
        self.state = shifted(since.state, self.state, cycles)

    def finish(self, prefetch: tuple[int, int]) -> RegionRun:
        """Let everything under way come to its end, the prefetch for the next region included."""
        last_array = self.state.behind_ready if self.log.tally.array_busy else 0
        if last_array:
            self.log.tally.fill_drain += last_array - self.state.array
        self.state = self._piece((), prefetch).run()
        s = self.state
        end = max(s.done, s.dma, s.stores, s.vector, *s.ports)
        last_vector = s.vector if self.log.tally.vector_busy else 0
        return RegionRun(end, self.log.tally, last_array, last_vector, tuple(self.log.slices))

    def _piece(self, ticks: tuple[Tick, ...], prefetch: tuple[int, int] | None = None) -> Piece:
        return Piece(self.state, self.log, self.arrays, ticks, prefetch)


def run_region(
    program: Program,
    buffers: int,
    credit_bytes: int,
    prefetch: tuple[int, int],
    *,
    fast_forward: bool = True,
    trace: bool = False,
    arrays: MakeArrays = TimedArrays,
) -> RegionRun:
    """Run one region from its start until everything of it is complete.

    Without `fast_forward` every tick is run, in one environment.
    """
    machine = EventMachine(buffers, credit_bytes, arrays, Log(trace))
    if fast_forward:
        drive(program, machine)
    else:
        machine.ticks(tuple(unrolled(program)))
    return machine.finish(prefetch)
