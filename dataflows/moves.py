"""What moving the tiles of many loop nests at once takes of the DMA engine: at least, and as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tilewright.dataflows.arith import Ints
from tilewright.dataflows.nests import Floats
from tilewright.dataflows.program import Transfer
from tilewright.dataflows.specs import Operand
from tilewright.dataflows.task import Task
from tilewright.dataflows.tiles import Tile, Tiles


@dataclass(frozen=True, slots=True)
class Move:
    """Transfers of one kind of tile, one row per loop nest; zeros where nothing has to be moved."""

    cycles: Floats
    """Of the DMA engine."""
    latency: Ints
    """From there to their completion."""
    spared: Floats
    """Cycles for each byte that was prefetched; 0 if it can't be."""


class Moves(Protocol):
    """Sizes of tiles, over all cores, to their transfers."""

    apart: bool
    """Whether stores have a channel of their own."""

    def a(self, m: Ints, k: Ints) -> Move:
        """Of A."""

    def b(self, k: Ints, n: Ints) -> Move:
        """Of B."""

    def sides(self, m: Ints, n: Ints) -> Move:
        """Of all that the vector unit needs beside an output tile."""

    def store(self, m: Ints, n: Ints) -> Move:
        """Of the output."""


class AtPeak:
    """No transfer is faster; all tiles at once. Cycles are not rounded, and those between cores left out."""

    def __init__(self, task: Task) -> None:
        self._task = task
        machine = task.machine
        self._rate, self._latency = machine.peak_moved, machine.dram_latency
        self.apart = False  # all channels together have the peak

    def a(self, m: Ints, k: Ints) -> Move:
        """See `Moves`."""
        return self._move(self._task.spec.a, m * k)

    def b(self, k: Ints, n: Ints) -> Move:
        """See `Moves`."""
        return self._move(self._task.spec.b, k * n)

    def store(self, m: Ints, n: Ints) -> Move:
        """See `Moves`."""
        return self._move(self._task.spec.out, m * n)

    def sides(self, m: Ints, n: Ints) -> Move:
        """See `Moves`."""
        spec, size, early = self._task.spec, np.zeros(m.shape), False
        for each in spec.constants:
            if not each.resident:
                size, early = size + n * each.bits / 8, early or each.early
        for each in spec.sides:
            if not each.resident:
                share = each.elements / (spec.shape.batch * spec.shape.m * spec.shape.n)
                size, early = size + self._task.step * m * n * share * each.bits / 8, early or each.early
        return self._taking(size, early)

    def _move(self, operand: Operand, elements: Ints) -> Move:
        size = self._task.step * elements * (0.0 if operand.resident else operand.bits) / 8
        return self._taking(size, operand.early and not operand.resident)

    def _taking(self, size: Floats, early: bool) -> Move:
        spared = np.full(size.shape, 1 / self._rate if early else 0.0)
        return Move(size / self._rate, np.where(size > 0, self._latency, 0), spared)


class AsTheyAre:
    """What the machine takes for each tile, also between cores; distinct ones are asked for once each."""

    def __init__(self, task: Task) -> None:
        self._batch = task.step
        self.apart = task.machine.accelerator.dma.store_share is not None
        self._answers: defaultdict[str, dict[tuple[int, int], tuple[int, int, float]]] = defaultdict(dict)
        self._tiles = Tiles(task.spec, task.machine, task.split, task.machine.operand_slots)

    def a(self, m: Ints, k: Ints) -> Move:
        """See `Moves`."""
        return self._asked("a", m, k, lambda m, k: [self._tiles.load_a(Tile(self._batch, m, k, 1))])

    def b(self, k: Ints, n: Ints) -> Move:
        """See `Moves`."""
        return self._asked("b", k, n, lambda k, n: [self._tiles.load_b(Tile(self._batch, 1, k, n))])

    def sides(self, m: Ints, n: Ints) -> Move:
        """See `Moves`."""
        return self._asked("sides", m, n, lambda m, n: self._tiles.sides(Tile(self._batch, m, 1, n)))

    def store(self, m: Ints, n: Ints) -> Move:
        """See `Moves`."""
        return self._asked("store", m, n, lambda m, n: [self._tiles.store(Tile(self._batch, m, 1, n))])

    def _asked(
        self, kind: str, first: Ints, second: Ints, transfers: Callable[[int, int], Sequence[Transfer | None]]
    ) -> Move:
        answers, base = self._answers[kind], int(second.max(initial=0)) + 1
        distinct, rows = np.unique(first * base + second, return_inverse=True)
        found = np.empty((distinct.size, 3))
        for index, key in enumerate(distinct.tolist()):
            sizes = divmod(key, base)
            if sizes not in answers:
                answers[sizes] = _in_all([each for each in transfers(*sizes) if each is not None])
            found[index] = answers[sizes]
        cycles, latency, spared = found[rows].T
        return Move(cycles, latency.astype(np.int64), spared)


def _in_all(moved: list[Transfer]) -> tuple[int, int, float]:
    """Cycles, latency, and cycles for each byte that was prefetched, of transfers one after the other."""
    return (
        sum(each.occupancy for each in moved),
        max((each.latency for each in moved), default=0),
        max((each.occupancy / each.bytes for each in moved if each.early), default=0.0),
    )
