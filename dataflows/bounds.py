"""Lower bounds on every candidate tiling of a matmul at once, in numpy.

A bound never exceeds the exact cycles of the same tiling: each counts what one unit must do in any case, plus
what must come before its first job and after its last. The exact search visits candidates in the order of
their bounds and stops when none can win. Bounds of all candidates assume that no transfer is slower than the
memory's peak; those of the candidates that come into question are sharpened by what each transfer takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tilewright.arch.array import Array
from tilewright.dataflows.arith import Ints, ceil_div, larger
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.moves import AsTheyAre, AtPeak, Moves
from tilewright.dataflows.nests import Floats, Mask, Nests
from tilewright.dataflows.room import fitting
from tilewright.dataflows.specs import MatmulSpec, Operand
from tilewright.dataflows.systolic import packed, tile_cycles
from tilewright.dataflows.task import Task
from tilewright.dataflows.tick_groups import TickGroups, Ticks, floored
from tilewright.dataflows.tiles import stream_counts
from tilewright.dataflows.tiling import Order, Split, Tiling, sizes
from tilewright.dataflows.waits import Waits


@dataclass(frozen=True)
class Candidates:
    """Tilings that fit the buffers, as columns, with their bounds in cycles and DRAM traffic in bytes."""

    task: Task
    nests: Nests
    bound: Ints
    traffic: Floats

    def tiling(self, index: int) -> Tiling:
        """One of them."""
        nests = self.nests
        order: Order = "mn" if nests.m_outer[index] else "nm"
        m, k, n = (int(size[index]) for size in (nests.m, nests.k, nests.n))
        stays = bool(nests.outer_stays[index]), bool(nests.inner_stays[index])
        return Tiling(m, k, n, order, self.task.split, *stays)

    def sharpened(self, rows: Ints) -> Ints:
        """Bounds of some, with what each of their transfers really takes."""
        return larger(self.bound[rows], _Bound(self.task, self.nests[rows], self._moves).cycles())

    @cached_property
    def _moves(self) -> AsTheyAre:
        return AsTheyAre(self.task)


def candidates(task: Task) -> Candidates:
    """All tilings of the mapper's effort that fit."""
    nests = fitting(task.spec, task.machine, task.split, _grid(task.spec, task.machine, task.split))
    bound = _Bound(task, nests, AtPeak(task)).cycles()
    loads = sum(_operand_bytes(task.spec, nests))
    loads = loads + _side_bytes(task.spec, task.rounds * nests.counts(task.spec.shape).m)
    return Candidates(task, nests, bound, loads + _stored_bytes(task.spec))


