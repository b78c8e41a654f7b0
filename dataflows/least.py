"""The least that a region needs of each unit, and the cycles that follow: the `analytic` fidelity.

Of every loop nest that fits the buffers, each unit's least work is taken by itself: the array's of the nest
that suits the array best, DRAM's of the one that moves least. No nest can do with less of any, so a region
takes at least as long as the unit that needs longest, and no run undercuts the answer.

What a region needs depends on the workload, the buffers and the array; how long that takes, on the rates of
the machine. All formulas work alike on one machine and on columns of machines (`Rates`), which is what makes
large sweeps quick: nothing is searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol, cast

import numpy as np

from tilewright.arch.accelerator import Operand as OperandKind
from tilewright.arch.array import Array
from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.attention_region import jobs_of, sizes_of, streamed_bytes
from tilewright.dataflows.attention_unit import least_cycles
from tilewright.dataflows.bounds import tile_quanta
from tilewright.dataflows.chain_tiling import array_cycles, chain_tilings, chain_traffic
from tilewright.dataflows.least_traffic import Numbers, Rooms, all_splits, least_traffic
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.misfits import misfit
from tilewright.dataflows.network import network_bytes
from tilewright.dataflows.program import totals
from tilewright.dataflows.room import tiles_fit
from tilewright.dataflows.rowwise import row_tilings, row_traffic
from tilewright.dataflows.sparse.program import unit_program
from tilewright.dataflows.specs import (
    ChainSpec,
    MatmulSpec,
    Operand,
    RowsSpec,
    Spec,
    StreamSpec,
    UnitSpec,
    operands,
    vector_work,
)
from tilewright.dataflows.systolic import packed, tile_cycles
from tilewright.dataflows.tiles import stream_counts
from tilewright.dataflows.tiling import Split


class Rates(Protocol):
    """What a machine does in a cycle; columns where it stands for several."""

    @property
    def array(self) -> Array:
        """One core's; its `rows`, `cols` and `count` may be columns."""
        ...

    @property
    def lanes(self) -> Numbers:
        """Of one core's vector unit."""
        ...

    @property
    def peak_moved(self) -> Numbers:
        """Bytes per cycle from and to DRAM that no transfer can exceed."""
        ...

    @property
    def latency(self) -> Numbers:
        """Of DRAM, in cycles."""
        ...

    @property
    def widths(self) -> Sequence[Numbers]:
        """Bytes per cycle of each buffer."""
        ...

    def prefetch(self, size_bytes: int) -> Numbers:
        """DMA cycles of fetching so much for the next region."""
        ...


@dataclass(frozen=True)
class OneMachine:
    """The rates of one."""

    machine: Machine

    @property
    def array(self) -> Array:
        """One core's."""
        return self.machine.array

    @property
    def lanes(self) -> int:
        """Of one core's vector unit."""
        return self.machine.accelerator.vector.lanes

    @property
    def peak_moved(self) -> float:
        """See `Machine.peak_moved`."""
        return self.machine.peak_moved

    @property
    def latency(self) -> int:
        """See `Machine.dram_latency`."""
        return self.machine.dram_latency

    @property
    def widths(self) -> tuple[int, ...]:
        """See `Machine.widths`."""
        return self.machine.widths

    def prefetch(self, size_bytes: int) -> int:
        """See `Machine.dram_cycles`."""
        return int(self.machine.dram_cycles(size_bytes)[0] * self.machine.dram_share(store=False))


@dataclass(frozen=True)
class Needs:
    """What a region needs at least, of one core where cores share the work."""

    dram_read: int = 0
    dram_write: int = 0
    lane_cycles: float = 0.0
    array: Numbers = 0
    """Cycles in which operands stream."""
    preload: Numbers = 0
    drain: Numbers = 0
    """Before the first operand of the array, and after its last."""
    predict: int = 0
    transfers: int = 0
    """DMA cycles, where they are known transfer by transfer; they count if nothing was prefetched."""
    ports: tuple[Numbers, ...] = ()
    """Bytes through each buffer of a core while the array streams."""
    read: tuple[Numbers, ...] = ()
    written: tuple[Numbers, ...] = ()
    """Bytes read from and written to each buffer, over all cores."""
    link_bytes: tuple[int, int] = (0, 0)
    """Bytes times links between cores that loads and stores pass."""
    router_bytes: int = 0
    tail: float = 0.0
    """Lane cycles that are left when the array is done."""
    fits: Numbers = True
    """Whether a tile of the size that the array holds has room."""
    waits: bool = False
    """Whether the first work waits for DRAM."""
    serial: bool = False
    """Whether loads, the array's work and stores take turns."""
    streaming: Numbers = 0
    """Of `array`, what is left when stationary operands are shifted in while others are loaded."""
    array_read: int = 0
    """Of `dram_read`, what the array waits for: loads for the vector unit alone take no turns with it."""
    vector_serial: bool = False
    """Whether loads and stores take turns with the vector unit, too."""


