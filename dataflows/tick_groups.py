"""The ticks of a loop nest by their sizes: full tiles and those at the edges; of all candidates at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product

import numpy as np

from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.moves import Moves
from tilewright.dataflows.nests import Floats, Mask, Nests
from tilewright.dataflows.systolic import TileCycles, tile_cycles
from tilewright.dataflows.task import Task


@dataclass(frozen=True, slots=True)
class Work:
    """What one tick takes of each unit, in cycles."""

    stream: Ints
    """Of the array, until the next tick may follow."""
    preload: int
    """To shift in B where it is stationary."""
    tail: Ints
    """From the end of an output tile's streaming to that of the vector unit's work on it."""
    a: Floats
    a_latency: Ints
    b: Floats
    b_latency: Ints
    store: Floats
    """Of the DMA engine for each transfer, with a product for each core; and from there to complete loads."""

    def loading(self, loaded: tuple[Mask, Mask]) -> Floats:
        """Cycles of the DMA engine to load A, B or both."""
        return np.where(loaded[0], self.a, 0.0) + np.where(loaded[1], self.b, 0.0)

    def trip(self, loaded: tuple[Mask, Mask]) -> Ints:
        """From free slots to the end of streaming; B comes first, and is shifted in if it is stationary."""
        b_there = np.where(loaded[1] & (self.b > 0), self.b + self.b_latency + self.preload, 0.0)
        a_there = np.where(loaded[0] & (self.a > 0), self.loading(loaded) + self.a_latency, 0.0)
        return floored(np.maximum(a_there, b_there)) + self.stream


@dataclass(frozen=True, slots=True)
class Ticks(Work):
    """The ticks of one round that are of one size."""

    count: Ints
    firsts: Ints
    """How many of them begin an output tile."""
    last_k: bool
    """Whether they end one."""
    m: Ints
    k: Ints
    n: Ints
    core_m: Ints
    core_k: Ints
    core_n: Ints
    cycles: TileCycles[Ints]
    vector: Ints
    """Cycles of the vector unit on an output tile."""
    sides: Floats
    """Cycles of the DMA engine to load what the vector unit needs besides."""
    operands_spared: Floats
    sides_spared: Floats
    """Cycles of those loads for each byte that was prefetched, at most."""


class TickGroups:
    """All ticks of a round, by whether they are the last along m, k and n."""

    def __init__(self, task: Task, nests: Nests, moves: Moves) -> None:
        self._groups = tuple(_groups(task, nests, moves))
        self._m_outer = nests.m_outer
        self._along: dict[tuple[bool, bool, bool], Work] = {}

    def __iter__(self) -> Iterator[Ticks]:
        return iter(self._groups)

    @property
    def full(self) -> Ticks:
        """Those of full tiles, which no other exceeds (unless there are none)."""
        return self._groups[0]

    @property
    def last(self) -> Ticks:
        """The last one of all."""
        return self._groups[-1]

    @cached_property
    def stream(self) -> Ints:
        """Cycles of the array to stream all ticks."""
        return sum((each.count * each.stream for each in self), np.zeros_like(self.full.count))

    def at(self, *, m_last: bool = False, k_last: bool = False, n_last: bool = False) -> Ticks:
        """Those last along these dimensions, and along no other."""
        return self._groups[4 * m_last + 2 * k_last + n_last]

    def along(self, *, outer_last: bool, inner_last: bool, k_last: bool = False) -> Work:
        """The same, by loops."""
        key = outer_last, inner_last, k_last
        if key not in self._along:
            self._along[key] = either(
                self._m_outer,
                self.at(m_last=outer_last, n_last=inner_last, k_last=k_last),
                self.at(m_last=inner_last, n_last=outer_last, k_last=k_last),
            )
        return self._along[key]

    @cached_property
    def a_cycles(self) -> Floats:
        """Of the DMA engine to load all of A once."""
        return self._total([each.count * each.a for each in self._groups[1::2]])

    @cached_property
    def b_cycles(self) -> Floats:
        """The same of B."""
        return self._total([each.count * each.b for each in self._groups[4:]])

    @cached_property
    def side_cycles(self) -> Floats:
        """Of all that the vector unit needs besides, for each output tile."""
        return self._total([each.count * each.sides for each in self if each.last_k])

    @cached_property
    def store_cycles(self) -> Floats:
        """To store the output."""
        return self._total([each.count * each.store for each in self if each.last_k])

    @cached_property
    def vector(self) -> Ints:
        """Cycles of the vector unit."""
        return sum((each.count * each.vector for each in self if each.last_k), np.zeros_like(self.full.count))

    def _total(self, amounts: list[Floats]) -> Floats:
        return sum(amounts, np.zeros(self.full.count.shape))


def floored(amount: Floats) -> Ints:
    """Whole cycles, rounded down."""
    return np.floor(amount).astype(np.int64)


def _groups(task: Task, nests: Nests, moves: Moves) -> Iterator[Ticks]:
    spec, machine, split = task.spec, task.machine, task.split
    shape = spec.shape
    m_edges, k_edges, n_edges = (
        _edges(extent, size) for extent, size in ((shape.m, nests.m), (shape.k, nests.k), (shape.n, nests.n))
    )
    a_moves = [[moves.a(m, k) for _, k in k_edges] for _, m in m_edges]
    b_moves = [[moves.b(k, n) for _, n in n_edges] for _, k in k_edges]
    side_moves = [[moves.sides(m, n) for _, n in n_edges] for _, m in m_edges]
    stores = [[moves.store(m, n) for _, n in n_edges] for _, m in m_edges]
    for at_m, at_k, at_n in product(range(2), repeat=3):
        (m_count, m), (k_count, k), (n_count, n) = m_edges[at_m], k_edges[at_k], n_edges[at_n]
        core_m, core_k, core_n = (
            ceil_div(size, machine.cores) if split == axis else size
            for axis, size in (("m", m), ("k", k), ("n", n))
        )
        outputs = m_count * n_count
        firsts = outputs * ((k_edges[0][0] == 0) if at_k else (k_count > 0))
        cycles = tile_cycles(
            machine.array, core_m, core_k, core_n, structured=spec.structured, by_head=spec.by_head
        )
        vector = _vector(task, core_m * core_n)
        a, b, sides = a_moves[at_m][at_k], b_moves[at_k][at_n], side_moves[at_m][at_n]
        yield Ticks(
            cycles.stream, cycles.preload, cycles.latency + vector,
            a.cycles, a.latency, b.cycles, b.latency, stores[at_m][at_n].cycles,
            outputs * k_count, firsts, bool(at_k), m, k, n, core_m, core_k, core_n, cycles, vector,
            sides.cycles, np.maximum(a.spared, b.spared), sides.spared,
        )  # fmt: skip


def _vector(task: Task, elements: Ints) -> Ints:
    """Cycles of a core's vector unit on an output tile; as `Tiles.worked` has them for one."""
    vector = task.machine.accelerator.vector
    lane_cycles = task.spec.lane_cycles + (task.sharers - 1) * vector.cycles.add
    if not lane_cycles:
        return np.zeros_like(elements)
    work = np.ceil(lane_cycles * ceil_div(elements, task.sharers) / vector.lanes)
    return np.asarray(work).astype(np.int64) + vector.startup_cycles


def _edges(extent: int, tile: Ints) -> list[tuple[Ints, Ints]]:
    """(count, size) of the full tiles and of the last one."""
    tiles = ceil_div(np.asarray(extent), tile)
    return [(tiles - 1, tile), (np.ones_like(tile), extent - (tiles - 1) * tile)]


def either(first: Mask, one: Work, other: Work) -> Work:
    """The one or the other of each row."""
    pairs = [(getattr(one, each.name), getattr(other, each.name)) for each in fields(Work)]
    return Work(*(np.where(first, *pair) if isinstance(pair[0], np.ndarray) else pair[0] for pair in pairs))