class _Bound:
    """What each unit must do in any case, plus what must come before its first job and after its last."""

    def __init__(self, task: Task, nests: Nests, moves: Moves) -> None:
        self._task, self._nests, self._moves = task, nests, moves
        self._ticks = TickGroups(task, nests, moves)
        self._spared = _spared(task, nests, self._ticks)

    def cycles(self) -> Ints:
        """The highest of all bounds."""
        task, ticks = self._task, self._ticks
        waits = Waits(task, self._nests, ticks, self._spared)
        work = _array_work(task, ticks)
        first, starts = self._first_loads()
        last = self._last_tile()
        streamed = np.maximum.reduce([waits.warmed(), waits.chained(), waits.slotted()])
        streamed = streamed + ticks.last.cycles.latency
        paced = np.maximum(work.paced, work.ported)
        if task.machine.operand_slots <= 2:
            held = np.maximum(work.paced + waits.between_outputs(work.pause), waits.phased())
            paced = np.maximum(paced, held)
        vector = first + task.rounds * ticks.vector
        ends = [starts + paced + last, streamed + last, self._after_loads(work.last) + last, self._moved()]
        found: Ints = np.maximum.reduce([*ends, vector, *self._ports(work.streamed_bytes, starts)])
        return found

    def _loads(self) -> tuple[Floats, Floats]:
        """DMA cycles of A and B, and of all that the vector unit needs besides."""
        task, ticks = self._task, self._ticks
        a_times, b_times = _times_read(task.spec, self._nests)
        operands = ticks.a_cycles * a_times + ticks.b_cycles * b_times
        a_left, b_left = _operand_bytes(task.spec, self._nests)
        left = task.left_over / task.spec.shape.batch / task.machine.peak_moved
        return operands * task.alike + (a_left + b_left) * left, ticks.side_cycles * task.alike

    def _after_loads(self, last_array: Ints) -> Ints:
        """When the array may end at the earliest: all operands are loaded, then it works on the last tile."""
        operands, sides = self._loads()
        return larger(self._unspared(operands) + last_array, self._unspared(operands + sides))

    def _moved(self) -> Ints:
        """The DMA engine's work. With one slot, loads, array and stores take turns."""
        task, ticks = self._task, self._ticks
        machine = task.machine
        operands, sides = self._loads()
        left = task.left_over / task.spec.shape.batch * _stored_bytes(task.spec) / machine.peak_moved
        stores = ticks.store_cycles * task.alike + left
        in_line = np.zeros_like(stores) if self._moves.apart else stores
        moved = self._unspared(operands + sides + in_line) + task.next_cycles
        moved = larger(moved, floored(stores))
        moved = moved + (0 if task.spec.out.resident else machine.dram_latency)
        if machine.slots > 1:
            return moved
        turns = self._unspared(operands + in_line) + task.next_cycles + task.rounds * ticks.stream
        return larger(moved, turns)

    def _unspared(self, cycles: Floats) -> Ints:
        """Cycles of the DMA engine, less what prefetching saves."""
        return larger(floored(cycles) - self._spared, 0)

    def _first_loads(self) -> tuple[Ints, Ints]:
        """Cycles before the first operands are there, less what was prefetched; and before the array may
        stream them, B being shifted in."""
        task, full = self._task, self._ticks.full
        machine = task.machine
        preload = tile_cycles(machine.array, 1, 1, 1).preload  # whatever the tile
        b = self._first(((task.spec.b, full.b, full.b_latency),))
        both = self._first(((task.spec.a, full.a, full.a_latency), (task.spec.b, full.b, full.b_latency)))
        return both, np.maximum(both, b + preload)

    def _first(self, operands: tuple[tuple[Operand, Floats, Ints], ...]) -> Ints:
        """Of the first tiles of these."""
        late = early = np.zeros(self._nests.m.shape)
        latency = np.full(late.shape, np.inf)
        for operand, cycles, then in operands:
            if operand.early and self._task.credit_bytes:
                early = early + cycles
            else:
                late = late + cycles
            latency = np.where(cycles > 0, np.minimum(latency, then), latency)
        loading = floored(late + np.maximum(early - self._spared, 0))
        return loading + np.where(late > 0, latency, 0).astype(np.int64)

    def _last_tile(self) -> Ints:
        """Cycles after the array's end: the last tile's tail and store."""
        task, last = self._task, self._ticks.last
        stored = last.store
        if task.left_over:
            elements = task.left_over * last.m * last.n
            stored = elements * (0 if task.spec.out.resident else task.spec.out.bits) / 8
            stored = stored / task.machine.peak_moved
        return last.vector + floored(stored) + (0 if task.spec.out.resident else task.machine.dram_latency)

    def _ports(self, streamed_bytes: list[Floats], starts: Ints) -> list[Ints]:
        """The work of each buffer's ports. Those into which nothing is loaded start with the array's."""
        machine = self._task.machine
        a_bytes, b_bytes = _operand_bytes(self._task.spec, self._nests)
        moved_bytes = [np.zeros(starts.shape) for _ in range(machine.buffers)]
        filled = {machine.number("input"), machine.number("weight")}
        if machine.buffers:
            moved_bytes[machine.number("input")] += a_bytes
            moved_bytes[machine.number("weight")] += b_bytes
            moved_bytes[machine.number("output")] += _stored_bytes(self._task.spec)
        return [
            floored((streamed + moved / machine.cores) / width) + starts * (number not in filled)
            for number, (streamed, moved, width) in enumerate(
                zip(streamed_bytes, moved_bytes, machine.widths, strict=True)
            )
        ]


