"""Matmul regions: the loop nest of a tiling, tick by tick.

    for b, (m, n) or (n, m), k:   C[b, m, n] += A[b, m, k] B[b, k, n]     one tick per tile
    after the last k:             the element-wise tail on C[b, m, n], then its store

A tile of A or B is loaded when the tick needs another one than the tick before had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from tilewright.dataflows.arith import Whole, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Ports, Program, Tick, Transfer, merged
from tilewright.dataflows.regions import MatmulSpec
from tilewright.dataflows.systolic import tile_cycles
from tilewright.dataflows.tiling import Tiling


@dataclass(frozen=True, slots=True)
class Tile:
    """Sizes of one tick over all cores: `batch` products, m x k by k x n."""

    batch: int
    m: int
    k: int
    n: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What sets a tick apart from others of its sizes."""

    loads_a: bool
    loads_b: bool
    first_k: bool
    last_k: bool


def program(spec: MatmulSpec, machine: Machine, tiling: Tiling) -> Program:
    """The whole loop nest."""
    return _Nest(spec, machine, tiling).over_batch()


class _Nest:
    """Builds the loops from the inside out, each distinct iteration once."""

    def __init__(self, spec: MatmulSpec, machine: Machine, tiling: Tiling) -> None:
        self.spec, self.machine, self.tiling = spec, machine, tiling
        shape = spec.shape
        self.k_tiles = ceil_div(shape.k, tiling.k)
        m_outer = tiling.order == "mn"
        self.outer = (shape.m, tiling.m) if m_outer else (shape.n, tiling.n)
        self.inner = (shape.n, tiling.n) if m_outer else (shape.m, tiling.m)
        self.outer_tiles, self.inner_tiles = ceil_div(*self.outer), ceil_div(*self.inner)
        self._tick = lru_cache(maxsize=None)(self._make_tick)

    def over_batch(self) -> Program:
        """All products; cores that share out the batch take one each."""
        batch, step = self.spec.shape.batch, self.machine.cores if self.tiling.split == "batch" else 1
        full, rest = divmod(batch, step)
        return merged(
            [(self.over_outer(size), times) for size, times in ((step, full), (rest, 1)) if size * times]
        )

    def over_outer(self, batch: int) -> Program:
        """One product: its outer tiles."""
        return self._over(
            self.outer, self.outer_tiles, lambda first, _last, size: self.over_inner(batch, first, size)
        )

    def over_inner(self, batch: int, first_outer: bool, outer: int) -> Program:
        """One outer tile: its inner tiles."""
        return self._over(
            self.inner,
            self.inner_tiles,
            lambda first, _last, size: self.over_k(batch, first_outer, outer, first, size),
        )

    def over_k(self, batch: int, first_outer: bool, outer: int, first_inner: bool, inner: int) -> Program:
        """One output tile: its sums over k."""
        reload_outer = self.k_tiles > 1 or first_inner
        reload_inner = self.k_tiles > 1 or self.inner_tiles > 1 or first_outer
        m_outer = self.tiling.order == "mn"
        loads_a, loads_b = (reload_outer, reload_inner) if m_outer else (reload_inner, reload_outer)
        m, n = (outer, inner) if m_outer else (inner, outer)
        return self._over(
            (self.spec.shape.k, self.tiling.k),
            self.k_tiles,
            lambda first, last, size: (
                self._tick(Tile(batch, m, size, n), Moment(loads_a, loads_b, first, last)),
            ),
        )

    @staticmethod
    def _over(dimension: tuple[int, int], tiles: int, body: Callable[[bool, bool, int], Program]) -> Program:
        """A loop over a dimension's tiles: only its first and last iteration may differ from the others.

        `body(first, last, size)` makes an iteration.
        """
        extent, tile = dimension
        runs = [(body(True, tiles == 1, min(tile, extent)), 1)]
        if tiles > 2:
            runs.append((body(False, False, tile), tiles - 2))
        if tiles > 1:
            runs.append((body(False, True, extent - (tiles - 1) * tile), 1))
        return merged(runs)

    def _make_tick(self, tile: Tile, moment: Moment) -> Tick:
        spec, machine = self.spec, self.machine
        core = core_tile(tile, self.tiling, machine.cores)
        cycles = tile_cycles(machine.array, core.m, core.k, core.n)
        read, write = _streams(spec, machine, core, moment.first_k)
        tail_read, tail_write = _tail(spec, machine, core, moment.last_k)
        active = tile.batch if self.tiling.split == "batch" else min(machine.cores, self._shared_extent(tile))
        return Tick(
            weight=self._load_b(tile) if moment.loads_b else None,
            input=self._load_a(tile) if moment.loads_a else None,
            side=self._sides(tile) if moment.last_k else (),
            array=cycles.stream,
            array_streaming=cycles.streaming,
            array_shift=cycles.stream_shift,
            array_preload=cycles.preload,
            array_swap=cycles.swap,
            array_shadow=cycles.shadow,
            array_latency=cycles.latency,
            array_ports=self._ports(read, write),
            vector=machine.vector_cycles(spec.lane_cycles * core.m * core.n) if moment.last_k else 0,
            vector_ports=self._ports(tail_read, tail_write),
            store=self._store(tile) if moment.last_k and not spec.out.resident else None,
            opens_output=moment.first_k,
            closes_output=moment.last_k,
            buffer_read=tuple((r + t) * active for r, t in zip(read, tail_read, strict=True)),
            buffer_write=tuple((w + t) * active for w, t in zip(write, tail_write, strict=True)),
        )

    def _ports(self, read: Ports, write: Ports) -> Ports:
        pairs = enumerate(zip(read, write, strict=True))
        return tuple(self.machine.port_cycles(i, r + w) for i, (r, w) in pairs)

    def _shared_extent(self, tile: Tile) -> int:
        return tile.m if self.tiling.split == "m" else tile.n

    def _load_a(self, tile: Tile) -> Transfer | None:
        a = self.spec.a
        if a.resident:
            return None
        size, run = _size_and_run(tile.batch, tile.m, tile.k, self.spec.shape.k, a.bits)
        return self.machine.transfer(size, run, "input", early=a.early, shared=self.tiling.split == "n")

    def _load_b(self, tile: Tile) -> Transfer | None:
        b = self.spec.b
        if b.resident:
            return None
        size, run = _size_and_run(tile.batch, tile.k, tile.n, self.spec.shape.n, b.bits)
        return self.machine.transfer(size, run, "weight", early=b.early, shared=self.tiling.split == "m")

    def _sides(self, tile: Tile) -> tuple[Transfer, ...]:
        shape, transfers = self.spec.shape, []
        for constant in self.spec.constants:
            if not constant.resident:
                size = ceil(tile.n * constant.bits / 8)
                shared = self.tiling.split != "n"
                transfers.append(
                    self.machine.transfer(size, size, "weight", early=constant.early, shared=shared)
                )
        for side in self.spec.sides:
            if not side.resident:
                share = side.elements / (shape.batch * shape.m * shape.n)
                size = ceil(tile.batch * tile.m * tile.n * share * side.bits / 8)
                run = ceil(tile.n * share * side.bits / 8)
                transfers.append(self.machine.transfer(size, run, "input", early=side.early))
        return tuple(transfers)

    def _store(self, tile: Tile) -> Transfer:
        size, run = _size_and_run(tile.batch, tile.m, tile.n, self.spec.shape.n, self.spec.out.bits)
        return self.machine.transfer(size, run, "output")


