"""Lower bounds on every candidate tiling of a matmul at once, in numpy.

A bound never exceeds the exact cycles of the same tiling: each counts what one unit must do in any case, plus
what must come before its first job and after its last. The `analytic` fidelity is the least bound over the
candidates; the exact search visits candidates in the order of their bounds and stops when none can win.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.accelerator import Array, Operand
from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.systolic import TileCycles, packed, tile_cycles
from tilewright.dataflows.tiles import SPREAD, stream_counts
from tilewright.dataflows.tiling import Order, Split, Tiling, sizes

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Candidates:
    """Tilings that fit the buffers, as columns, with their bounds in cycles and DRAM traffic in bytes."""

    m: Ints
    k: Ints
    n: Ints
    m_outer: Mask
    split: Split
    bound: Ints
    traffic: Floats

    def tiling(self, index: int) -> Tiling:
        """One of them."""
        order: Order = "mn" if self.m_outer[index] else "nm"
        return Tiling(int(self.m[index]), int(self.k[index]), int(self.n[index]), order, self.split)


def candidates(
    spec: MatmulSpec, machine: Machine, split: Split, ends: tuple[int, int], credit_bytes: int
) -> Candidates:
    """All tilings of the mapper's effort that fit, for one way to share the work among the cores.

    `ends`: DMA cycles that prefetching `credit_bytes` spares the region, and those of its own prefetch for
    the next.
    """
    shape, cores = spec.shape, machine.cores
    m, k, n, m_outer = _grid(spec, machine, split)
    core_m = ceil_div(m, cores) if split == "m" else m
    core_n = ceil_div(n, cores) if split == "n" else n
    core_k = ceil_div(k, cores) if split == "k" else k
    fits = tiles_fit(spec, machine, split, core_m, core_k, core_n)
    m, k, n, m_outer = m[fits], k[fits], n[fits], m_outer[fits]
    products = ceil_div(shape.batch, cores) if split == "batch" else shape.batch
    m_tiles, k_tiles, n_tiles = _tiles(shape.m, m), _tiles(shape.k, k), _tiles(shape.n, n)
    one_k = k_tiles == 1
    a_reads = np.where(one_k & (m_outer | (m_tiles == 1)), 1, n_tiles)
    b_reads = np.where(one_k & (~m_outer | (n_tiles == 1)), 1, m_tiles)
    ticks = list(_ticks(spec, machine, split, (m, k, n)))
    paced, ported, pause, last_array, streams = _array_work(spec, machine, ticks, products)
    operands = _operand_bytes(spec, a_reads, b_reads)
    loads = operands + _side_bytes(spec, m_tiles)
    stores = 0 if spec.out.resident else spec.out.bytes
    last = _last_tile(spec, machine, split, shape.m - (m_tiles - 1) * m, shape.n - (n_tiles - 1) * n)
    first = _first_loads(spec, machine, split, m, k, n)
    starts = np.maximum(first, _first_loads(spec, machine, split, m, k, n, only_b=True) + _preload(machine))
    latency = machine.dram_latency
    dma = np.maximum(_whole((loads + stores) / machine.peak_moved) - ends[0], 0) + ends[1]
    loading, loading_operands = (
        np.maximum(_whole(size / machine.peak_moved) - ends[0], 0) for size in (loads, operands)
    )
    vector = first + _vector_work(spec, machine)
    ports = [_whole(size / width) for size, width in zip(streams, machine.widths, strict=True)]
    after_loads = np.maximum(loading_operands + last_array, loading) + last
    trips = _Trips(spec, machine, split, ticks[0], products)
    prefetched = trips.prefetched(ticks, credit_bytes)
    loaded = (
        ~one_k | np.where(m_outer, n_tiles == 1, m_tiles > 1),
        ~one_k | np.where(m_outer, n_tiles > 1, m_tiles == 1),
    )
    chained = trips.chained(ticks, loaded, prefetched)
    waits = trips.between_outputs((m_outer, one_k, k_tiles >= 3), pause, prefetched)
    work = np.maximum.reduce(
        [paced + waits, ported, chained] if machine.operand_slots <= 2 else [paced, ported]
    )
    moved = dma + (latency if stores else 0)
    if machine.slots == 1:  # loads, array and stores take turns
        moved = moved + products * np.sum([each.count * each.cycles.stream for each in ticks], axis=0)
    bound = np.maximum.reduce([starts + work + last, after_loads, moved, vector, *ports])
    return Candidates(m, k, n, m_outer, split, bound, loads + stores)


def tile_quanta(array: Array) -> tuple[int, int, int]:
    """(m, k, n) of what the array holds at once: of the smallest tile that is tried, where operands are not
    smaller still."""
    return {
        "output_stationary": (array.rows, 1, array.cols),
        "weight_stationary": (1, array.rows, array.cols),
        "input_stationary": (array.cols, array.rows, 1),
    }[array.dataflow]


def _tiles(extent: int, tile: Ints) -> Ints:
    return -(-extent // tile)


def _whole(amount: Floats) -> Ints:
    return np.floor(amount).astype(np.int64)


def splits(spec: MatmulSpec, machine: Machine) -> tuple[Split, ...]:
    """Ways to share a matmul among the cores."""
    if machine.cores == 1:
        return ("m",)
    found: list[Split] = ["m", "n"]
    if spec.shape.batch > 1:
        found.append("batch")
    if not spec.structured:  # whose groups of weights would be cut
        found.append("k")
    return tuple(found)


def _grid(spec: MatmulSpec, machine: Machine, split: Split) -> tuple[Ints, Ints, Ints, Mask]:
    """Every combination of tile sizes and loop order, sizes over all cores."""
    shape, array, effort = spec.shape, machine.array, machine.accelerator.mapper.effort
    quanta = tile_quanta(array)
    shares = tuple(machine.cores if split == each else 1 for each in ("m", "k", "n"))
    axes = []
    group = array.structured.m if spec.structured and array.structured else 1
    groups = (1, group, 1)
    for extent, quantum, share, whole in zip(
        (shape.m, shape.k, shape.n), quanta, shares, groups, strict=True
    ):
        if machine.buffers:
            per_core = [
                ceil_div(size, whole) * whole for size in sizes(ceil_div(extent, share), quantum, effort)
            ]
            axes.append(np.unique(np.minimum(np.array(per_core, dtype=np.int64) * share, extent)))
        else:
            axes.append(np.array([extent], dtype=np.int64))
    orders = np.array([True, False]) if machine.buffers else np.array([True])
    m, k, n, m_outer = (axis.ravel() for axis in np.meshgrid(*axes, orders, indexing="ij"))
    return m, k, n, m_outer


def tiles_fit(spec: MatmulSpec, machine: Machine, split: Split, m: Ints, k: Ints, n: Ints) -> Mask:
    """Whether a core's tile has room in the buffers, in as many slots as are in flight."""
    comes_in = _comes_in(machine, split)
    needs: dict[Operand, Floats] = {
        "input": np.zeros(m.shape),
        "weight": np.zeros(m.shape),
        "output": np.zeros(m.shape),
    }
    needs["input"] += m * k * spec.a.bits if comes_in[0] or not spec.a.resident else 0
    needs["input"] += m * n * sum(side.bits for side in spec.sides if comes_in[2] or not side.resident)
    needs["weight"] += k * n * spec.b.bits if comes_in[1] or not spec.b.resident else 0
    needs["weight"] += n * sum(each.bits for each in spec.constants if not each.resident)
    needs["output"] += m * n * max(machine.accumulator_bits, spec.out.bits)
    fits = np.ones(m.shape, dtype=np.bool_)
    for number, room in enumerate(machine.room_bytes):
        here = [
            np.ceil(need / 8) * (machine.slots if operand == "output" else machine.operand_slots)
            for operand, need in needs.items()
            if machine.number(operand) == number
        ]
        fits &= sum(here) <= room
    return fits


