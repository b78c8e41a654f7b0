"""Tiles of a matmul: what moving one, streaming it and working on its result takes.

Whatever the loop nest: `matmul`, `chain` and `prescribed` make their ticks of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from types import MappingProxyType

from tilewright.arch.accelerator import Operand as OperandKind
from tilewright.arch.array import Array
from tilewright.dataflows.arith import Whole, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.network import Spread
from tilewright.dataflows.program import Ports, Tick, Transfer
from tilewright.dataflows.specs import MatmulSpec, Operand
from tilewright.dataflows.systolic import packed, tile_cycles
from tilewright.dataflows.tiling import Split

Accesses = tuple[Ports, Ports]
"""Bytes read from and written to each buffer."""


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


@dataclass(frozen=True, slots=True)
class VectorWork:
    """What the vector unit does to a core's output tile."""

    lane_cycles: float
    """Per element."""
    read: Ports
    write: Ports
    """Bytes from and to each buffer."""
    sides: tuple[Transfer, ...] = ()
    """Loads that it waits for."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """What moving and working on a matmul's tiles takes, where the cores share out `split`."""

    spec: MatmulSpec
    machine: Machine
    split: Split
    slots: int
    """Of the ticks' operands."""

    def core(self, tile: Tile) -> Tile:
        """The busiest core's part of a tick."""
        return core_tile(tile, self.split, self.machine.cores)

    def streamed(
        self,
        tile: Tile,
        moment: Moment,
        *,
        staying: tuple[float, float] = (0.0, 0.0),
        work: VectorWork | None = None,
    ) -> Tick:
        """A tick: the array's part and, with `work`, the vector unit's. `staying`: how many times a tile of A
        and one of B stay on chip together; 0 where ordinary slots do."""
        core, active = self.core(tile), self.active_cores(tile)
        cycles = tile_cycles(
            self.machine.array,
            core.m,
            core.k,
            core.n,
            structured=self.spec.structured,
            by_head=self.spec.by_head,
        )
        read, write = _streams(self.spec, self.machine, core, moment.first_k)
        tick = Tick(
            weight=_staying(self.load_b(tile), staying[1]) if moment.loads_b else None,
            input=_staying(self.load_a(tile), staying[0]) if moment.loads_a else None,
            array=cycles.stream,
            array_streaming=cycles.streaming,
            array_shift=cycles.stream_shift,
            array_preload=cycles.preload,
            array_swap=cycles.swap,
            array_shadow=cycles.shadow,
            array_latency=cycles.latency,
            array_ports=self.ports(read, write),
            store=self.store(tile) if moment.last_k else None,
            opens_output=moment.first_k,
            closes_output=moment.last_k,
            slots=self.slots,
            buffer_read=_times(read, active),
            buffer_write=_times(write, active),
        )
        return tick if work is None else self.worked(tick, tile, work)

    def worked(self, tick: Tick, tile: Tile, work: VectorWork) -> Tick:
        """A tick that was made without, with the vector unit's part."""
        lane_cycles, active = work.lane_cycles + self.additions(), self.active_cores(tile)
        vector = self.machine.vector_cycles(lane_cycles * self.own_elements(self.core(tile)))
        if not vector:  # what the array makes goes where it is used without passing the unit
            return replace(tick, side=work.sides)
        return replace(
            tick,
            side=work.sides,
            vector=vector,
            vector_ports=self.ports(work.read, work.write),
            buffer_read=_sums(tick.buffer_read, _times(work.read, active)),
            buffer_write=_sums(tick.buffer_write, _times(work.write, active)),
        )

    def element_wise(self, tile: Tile) -> VectorWork:
        """The vector unit's part of the element-wise tail."""
        return VectorWork(self.spec.lane_cycles, *self.tail(tile), self.sides(tile))

    def tail(self, tile: Tile) -> Accesses:
        """Bytes that a core's vector unit reads from and writes to each buffer for the element-wise tail."""
        machine, core = self.machine, self.core(tile)
        read, write = [0] * machine.buffers, [0] * machine.buffers
        if self.spec.lane_cycles and machine.buffers:
            elements = self.own_elements(core)
            read[machine.number("output")] += ceil(elements * machine.accumulator_bits / 8)
            read[machine.number("input")] += sum(ceil(elements * side.bits / 8) for side in self.spec.sides)
            write[machine.number("output")] += ceil(elements * self.spec.out.bits / 8)
        return tuple(read), tuple(write)

    def ports(self, read: Ports, write: Ports) -> Ports:
        """Cycles of each buffer's ports for a core's accesses."""
        widths = self.machine.widths
        return tuple([-(-(r + w) // width) for r, w, width in zip(read, write, widths, strict=True)])

    def active_cores(self, tile: Tile) -> int:
        """Cores that have a part of a tick."""
        if self.split == "batch":
            return tile.batch
        return min(self.machine.cores, {"m": tile.m, "n": tile.n, "k": tile.k}[self.split])

    def own_elements(self, core: Tile) -> int:
        """Elements of an output tile that a core's vector unit works on."""
        return ceil_div(core.m * core.n, self.machine.cores if self.split == "k" else 1)

    def additions(self) -> float:
        """Lane cycles per such element to add up the other cores' sums."""
        add = self.machine.accelerator.vector.cycles.add
        return (self.machine.cores - 1) * add if self.split == "k" else 0.0

    def load_a(self, tile: Tile) -> Transfer | None:
        """The tile of A; None if it is where it is needed."""
        a = self.spec.a
        size, run = _size_and_run(tile.batch, tile.m, tile.k, self.spec.shape.k, a.bits)
        if a.resident:
            return self._moved(a, size, "input", SPREAD[self.split].a)
        return self.machine.transfer(size, run, "input", early=a.early, shared=self.split == "n")

    def load_b(self, tile: Tile) -> Transfer | None:
        """The tile of B; None if it is where it is needed."""
        b = self.spec.b
        size, run = _size_and_run(tile.batch, tile.k, tile.n, self.spec.shape.n, b.bits)
        if b.resident:
            return self._moved(b, size, "weight", SPREAD[self.split].b)
        return self.machine.transfer(size, run, "weight", early=b.early, shared=self.split == "m")

    def sides(self, tile: Tile) -> tuple[Transfer, ...]:
        """What the tail needs beside an output tile."""
        shape, transfers = self.spec.shape, []
        for constant in self.spec.constants:
            if not constant.resident:
                size = ceil(tile.n * constant.bits / 8)
                shared = self.split != "n"
                transfers.append(
                    self.machine.transfer(size, size, "weight", early=constant.early, shared=shared)
                )
        for side in self.spec.sides:
            share = side.elements / (shape.batch * shape.m * shape.n)
            size = ceil(tile.batch * tile.m * tile.n * share * side.bits / 8)
            run = ceil(tile.n * share * side.bits / 8)
            if not side.resident:
                transfers.append(self.machine.transfer(size, run, "input", early=side.early))
            elif (moved := self._moved(side, size, "input", SPREAD[self.split].out)) is not None:
                transfers.append(moved)
        return tuple(transfers)

    def store(self, tile: Tile) -> Transfer | None:
        """The output tile, to where it belongs; None if it is there already."""
        out = self.spec.out
        size, run = _size_and_run(tile.batch, tile.m, tile.n, self.spec.shape.n, out.bits)
        if out.resident:
            stored = self._moved(out, size, "output", SPREAD[self.split].out)
        else:
            stored = self.machine.transfer(size, run, "output")
        if self.split != "k":
            return stored
        sums = ceil(tile.batch * tile.m * tile.n * self.machine.accumulator_bits / 8)
        return one_after_other(self.machine.between_cores(sums, "output", "reduce"), stored)

    def _moved(self, operand: Operand, size: int, kind: OperandKind, spread: Spread) -> Transfer | None:
        """What brings a tile of a tensor that stays on chip to the cores that need it."""
        if spread is None or operand.in_place:
            return None
        return self.machine.between_cores(size, kind, spread)


@dataclass(frozen=True, slots=True)
class Spreads:
    """How cores come by their parts of tensors that stay on chip."""

    a: Spread
    b: Spread
    out: Spread
    """Also of what the tail needs beside it."""


SPREAD: Mapping[Split, Spreads] = MappingProxyType(
    {
        "m": Spreads(None, "gather", None),
        "n": Spreads("gather", None, "exchange"),
        "k": Spreads("exchange", None, None),
        "batch": Spreads("exchange", "exchange", "exchange"),
    }
)
"""Inputs and results lie by rows, each core having as many; a B that is shared out is where it is needed."""


def _staying(load: Transfer | None, times: float) -> Transfer | None:
    if load is None or not times:
        return load
    return replace(load, staying_bytes=ceil(load.buffer_bytes * times))


def _sums(one: Ports, other: Ports) -> Ports:
    return tuple([a + b for a, b in zip(one, other, strict=True)])


def _times(each: Ports, count: int) -> Ports:
    return tuple([size * count for size in each])


def one_after_other(first: Transfer | None, second: Transfer | None) -> Transfer | None:
    """Two transfers from the same buffer, one after the other, as one."""
    if first is None or second is None:
        return first or second
    return replace(
        second,
        occupancy=first.occupancy + second.occupancy,
        latency=first.latency + second.latency,
        port_cycles=first.port_cycles + second.port_cycles,
        buffer_bytes=first.buffer_bytes + second.buffer_bytes,
        link_bytes=first.link_bytes + second.link_bytes,
        router_bytes=first.router_bytes + second.router_bytes,
    )


def core_tile(tile: Tile, split: Split, cores: int) -> Tile:
    """The busiest core's part of a tick."""
    batch, m, k, n = tile.batch, tile.m, tile.k, tile.n
    if split == "batch":
        batch = 1
    elif split == "m":
        m = ceil_div(m, cores)
    elif split == "k":
        k = ceil_div(k, cores)
    else:
        n = ceil_div(n, cores)
    return Tile(batch, m, k, n)


def _size_and_run(batch: int, rows: int, cols: int, width: int, bits: float) -> tuple[int, int]:
    """Bytes of a tile of a row-major matrix of `width` columns, and of its contiguous runs."""
    size = ceil(batch * rows * cols * bits / 8)
    return size, size if cols == width else ceil(cols * bits / 8)


def _streams(spec: MatmulSpec, machine: Machine, core: Tile, first_k: bool) -> Accesses:
    """Bytes that a core's array reads from and writes to each buffer on one tile.

    The stationary operand is read once, the moving one once per fold across it; sums are written once per
    fold along k, and read back whenever they are added to.
    """
    if not machine.buffers:
        return (), ()
    k = packed(machine.array, core.k) if spec.structured else core.k
    a_times, b_times, k_folds = stream_counts(machine.array, core.m, k, core.n)
    read, write = [0] * machine.buffers, [0] * machine.buffers
    sums = ceil(core.m * core.n * machine.accumulator_bits / 8)
    read[machine.number("input")] += ceil(core.m * core.k * spec.a.bits / 8) * a_times
    read[machine.number("weight")] += ceil(core.k * core.n * spec.b.bits / 8) * b_times
    read[machine.number("output")] += sums * (k_folds - (1 if first_k else 0))
    write[machine.number("output")] += sums * k_folds
    return tuple(read), tuple(write)


def stream_counts(array: Array, m: Whole, k: Whole, n: Whole) -> tuple[Whole | int, Whole | int, Whole | int]:
    """How often a tile's A and B pass through the array, and how often its sums do."""
    rows, cols = array.rows, array.cols
    if array.dataflow == "output_stationary":
        return ceil_div(n, cols), ceil_div(m, rows), 1
    if array.dataflow == "weight_stationary":
        return ceil_div(n, cols), 1, ceil_div(k, rows)
    return 1, ceil_div(m, cols), ceil_div(k, rows)
