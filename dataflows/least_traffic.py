"""The fewest bytes that a matmul moves from and to DRAM, over all ways to cut it into tiles that fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import floor, inf
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tilewright.dataflows.arith import Ints
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
def least_traffic(spec: MatmulSpec, rooms: Rooms) -> tuple[int, int, int] | None:
    """Fewest bytes read from DRAM over all cuts of a matmul into tiles that fit, those of A and B alone, and
    the bytes written.

    Tiles of any size are allowed, also ones that suit no array. None if not even one element fits.
    """
    written = 0 if spec.out.resident else spec.out.bytes
    if not rooms.room_bytes:
        return _bytes(_reads(spec, 1, 1, spec.shape.batch)), _bytes(_operands(spec, 1, 1)), written
    best = operands = inf
    for split in all_splits(spec, rooms.cores):
        (m_tiles, m), (n_tiles, n) = (_cuts(extent) for extent in (spec.shape.m, spec.shape.n))
        m_tiles, n_tiles, m, n = m_tiles[:, None], n_tiles[None, :], m[:, None], n[None, :]
        core_m, all_m = (_share(size, rooms, split == "m") for size in (m, spec.shape.m))
        core_n, all_n = (_share(size, rooms, split == "n") for size in (n, spec.shape.n))
        core_k = _share(spec.shape.k, rooms, split == "k")
        products = _share(spec.shape.batch, rooms, split == "batch")
        slots = rooms.slots[0]
        one_m, one_n = np.where(m_tiles == 1, 1, n_tiles), np.where(n_tiles == 1, 1, m_tiles)
        for a_reads, b_reads, a_held, b_held in (
            # every tile anew
            (n_tiles, m_tiles, slots * core_m, slots * core_n),
            # tiles that are not cut along k: the outer loop's stays in its slot
            (1, one_n, slots * core_m * core_k, slots * core_n * core_k),
            (one_m, 1, slots * core_m * core_k, slots * core_n * core_k),
            # the outer loop's operand stays along k
            (1, m_tiles, core_m * core_k, slots * core_n),
            (n_tiles, 1, slots * core_m, core_n * core_k),
            # and the inner loop's all
            (1, 1, core_m * core_k, all_n * core_k),
            (1, 1, all_m * core_k, core_n * core_k),
        ):
            fits = _fits(spec, rooms, (core_m, core_n), a_held, b_held)
            reads = _reads(spec, a_reads, b_reads, products * m_tiles)
            best = min(best, float(np.min(np.where(fits, reads, inf))))
            alone = _operands(spec, a_reads, b_reads)
            operands = min(operands, float(np.min(np.where(fits, alone, inf))))
    if best == inf:
        return None
    return _bytes(best), _bytes(operands), written


def _share(size: Numbers, rooms: Rooms, shared: bool) -> Numbers:
    """A core's part of a dimension."""
    return -(-size // rooms.cores) if shared else size


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


def _reads(spec: MatmulSpec, a_reads: Numbers, b_reads: Numbers, passes: Numbers) -> Numbers:
    """Bytes from DRAM, where A and B are read so many times, and constants in so many passes over n."""
    loads = _operands(spec, a_reads, b_reads)
    loads = loads + sum(side.elements * side.bits / 8 for side in spec.sides if not side.resident)
    for constant in spec.constants:
        if not constant.resident:
            loads = loads + passes * constant.elements * constant.bits / 8
    return loads


def _operands(spec: MatmulSpec, a_reads: Numbers, b_reads: Numbers) -> Numbers:
    """The bytes of A and B among them."""
    a_bytes = 0 if spec.a.resident else spec.a.elements * spec.a.bits / 8
    b_bytes = 0 if spec.b.resident else spec.b.elements * spec.b.bits / 8
    return a_reads * a_bytes + b_reads * b_bytes


def _fits(
    spec: MatmulSpec, rooms: Rooms, tile: tuple[Ints, Ints], a_held: Numbers, b_held: Numbers
) -> NDArray[np.bool_]:
    """Whether a core has room for so many elements of A and B beside an output tile (m, n); what may come
    from other cores is left out."""
    m, n = tile
    slots = dict(zip(("input", "weight", "output"), rooms.slots, strict=True))
    sides = sum(side.bits for side in spec.sides if not side.resident)
    constants = sum(each.bits for each in spec.constants if not each.resident)
    needs_bits = [
        a_held * (0 if spec.a.resident else spec.a.bits) + slots["input"] * m * n * sides,
        b_held * (0 if spec.b.resident else spec.b.bits) + slots["weight"] * n * constants * np.ones_like(m),
        slots["output"] * m * n * max(rooms.accumulator_bits, spec.out.bits),
    ]
    fits = np.ones(np.broadcast_shapes(m.shape, n.shape), dtype=np.bool_)
    for number, room in enumerate(rooms.room_bytes):
        here = [need for need, home in zip(needs_bits, rooms.numbers, strict=True) if home == number]
        fits &= sum(here) <= room * 8
    return fits
