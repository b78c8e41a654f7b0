"""What passes through the SimPy machine's units: ticks as events, and accesses to buffers' ports."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from tilewright.dataflows.program import Tick
from tilewright.sim.array_model import ArrayTile, Process


class Job:
    """A tick on its way through the units. Each event's value is the time at which it happened."""

    __slots__ = (
        "array_access", "array_done", "fills", "gone", "input", "predicted", "ready", "released", "shifted",
        "side", "store_access", "streamed", "tick", "vector_access", "weight", "work",
    )  # fmt: skip

    def __init__(self, env: simpy.Environment, tick: Tick) -> None:
        self.tick = tick
        self.weight, self.input, self.side = env.event(), env.event(), env.event()
        self.shifted, self.streamed, self.array_done = env.event(), env.event(), env.event()
        self.predicted = env.event()
        self.ready = env.event() if tick.vector else self.array_done
        self.released = self.ready if tick.side or not tick.array else self.streamed
        self.gone = env.event() if tick.store else self.ready
        self.work: ArrayTile | None = None
        self.fills: list[Access | None] = []
        self.store_access: Access | None = None
        self.array_access: list[Access] = []
        self.vector_access: list[Access] = []

    def nothing_to_load(self) -> None:
        """Have ready from the start what the tick does not load."""
        for event, missing in (
            (self.weight, self.tick.weight is None),
            (self.input, self.tick.input is None),
            (self.side, not self.tick.side),
        ):
            if missing:
                event.succeed(0)


class Port:
    """A buffer's ports: accesses in the order in which they were listed, each from when it is asked for."""

    def __init__(self, env: simpy.Environment, free: int) -> None:
        self.env, self.free = env, free
        self.accesses: list[tuple[int, Access]] = []

    def listed(self, cycles: int) -> Access:
        """A new last access."""
        access = Access(self.env.event(), self.env.event())
        self.accesses.append((cycles, access))
        return access

    def serve(self) -> Process:
        """The process."""
        yield self.env.timeout(self.free)
        for cycles, access in self.accesses:
            yield access.asked
            yield self.env.timeout(cycles)
            self.free = int(self.env.now)
            access.ended.succeed(self.free)


@dataclass(frozen=True, slots=True)
class Access:
    """A use of a buffer's ports: asked for by a unit when it starts, ended by the port."""

    asked: simpy.Event
    ended: simpy.Event
