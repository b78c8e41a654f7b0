"""Matmul regions: the loop nest of a tiling, tick by tick.

    for b, (m, n) or (n, m), k:   C[b, m, n] += A[b, m, k] B[b, k, n]     one tick per tile
    after the last k:             the element-wise tail on C[b, m, n], then its store

A tile of A or B is loaded when the tick needs another one than the tick before had, unless it stays on chip
(see `Tiling`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Program, Tick, merged
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tiles import Moment, Tile, Tiles
from tilewright.dataflows.tiling import Split, Tiling

Made = dict[tuple[Split, Tile, Moment, tuple[float, float]], Tick]
"""Ticks of one matmul on one machine that several of its nests have."""


def program(spec: MatmulSpec, machine: Machine, tiling: Tiling, made: Made | None = None) -> Program:
    """The whole loop nest. Ticks are taken from those `made` before, and added to them."""
    return _Nest(spec, machine, tiling, {} if made is None else made).over_batch()


class _Nest:
    """Builds the loops from the inside out, each distinct iteration once."""

    def __init__(self, spec: MatmulSpec, machine: Machine, tiling: Tiling, made: Made) -> None:
        self.spec, self.machine, self.tiling, self.made = spec, machine, tiling, made
        self.tiles = Tiles(spec, machine, tiling.split, machine.operand_slots)
        shape = spec.shape
        self.k_tiles = ceil_div(shape.k, tiling.k)
        m_outer = tiling.order == "mn"
        self.outer = (shape.m, tiling.m) if m_outer else (shape.n, tiling.n)
        self.inner = (shape.n, tiling.n) if m_outer else (shape.m, tiling.m)
        self.outer_tiles, self.inner_tiles = ceil_div(*self.outer), ceil_div(*self.inner)

    def over_batch(self) -> Program:
        """All products; cores that share out the batch take one each."""
        batch, step = self.spec.shape.batch, self.machine.cores if self.tiling.split == "batch" else 1
        full, rest = divmod(batch, step)
        return merged(
            [(self.over_outer(size), times) for size, times in ((step, full), (rest, 1)) if size * times]
        )

    def over_outer(self, batch: int) -> Program:
        """One product: its outer tiles."""
        return self._over(
            self.outer, self.outer_tiles, lambda first, _last, size: self.over_inner(batch, first, size)
        )

    def over_inner(self, batch: int, first_outer: bool, outer: int) -> Program:
        """One outer tile: its inner tiles."""
        return self._over(
            self.inner,
            self.inner_tiles,
            lambda first, _last, size: self.over_k(batch, first_outer, outer, first, size),
        )

    def over_k(self, batch: int, first_outer: bool, outer: int, first_inner: bool, inner: int) -> Program:
        """One output tile: its sums over k."""
        several = self.k_tiles > 1 or self.inner_tiles > 1
        reload_outer = first_inner or (self.k_tiles > 1 and not self.tiling.outer_stays)
        reload_inner = first_outer or (several and not self.tiling.inner_stays)
        m_outer = self.tiling.order == "mn"
        loads_a, loads_b = (reload_outer, reload_inner) if m_outer else (reload_inner, reload_outer)
        m, n = (outer, inner) if m_outer else (inner, outer)
        return self._over(
            (self.spec.shape.k, self.tiling.k),
            self.k_tiles,
            lambda first, last, size: (
                self._tick(Tile(batch, m, size, n), Moment(loads_a, loads_b, first, last)),
            ),
        )

    @staticmethod
    def _over(dimension: tuple[int, int], tiles: int, body: Callable[[bool, bool, int], Program]) -> Program:
        """A loop over a dimension's tiles: only its first and last iteration may differ from the others.

        `body(first, last, size)` makes an iteration.
        """
        extent, tile = dimension
        runs = [(body(True, tiles == 1, min(tile, extent)), 1)]
        if tiles > 2:
            runs.append((body(False, False, tile), tiles - 2))
        if tiles > 1:
            runs.append((body(False, True, extent - (tiles - 1) * tile), 1))
        return merged(runs)

    def _tick(self, tile: Tile, moment: Moment) -> Tick:
        key = self.tiling.split, tile, moment, self._stays(tile)
        tick = self.made.get(key)
        if tick is None:
            tick = self.made[key] = self._make_tick(tile, moment, key[3])
        return tick

    def _make_tick(self, tile: Tile, moment: Moment, staying: tuple[float, float]) -> Tick:
        work = self.tiles.element_wise(tile) if moment.last_k else None
        return self.tiles.streamed(tile, moment, staying=staying, work=work)

    def _stays(self, tile: Tile) -> tuple[float, float]:
        """How many times a tile of A, and one of B, stay on chip together; 0 where ordinary slots do."""
        shape, tiling = self.spec.shape, self.tiling
        along_k = shape.k / tile.k
        outer = along_k if tiling.outer_stays else 0.0
        if tiling.order == "mn":
            return outer, along_k * shape.n / tile.n if tiling.inner_stays else 0.0
        return along_k * shape.m / tile.m if tiling.inner_stays else 0.0, outer


@dataclass(frozen=True, slots=True)
class Window:
    """Where a tick's tile lies: half-open ranges of the matmul's indices, all cores together."""

    batch: slice
    m: slice
    k: slice
    n: slice


def windows(spec: MatmulSpec, machine: Machine, tiling: Tiling) -> Iterator[Window]:
    """The ticks' tiles in the order of `program`."""
    shape = spec.shape
    for batch in _slices(shape.batch, machine.cores if tiling.split == "batch" else 1):
        m_slices, n_slices = list(_slices(shape.m, tiling.m)), list(_slices(shape.n, tiling.n))
        pairs = (
            ((m, n) for m in m_slices for n in n_slices)
            if tiling.order == "mn"
            else ((m, n) for n in n_slices for m in m_slices)
        )
        for m, n in pairs:
            for k in _slices(shape.k, tiling.k):
                yield Window(batch, m, k, n)


def _slices(extent: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, extent)) for start in range(0, extent, step))
