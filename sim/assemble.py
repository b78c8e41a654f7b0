"""Putting a result together: each distinct region's cost, laid out over the whole plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import TYPE_CHECKING

from tilewright import __version__
from tilewright.arch.accelerator import IdealDram
from tilewright.arch.energy import Actions, EnergyModel, joules, picojoules
from tilewright.dataflows.layout import Group, Step
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Bound, Request, bound_program
from tilewright.dataflows.mapper import Mapping as RegionMapping
from tilewright.dataflows.plan import Schema
from tilewright.dataflows.program import Totals, held_bytes, totals
from tilewright.dataflows.regions import MatmulSpec, lane_cycles
from tilewright.sim.event import RegionRun
from tilewright.sim.functional import Values
from tilewright.sim.result import CounterSample, OperatorRow, Result, Slice, Traffic
from tilewright.workloads.operators import MatmulShape, Operator

if TYPE_CHECKING:
    from tilewright.sim.run import Options

TRACED_SLICES = 100_000
"""Slices per run that a trace keeps; later copies of repeated blocks then show operators only."""


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
    buffer_read_bytes: tuple[int, ...]
    buffer_write_bytes: tuple[int, ...]
    mapping: str
    held_bytes: tuple[int, ...] = ()
    """Room that its tiles take in each buffer."""
    slices: tuple[Slice, ...] = ()


def run_cost(run: RegionRun, request: Request, mapping: RegionMapping, machine: Machine) -> Cost:
    """A simulated region's cost."""
    sums: Totals = totals(mapping.program, machine.buffers)
    tally, is_matmul = run.tally, isinstance(request.spec, MatmulSpec)
    if is_matmul:
        behind = max(0, min(run.last_vector, run.cycles) - run.last_array)
        array = {
            "busy": tally.array_busy,
            "weight_shift": tally.weight_shift,
            "fill_drain": tally.fill_drain,
            "weight_stall": tally.weight_stall,
            "input_stall": tally.input_stall,
            "output_stall": tally.output_stall + run.cycles - run.last_array - behind,
            "sram_port_stall": tally.port_stall,
            "non_matrix": behind,
        }
    else:
        array = {"busy": 0, "non_matrix": run.cycles}
    rest = "idle" if is_matmul else "operand_stall"
    return Cost(
        cycles=run.cycles,
        array=array,
        vector={"busy": tally.vector_busy, rest: run.cycles - tally.vector_busy},
        dram={"busy": tally.dma_busy, "idle": run.cycles - tally.dma_busy},
        dram_read_bytes=sums.dram_read,
        dram_write_bytes=sums.dram_write,
        buffer_read_bytes=sums.buffer_read,
        buffer_write_bytes=sums.buffer_write,
        mapping=str(mapping.tiling),
        held_bytes=held_bytes(mapping.program, machine.buffers),
        slices=run.slices,
    )


def bound_cost(request: Request, bound: Bound, machine: Machine) -> Cost:
    """A bounded region's cost: what binds it is not known, only what is busy in any case."""
    spec, cycles = request.spec, bound.cycles
    macs = spec.shape.macs if isinstance(spec, MatmulSpec) else 0
    elements = spec.out.elements if isinstance(spec, MatmulSpec) else spec.rows * spec.cols
    lanes = machine.cores * machine.accelerator.vector.lanes
    busy = min(cycles, ceil(macs / machine.accelerator.macs_per_cycle))
    vector = min(cycles, int(spec.lane_cycles * elements / lanes))
    dram = min(cycles, int((bound.dram_read_bytes + bound.dram_write_bytes) / machine.peak_dram))
    rest = "unattributed" if macs else "non_matrix"
    program = bound_program(request, bound, machine)
    sums = totals(program, machine.buffers)
    return Cost(
        cycles=cycles,
        array={"busy": busy, rest: cycles - busy},
        vector={"busy": vector, "idle": cycles - vector},
        dram={"busy": dram, "idle": cycles - dram},
        dram_read_bytes=bound.dram_read_bytes,
        dram_write_bytes=bound.dram_write_bytes,
        buffer_read_bytes=sums.buffer_read,
        buffer_write_bytes=sums.buffer_write,
        mapping=str(bound.tiling),
        held_bytes=held_bytes(program, machine.buffers),
    )