def _spared(task: Task, nests: Nests, ticks: TickGroups) -> Ints:
    """DMA cycles that prefetching saves at most: bytes of A and B, or of what the vector unit needs besides,
    of which there may not be as many."""
    spec, tiles = task.spec, nests.counts(task.spec.shape)
    operands = _most([each.operands_spared * (each.count > 0) for each in ticks])
    sides = _most([each.sides_spared * (each.count > 0) for each in ticks])
    early = sum(each.bytes for each in spec.sides if each.early) + tiles.m * tiles.n * task.rounds
    for each in spec.constants:
        if each.early:
            early = early + (each.bytes + tiles.n) * tiles.m * task.rounds
    more = np.maximum(sides - operands, 0) * np.minimum(early, task.credit_bytes)
    return np.asarray(np.ceil(task.credit_bytes * operands + more)).astype(np.int64)


def _most(amounts: list[Floats]) -> Floats:
    return np.asarray(np.maximum.reduce(amounts))


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
    orders = np.array([False, True]) if machine.buffers else np.array([True])
    m, k, n, m_outer = (axis.ravel() for axis in np.meshgrid(*axes, orders, indexing="ij"))
    return m, k, n, m_outer


@dataclass(frozen=True, slots=True)
class _ArrayWork:
    """Cycles of the array from its first operand to its last result, as the array itself and as its ports
    pace it; those that the shadow registers hold up one tick at most; those of the last tick alone; and bytes
    of its streams through each buffer of a core."""

    paced: Ints
    ported: Ints
    pause: Ints
    last: Ints
    streamed_bytes: list[Floats]


def _array_work(task: Task, ticks: TickGroups) -> _ArrayWork:
    """The shadow registers do not hold up one tick, the first or the last. A tick's streams hold the ports
    while it runs, so it takes at least as long as they do."""
    machine, rounds = task.machine, task.rounds
    paced = ported = pause = last_ported = np.zeros_like(ticks.full.count)
    streamed = [np.zeros(paced.shape) for _ in range(machine.buffers)]
    for each in ticks:
        cycles = each.cycles
        first = _stream_bytes(task, each)
        later = _stream_bytes(task, each, adds=True)
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
    latency = ticks.last.cycles.latency
    last = np.maximum(ticks.last.cycles.stream + latency, last_ported)
    return _ArrayWork(
        paced * rounds - pause + latency,
        ported * rounds - last_ported + last,
        pause,
        last,
        [size * rounds for size in streamed],
    )


def _stream_bytes(task: Task, each: Ticks, *, adds: bool = False) -> list[Floats]:
    """Bytes that the array moves through each buffer on one tile; the first along k, or one that `adds` to
    the sums of those before."""
    spec, machine = task.spec, task.machine
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
    tiles = nests.counts(spec.shape)
    outer_once = (tiles.k == 1) | nests.outer_stays | (tiles.inner == 1)
    inner_once = nests.inner_stays | ((tiles.k == 1) & (tiles.inner == 1))
    a_once, b_once = nests.by_operand(outer_once, inner_once)
    return np.where(a_once, 1, tiles.n), np.where(b_once, 1, tiles.m)


def _operand_bytes(spec: MatmulSpec, nests: Nests) -> tuple[Floats, Floats]:
    """Bytes of A and of B from DRAM."""
    a_reads, b_reads = _times_read(spec, nests)
    a_bytes = 0.0 if spec.a.resident else spec.a.elements * spec.a.bits / 8
    b_bytes = 0.0 if spec.b.resident else spec.b.elements * spec.b.bits / 8
    return np.asarray(a_reads * a_bytes), np.asarray(b_reads * b_bytes)


def _side_bytes(spec: MatmulSpec, passes: Ints) -> Floats:
    """Bytes from DRAM that only the vector unit waits for, rounded down; constants come with each
    of so many passes over n."""
    loads = np.zeros(passes.shape)
    loads += sum(side.elements * side.bits / 8 for side in spec.sides if not side.resident)
    for constant in spec.constants:
        if not constant.resident:
            loads += passes * constant.elements * constant.bits / 8
    return loads


def _stored_bytes(spec: MatmulSpec) -> int:
    """Bytes to DRAM."""
    return 0 if spec.out.resident else spec.out.bytes
