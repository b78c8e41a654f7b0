"""A region's cost: what one run of it takes, simulated or bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

from tilewright.dataflows.least import Needs
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import AnyTiling, Request
from tilewright.dataflows.mapper import Mapping as RegionMapping
from tilewright.dataflows.program import Totals, held_bytes, totals
from tilewright.dataflows.sparse.program import unit_program
from tilewright.dataflows.specs import RowsSpec, UnitSpec, array_macs, vector_work
from tilewright.sim.event import RegionRun
from tilewright.sim.result import Slice


@dataclass(frozen=True)
class Cost:
    """What one run of a region takes."""

    cycles: int
    array: Mapping[str, int]
    """The array's cycles by state; they add up to `cycles`."""
    vector: Mapping[str, int]
    dram: Mapping[str, int]
    dram_read_bytes: int
    dram_write_bytes: int
    link_read_bytes: int
    """Bytes times links between cores that its loads pass."""
    link_write_bytes: int
    """Of its stores and sums."""
    router_bytes: int
    """Bytes times routers."""
    buffer_read_bytes: tuple[int, ...]
    buffer_write_bytes: tuple[int, ...]
    tiling: AnyTiling | None
    """None for the least that is needed, whatever the tiling."""
    predictor: Mapping[str, int] = field(default_factory=dict)
    """Of a sparse-attention unit's predictor; empty where none works."""
    held_bytes: tuple[int, ...] = ()
    """Room that its tiles take in each buffer."""
    slices: tuple[Slice, ...] = ()


def run_cost(run: RegionRun, request: Request, mapping: RegionMapping, machine: Machine) -> Cost:
    """A simulated region's cost."""
    sums: Totals = totals(mapping.program, machine.buffers)
    tally, on_array = run.tally, not isinstance(request.spec, RowsSpec)
    if on_array:
        behind = max(0, min(run.last_vector, run.cycles) - run.last_array)
        array = {
            "busy": tally.array_busy,
            "weight_shift": tally.weight_shift,
            "fill_drain": tally.fill_drain,
            "weight_stall": tally.weight_stall,
            "input_stall": tally.input_stall,
            "output_stall": tally.output_stall + run.cycles - run.last_array - behind,
            "vector_stall": tally.vector_stall,
            "prediction_stall": tally.prediction_stall,
            "sram_port_stall": tally.port_stall,
            "non_matrix": behind,
        }
    else:
        array = {"busy": 0, "non_matrix": run.cycles}
    rest = "idle" if on_array else "operand_stall"
    return Cost(
        cycles=run.cycles,
        array=array,
        vector={"busy": tally.vector_busy, rest: run.cycles - tally.vector_busy},
        dram={"busy": tally.dma_busy, "idle": run.cycles - tally.dma_busy},
        dram_read_bytes=sums.dram_read,
        dram_write_bytes=sums.dram_write,
        link_read_bytes=sums.link_read,
        link_write_bytes=sums.link_write,
        router_bytes=sums.routed,
        buffer_read_bytes=sums.buffer_read,
        buffer_write_bytes=sums.buffer_write,
        tiling=mapping.tiling,
        predictor=_predictor(request, tally.predictor_busy, run.cycles),
        held_bytes=held_bytes(mapping.program, machine.buffers),
        slices=run.slices,
    )


def least_cost(request: Request, needs: Needs, cycles: int, machine: Machine) -> Cost:
    """A region's cost by the least that it needs: what binds it is not known, only what is busy in any
    case."""
    spec = request.spec
    macs = array_macs(spec)
    lanes = machine.cores * machine.accelerator.vector.lanes
    vector = min(cycles, int(vector_work(spec) / lanes))
    dram = min(cycles, int((needs.dram_read + needs.dram_write) / machine.peak_dram))
    rest = "unattributed" if macs else "non_matrix"
    busy = min(cycles, ceil(macs / machine.accelerator.macs_per_cycle))
    if isinstance(spec, UnitSpec):
        busy = min(cycles, totals(unit_program(spec, machine), machine.buffers).array_streaming)
    return Cost(
        cycles=cycles,
        array={"busy": busy, rest: cycles - busy},
        vector={"busy": vector, "idle": cycles - vector},
        dram={"busy": dram, "idle": cycles - dram},
        dram_read_bytes=needs.dram_read,
        dram_write_bytes=needs.dram_write,
        link_read_bytes=needs.link_bytes[0],
        link_write_bytes=needs.link_bytes[1],
        router_bytes=needs.router_bytes,
        buffer_read_bytes=tuple(int(size) for size in needs.read),
        buffer_write_bytes=tuple(int(size) for size in needs.written),
        tiling=None,
        predictor=_predictor(request, min(needs.predict, cycles), cycles),
        held_bytes=(0,) * machine.buffers,
    )


def _predictor(request: Request, busy: int, cycles: int) -> dict[str, int]:
    return {"busy": busy, "idle": cycles - busy} if isinstance(request.spec, UnitSpec) else {}