def _comes_in(machine: Machine, split: Split) -> tuple[bool, bool, bool]:
    """Whether tiles of A, B and the tail's operands come from other cores where they stay on chip."""
    if machine.network is None:
        return False, False, False
    spread = SPREAD[split]
    return spread.a is not None, spread.b is not None, spread.out is not None


@dataclass(frozen=True, slots=True)
class _Ticks:
    """The ticks of one product that are of one size."""

    count: Ints
    m: Ints
    k: Ints
    n: Ints
    core_m: Ints
    core_k: Ints
    core_n: Ints
    last_k: bool
    """Whether they end an output tile."""
    cycles: TileCycles[Ints]


def _ticks(
    spec: MatmulSpec, machine: Machine, split: Split, tile: tuple[Ints, Ints, Ints]
) -> Iterator[_Ticks]:
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
        count = m_count * k_count * n_count
        yield _Ticks(count, m, k, n, core_m, core_k, core_n, bool(last_k), cycles)


def _array_work(
    spec: MatmulSpec, machine: Machine, ticks: list[_Ticks], products: int
) -> tuple[Ints, Ints, Ints, Ints, list[Floats]]:
    """Cycles of the array from its first operand to its last result, as the array itself and as its ports
    pace it; those that the shadow registers hold up one tick at most; those of the last tick alone; and bytes
    of its streams through each buffer of a core.

    The shadow registers do not hold up one tick, the first or the last. A tick's streams hold the ports while
    it runs, so it takes at least as long as they do.
    """
    paced = ported = pause = last_ported = last = np.zeros_like(ticks[0].count)
    streamed = [np.zeros(paced.shape) for _ in range(machine.buffers)]
    for each in ticks:
        cycles = each.cycles
        last_ported, last = cycles.stream, cycles.stream + cycles.latency
        for number, size in enumerate(_stream_bytes(spec, machine, each.core_m, each.core_k, each.core_n)):
            streamed[number] += each.count * size
            port = _whole(size / machine.widths[number])
            last_ported, last = np.maximum(last_ported, port), np.maximum(last, port)
        held_up = np.maximum(cycles.preload + cycles.shadow - cycles.swap, 0)
        pause = np.maximum(pause, np.where(each.count > 0, held_up, 0))
        paced = paced + each.count * (cycles.stream + held_up)
        ported = ported + each.count * last_ported
    paced = paced * products - pause + ticks[-1].cycles.latency
    ported = ported * products - last_ported + last
    return paced, ported, pause, last, [size * products for size in streamed]