def cycles(needs: Needs, rates: Rates, credit_bytes: int, prefetch_bytes: int) -> Numbers:
    """Least cycles of a region; `credit_bytes` are there when it starts, and it prefetches `prefetch_bytes`
    for the next. Infinite where no tile fits, of some machines of several.
    """
    begin = rates.latency if needs.waits else 0
    end = rates.latency if needs.dram_write else 0
    array = np.maximum(begin, needs.preload) + needs.array + needs.drain + end
    array = array + np.floor(np.asarray(needs.tail / rates.lanes))
    vector = begin + np.floor(np.asarray(needs.lane_cycles / rates.lanes)) + end
    spared = np.ceil(np.asarray(credit_bytes / rates.peak_moved))
    moved = np.floor(np.asarray((needs.dram_read + needs.dram_write) / rates.peak_moved))
    if not credit_bytes:
        moved = np.maximum(moved, needs.transfers)
    dma = np.maximum(moved - spared, 0) + rates.prefetch(prefetch_bytes) + end
    if needs.serial:
        turns = np.floor(np.asarray((needs.array_read + needs.dram_write) / rates.peak_moved))
        turns = np.maximum(turns - spared, 0) + rates.prefetch(prefetch_bytes) + end
        array = np.maximum(array, turns + needs.streaming)
    if needs.vector_serial:
        dma = np.maximum(dma, dma + vector - begin - end)
    found = np.maximum(np.maximum(array, vector), np.maximum(dma, max(1, needs.predict)))
    for size, width in zip(needs.ports, rates.widths, strict=False):
        found = np.maximum(found, np.floor(np.asarray(size / width)))
    return found if np.all(needs.fits) else np.where(needs.fits, found, inf)


def least_needs(spec: Spec, machine: Machine, rates: Rates) -> tuple[Needs, ...]:
    """What a region needs, or, where units' needs are traded against each other, each choice.

    Raises `InputError` where no tile fits the buffers, of any machine.
    """
    if isinstance(spec, MatmulSpec):
        return (_of_matmul(spec, machine, rates),)
    if isinstance(spec, RowsSpec):
        return (_of_rows(spec, machine),)
    if isinstance(spec, ChainSpec):
        return _of_chain(spec, machine)
    if isinstance(spec, StreamSpec):
        return (_of_stream(spec, machine),)
    return (_of_unit(spec, machine),)


def _of_matmul(spec: MatmulSpec, machine: Machine, rates: Rates) -> Needs:
    shape, cores = spec.shape, machine.cores
    found = least_traffic(spec, Rooms.of(machine))
    fits = _smallest_fits(spec, machine, rates.array)
    if found is None or not np.any(fits):
        raise misfit(spec, machine)
    read, array_read, written = found
    waits = not all(each.resident or each.early for each in (spec.a, spec.b))
    options = [_array_work(spec, rates.array, cores, split) for split in all_splits(spec, cores)]
    streams = [_streams(spec, machine, rates.array, split) for split in all_splits(spec, cores)]
    alone = tile_cycles(rates.array, 1, 1, 1, structured=spec.structured)
    accesses = _accesses(spec, machine, rates.array)
    links = _links(machine, read, written)
    return Needs(
        read,
        written,
        spec.lane_cycles * shape.batch * shape.m * shape.n / cores,
        array=_least(options),
        preload=alone.preload,
        drain=alone.latency,
        ports=tuple(_least(list(each)) for each in zip(*streams, strict=True)),
        read=accesses[0],
        written=accesses[1],
        link_bytes=links[:2],
        router_bytes=links[2],
        # without buffers a product is one tile, and the last one's tail comes after all
        tail=0.0 if machine.buffers else spec.lane_cycles * shape.m * shape.n / cores,
        fits=fits,
        waits=waits,
        serial=machine.slots == 1,
        streaming=_least([_streaming(spec, rates.array, cores, split) for split in all_splits(spec, cores)]),
        array_read=array_read,
        vector_serial=machine.slots == 1 and (written > 0 or _loaded((*spec.sides, *spec.constants)) > 0),
    )


