"""How the arrays of all cores spend a tick in the SimPy machine: by known durations.

`tilewright.sim.stepped` has the same interface, with every PE stepped on every clock.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol, cast

import simpy

from tilewright.dataflows.program import Tick

Process = Generator[simpy.Event, object, None]


class ArrayTile(Protocol):
    """A tick in the arrays. Each process ends when what it says has happened; rule 2 of the machine."""

    def shift(self) -> Process:
        """The weight is there: shift the first stationary operand in."""

    def stream(self) -> Process:
        """From the first operand to when the next tick's may follow."""

    def drain(self) -> Process:
        """From there to the last result."""


class Arrays(Protocol):
    """The arrays of all cores."""

    @property
    def shadow(self) -> int:
        """When the shadow registers are free, as far as is known."""

    def tile(self, tick: Tick) -> ArrayTile:
        """The next tick."""


MakeArrays = Callable[[simpy.Environment, int], Arrays]
"""The arrays in an environment, from the time at which the shadow registers are free."""


class TimedArrays:
    """One time-out per part of a tick."""

    def __init__(self, env: simpy.Environment, shadow: int) -> None:
        self._env = env
        self._shadow = happening(env, shadow)

    @property
    def shadow(self) -> int:
        """See `Arrays`."""
        return time_of(self._shadow)

    def tile(self, tick: Tick) -> ArrayTile:
        """See `Arrays`."""
        before, self._shadow = self._shadow, self._env.event()
        return _TimedTile(self._env, tick, before, self._shadow)


class _TimedTile:
    """`before` and `shadow` happen when the tick before and this one have left the shadow registers."""

    def __init__(self, env: simpy.Environment, tick: Tick, before: simpy.Event, shadow: simpy.Event) -> None:
        self._env, self._tick, self._before, self._shadow = env, tick, before, shadow

    def shift(self) -> Process:
        if self._tick.array_preload:
            yield self._before
            yield self._env.timeout(self._tick.array_preload)

    def stream(self) -> Process:
        tick = self._tick
        yield self._env.timeout(tick.array_swap)
        yield self._before
        rest = tick.array - tick.array_swap
        happening(self._env, int(self._env.now) + rest + tick.array_shadow, self._shadow)
        yield self._env.timeout(rest)

    def drain(self) -> Process:
        yield self._env.timeout(self._tick.array_latency)


def happening(env: simpy.Environment, time: int, event: simpy.Event | None = None) -> simpy.Event:
    """An event, or this one, that happens at a time, which is its value."""
    happens = event or env.event()

    def happen() -> Process:
        yield env.timeout(time - env.now)
        happens.succeed(time)

    env.process(happen())
    return happens


def time_of(event: simpy.Event) -> int:
    """When an event happened, which is its value."""
    return cast("int", event.value)