class _Trips:
    """What a tick waits for because its operands go into the slots of two ticks before: once those have been
    streamed, these are loaded and then streamed. Where the vector unit has loads of its own, slots are free
    only after its work on the output tile.

    `full` is the size of the tile as such, which none exceeds. Every amount here is a sum of durations, none
    of them taken off, so that a faster machine never has a higher bound.
    """

    def __init__(self, spec: MatmulSpec, machine: Machine, split: Split, full: _Ticks, products: int) -> None:
        self._spec, self._machine, self._full, self._products = spec, machine, full, products
        self._batch = min(machine.cores, spec.shape.batch) if split == "batch" else 1
        self._sharers = machine.cores if split == "k" else 1
        self._has_sides = not all(each.resident for each in (*spec.sides, *spec.constants))

    def chained(self, ticks: list[_Ticks], loaded: tuple[Mask, Mask], prefetched: Ints) -> Ints:
        """Cycles of all ticks: they form two chains, one of every other tick, the longer of which is at least
        half of both. The first two ticks and the prefetched ones are left out."""
        spec, full = self._spec, self._full
        outputs = (spec.shape.m // full.m) * (spec.shape.n // full.n) * self._products
        left_out = prefetched + 2
        total = -left_out * self._trip(full, loaded)
        for each in ticks:
            total = total + each.count * self._products * self._trip(each, loaded)
        tails = -2 * self._tail(full)
        for each in ticks:
            if each.last_k:
                tails = tails + each.count * self._products * self._tail(each)
        total = total + np.where((outputs >= 2) & (self._size(full, loaded) > 0), tails, 0)
        return np.where(outputs * (spec.shape.k // full.k) >= left_out, total // 2, 0)

    def between_outputs(self, nest: tuple[Mask, Mask, Mask], pause: Ints, prefetched: Ints) -> Ints:
        """Cycles that the array waits between full output tiles, where the slots of the last tick of one are
        loaded for the second tick of the next, and the array has only that one's first to do meanwhile. With
        one tick along k, so do the last tick but one of an outer tile and the first of the next.

        `nest`: whether m is the outer loop, and whether there is one tick along k, or three or more.
        """
        m_outer, one_k, many_k = nest
        shape, full = self._spec.shape, self._full
        tiles = shape.m // full.m, shape.n // full.n
        outer, inner = np.where(m_outer, *tiles), np.where(m_outer, *tiles[::-1])
        places = np.where(many_k, outer * (inner - 1), np.where(one_k & (inner > 1), outer - 1, 0))
        trip = self._trip(full, (np.ones_like(m_outer), np.ones_like(m_outer)))
        idle = self._tail(full) + trip - 2 * full.cycles.stream - 2 * pause
        count = np.maximum(places * self._products - prefetched, 0)
        return count * np.where(trip > 0, np.maximum(idle, 0), 0)

    def prefetched(self, ticks: list[_Ticks], credit_bytes: int) -> Ints:
        """How many ticks' loads so many bytes can spare, in part or whole."""
        least = np.full(self._full.count.shape, np.inf)
        for each in ticks:
            for operand, elements in ((self._spec.a, each.m * each.k), (self._spec.b, each.k * each.n)):
                if operand.early:
                    size = self._batch * elements * operand.bits / 8
                    least = np.where(each.count > 0, np.minimum(least, size), least)
        return np.ceil(credit_bytes / least).astype(np.int64)

    def _size(self, each: _Ticks, loaded: tuple[Mask, Mask]) -> Floats:
        """Bytes that a tick loads for the array."""
        size = np.zeros(each.count.shape)
        if not self._spec.a.resident:
            size += np.where(loaded[0], self._batch * each.m * each.k * self._spec.a.bits / 8, 0)
        if not self._spec.b.resident:
            size += np.where(loaded[1], self._batch * each.k * each.n * self._spec.b.bits / 8, 0)
        return size

    def _trip(self, each: _Ticks, loaded: tuple[Mask, Mask]) -> Ints:
        """From free slots to the end of a tick's streaming; 0 where it loads nothing."""
        size = self._size(each, loaded)
        cycles = _whole(size / self._machine.peak_moved) + self._machine.dram_latency + each.cycles.stream
        return np.where(size > 0, cycles, 0)

    def _tail(self, each: _Ticks) -> Ints:
        """From the end of a tick's streaming to that of the vector unit's work, if slots wait for that."""
        lanes = self._machine.accelerator.vector.lanes * self._sharers
        work = self._spec.lane_cycles * each.core_m * each.core_n / lanes
        return (_whole(work) + each.cycles.latency) * self._has_sides


def _preload(machine: Machine) -> int:
    """Cycles to shift in a stationary operand; `rows`, whatever the tile."""
    return tile_cycles(machine.array, 1, 1, 1).preload


def _stream_bytes(spec: MatmulSpec, machine: Machine, m: Ints, k: Ints, n: Ints) -> list[Floats]:
    """Bytes that the array moves through each buffer on one tile (the first along k: nothing read back)."""
    if not machine.buffers:
        return []
    held = packed(machine.array, k) if spec.structured else k
    a_times, b_times, k_folds = stream_counts(machine.array, m, held, n)
    sizes_bytes = [np.zeros(m.shape) for _ in range(machine.buffers)]
    sizes_bytes[machine.number("input")] += m * k * a_times * spec.a.bits / 8
    sizes_bytes[machine.number("weight")] += k * n * b_times * spec.b.bits / 8
    sizes_bytes[machine.number("output")] += m * n * (2 * k_folds - 1) * machine.accumulator_bits / 8
    return sizes_bytes


def _edges(extent: int, tile: Ints) -> list[tuple[Ints, Ints]]:
    """(count, size) of the full tiles and of the last one."""
    tiles = _tiles(extent, tile)
    return [(tiles - 1, tile), (np.ones_like(tile), extent - (tiles - 1) * tile)]


def _operand_bytes(spec: MatmulSpec, a_reads: Ints, b_reads: Ints) -> Floats:
    """Bytes from DRAM that the array waits for, rounded down."""
    loads = np.zeros(a_reads.shape)
    if not spec.a.resident:
        loads += a_reads * (spec.a.elements * spec.a.bits / 8)
    if not spec.b.resident:
        loads += b_reads * (spec.b.elements * spec.b.bits / 8)
    return loads


def _side_bytes(spec: MatmulSpec, m_tiles: Ints) -> Floats:
    """Bytes from DRAM that only the vector unit waits for, rounded down."""
    loads = np.zeros(m_tiles.shape)
    loads += sum(side.elements * side.bits / 8 for side in spec.sides if not side.resident)
    for constant in spec.constants:
        if not constant.resident:
            loads += spec.shape.batch * m_tiles * constant.elements * constant.bits / 8
    return loads


def _first_loads(
    spec: MatmulSpec, machine: Machine, split: Split, m: Ints, k: Ints, n: Ints, *, only_b: bool = False
) -> Ints:
    """Cycles before the array has its first operands, or B's: the first tiles of what could not be
    prefetched."""
    batch = min(machine.cores, spec.shape.batch) if split == "batch" else 1
    size = np.zeros(m.shape)
    if not (spec.a.resident or spec.a.early or only_b):
        size += batch * m * k * spec.a.bits / 8
    if not (spec.b.resident or spec.b.early):
        size += batch * k * n * spec.b.bits / 8
    return np.where(size > 0, np.floor(size / machine.peak_moved).astype(np.int64) + machine.dram_latency, 0)


def _last_tile(spec: MatmulSpec, machine: Machine, split: Split, m: Ints, n: Ints) -> Ints:
    """Cycles after the array's end: the last tile's tail and store."""
    batch = spec.shape.batch
    last_batch = (batch - 1) % machine.cores + 1 if split == "batch" else 1
    share = 1 if split == "batch" else machine.cores
    cycles = np.floor(spec.lane_cycles * m * n / share / machine.accelerator.vector.lanes)
    if not spec.out.resident:
        cycles = cycles + np.floor(last_batch * m * n * spec.out.bits / 8 / machine.peak_moved)
        cycles = cycles + machine.dram_latency
    return np.asarray(cycles).astype(np.int64)


def _vector_work(spec: MatmulSpec, machine: Machine) -> int:
    """Cycles of the vector unit over the whole tail."""
    shape = spec.shape
    work = spec.lane_cycles * shape.batch * shape.m * shape.n
    return ceil(work / machine.cores / machine.accelerator.vector.lanes) if work else 0
