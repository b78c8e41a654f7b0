"""Lower bounds on every candidate tiling of a matmul at once, in numpy.

A bound never exceeds the exact cycles of the same tiling: each counts what one unit must do in any case, plus
what must come before its first job and after its last. The `analytic` fidelity is the least bound over the
candidates; the exact search visits candidates in the order of their bounds and stops when none can win.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from tilewright.arch.accelerator import Array
from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.room import Mask, Nests, fitting
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.systolic import packed, tile_cycles
from tilewright.dataflows.tick_groups import Ticks, grouped_ticks, tile_count
from tilewright.dataflows.tiles import stream_counts
from tilewright.dataflows.tiling import Order, Split, Tiling, sizes
from tilewright.dataflows.waits import Floats, Trips, by_operand, floored


@dataclass(frozen=True)
class Candidates:
    """Tilings that fit the buffers, as columns, with their bounds in cycles and DRAM traffic in bytes."""

    nests: Nests
    split: Split
    bound: Ints
    traffic: Floats

    def tiling(self, index: int) -> Tiling:
        """One of them."""
        nests = self.nests
        order: Order = "mn" if nests.m_outer[index] else "nm"
        m, k, n = (int(size[index]) for size in (nests.m, nests.k, nests.n))
        stays = bool(nests.outer_stays[index]), bool(nests.inner_stays[index])
        return Tiling(m, k, n, order, self.split, *stays)


def candidates(
    spec: MatmulSpec, machine: Machine, split: Split, ends: tuple[int, int], credit_bytes: int
) -> Candidates:
    """All tilings of the mapper's effort that fit, for one way to share the work among the cores.

    `ends`: DMA cycles that prefetching `credit_bytes` spares the region, and those of its own prefetch for
    the next.
    """
    shape, cores = spec.shape, machine.cores
    nests = fitting(spec, machine, split, _grid(spec, machine, split))
    products = ceil_div(shape.batch, cores) if split == "batch" else shape.batch
    ticks = list(grouped_ticks(spec, machine, split, (nests.m, nests.k, nests.n)))
    paced, ported, pause, last_array, streams = _array_work(spec, machine, ticks, products)
    loaded = _operand_bytes(spec, *_times_read(spec, nests))
    operands = loaded[0] + loaded[1]
    loads = operands + _side_bytes(spec, products * tile_count(shape.m, nests.m))
    stores = 0 if spec.out.resident else spec.out.bytes
    last = _last_tile(spec, machine, split, ticks[-1].m, ticks[-1].n)
    first = _first_loads(spec, machine, split, nests, credit_bytes)
    first_b = _first_loads(spec, machine, split, nests, credit_bytes, only_b=True)
    starts = np.maximum(first, first_b + _preload(machine))
    latency = machine.dram_latency
    dma = np.maximum(floored((loads + stores) / machine.peak_moved) - ends[0], 0) + ends[1]
    loading, loading_operands = (
        np.maximum(floored(size / machine.peak_moved) - ends[0], 0) for size in (loads, operands)
    )
    vector = first + _vector_work(spec, machine)
    moved_bytes = _moved_bytes(machine, *loaded, stores)
    ports = [
        floored((streamed + moved / cores) / width) + starts * (number not in _filled(machine))
        for number, (streamed, moved, width) in enumerate(
            zip(streams, moved_bytes, machine.widths, strict=True)
        )
    ]
    after_loads = np.maximum(loading_operands + last_array, loading) + last
    trips = Trips(spec, machine, split, ticks[0], products)
    prefetched = trips.prefetched(ticks, credit_bytes)
    work = np.maximum(paced, ported)
    if machine.operand_slots <= 2:
        work = np.maximum(work, trips.longest(ticks, nests, paced, pause, prefetched))
    moved = dma + (latency if stores else 0)
    if machine.slots == 1:  # loads, array and stores take turns
        turns = np.maximum(floored((operands + stores) / machine.peak_moved) - ends[0], 0) + ends[1]
        streams = np.sum([each.count * each.cycles.stream for each in ticks], axis=0)
        moved = np.maximum(moved, turns + products * streams)
    warmed = trips.warmed(ticks, nests) - ends[0] + ticks[-1].cycles.latency
    bound = np.maximum.reduce([starts + work + last, warmed + last, after_loads, moved, vector, *ports])
    return Candidates(nests, split, bound, loads + stores)


def tile_quanta(array: Array) -> tuple[int, int, int]:
    """(m, k, n) of what the array holds at once: of the smallest tile that is tried, where operands are not
    smaller still."""
    return {
        "output_stationary": (array.rows, 1, array.cols),
        "weight_stationary": (1, array.rows, array.cols),
        "input_stationary": (array.cols, array.rows, 1),
    }[array.dataflow]


def _rounded_up(amount: Floats) -> Ints:
    return np.ceil(amount).astype(np.int64)


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


def _array_work(
    spec: MatmulSpec, machine: Machine, ticks: list[Ticks], products: int
) -> tuple[Ints, Ints, Ints, Ints, list[Floats]]:
    """Cycles of the array from its first operand to its last result, as the array itself and as its ports
    pace it; those that the shadow registers hold up one tick at most; those of the last tick alone; and bytes
    of its streams through each buffer of a core.

    The shadow registers do not hold up one tick, the first or the last. A tick's streams hold the ports while
    it runs, so it takes at least as long as they do.
    """
    paced = ported = pause = last_ported = np.zeros_like(ticks[0].count)
    streamed = [np.zeros(paced.shape) for _ in range(machine.buffers)]
    for each in ticks:
        cycles = each.cycles
        first = _stream_bytes(spec, machine, each)
        later = _stream_bytes(spec, machine, each, adds=True)
        first_ported, later_ported = cycles.stream, cycles.stream
        for number, width in enumerate(machine.widths):
            streamed[number] += each.firsts * first[number] + (each.count - each.firsts) * later[number]
            first_ported = np.maximum(first_ported, _rounded_up(first[number] / width))
            later_ported = np.maximum(later_ported, _rounded_up(later[number] / width))
        held_up = np.maximum(cycles.preload + cycles.shadow - cycles.swap, 0)
        pause = np.maximum(pause, np.where(each.count > 0, held_up, 0))
        paced = paced + each.count * (cycles.stream + held_up)
        ported = ported + each.firsts * first_ported + (each.count - each.firsts) * later_ported
        last_ported = np.where(each.firsts > 0, first_ported, later_ported)
    latency = ticks[-1].cycles.latency
    last = np.maximum(ticks[-1].cycles.stream + latency, last_ported)
    paced = paced * products - pause + latency
    ported = ported * products - last_ported + last
    return paced, ported, pause, last, [size * products for size in streamed]


def _preload(machine: Machine) -> int:
    """Cycles to shift in a stationary operand; `rows`, whatever the tile."""
    return tile_cycles(machine.array, 1, 1, 1).preload


def _stream_bytes(spec: MatmulSpec, machine: Machine, each: Ticks, *, adds: bool = False) -> list[Floats]:
    """Bytes that the array moves through each buffer on one tile; the first along k, or one that `adds` to
    the sums of those before."""
    if not machine.buffers:
        return []
    m, k, n = each.core_m, each.core_k, each.core_n
    held = packed(machine.array, k) if spec.structured else k
    a_times, b_times, k_folds = stream_counts(machine.array, m, held, n)
    sums_times = 2 * k_folds - (0 if adds else 1)
    sizes_bytes = [np.zeros(m.shape) for _ in range(machine.buffers)]
    sizes_bytes[machine.number("input")] += m * k * a_times * spec.a.bits / 8
    sizes_bytes[machine.number("weight")] += k * n * b_times * spec.b.bits / 8
    sizes_bytes[machine.number("output")] += m * n * sums_times * machine.accumulator_bits / 8
    return sizes_bytes


def _times_read(spec: MatmulSpec, nests: Nests) -> tuple[Ints, Ints]:
    """How often A and B are read from DRAM."""
    m_tiles, k_tiles, n_tiles = (
        tile_count(extent, tile)
        for extent, tile in ((spec.shape.m, nests.m), (spec.shape.k, nests.k), (spec.shape.n, nests.n))
    )
    one_inner = np.where(nests.m_outer, n_tiles, m_tiles) == 1
    outer_once = (k_tiles == 1) | nests.outer_stays | one_inner
    inner_once = nests.inner_stays | ((k_tiles == 1) & one_inner)
    a_once, b_once = by_operand(nests.m_outer, outer_once, inner_once)
    return np.where(a_once, 1, n_tiles), np.where(b_once, 1, m_tiles)


def _operand_bytes(spec: MatmulSpec, a_reads: Ints, b_reads: Ints) -> tuple[Floats, Floats]:
    """Bytes of A and of B from DRAM."""
    a_bytes = 0.0 if spec.a.resident else spec.a.elements * spec.a.bits / 8
    b_bytes = 0.0 if spec.b.resident else spec.b.elements * spec.b.bits / 8
    return np.asarray(a_reads * a_bytes), np.asarray(b_reads * b_bytes)


def _filled(machine: Machine) -> set[int]:
    """Buffers into which operands are loaded."""
    return {machine.number("input"), machine.number("weight")}


def _moved_bytes(machine: Machine, a_bytes: Floats, b_bytes: Floats, stores: int) -> list[Floats]:
    """Bytes that the DMA engine moves through each buffer, over all cores."""
    sizes_bytes = [np.zeros_like(a_bytes) for _ in range(machine.buffers)]
    if machine.buffers:
        sizes_bytes[machine.number("input")] += a_bytes
        sizes_bytes[machine.number("weight")] += b_bytes
        sizes_bytes[machine.number("output")] += stores
    return sizes_bytes


def _side_bytes(spec: MatmulSpec, passes: Ints) -> Floats:
    """Bytes from DRAM that only the vector unit waits for, rounded down; constants come with each
    of so many passes over n."""
    loads = np.zeros(passes.shape)
    loads += sum(side.elements * side.bits / 8 for side in spec.sides if not side.resident)
    for constant in spec.constants:
        if not constant.resident:
            loads += passes * constant.elements * constant.bits / 8
    return loads


def _first_loads(
    spec: MatmulSpec, machine: Machine, split: Split, nests: Nests, credit_bytes: int, *, only_b: bool = False
) -> Ints:
    """Cycles before the array has its first operands, or B's: the first tiles, less what was prefetched."""
    batch = min(machine.cores, spec.shape.batch) if split == "batch" else 1
    size = early = np.zeros(nests.m.shape)
    for operand, elements in ((spec.a, nests.m * nests.k), (spec.b, nests.k * nests.n)):
        if operand.resident or (only_b and operand is spec.a):
            continue
        tile_bytes = batch * elements * operand.bits / 8
        if operand.early and credit_bytes:
            early = early + tile_bytes
        else:
            size = size + tile_bytes
    cycles = floored((size + np.maximum(early - credit_bytes, 0)) / machine.peak_moved)
    return cycles + np.where(size > 0, machine.dram_latency, 0)


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
