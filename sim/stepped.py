"""The `cycle` fidelity's array: every PE stepped on every cycle, on the tile's real data.

It goes into the SimPy machine where `event` has a few time-outs per tile (`array_model`); all else is the
same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simpy

from tilewright.dataflows.machine import Machine
from tilewright.dataflows.matmul import Window, windows
from tilewright.dataflows.program import Tick
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tiling import Split, Tiling
from tilewright.description.errors import InputError
from tilewright.sim.array_model import Process
from tilewright.sim.functional import Values
from tilewright.sim.pe_array import PeArray, Tile

Place = tuple[int, slice, slice]
"""Batch, rows and columns of a matmul's result."""


@dataclass
class SteppedArray:
    """The arrays of all cores on one matmul. `c` holds the result when the region has run."""

    machine: Machine
    spec: MatmulSpec
    tiling: Tiling
    a: Values
    b: Values

    def __post_init__(self) -> None:
        shape = self.spec.shape
        if self.spec.structured:
            raise InputError(
                "array.structured: `cycle` fidelity steps arrays that multiply zeros; leave it out, or use "
                "fidelity event"
            )
        if self.machine.array.flexible is not None:
            raise InputError(
                "array.flexible: `cycle` fidelity steps systolic arrays, PE by PE; leave it out, or use "
                "fidelity event"
            )
        self.c = np.zeros((shape.batch, shape.m, shape.n), dtype=np.result_type(self.a, self.b))
        self._windows = windows(self.spec, self.machine, self.tiling)
        self._cores = [PeArray(self.machine.array) for _ in range(self.machine.cores)]

    def attach(self, env: simpy.Environment, _shadow: int) -> _Clock:
        """The arrays in an environment in which all ticks of the region run."""
        return _Clock(env, self, self._cores)

    def queue_next(self) -> list[tuple[Tile, Place]]:
        """Hand the next tick's tiles to the cores; where in `c` their results belong."""
        parts = _shares(next(self._windows), self.tiling.split, self.machine.cores)
        queued = []
        for core, part in zip(self._cores, parts, strict=False):
            a, b = self.a[part.batch.start, part.m, part.k], self.b[part.batch.start, part.k, part.n]
            queued.append((core.queue(a, b), (part.batch.start, part.m, part.n)))
        return queued


class _Clock:
    """Steps all cores together, as long as anything moves.

    A clock's registers change halfway between two cycles of the machine's time: after all that happens at the
    cycle's start, and before anything that happens at its end.
    """

    shadow = 0
    """No second piece follows, which would have to know."""

    def __init__(self, env: simpy.Environment, matmul: SteppedArray, cores: list[PeArray]) -> None:
        self._env, self._matmul, self._cores = env, matmul, cores
        self._tiles: list[_SteppedTile] = []
        self._permit = env.event()
        env.process(self._run())

    def tile(self, _tick: Tick) -> _SteppedTile:
        """See `Arrays`."""
        tile = _SteppedTile(self._env, self, self._matmul)
        self._tiles.append(tile)
        return tile

    def wake(self) -> None:
        """A tile was given a permit."""
        if not self._permit.triggered:
            self._permit.succeed()

    def _run(self) -> Process:
        idle = True  # whether a clock without a new permit has just changed nothing
        while True:
            if idle:
                yield self._permit
            self._permit = self._env.event()
            yield self._env.timeout(0.5)
            idle = not self._moving()
            for core in self._cores:
                core.step()
            idle = idle and not self._moving()
            yield self._env.timeout(0.5)
            for tile in self._tiles:
                tile.tell()
            self._tiles = [tile for tile in self._tiles if not tile.done.triggered]

    def _moving(self) -> bool:
        return any(core.moving for core in self._cores)


class _SteppedTile:
    """A tick's tiles on all cores."""

    def __init__(self, env: simpy.Environment, clock: _Clock, matmul: SteppedArray) -> None:
        self._clock, self._c = clock, matmul.c
        self._queued = matmul.queue_next()
        self.shifted, self.streamed, self.done = env.event(), env.event(), env.event()

    def shift(self) -> Process:
        """See `ArrayTile`."""
        for tile, _ in self._queued:
            tile.weight_ready = True
        self._clock.wake()
        if not all(tile.shifted for tile, _ in self._queued):
            yield self.shifted

    def stream(self) -> Process:
        """See `ArrayTile`."""
        for tile, _ in self._queued:
            tile.may_stream = True
        self._clock.wake()
        yield self.streamed

    def drain(self) -> Process:
        """See `ArrayTile`."""
        yield self.done
        for tile, place in self._queued:
            self._c[place] += tile.result

    def tell(self) -> None:
        """Make happen what the last clock brought about."""
        for event, name in ((self.shifted, "shifted"), (self.streamed, "streamed"), (self.done, "done")):
            if not event.triggered and all(getattr(tile, name) for tile, _ in self._queued):
                event.succeed()


def _shares(window: Window, split: Split, cores: int) -> Iterator[Window]:
    """Each core's part of a tile."""
    whole: slice = getattr(window, split)
    extent = whole.stop - whole.start
    step = -(-extent // cores)
    for start in range(whole.start, whole.stop, step):
        part = slice(start, min(start + step, whole.stop))
        yield Window(**{"batch": window.batch, "m": window.m, "k": window.k, "n": window.n, split: part})
