"""How a chain of two matmuls may be cut, and for each way what it moves and what it can't undercut.

The orders are those of `tilewright.dataflows.chain`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, floor
from typing import Literal

from tilewright.dataflows import spill
from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.in_array import context_time, fits_array, keeps_scores, scores_time
from tilewright.dataflows.machine import SLOTS, Machine
from tilewright.dataflows.prescribed import Prescribed, prescribed_held, prescribed_streams
from tilewright.dataflows.specs import ChainSpec, Operand, Sizes, array_macs, vector_work
from tilewright.dataflows.systolic import tile_cycles
from tilewright.dataflows.tiles import Tile
from tilewright.dataflows.tiling import Split, pieces, sizes


@dataclass(frozen=True, slots=True)
class ChainTiling:
    """How a chain is cut: rows and columns of the first product in a tick, over all cores."""

    rows: int
    cols: int
    order: str
    ahead: bool
    """Whether a unit's first ticks come before the second ones of the unit before it."""
    split: Split
    prescribed: Prescribed | None = None
    """Where the workload says how; `rows` and `cols` are those of the first product's tile then."""
    spilled: int = 0
    """Scores of each row that lie in DRAM."""

    def __str__(self) -> str:
        if self.prescribed is not None:
            return str(self.prescribed)
        ahead = ", one ahead" if self.ahead and self.order != "fusemax" else ""
        spilled = f", {self.spilled} spilled" if self.spilled else ""
        return f"{self.order}, {self.rows} x {self.cols}{ahead}{spilled}"

    @property
    def by_rows(self) -> bool:
        """Whether a unit is all of its rows' columns."""
        return self.order == "flat"

    @property
    def online(self) -> bool:
        """Whether a softmax keeps running maxima and sums."""
        return self.order in ("flash", "fusemax")


def chain_tilings(spec: ChainSpec, machine: Machine) -> list[ChainTiling]:
    """All tilings of the mapper's effort that fit, for all orders that may be tried; where tiles are
    prescribed, that one alone."""
    if spec.tiles is not None:
        return _prescribed(spec, machine, *spec.tiles)
    found: list[ChainTiling] = []
    for split in _splits(spec, machine):
        share = machine.cores if split == "m" else 1
        for order in spec.orders:
            if not fits_array(spec, machine.array, order):
                continue
            ahead = {"fusemax": (True,), "flash": (False,), "fsa": (False,)}.get(order, (False, True))
            found += [
                ChainTiling(r, c, order, lead, split)
                for r, c in _tile_sizes(spec, machine, order, share)
                for lead in ahead
            ]
    fitting = [tiling for tiling in found if _fits(spec, machine, tiling)]
    if machine.accelerator.mapper.flat_spills:
        fitting += _spilling(spec, machine, found)
    return fitting


def _spilling(spec: ChainSpec, machine: Machine, tilings: list[ChainTiling]) -> Iterator[ChainTiling]:
    """Those of whole rows at the array's height, with as few scores in DRAM as there is no room for."""
    for tiling in tilings:
        share = machine.cores if tiling.split == "m" else 1
        if tiling.by_rows and tiling.rows == min(machine.array.rows * share, spec.first.shape.m):
            spilled = spill.least_spilled(partial(_fits_spilling, spec, machine, tiling), spec.first.shape.n)
            if spilled:
                yield replace(tiling, spilled=spilled)


def _fits_spilling(spec: ChainSpec, machine: Machine, tiling: ChainTiling, spilled: int) -> bool:
    return _fits(spec, machine, replace(tiling, spilled=spilled))


_ROW_PARTS = 8
"""Fractions of the array's rows that are tried where a tile holds whole rows of scores."""


def _prescribed(spec: ChainSpec, machine: Machine, first: Sizes, second: Sizes) -> list[ChainTiling]:
    """The prescribed tiling, with as many slots as fit; none if not even two do."""
    for slots in range(max(2, machine.operand_slots), 1, -1):
        how = Prescribed(first, second, slots)
        tiling = ChainTiling(first[0], first[2], "fused", ahead=False, split="m", prescribed=how)
        if _fits(spec, machine, tiling):
            return [tiling]
    return []


def _tile_sizes(spec: ChainSpec, machine: Machine, order: str, share: int) -> list[tuple[int, int]]:
    """(rows, cols) of tiles to try, where `share` cores share the rows out."""
    shape, array, effort = spec.first.shape, machine.array, machine.accelerator.mapper.effort
    found = set(sizes(ceil_div(shape.m, share), array.rows, effort))
    if order == "flat" and effort >= 2:  # so that long rows fit
        found.update(ceil_div(array.rows * part, _ROW_PARTS) for part in range(1, _ROW_PARTS))
    rows = sorted({min(r * share, shape.m) for r in found})
    cols = list(sizes(shape.n, array.cols, effort))
    if not machine.buffers:
        rows, cols = [shape.m], [shape.n]
    if keeps_scores(order, array):
        cols = [min(shape.n, array.rows)]
    if order == "fsa":
        rows = [min(shape.m, array.cols * share)]
    return [(r, c) for r in rows for c in cols]


def _splits(spec: ChainSpec, machine: Machine) -> tuple[Split, ...]:
    """Ways to share a chain among the cores: never the columns, which each row needs all of."""
    if machine.cores == 1:
        return ("m",)
    return ("batch", "m") if spec.first.shape.batch > 1 else ("m",)


