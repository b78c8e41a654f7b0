"""Two matmuls as one loop nest, both cut into tiles that the workload prescribes.

    for each m:                  a block of rows
        for k1, for n1:          first[m, n1] += A[m, k1] B[k1, n1]        one tick per tile
        for k2, for n2:          E[m, n2] += first[m, k2] D[k2, n2]

What the first product makes of a block of rows stays on chip as a whole; its tiles are the second one's A. A
tile of A is loaded once, B and D anew for each block. This is the nest of TileFlow's GEMM chains (Zheng et
al., "TileFlow: A Framework for Modeling Fusion Dataflow via Tree-based Analysis", MICRO 2023;
github.com/pku-liang/TileFlow, AE/validation/accelerator/map/map-gemm.yaml, MIT).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Program, Tick, merged
from tilewright.dataflows.specs import ChainSpec, Sizes
from tilewright.dataflows.systolic import tile_cycles
from tilewright.dataflows.tiles import Moment, Tile, Tiles
from tilewright.dataflows.tiling import pieces


@dataclass(frozen=True, slots=True)
class Prescribed:
    """How a chain is cut that the workload cuts: both products' tiles, which have the same m."""

    first: Sizes
    second: Sizes
    slots: int
    """Of operands."""

    def __str__(self) -> str:
        first, second = ("{} x {} x {}".format(*tile) for tile in (self.first, self.second))
        return f"{first} and {second}, prescribed"


@dataclass(frozen=True, slots=True)
class _At:
    """A tile's place in its product of a block of rows, and what the machine does there."""

    tile: Tile
    first_k: bool
    last_k: bool
    first_n: bool
    last_n: bool

    @property
    def opens(self) -> bool:
        """Whether it is the block's first one of its product."""
        return self.first_k and self.first_n

    @property
    def closes(self) -> bool:
        """Whether it is the last one."""
        return self.last_k and self.last_n


def prescribed_program(spec: ChainSpec, machine: Machine, tiling: Prescribed) -> Program:
    """The whole loop nest."""
    nest = _Nest(spec, machine, tiling)
    blocks = [(nest.block(rows), times) for _, _, rows, times in pieces(spec.first.shape.m, tiling.first[0])]
    return merged([(merged(blocks), spec.first.shape.batch)])


class _Nest:
    def __init__(self, spec: ChainSpec, machine: Machine, tiling: Prescribed) -> None:
        self.sizes = tiling.first, tiling.second
        slots = tiling.slots if machine.slots > 1 else 1
        self.shapes = spec.first.shape, spec.second.shape
        self.works = Tiles(spec.first, machine, "m", slots), Tiles(spec.second, machine, "m", slots)
        self.block = lru_cache(maxsize=None)(self._block)

    def _block(self, rows: int) -> Program:
        """A block of rows: both products."""
        return self._product(0, rows) + self._product(1, rows)

    def _product(self, number: int, rows: int) -> Program:
        _, k_tile, n_tile = self.sizes[number]
        runs: list[tuple[Program, int]] = []
        for first_k, last_k, k, k_times in pieces(self.shapes[number].k, k_tile):
            row: list[tuple[Program, int]] = [
                ((self._tick(number, _At(Tile(1, rows, k, n), first_k, last_k, first_n, last_n)),), times)
                for first_n, last_n, n, times in pieces(self.shapes[number].n, n_tile)
            ]
            runs.append((merged(row), k_times))
        return merged(runs)

    def _tick(self, number: int, at: _At) -> Tick:
        work = self.works[number]
        loads_a = number == 0 and at.first_n
        moment = Moment(loads_a, loads_b=True, first_k=at.first_k, last_k=at.last_k)
        tick = work.streamed(at.tile, moment, work=work.element_wise(at.tile) if at.last_k else None)
        tick = replace(tick, opens_output=at.opens, closes_output=at.closes)
        if number == 0:
            return replace(tick, feeds=at.closes, middle=True)
        return replace(tick, fed=1 if at.opens else 0)


def prescribed_held(spec: ChainSpec, machine: Machine, tiling: Prescribed) -> dict[str, float]:
    """Bits of each operand that are on a core at once: as many tiles of A, B and D as there are slots, one
    block of what the first product makes, and two of the result."""
    (m, k1, n1), (_, k2, n2) = tiling.first, tiling.second
    first, second, acc = spec.first, spec.second, machine.accumulator_bits
    rows, slots = ceil_div(m, machine.cores), tiling.slots
    loads = [k1 * n1 * first.b.bits] * (ceil_div(first.shape.k, k1) * ceil_div(first.shape.n, n1))
    loads += [k2 * n2 * second.b.bits] * (ceil_div(second.shape.k, k2) * ceil_div(second.shape.n, n2))
    loads = loads * (1 + ceil_div(slots, len(loads)))  # the next blocks'
    copied = second.a.bits if first.lane_cycles else 0
    return {
        "input": rows * (slots * k1 * first.a.bits + first.shape.n * copied),
        "weight": max(sum(loads[start : start + slots]) for start in range(len(loads) - slots + 1)),
        "output": rows * (first.shape.n * acc + 2 * second.shape.n * max(acc, second.out.bits)),
    }


def prescribed_streams(spec: ChainSpec, machine: Machine, tiling: Prescribed) -> int:
    """Cycles in which a core's array streams."""
    return sum(
        tile_cycles(machine.array, ceil_div(rows, machine.cores), k, n).stream * times
        for tile, shape in ((tiling.first, spec.first.shape), (tiling.second, spec.second.shape))
        for rows, k, n, times in _tiles(shape.m, shape.k, shape.n, tile)
    )


def _tiles(m: int, k: int, n: int, tile: Sizes) -> Iterator[tuple[int, int, int, int]]:
    """(m, k, n, how many) of a product's tiles."""
    for _, _, rows, m_times in pieces(m, tile[0]):
        for _, _, depth, k_times in pieces(k, tile[1]):
            for _, _, cols, n_times in pieces(n, tile[2]):
                yield rows, depth, cols, m_times * k_times * n_times
