"""The ticks of a loop nest by their sizes: full tiles and those at the edges; of all candidates at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.room import Mask
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.systolic import TileCycles, tile_cycles
from tilewright.dataflows.tiling import Split


@dataclass(frozen=True, slots=True)
class Ticks:
    """The ticks of one product that are of one size."""

    count: Ints
    firsts: Ints
    """How many of them begin an output tile."""
    m: Ints
    k: Ints
    n: Ints
    core_m: Ints
    core_k: Ints
    core_n: Ints
    last_k: bool
    """Whether they end an output tile."""
    cycles: TileCycles[Ints]


@dataclass(frozen=True, slots=True)
class Sized:
    """A tick's sizes, and how long the array streams it."""

    m: Ints
    k: Ints
    n: Ints
    stream: Ints


def chosen(first: Mask, one: Sized, other: Sized) -> Sized:
    """The one or the other of each."""
    return Sized(*(np.where(first, *(getattr(each, f) for each in (one, other))) for f in Sized.__slots__))


def grouped_ticks(
    spec: MatmulSpec, machine: Machine, split: Split, tile: tuple[Ints, Ints, Ints]
) -> Iterator[Ticks]:
    """Full tiles and those at the edges; the last one of all comes last."""
    shape = spec.shape
    m_edges, k_edges, n_edges = (
        _edges(extent, size) for extent, size in zip((shape.m, shape.k, shape.n), tile, strict=True)
    )
    for (m_count, m), (last_k, (k_count, k)), (n_count, n) in product(m_edges, enumerate(k_edges), n_edges):
        core_m = ceil_div(m, machine.cores) if split == "m" else m
        core_k = ceil_div(k, machine.cores) if split == "k" else k
        core_n = ceil_div(n, machine.cores) if split == "n" else n
        cycles = tile_cycles(machine.array, core_m, core_k, core_n, structured=spec.structured)
        outputs = m_count * n_count
        firsts = outputs * ((k_edges[0][0] == 0) if last_k else (k_count > 0))
        yield Ticks(outputs * k_count, firsts, m, k, n, core_m, core_k, core_n, bool(last_k), cycles)


def tile_count(extent: int, tile: Ints) -> Ints:
    """Of a dimension."""
    return -(-extent // tile)


def _edges(extent: int, tile: Ints) -> list[tuple[Ints, Ints]]:
    """(count, size) of the full tiles and of the last one."""
    tiles = tile_count(extent, tile)
    return [(tiles - 1, tile), (np.ones_like(tile), extent - (tiles - 1) * tile)]
