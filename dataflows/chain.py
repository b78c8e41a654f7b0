"""Two matmuls as one loop nest, what is between them on chip: fused attention, fused feed-forward networks.

    E[b, m, n2] = f(A[b, m, k] B[b, k, n]) D[b, n, n2]       f: element-wise, or a softmax over n

A *unit* is a piece of the first product's rows that the vector unit makes ready for the second product: its
first ticks stream A B, the last of which `feeds` the ticks that stream f(A B) D. The orders:

| order | a unit is | after the first ticks of a unit come |
|---|---|---|
| `flat` | whole rows, in tiles of n | its second ticks, or the next unit's first ones |
| `flash` | a tile of rows and columns | its second tick |
| `fusemax` | the same | the next unit's first tick, while the vector unit works |
| `fsa` | the same, of the array's size | its second tick; the array does all of the softmax |
| `fused` | a tile, without softmax | as `flat` |

FLAT: Kao et al., ASPLOS 2023. FlashAttention-2: Dao, arXiv:2307.08691. FuseMax: Nayak et al., MICRO 2024.

In tiles, the second product of each tile leaves the array to be added, on the vector unit, to what it has so
far, brought to the new maximum before. What of the softmax an array can do itself: `in_array`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil

from tilewright.dataflows import spill
from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.chain_tiling import ChainTiling
from tilewright.dataflows.in_array import context_tick, keeps_scores, left_over, scores_tick
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.prescribed import prescribed_program
from tilewright.dataflows.program import Program, Tick, merged
from tilewright.dataflows.specs import ChainSpec
from tilewright.dataflows.tiles import Accesses, Moment, Tile, Tiles, VectorWork
from tilewright.dataflows.tiling import pieces


@dataclass(frozen=True, slots=True)
class _Unit:
    """Sizes over all cores, and where in its product a unit stands."""

    batch: int
    rows: int
    cols: int
    first_rows: bool
    first_cols: bool
    last_cols: bool


_Sequence = tuple[tuple["_Unit | _Sequence", int], ...]
"""Units in order, run-length encoded and nested."""


def chain_program(spec: ChainSpec, machine: Machine, tiling: ChainTiling) -> Program:
    """The whole loop nest."""
    if tiling.prescribed is not None:
        return prescribed_program(spec, machine, tiling.prescribed)
    nest = _Nest(spec, machine, tiling)
    units = nest.units()
    ahead = tiling.ahead
    return nest.first(_head(units)) + nest.ahead(units, None) if ahead else nest.in_turn(units)


def _head(units: _Sequence) -> _Unit:
    item = units[0][0]
    return item if isinstance(item, _Unit) else _head(item)


class _Nest:
    def __init__(self, spec: ChainSpec, machine: Machine, tiling: ChainTiling) -> None:
        self.spec, self.machine, self.tiling = spec, machine, tiling
        self.keeps_scores = keeps_scores(tiling.order, machine.array)
        slots = machine.slots
        if self.keeps_scores and slots > 1:
            slots *= 2  # two tiles of B and two of D are loads of four ticks
        first, second = (Tiles(each, machine, tiling.split, slots) for each in (spec.first, spec.second))
        self.tiles = first, second
        self.softmax = left_over(spec.softmax, tiling.order, machine.array)
        self.first = lru_cache(maxsize=None)(self._first)
        self.second = lru_cache(maxsize=None)(self._second)
        self.col_tiles = ceil_div(spec.first.shape.n, tiling.cols)

    def units(self) -> _Sequence:
        """All units: over the batch, over rows, and where units are tiles over columns."""
        shape, tiling = self.spec.first.shape, self.tiling
        step = self.machine.cores if tiling.split == "batch" else 1
        found: list[tuple[_Unit | _Sequence, int]] = []
        for size, times in ((step, shape.batch // step), (shape.batch % step, 1)):
            if size and times:
                found.append((tuple(self._rows(size)), times))
        return tuple(found)

    def _rows(self, batch: int) -> Iterator[tuple[_Unit | _Sequence, int]]:
        shape, tiling = self.spec.first.shape, self.tiling
        for first, _, rows, times in pieces(shape.m, tiling.rows):
            if tiling.by_rows:
                yield _Unit(batch, rows, shape.n, first, True, True), times
            else:
                cols = (
                    (_Unit(batch, rows, cols, first, begins, ends), count)
                    for begins, ends, cols, count in pieces(shape.n, tiling.cols)
                )
                yield tuple(cols), times

    def in_turn(self, units: _Sequence) -> Program:
        """Each unit's first and second ticks."""
        return merged(
            [
                (
                    self.first(item) + self.second(item, 1)
                    if isinstance(item, _Unit)
                    else self.in_turn(item),
                    times,
                )
                for item, times in units
            ]
        )

    def ahead(self, item: _Unit | _Sequence, follows: _Unit | None) -> Program:
        """The first ticks of all units but the first one, and of the one that `follows`, each before the
        second ticks of the unit before it."""
        if isinstance(item, _Unit):
            return self.second(item, 1) if follows is None else self.first(follows) + self.second(item, 2)
        runs: list[tuple[Program, int]] = []
        for number, (inner, times) in enumerate(item):
            head = inner if isinstance(inner, _Unit) else _head(inner)
            after = follows if number + 1 == len(item) else _head((item[number + 1],))
            if times > 1:
                runs.append((self.ahead(inner, head), times - 1))
            runs.append((self.ahead(inner, after), 1))
        return merged(runs)

    def _first(self, unit: _Unit) -> Program:
        """A B for a unit, and what the vector unit makes of it."""
        if self.keeps_scores and unit.first_cols:
            return self._first_by_rows(unit)
        tiles, shape = self.tiles[0], self.spec.first.shape
        runs: list[tuple[Program, int]] = []
        for begins, ends, cols, times in pieces(unit.cols, self.tiling.cols):
            tile = Tile(unit.batch, unit.rows, shape.k, cols)
            loads_b = self.col_tiles > 1 or unit.first_rows
            moment = Moment(unit.first_cols and begins, loads_b, first_k=True, last_k=True)
            tick = tiles.streamed(tile, moment)
            if self.keeps_scores:
                tick = scores_tick(tiles, tick, tile, self.tiling.order)
            tick = spill.in_first(tick, self.machine, self._spilled(unit, cols))
            made = tiles.worked(tick, tile, self._between(tile, unit, ends))
            # A unit has one slot, however many ticks fill it.
            made = replace(made, feeds=ends, middle=True, opens_output=begins, closes_output=ends)
            runs.append(((made,), times))
        return merged(runs)

    def _first_by_rows(self, unit: _Unit) -> Program:
        """The same where A comes in and scores stay in the array: fold by fold, as A arrives."""
        tiles, shape, order = self.tiles[0], self.spec.first.shape, self.tiling.order
        share = self.machine.cores if self.tiling.split == "m" else 1
        loads_b = self.col_tiles > 1 or unit.first_rows
        runs: list[tuple[Program, int]] = []
        for begins, ends, rows, times in pieces(unit.rows, self.machine.array.cols * share):
            tile = Tile(unit.batch, rows, shape.k, unit.cols)
            tick = tiles.streamed(tile, Moment(True, begins and loads_b, first_k=begins, last_k=ends))
            made = tiles.worked(scores_tick(tiles, tick, tile, order), tile, self._between(tile, unit, ends))
            runs.append(((replace(made, feeds=ends, middle=True),), times))
        return merged(runs)

    def _spilled(self, unit: _Unit, cols: int) -> int:
        """Bytes of a tile of scores that lie in DRAM."""
        share = self.tiling.spilled / self.spec.first.shape.n
        return unit.batch * spill.tile_bytes(unit.rows, cols, share, self.spec.second.a.bits)

    def _between(self, tile: Tile, unit: _Unit, ends: bool) -> VectorWork:
        """The tail and the softmax of a tile of scores."""
        softmax, work, sides = self.softmax, self.spec.first.lane_cycles, self.tiles[0].sides(tile)
        cols = tile.n if work or not (self.tiling.by_rows or self.keeps_scores) else 0
        if softmax is None:
            return VectorWork(work, *self._between_accesses(tile, tile.n), sides)
        if not self.tiling.by_rows:
            work += softmax.online + softmax.statistics / tile.n
            return VectorWork(work, *self._between_accesses(tile, cols), sides)
        if ends:
            work += softmax.whole * unit.cols / tile.n
            cols += unit.cols
        return VectorWork(work, *self._between_accesses(tile, cols), sides)

    def _between_accesses(self, tile: Tile, cols: int) -> Accesses:
        """Sums are read where they are added up, operands of the second product written where it reads."""
        machine, core = self.machine, self.tiles[0].core(tile)
        read, write = [0] * machine.buffers, [0] * machine.buffers
        if machine.buffers and cols:
            sides = sum(side.bits for side in self.spec.first.sides)
            read[machine.number("output")] += ceil(core.m * cols * machine.accumulator_bits / 8)
            read[machine.number("input")] += ceil(core.m * core.n * sides / 8)
            write[machine.number("input")] += ceil(core.m * cols * self.spec.second.a.bits / 8)
        return tuple(read), tuple(write)

    def _second(self, unit: _Unit, fed: int) -> Program:
        """f(A B) D for a unit; the tick that it is `fed` by is the last or the last but one that feeds."""
        tiles, shape, tiling = self.tiles[1], self.spec.second.shape, self.tiling
        online = self.spec.softmax is not None and not tiling.by_rows
        runs: list[tuple[Program, int]] = []
        for begins, ends, cols, times in pieces(unit.cols, tiling.cols):
            tile = Tile(unit.batch, unit.rows, cols, shape.n)
            opens, last = unit.first_cols and begins, unit.last_cols and ends
            loads_d = self.col_tiles > 1 or unit.first_rows
            tick = tiles.streamed(
                tile, Moment(False, loads_d, first_k=online or opens, last_k=online or last)
            )
            if self.keeps_scores:
                tick = context_tick(tiles, tick, tile, tiling.order, first=opens, last=last)
            if not last:
                tick = replace(tick, store=None)
            tick = spill.in_second(tick, self.machine, self._spilled(unit, cols))
            tick = self._added_up(tick, tile, online, last)
            runs.append(((replace(tick, fed=fed if begins else 0),), times))
        return merged(runs)

    def _added_up(self, tick: Tick, tile: Tile, online: bool, last: bool) -> Tick:
        """With what the vector unit does to an output tile."""
        tiles, softmax = self.tiles[1], self.softmax
        work = self.spec.second.lane_cycles if last else 0.0
        read, write = tiles.tail(tile) if last else ((0,) * self.machine.buffers,) * 2
        if online and softmax is not None and softmax.rescale:
            work += softmax.rescale + (softmax.finish + softmax.reciprocal / tile.n if last else 0)
            core = tiles.core(tile)
            sums = ceil(core.m * core.n * self.machine.accumulator_bits / 8)
            number = self.machine.number("output")
            times = 1 if self.keeps_scores else 2
            read = tuple(old + times * sums * (i == number) for i, old in enumerate(read))
            write = tuple(old + sums * (i == number) for i, old in enumerate(write))
        sides = tiles.sides(tile) if last else ()
        return tiles.worked(tick, tile, VectorWork(work, read, write, sides))
