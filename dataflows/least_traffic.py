"""The fewest bytes that a matmul moves from and to DRAM, over all ways to cut it into tiles that fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor, inf
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tiling import Split

Numbers: TypeAlias = Any
"""One number, or one per machine or candidate (no static type says that arithmetic of the two mixes)."""
EXACT_COUNTS = 64
"""Tile counts of a dimension that are tried one by one; beyond, in steps of an eighth."""


def all_splits(spec: MatmulSpec, cores: int) -> tuple[Split, ...]:
    """Ways to share a matmul among cores, those that the mapper leaves out included."""
    if cores == 1:
        return ("m",)
    return ("m", "n", "k", "batch") if spec.shape.batch > 1 else ("m", "n", "k")


@dataclass(frozen=True, slots=True)
class Rooms:
    """All that the least traffic of a matmul depends on besides the matmul."""

    room_bytes: tuple[int, ...]
    """Of each buffer, for tiles."""
    numbers: tuple[int, int, int]
    """Of the buffers that hold inputs, weights and outputs."""
    slots: tuple[int, int, int]
    """Tiles of each that are there at once."""
    cores: int
    accumulator_bits: int

    @classmethod
    def of(cls, machine: Machine) -> Rooms:
        """A machine's."""
        return cls(
            machine.room_bytes,
            (machine.number("input"), machine.number("weight"), machine.number("output")),
            (machine.operand_slots, machine.operand_slots, machine.slots),
            machine.cores,
            machine.accumulator_bits,
        )


@lru_cache(maxsize=65536)
def least_traffic(spec: MatmulSpec, rooms: Rooms) -> tuple[int, int] | None:
    """Fewest bytes read from DRAM over all cuts of a matmul into tiles that fit, and the bytes written.

    Tiles of any size are allowed, also ones that suit no array. None if not even one element fits.
    """
    written = 0 if spec.out.resident else spec.out.bytes
    if not rooms.room_bytes:
        return _bytes(_reads(spec, 1, 1, 1)), written
    best = inf
    for split in all_splits(spec, rooms.cores):
        (m_tiles, m), (n_tiles, n) = (_cuts(extent) for extent in (spec.shape.m, spec.shape.n))
        m_tiles, n_tiles, m, n = m_tiles[:, None], n_tiles[None, :], m[:, None], n[None, :]
        core_m = ceil_div(m, rooms.cores) if split == "m" else m
        core_n = ceil_div(n, rooms.cores) if split == "n" else n
        core_k = -(-spec.shape.k // rooms.cores) if split == "k" else spec.shape.k
        in_parts = _reads(spec, n_tiles, m_tiles, m_tiles)
        whole = np.minimum(
            _reads(spec, 1, np.where(n_tiles == 1, 1, m_tiles), m_tiles),
            _reads(spec, np.where(m_tiles == 1, 1, n_tiles), 1, m_tiles),
        )
        for reads, k in ((in_parts, 1), (whole, core_k)):
            fits = _fits(spec, rooms, core_m, k, core_n)
            best = min(best, float(np.min(np.where(fits, reads, inf))))
    if best == inf:
        return None
    return _bytes(best), written


def _bytes(amount: Numbers) -> int:
    return floor(float(amount))


@lru_cache(maxsize=4096)
def _cuts(extent: int) -> tuple[Ints, Ints]:
    """Numbers of tiles of a dimension, and the least size of which there are no more than the next number."""
    counts = list(range(1, min(extent, EXACT_COUNTS) + 1))
    while counts[-1] < extent:
        counts.append(min(extent, counts[-1] + counts[-1] // 8))
    limits = np.array([*counts[1:], extent + 1], dtype=np.int64) - 1
    return np.array(counts, dtype=np.int64), -(-extent // limits)


def _reads(spec: MatmulSpec, a_reads: Numbers, b_reads: Numbers, m_tiles: Numbers) -> Numbers:
    """Bytes from DRAM, where A and B are read so many times."""
    loads: Numbers = sum(side.elements * side.bits / 8 for side in spec.sides if not side.resident)
    if not spec.a.resident:
        loads = loads + a_reads * (spec.a.elements * spec.a.bits / 8)
    if not spec.b.resident:
        loads = loads + b_reads * (spec.b.elements * spec.b.bits / 8)
    for constant in spec.constants:
        if not constant.resident:
            loads = loads + spec.shape.batch * m_tiles * constant.elements * constant.bits / 8
    return loads


def _fits(spec: MatmulSpec, rooms: Rooms, m: Ints, k: int, n: Ints) -> NDArray[np.bool_]:
    """Whether a core's tile has room; what may come from other cores is left out."""
    needs = [
        m * k * (0 if spec.a.resident else spec.a.bits)
        + m * n * sum(side.bits for side in spec.sides if not side.resident),
        k * n * (0 if spec.b.resident else spec.b.bits)
        + n * sum(each.bits for each in spec.constants if not each.resident) * np.ones_like(m),
        m * n * max(rooms.accumulator_bits, spec.out.bits),
    ]
    fits = np.ones(np.broadcast_shapes(m.shape, n.shape), dtype=np.bool_)
    for number, room in enumerate(rooms.room_bytes):
        here = [
            np.ceil(need / 8) * slots
            for need, home, slots in zip(needs, rooms.numbers, rooms.slots, strict=True)
            if home == number
        ]
        fits &= sum(here) <= room
    return fits