@dataclass
class Assembly:
    """Lays the costs out over the plan's groups, copy by copy, and charges what they did."""

    schema: Schema
    costs: Mapping[Request, Cost]
    options: Options
    outputs: Mapping[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.energy = EnergyModel(self.schema.machine.accelerator)

    def result(self) -> Result:
        """The result of the whole run."""
        machine, graph = self.schema.machine, self.schema.cut.graph
        accelerator = machine.accelerator
        rows, slices, counters = self._laid_out()
        units = {unit: self._sum_states(unit) for unit in ("array", "vector", "dram")}
        area = self.energy.area_mm2
        ideal = isinstance(accelerator.dram, IdealDram)
        return Result(
            accelerator=accelerator.name,
            workload=graph.name,
            fidelity=self.options.fidelity,
            cycles=sum(g.times * self.costs[s.request].cycles for g in self.schema.groups for s in g.steps),
            clock_mhz=accelerator.clock_mhz,
            parameters=graph.parameters,
            macs=graph.macs,
            peak_macs_per_cycle=accelerator.macs_per_cycle,
            peak_dram_bytes_per_cycle=None if ideal else machine.peak_dram,
            units=units,
            stalls={cause: count for cause, count in units["array"].items() if cause != "busy"},
            traffic_bytes=self._traffic(),
            operators=tuple(rows),
            provenance=self._provenance(),
            energy_j=joules(self._energy_zj()),
            area_mm2={"total": sum(area.values()), **area},
            sources=tuple(row.to_dict() for row in self.energy.sources()),
            slices=tuple(slices),
            counters=tuple(counters),
            outputs=self.outputs,
        )

    def _copies(self) -> Iterator[tuple[Group, int]]:
        for group in self.schema.groups:
            for copy in range(group.first_copy, group.first_copy + group.times):
                yield group, copy

    def _laid_out(self) -> tuple[list[OperatorRow], list[Slice], list[CounterSample]]:
        rows: list[OperatorRow] = []
        slices: list[Slice] = []
        counters: list[CounterSample] = []
        now = moved = 0
        parts = {step: self._rows(step) for group in self.schema.groups for step in group.steps}
        for group, copy in self._copies():
            for step in group.steps:
                cost = self.costs[step.request]
                ends = now + cost.cycles
                for row in parts[step]:
                    rows.append(_placed(row, copy, now, ends))
                if self.options.trace:
                    if len(slices) < TRACED_SLICES:
                        slices += [replace(s, start=s.start + now, end=s.end + now) for s in cost.slices]
                    counters.append(CounterSample("dram bytes", now, moved))
                    counters += [
                        CounterSample(f"{name} bytes held by tiles", now, held)
                        for name, held in zip(self.schema.machine.names, cost.held_bytes, strict=True)
                    ]
                moved += cost.dram_read_bytes + cost.dram_write_bytes
                now = ends
        if self.options.trace:
            counters.append(CounterSample("dram bytes", now, moved))
        return rows, slices, counters

    def _rows(self, step: Step) -> list[OperatorRow]:
        """The region's operators: the anchor with the region's cycles, the fused ones with none. The vector
        unit's cycles are shared out by their work."""
        graph, cost = self.schema.cut.graph, self.costs[step.request]
        members = [graph.operators[i] for i in step.region.operators]
        works = [lane_cycles(op, self.schema.machine.accelerator) for op in members]
        vector = _shares(cost.vector["busy"], works)
        anchor = members[0]
        rows = []
        for op, busy, energy in zip(members, vector, self._member_energies(step, members), strict=True):
            own = op is anchor
            rows.append(
                OperatorRow(
                    name=op.name,
                    kind=op.kind,
                    start=0,
                    end=0,
                    cycles=cost.cycles if own else 0,
                    macs=op.macs,
                    array_busy_cycles=cost.array["busy"] if own else 0,
                    vector_busy_cycles=busy,
                    dram_busy_cycles=cost.dram["busy"] if own else 0,
                    dram_read_bytes=cost.dram_read_bytes if own else 0,
                    dram_write_bytes=cost.dram_write_bytes if own else 0,
                    shape=_shape(op),
                    mapping=cost.mapping if own else "",
                    bound=_bound(cost) if own else "",
                    fused_into="" if own else anchor.name,
                    energy_pj=picojoules(energy),
                )
            )
        return rows

    def _member_energies(self, step: Step, members: list[Operator]) -> list[dict[str, int]]:
        """Each operator's energy in zJ by component: the region's accesses and time are its anchor's."""
        cost = self.costs[step.request]
        names = self.schema.machine.names
        energies = []
        for op in members:
            actions = Actions(macs=op.macs, vector=dict(op.primitives))
            if op is members[0]:
                moved = cost.dram_read_bytes + cost.dram_write_bytes
                actions += Actions(
                    buffer_read_bytes=dict(zip(names, cost.buffer_read_bytes, strict=True)),
                    buffer_write_bytes=dict(zip(names, cost.buffer_write_bytes, strict=True)),
                    dram_read_bytes=cost.dram_read_bytes,
                    dram_write_bytes=cost.dram_write_bytes,
                    dram_activations=self.energy.least_activations(moved),
                )
            cycles = cost.cycles if op is members[0] else 0
            energies.append(self.energy.run_zj(actions, cycles))
        return energies

    def _energy_zj(self) -> dict[str, int]:
        """Energy of the whole run in zJ by component: exactly the sum over its operators."""
        whole: dict[str, int] = {}
        for group in self.schema.groups:
            for step in group.steps:
                members = [self.schema.cut.graph.operators[i] for i in step.region.operators]
                for parts in self._member_energies(step, members):
                    for name, energy in parts.items():
                        whole[name] = whole.get(name, 0) + energy * group.times
        return whole

    def _sum_states(self, unit: str) -> dict[str, int]:
        states: dict[str, int] = {"busy": 0}
        for group in self.schema.groups:
            for step in group.steps:
                for state, count in getattr(self.costs[step.request], unit).items():
                    states[state] = states.get(state, 0) + count * group.times
        return states

    def _traffic(self) -> dict[str, Traffic]:
        names = ("dram", *self.schema.machine.names)
        read, write = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for group in self.schema.groups:
            for step in group.steps:
                cost = self.costs[step.request]
                for name, count in zip(names, (cost.dram_read_bytes, *cost.buffer_read_bytes), strict=False):
                    read[name] += count * group.times
                for name, count in zip(
                    names, (cost.dram_write_bytes, *cost.buffer_write_bytes), strict=False
                ):
                    write[name] += count * group.times
        if self.options.fidelity == "analytic":
            names = ("dram",)  # the bounds do not hold the ports to their bandwidth
        return {name: Traffic(read[name], write[name]) for name in names}

    def _provenance(self) -> dict[str, object]:
        machine, graph = self.schema.machine, self.schema.cut.graph
        description = machine.accelerator.model_dump_json()
        content = repr((graph.operators, sorted(graph.tensors.items()), graph.repeats))
        return {
            "version": __version__,
            "config_hash": hashlib.sha256((description + content).encode()).hexdigest()[:16],
            "seed": self.options.seed,
            "fast_forward": self.options.fast_forward,
            "set_aside_for_resident_tensors": dict(machine.set_aside),
            "workload_metadata": dict(graph.metadata),
        }


def _placed(row: OperatorRow, copy: int, start: int, end: int) -> OperatorRow:
    number = str(copy)
    return replace(
        row,
        name=row.name.replace("{i}", number),
        fused_into=row.fused_into.replace("{i}", number),
        start=start,
        end=end,
    )


def _shares(total: int, weights: list[float]) -> list[int]:
    """Whole numbers in proportion to the weights, adding up to the total."""
    whole = sum(weights)
    if not whole:
        return [total] + [0] * (len(weights) - 1)
    shares = [int(total * weight / whole) for weight in weights]
    shares[max(range(len(weights)), key=lambda i: weights[i])] += total - sum(shares)
    return shares


def _shape(op: Operator) -> str:
    shape = op.shape
    if isinstance(shape, MatmulShape):
        batch = f"{shape.batch} x " if shape.batch > 1 else ""
        return (
            f"{batch}({shape.m} x {shape.k} x {shape.n})" if batch else f"{shape.m} x {shape.k} x {shape.n}"
        )
    return f"{shape.rows} x {shape.cols}"


def _bound(cost: Cost) -> str:
    """The unit that works longest."""
    working = {
        "array": sum(cost.array.get(state, 0) for state in ("busy", "weight_shift", "fill_drain")),
        "vector": cost.vector["busy"],
        "dram": cost.dram["busy"],
        "sram port": cost.array.get("sram_port_stall", 0) and cost.cycles,
    }
    return max(working, key=lambda unit: working[unit])