def _fits(spec: ChainSpec, machine: Machine, tiling: ChainTiling) -> bool:
    """Whether a core's units have room, in as many slots as are in flight."""
    if tiling.prescribed is not None:
        return _have_room(prescribed_held(spec, machine, tiling.prescribed), machine, slots=1)
    first, second, acc = spec.first, spec.second, machine.accumulator_bits
    rows = ceil_div(tiling.rows, machine.cores) if tiling.split == "m" else tiling.rows
    across = first.shape.n - tiling.spilled if tiling.by_rows else tiling.cols
    across = 0 if keeps_scores(tiling.order, machine.array) else across
    in_place = tiling.by_rows and machine.number("input") == machine.number("output") and second.a.bits <= acc

    def stays(operand: Operand) -> bool:
        return operand.resident and machine.network is None  # else it may come from other cores

    held = {
        "input": (0 if in_place else rows * across * second.a.bits)
        + (0 if stays(first.a) else rows * first.shape.k * first.a.bits)
        + rows * tiling.cols * sum(side.bits for side in first.sides if not stays(side))
        + rows * second.shape.n * sum(side.bits for side in second.sides if not stays(side)),
        "weight": (0 if stays(first.b) else first.shape.k * tiling.cols * first.b.bits)
        + (0 if stays(second.b) else tiling.cols * second.shape.n * second.b.bits)
        + tiling.cols * sum(each.bits for each in first.constants if not each.resident)
        + second.shape.n * sum(each.bits for each in second.constants if not each.resident),
        "output": rows * across * acc + rows * second.shape.n * max(acc, second.out.bits) + 2 * rows * acc,
    }
    return _have_room(held, machine, SLOTS)


def _have_room(held: dict[str, float], machine: Machine, slots: int) -> bool:
    """Whether so many bits of each operand, times `slots`, fit the buffers."""
    needs = [0] * machine.buffers
    if machine.buffers:
        operands: tuple[Literal["input", "weight", "output"], ...] = ("input", "weight", "output")
        for operand in operands:
            needs[machine.number(operand)] += ceil(held[operand] / 8) * slots
    return all(need <= room for need, room in zip(needs, machine.room_bytes, strict=True))


def chain_traffic(spec: ChainSpec, tiling: ChainTiling) -> tuple[int, int]:
    """Bytes read from and written to DRAM, rounded down."""
    first, second = spec.first, spec.second
    streams_again = tiling.prescribed is not None or tiling.cols < first.shape.n
    again = ceil_div(first.shape.m, tiling.rows) if streams_again else 1
    blocks = first.shape.batch * ceil_div(first.shape.m, tiling.rows)
    loads = 0.0 if first.a.resident else first.a.elements * first.a.bits / 8
    for operand in (first.b, second.b):
        loads += 0 if operand.resident else again * operand.elements * operand.bits / 8
    for side in (*first.sides, *second.sides):
        loads += 0 if side.resident else side.elements * side.bits / 8
    for constant in (*first.constants, *second.constants):
        loads += 0 if constant.resident else blocks * constant.elements * constant.bits / 8
    stores = 0.0 if second.out.resident else second.out.elements * second.out.bits / 8
    spilled = spill.all_bytes(spec, tiling.rows, tiling.cols, tiling.spilled)
    return floor(loads) + spill.READS * spilled, floor(stores) + spill.WRITES * spilled


def chain_bound(spec: ChainSpec, machine: Machine, ends: tuple[int, int], tiling: ChainTiling) -> int:
    """Cycles that this tiling can't undercut: what each unit must do in any case.

    `ends`: DMA cycles that prefetching spares the region, and those of its own prefetch for the next.
    """
    loaded, stored = chain_traffic(spec, tiling)
    latency = machine.dram_latency if stored else 0
    dma = max(0, machine.dram_floor(loaded, stored) - ends[0]) + ends[1] + latency
    lanes = machine.cores * machine.accelerator.vector.lanes
    vector = floor(vector_work(spec) / lanes)
    return max(dma, vector + latency, array_cycles(spec, machine, tiling) + latency, 1)


def array_cycles(spec: ChainSpec, machine: Machine, tiling: ChainTiling) -> int:
    """Cycles in which the array streams."""
    if tiling.prescribed is not None:
        streams = spec.first.shape.batch * prescribed_streams(spec, machine, tiling.prescribed)
        return max(streams, -(-array_macs(spec) // machine.accelerator.macs_per_cycle))
    first, second, array, order = spec.first.shape, spec.second.shape, machine.array, tiling.order
    within = keeps_scores(order, array)
    products = ceil_div(first.batch, machine.cores) if tiling.split == "batch" else first.batch
    share = machine.cores if tiling.split == "m" else 1
    cycles = 0
    for _, _, rows, row_times in pieces(first.m, tiling.rows):
        core_rows = ceil_div(rows, share)
        for _, _, cols, times in pieces(first.n, tiling.cols):
            if within:
                one = scores_time(order, array, Tile(1, core_rows, first.k, cols)).cycles
                two = context_time(order, array, Tile(1, core_rows, cols, second.n), last=False).cycles
            else:
                packs = spec.first.structured, spec.second.structured
                one = tile_cycles(array, core_rows, first.k, cols, structured=packs[0]).stream
                two = tile_cycles(array, core_rows, cols, second.n, structured=packs[1]).stream
            cycles += row_times * times * (one + two)
    peak = -(-array_macs(spec) // machine.accelerator.macs_per_cycle)
    return max(products * cycles, peak)