def core_tile(tile: Tile, tiling: Tiling, cores: int) -> Tile:
    """The busiest core's part of a tick."""
    batch, m, n = tile.batch, tile.m, tile.n
    if tiling.split == "batch":
        batch = 1
    elif tiling.split == "m":
        m = ceil_div(m, cores)
    else:
        n = ceil_div(n, cores)
    return Tile(batch, m, tile.k, n)


def _size_and_run(batch: int, rows: int, cols: int, width: int, bits: float) -> tuple[int, int]:
    """Bytes of a tile of a row-major matrix of `width` columns, and of its contiguous runs."""
    size = ceil(batch * rows * cols * bits / 8)
    return size, size if cols == width else ceil(cols * bits / 8)


def _streams(spec: MatmulSpec, machine: Machine, core: Tile, first_k: bool) -> tuple[Ports, Ports]:
    """Bytes that a core's array reads from and writes to each buffer on one tile.

    The stationary operand is read once, the moving one once per fold across it; sums are written once per
    fold along k, and read back whenever they are added to.
    """
    if not machine.buffers:
        return (), ()
    a_times, b_times, k_folds = stream_counts(machine, core.m, core.k, core.n)
    read, write = [0] * machine.buffers, [0] * machine.buffers
    sums = ceil(core.m * core.n * machine.accumulator_bits / 8)
    read[machine.number("input")] += ceil(core.m * core.k * spec.a.bits / 8) * a_times
    read[machine.number("weight")] += ceil(core.k * core.n * spec.b.bits / 8) * b_times
    read[machine.number("output")] += sums * (k_folds - (1 if first_k else 0))
    write[machine.number("output")] += sums * k_folds
    return tuple(read), tuple(write)


def stream_counts(
    machine: Machine, m: Whole, k: Whole, n: Whole
) -> tuple[Whole | int, Whole | int, Whole | int]:
    """How often a tile's A and B pass through the array, and how often its sums do."""
    rows, cols = machine.array.rows, machine.array.cols
    if machine.array.dataflow == "output_stationary":
        return ceil_div(n, cols), ceil_div(m, rows), 1
    if machine.array.dataflow == "weight_stationary":
        return ceil_div(n, cols), 1, ceil_div(k, rows)
    return 1, ceil_div(m, cols), ceil_div(k, rows)


def _tail(spec: MatmulSpec, machine: Machine, core: Tile, last_k: bool) -> tuple[Ports, Ports]:
    """Bytes that a core's vector unit reads and writes for the element-wise tail of one tile."""
    read, write = [0] * machine.buffers, [0] * machine.buffers
    if last_k and spec.lane_cycles and machine.buffers:
        elements = core.m * core.n
        read[machine.number("output")] += ceil(elements * machine.accumulator_bits / 8)
        read[machine.number("input")] += sum(ceil(elements * side.bits / 8) for side in spec.sides)
        write[machine.number("output")] += ceil(elements * spec.out.bits / 8)
    return tuple(read), tuple(write)


@dataclass(frozen=True, slots=True)
class Window:
    """Where a tick's tile lies: half-open ranges of the matmul's indices, all cores together."""

    batch: slice
    m: slice
    k: slice
    n: slice


def windows(spec: MatmulSpec, machine: Machine, tiling: Tiling) -> Iterator[Window]:
    """The ticks' tiles in the order of `program`."""
    shape = spec.shape
    for batch in _slices(shape.batch, machine.cores if tiling.split == "batch" else 1):
        m_slices, n_slices = list(_slices(shape.m, tiling.m)), list(_slices(shape.n, tiling.n))
        pairs = (
            ((m, n) for m in m_slices for n in n_slices)
            if tiling.order == "mn"
            else ((m, n) for n in n_slices for m in m_slices)
        )
        for m, n in pairs:
            for k in _slices(shape.k, tiling.k):
                yield Window(batch, m, k, n)


def _slices(extent: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, extent)) for start in range(0, extent, step))
