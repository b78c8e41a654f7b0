"""The `cycle` fidelity's array: every PE stepped on every cycle, on the tile's real data.

It goes into the SimPy machine where `event` has one time-out per tile; all else is the same machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import simpy

from tilewright.dataflows.machine import Machine
from tilewright.dataflows.matmul import Window, windows
from tilewright.dataflows.program import Tick
from tilewright.dataflows.regions import MatmulSpec
from tilewright.dataflows.tiling import Split, Tiling
from tilewright.sim.event import Process
from tilewright.sim.functional import Values
from tilewright.sim.pe_array import PeArray


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
        self.c = np.zeros((shape.batch, shape.m, shape.n), dtype=np.result_type(self.a, self.b))
        self._windows = windows(self.spec, self.machine, self.tiling)

    def work(self, env: simpy.Environment, _tick: Tick) -> Process:
        """One tick: all cores step together until the last is done."""
        running = []
        for part in _shares(next(self._windows), self.tiling.split, self.machine.cores):
            array = PeArray(self.machine.array)
            place = part.batch.start, part.m, part.n
            array.start(
                self.a[part.batch.start, part.m, part.k],
                self.b[part.batch.start, part.k, part.n],
                self.c[place],
            )
            running.append((array, place))
        while sum(array.step() for array, _ in running):  # every core steps, so no any()
            yield env.timeout(1)
        for array, place in running:
            self.c[place] = array.result


def _shares(window: Window, split: Split, cores: int) -> Iterator[Window]:
    """Each core's part of a tile."""
    whole: slice = getattr(window, split)
    extent = whole.stop - whole.start
    step = -(-extent // cores)
    for start in range(whole.start, whole.stop, step):
        part = slice(start, min(start + step, whole.stop))
        yield Window(**{"batch": window.batch, "m": window.m, "k": window.k, "n": window.n, split: part})
