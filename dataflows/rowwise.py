"""Regions on the vector unit: rows are loaded, worked on and stored, tile by tile.

A row that does not fit is cut; operators that must see a whole row first (softmax, norms, sorts) then load it
twice: once to reduce it, once to finish it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Ports, Program, Tick, Transfer, merged
from tilewright.dataflows.specs import Operand, RowsSpec
from tilewright.dataflows.tiling import sizes


@dataclass(frozen=True, slots=True)
class RowTiling:
    """Rows of a tick over all cores, or, where a row does not fit, columns of a single core's row."""

    rows: int
    cols: int

    def __str__(self) -> str:
        return f"{self.rows} rows x {self.cols}"


def row_tilings(spec: RowsSpec, machine: Machine) -> list[RowTiling]:
    """Tilings that fit, the largest first; empty if not even one element does."""
    if not machine.buffers:
        return [RowTiling(spec.rows, spec.cols)]
    effort, cores = machine.accelerator.mapper.effort, machine.cores
    per_core = sizes(ceil_div(spec.rows, cores), 1, effort)
    whole = [RowTiling(min(rows * cores, spec.rows), spec.cols) for rows in per_core]
    fitting = [tiling for tiling in whole if _fits(spec, machine, tiling)]
    if fitting:
        return fitting[::-1]
    rows = min(cores, spec.rows)
    pieces = [RowTiling(rows, cols) for cols in sizes(spec.cols, 1, effort)]
    return [tiling for tiling in pieces if _fits(spec, machine, tiling)][::-1]


def _fits(spec: RowsSpec, machine: Machine, tiling: RowTiling) -> bool:
    share = ceil_div(tiling.rows, machine.cores) * tiling.cols / (spec.rows * spec.cols)
    loaded = sum(ceil(o.elements * share) * o.bits for o in spec.inputs if not o.resident)
    made = sum(ceil(o.elements * share) * o.bits for o in spec.outputs)
    cut = tiling.cols / spec.cols
    fixed = sum(ceil(o.elements * cut) * o.bits for o in spec.constants if not o.resident)
    needs = [0.0] * machine.buffers
    needs[machine.number("input")] += ceil(loaded / 8) * machine.slots + ceil(fixed / 8)
    needs[machine.number("output")] += ceil(made / 8) * machine.slots
    return all(need <= room for need, room in zip(needs, machine.room_bytes, strict=True))


def row_program(spec: RowsSpec, machine: Machine, tiling: RowTiling) -> Program:
    """The whole loop nest."""
    full, rest = divmod(spec.rows, tiling.rows)
    runs = [(_row_tile(spec, machine, tiling, min(tiling.rows, spec.rows), first=True), 1)]
    if full > 1:
        runs.append((_row_tile(spec, machine, tiling, tiling.rows, first=False), full - 1))
    if rest and full:
        runs.append((_row_tile(spec, machine, tiling, rest, first=False), 1))
    return merged(runs)


def _row_tile(spec: RowsSpec, machine: Machine, tiling: RowTiling, rows: int, *, first: bool) -> Program:
    """Some whole rows: one tick, or, where rows are cut, a tick per piece and pass."""
    if tiling.cols == spec.cols:
        return (_tick(spec, machine, rows, spec.cols, first=first, stores=True, work=1.0),)
    full, rest = divmod(spec.cols, tiling.cols)
    pieces = [(tiling.cols, full), (rest, 1)] if rest else [(tiling.cols, full)]
    passes = [(False, 0.5), (True, 0.5)] if spec.two_passes else [(True, 1.0)]
    return merged(
        [
            ((_tick(spec, machine, rows, cols, first=first, stores=stores, work=work),), times)
            for stores, work in passes
            for cols, times in pieces
        ]
    )


def _tick(
    spec: RowsSpec, machine: Machine, rows: int, cols: int, *, first: bool, stores: bool, work: float
) -> Tick:
    """One tile; constants come with the first rows."""
    share = rows * cols / (spec.rows * spec.cols)
    core_rows = ceil_div(rows, machine.cores)
    core_share = core_rows * cols / (spec.rows * spec.cols)
    loads = [_transfer(machine, operand, share, rows) for operand in spec.inputs if not operand.resident]
    fixed = [_constant(machine, o, cols / spec.cols) for o in spec.constants if first and not o.resident]
    side = tuple(transfer for transfer in (*loads, *fixed) if transfer is not None)
    results = [o for o in spec.outputs if not o.resident] if stores else []
    read = _accesses(machine, spec.inputs, core_share, "input")
    write = _accesses(machine, spec.outputs if stores else (), core_share, "output")
    active = min(machine.cores, rows)
    return Tick(
        side=side,
        vector=max(1, machine.vector_cycles(spec.lane_cycles * core_rows * cols * work)),
        vector_ports=tuple(
            machine.port_cycles(i, r + w) for i, (r, w) in enumerate(zip(read, write, strict=True))
        ),
        store=_stored(machine, results, share, rows),
        opens_output=stores,
        closes_output=stores,
        slots=machine.slots,
        buffer_read=tuple(size * active for size in read),
        buffer_write=tuple(size * active for size in write),
    )


def _transfer(machine: Machine, operand: Operand, share: float, rows: int) -> Transfer:
    size = ceil(operand.elements * share * operand.bits / 8)
    return machine.transfer(size, ceil(size / rows) if share < 1 else size, "input", early=operand.early)


def _constant(machine: Machine, operand: Operand, share: float) -> Transfer:
    size = ceil(operand.elements * share * operand.bits / 8)
    return machine.transfer(size, size, "input", early=operand.early, shared=True)


def _stored(machine: Machine, results: list[Operand], share: float, rows: int) -> Transfer | None:
    size = sum(ceil(o.elements * share * o.bits / 8) for o in results)
    return machine.transfer(size, ceil(size / rows), "output") if size else None


def _accesses(machine: Machine, operands: tuple[Operand, ...], share: float, home: str) -> Ports:
    sizes_bytes = [0] * machine.buffers
    if machine.buffers:
        number = machine.number("input" if home == "input" else "output")
        sizes_bytes[number] = sum(ceil(o.elements * share * o.bits / 8) for o in operands)
    return tuple(sizes_bytes)


def row_traffic(spec: RowsSpec, tiling: RowTiling) -> tuple[int, int]:
    """Bytes read from and written to DRAM."""
    passes = 2 if spec.two_passes and tiling.cols < spec.cols else 1
    loaded = sum(o.bytes for o in spec.inputs if not o.resident) * passes
    loaded += sum(o.bytes for o in spec.constants if not o.resident)
    return loaded, sum(o.bytes for o in spec.outputs if not o.resident)


def row_bound(spec: RowsSpec, machine: Machine, ends: tuple[int, int], tiling: RowTiling) -> int:
    """Cycles that no tiling like this one (rows whole, or rows cut) can undercut."""
    loaded, stored = row_traffic(spec, tiling)
    dma = max(0, floor((loaded + stored) / machine.peak_moved) - ends[0]) + ends[1]
    waits = not all(o.resident or o.early for o in (*spec.inputs, *spec.constants))
    latency = machine.dram_latency
    work = spec.lane_cycles * spec.rows * spec.cols / machine.cores / machine.accelerator.vector.lanes
    vector = max(1, floor(work)) + (latency if waits else 0) + (latency if stored else 0)
    after = latency if stored else 0
    if machine.slots == 1 and any(not o.resident for o in spec.inputs):
        return max(vector, dma + after + max(1, floor(work)))  # loads, work and stores take turns
    return max(vector, dma + after)