def _smallest_fits(spec: MatmulSpec, machine: Machine, array: Array) -> Numbers:
    """Whether the smallest tile that the mapper tries has room, however cores share the work."""
    if not machine.buffers:
        return True
    fits = np.zeros(1, dtype=np.bool_)
    group = array.structured.m if spec.structured and array.structured else 1
    for split in all_splits(spec, machine.cores):
        _, *extents = _shares(spec, machine.cores, split)
        m, k, n = (np.minimum(extent, size) for extent, size in zip(extents, tile_quanta(array), strict=True))
        k = np.minimum(-(-k // group) * group, extents[1])
        tile_m, tile_k, tile_n = np.broadcast_arrays(*map(np.atleast_1d, (m, k, n)))
        fits = fits | tiles_fit(spec, machine, split, (tile_m, tile_k, tile_n))
    return fits


def _least(options: Sequence[Numbers]) -> Numbers:
    found = options[0]
    for each in options[1:]:
        found = np.minimum(found, each)
    return found


def _shares(spec: MatmulSpec, cores: int, split: Split) -> tuple[int, int, int, int]:
    """(products, m, k, n) of the busiest core."""
    shape = spec.shape
    m, k, n = (
        ceil_div(extent, cores) if split == axis else extent
        for axis, extent in (("m", shape.m), ("k", shape.k), ("n", shape.n))
    )
    return ceil_div(shape.batch, cores) if split == "batch" else shape.batch, m, k, n


def _array_work(spec: MatmulSpec, array: Array, cores: int, split: Split) -> Numbers:
    """As one tile a product: cutting it up never shortens it. (Shares of heads may gain by it, down to what
    the pool of all PEs takes, which is meant here.)"""
    products, m, k, n = _shares(spec, cores, split)
    tile = tile_cycles(array, m, k, n, structured=spec.structured)
    held_up = np.maximum(tile.preload + tile.shadow - tile.swap, 0)
    return products * (tile.stream + held_up) - held_up


def _streaming(spec: MatmulSpec, array: Array, cores: int, split: Split) -> Numbers:
    """Cycles in which operands enter, however the product is cut."""
    products, m, k, n = _shares(spec, cores, split)
    return products * tile_cycles(array, m, k, n, structured=spec.structured).streaming


def _streams(spec: MatmulSpec, machine: Machine, array: Array, split: Split) -> list[Numbers]:
    """Bytes that a core's array moves through each buffer."""
    if not machine.buffers:
        return []
    products, m, k, n = _shares(spec, machine.cores, split)
    held = packed(array, k) if spec.structured else k
    a_times, b_times, k_folds = stream_counts(array, m, held, n)
    sizes_bytes: list[Numbers] = [0.0] * machine.buffers
    for number, size in (
        (machine.number("input"), m * k * a_times * spec.a.bits / 8),
        (machine.number("weight"), k * n * b_times * spec.b.bits / 8),
        (machine.number("output"), m * n * (2 * k_folds - 1) * machine.accumulator_bits / 8),
    ):
        sizes_bytes[number] = sizes_bytes[number] + products * size
    return sizes_bytes


def _accesses(
    spec: MatmulSpec, machine: Machine, array: Array
) -> tuple[tuple[Numbers, ...], tuple[Numbers, ...]]:
    """Bytes read from and written to each buffer over all cores: by the array, as if there were one core and
    one tile, by the element-wise tail, and by DRAM, once each operand."""
    if not machine.buffers:
        return (), ()
    shape, acc = spec.shape, machine.accumulator_bits
    held = packed(array, shape.k) if spec.structured else shape.k
    a_times, b_times, k_folds = stream_counts(array, shape.m, held, shape.n)
    results, tail = shape.batch * shape.m * shape.n, bool(spec.lane_cycles)
    stored = 0 if spec.out.resident else spec.out.bytes
    read = _by_buffer(
        machine,
        a_times * (shape.batch * shape.m * held * spec.a.bits / 8)
        + tail * sum(side.elements * side.bits / 8 for side in spec.sides),
        b_times * (shape.batch * held * shape.n * spec.b.bits / 8),
        (k_folds - 1 + tail) * (results * acc / 8) + stored,
    )
    write = _by_buffer(
        machine,
        _loaded((spec.a, *spec.sides)),
        _loaded((spec.b, *spec.constants)),
        k_folds * (results * acc / 8) + tail * results * spec.out.bits / 8,
    )
    return read, write


def _loaded(found: Sequence[Operand]) -> int:
    """Bytes that must come from DRAM."""
    return sum(0 if each.resident else each.bytes for each in found)


def _by_buffer(machine: Machine, inputs: Numbers, weights: Numbers, outputs: Numbers) -> tuple[Numbers, ...]:
    """Whole bytes by buffer, of what lives where inputs do, weights and outputs."""
    sums: list[Numbers] = [0.0] * machine.buffers
    for operand, size in (("input", inputs), ("weight", weights), ("output", outputs)):
        number = machine.number(cast(OperandKind, operand))
        sums[number] = sums[number] + size
    return tuple(np.floor(np.asarray(each)) for each in sums)


def _links(machine: Machine, read: int, written: int) -> tuple[int, int, int]:
    """Bytes times links of loads and of stores, and bytes times routers, where each byte goes to one core."""
    if machine.network is None:
        return 0, 0, 0
    loads, stores = (network_bytes(machine.network, machine.cores, "parts", size) for size in (read, written))
    return loads[0], stores[0], loads[1] + stores[1]


def _of_rows(spec: RowsSpec, machine: Machine) -> Needs:
    tilings = row_tilings(spec, machine)
    if not tilings:
        raise misfit(spec, machine)
    read, written = row_traffic(spec, tilings[0])
    links = _links(machine, read, written)
    touched = [sum(o.elements * o.bits / 8 for o in each) for each in (spec.inputs, spec.outputs)]
    buffers = machine.buffers > 0
    return Needs(
        read,
        written,
        spec.lane_cycles * spec.rows * spec.cols / machine.cores,
        read=_by_buffer(machine, touched[0], 0, written) if buffers else (),
        written=_by_buffer(machine, _loaded(operands(spec)), 0, touched[1]) if buffers else (),
        link_bytes=links[:2],
        router_bytes=links[2],
        waits=not all(o.resident or o.early for o in operands(spec)),
        vector_serial=machine.slots == 1 and any(not o.resident for o in spec.inputs),
    )


def _of_chain(spec: ChainSpec, machine: Machine) -> tuple[Needs, ...]:
    """One for each order and tiling that no other beats in both traffic and array cycles."""
    lane_cycles = vector_work(spec) / machine.cores
    found: dict[tuple[int, int, int], None] = {}
    for tiling in chain_tilings(spec, machine):
        read, written = chain_traffic(spec, tiling)
        found[read, written, array_cycles(spec, machine, tiling)] = None
    if not found:
        raise misfit(spec, machine)
    kept: list[tuple[int, int, int]] = []
    for each in sorted(found, key=lambda item: (item[0] + item[1], item[2])):
        if not kept or each[2] < kept[-1][2]:
            kept.append(each)
    accesses = _chain_accesses(spec, machine)
    return tuple(
        Needs(read, written, lane_cycles, array=array, read=accesses[0], written=accesses[1])
        for read, written, array in kept
    )


def _chain_accesses(spec: ChainSpec, machine: Machine) -> tuple[tuple[Numbers, ...], tuple[Numbers, ...]]:
    """What both matmuls' own operands take; what is between them may stay in the array."""
    if not machine.buffers:
        return (), ()
    first, second = spec.first, spec.second
    queries, keys, values = (each.elements * each.bits / 8 for each in (first.a, first.b, second.b))
    out = 0 if second.out.resident else second.out.bytes
    read = _by_buffer(machine, queries, keys + values, out)
    write = _by_buffer(machine, _loaded((first.a,)), _loaded((first.b, second.b)), out)
    return read, write


def _of_unit(spec: UnitSpec, machine: Machine) -> Needs:
    """There is one order only."""
    sums = totals(unit_program(spec, machine), machine.buffers)
    return Needs(
        sums.dram_read,
        sums.dram_write,
        float(sums.vector * machine.accelerator.vector.lanes),
        array=sums.array,
        predict=sums.predict,
        transfers=sums.dma,
        read=sums.buffer_read,
        written=sums.buffer_write,
        link_bytes=(sums.link_read, sums.link_write),
        router_bytes=sums.routed,
    )


def _of_stream(spec: StreamSpec, machine: Machine) -> Needs:
    """The streaming unit's closed form."""
    sizes, jobs = sizes_of(spec, machine.array), jobs_of(spec, machine.array)
    read, written = streamed_bytes(sizes, jobs)
    return Needs(read, written, array=least_cycles(sizes, jobs))
