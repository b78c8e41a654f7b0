"""Putting a result together: each distinct region's cost, laid out over the whole plan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from tilewright import __version__
from tilewright.arch.dram import IdealDram
from tilewright.arch.energy import Actions, EnergyModel, joules, picojoules
from tilewright.arch.fpga_results import area_fpga, fpga_sources
from tilewright.dataflows.footprint import peak_memory_bytes
from tilewright.dataflows.layout import Group, Step
from tilewright.dataflows.mapper import Request
from tilewright.dataflows.plan import Schema
from tilewright.dataflows.sparse.program import choose
from tilewright.dataflows.specs import StreamSpec, UnitSpec
from tilewright.dataflows.vector_unit import lane_cycles
from tilewright.sim.cost import Cost
from tilewright.sim.functional import Values
from tilewright.sim.result import CounterSample, OperatorRow, Result, Slice, Traffic
from tilewright.sim.work import Work, works
from tilewright.workloads.operators import MatmulShape, Operator, in_copy

if TYPE_CHECKING:
    from tilewright.sim.run import Options

TRACED_SLICES = 100_000
"""Slices per run that a trace keeps; later copies of repeated blocks then show operators only."""


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
        units = {unit: self._sum_states(unit) for unit in self._units()}
        steps = [(group.times, step) for group in self.schema.groups for step in group.steps]
        done = [(times, work) for times, step in steps for work in self._works(step)]
        area = self.energy.area_mm2
        ideal = isinstance(accelerator.dram, IdealDram)
        return Result(
            accelerator=accelerator.name,
            workload=graph.name,
            fidelity=self.options.fidelity,
            cycles=sum(times * self.costs[step.request].cycles for times, step in steps),
            clock_mhz=accelerator.clock_mhz,
            parameters=graph.parameters,
            macs=sum(times * work.macs for times, work in done),
            useful_macs=sum(times * work.useful_macs for times, work in done),
            peak_memory_bytes=peak_memory_bytes(graph, accelerator, self.schema.cut),
            peak_macs_per_cycle=accelerator.macs_per_cycle,
            peak_dram_bytes_per_cycle=None if ideal else machine.peak_dram,
            units=units,
            stalls={cause: count for cause, count in units["array"].items() if cause != "busy"},
            traffic_bytes=self._traffic(),
            operators=tuple(rows),
            provenance=self._provenance(),
            energy_j=joules(self._energy_zj()),
            area_mm2={"total": sum(area.values()), **area},
            area_fpga=area_fpga(accelerator),
            sparse_attention=self._choices(),
            sources=tuple(row.to_dict() for row in (*self.energy.sources(), *fpga_sources(accelerator))),
            slices=tuple(slices),
            counters=tuple(counters),
            outputs=self.outputs,
        )

    def _units(self) -> tuple[str, ...]:
        unit = self.schema.machine.accelerator.attention_unit
        return ("array", "vector", "dram") if unit is None else ("array", "vector", "dram", "predictor")

    def _works(self, step: Step) -> list[Work]:
        """What each of a region's operators does."""
        members = [self.schema.cut.graph.operators[i] for i in step.region.operators]
        tiling = self.costs[step.request].tiling
        machine = self.schema.machine
        return works(members, step.request.spec, tiling, machine.array, machine.cores)

    def _choices(self) -> dict[str, dict[str, float]]:
        """How good the choice of each layer on a sparse-attention unit is; of copies once."""
        found = {}
        for group in self.schema.groups:
            for step in group.steps:
                spec = step.request.spec
                if isinstance(spec, UnitSpec) and not isinstance(spec, StreamSpec):
                    chosen = choose(spec.unit, spec.pairs, self.schema.machine.array)
                    name = self.schema.cut.graph.operators[step.region.anchor].name
                    found[name] = {key: float(value) for key, value in asdict(chosen.quality).items()}
        return found

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
        vector = _shares(
            cost.vector["busy"], [lane_cycles(op, self.schema.machine.accelerator) for op in members]
        )
        done = self._works(step)
        array = _shares(cost.array["busy"], [float(work.macs) for work in done])
        anchor = members[0]
        rows = []
        energies = self._member_energies(step, done)
        for op, work, streaming, busy, energy in zip(members, done, array, vector, energies, strict=True):
            own = op is anchor
            rows.append(
                OperatorRow(
                    name=op.name,
                    kind=op.kind,
                    start=0,
                    end=0,
                    cycles=cost.cycles if own else 0,
                    macs=work.macs,
                    useful_macs=work.useful_macs,
                    array_busy_cycles=streaming,
                    vector_busy_cycles=busy,
                    dram_busy_cycles=cost.dram["busy"] if own else 0,
                    dram_read_bytes=cost.dram_read_bytes if own else 0,
                    dram_write_bytes=cost.dram_write_bytes if own else 0,
                    shape=_shape(op),
                    mapping=str(cost.tiling) if own and cost.tiling is not None else "",
                    bound=_bound(cost) if own else "",
                    fused_into="" if own else anchor.name,
                    energy_pj=picojoules(energy),
                )
            )
        return rows

    def _member_energies(self, step: Step, done: list[Work]) -> list[dict[str, int]]:
        """Each operator's energy in zJ by component: the region's accesses and time are its anchor's."""
        cost = self.costs[step.request]
        names = self.schema.machine.names
        energies = []
        for number, work in enumerate(done):
            actions = Actions(
                macs=work.macs + work.array_steps,
                vector=work.vector,
                predictor_macs=work.predictor_macs,
                predictor=work.predictor,
            )
            if number == 0:
                moved = cost.dram_read_bytes + cost.dram_write_bytes
                actions += Actions(
                    buffer_read_bytes=dict(zip(names, cost.buffer_read_bytes, strict=True)),
                    buffer_write_bytes=dict(zip(names, cost.buffer_write_bytes, strict=True)),
                    dram_read_bytes=cost.dram_read_bytes,
                    dram_write_bytes=cost.dram_write_bytes,
                    dram_activations=self.energy.least_activations(moved),
                    link_bytes=cost.link_read_bytes + cost.link_write_bytes,
                    router_bytes=cost.router_bytes,
                )
            cycles = cost.cycles if number == 0 else 0
            energies.append(self.energy.run_zj(actions, cycles))
        return energies

    def _energy_zj(self) -> dict[str, int]:
        """Energy of the whole run in zJ by component: exactly the sum over its operators."""
        whole: dict[str, int] = {}
        for group in self.schema.groups:
            for step in group.steps:
                for parts in self._member_energies(step, self._works(step)):
                    for name, energy in parts.items():
                        whole[name] = whole.get(name, 0) + energy * group.times
        return whole

    def _sum_states(self, unit: str) -> dict[str, int]:
        states: dict[str, int] = {"busy": 0}
        for group in self.schema.groups:
            for step in group.steps:
                cost = self.costs[step.request]
                for state, count in (getattr(cost, unit) or {"idle": cost.cycles}).items():
                    states[state] = states.get(state, 0) + count * group.times
        return states

    def _traffic(self) -> dict[str, Traffic]:
        """By memory; `network`: bytes times the links between cores that they pass."""
        buffers, joined = self.schema.machine.names, self.schema.machine.network is not None
        names = ("dram", "network", *buffers)
        read, write = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
        for group in self.schema.groups:
            for step in group.steps:
                cost = self.costs[step.request]
                reads = cost.dram_read_bytes, cost.link_read_bytes, *cost.buffer_read_bytes
                writes = cost.dram_write_bytes, cost.link_write_bytes, *cost.buffer_write_bytes
                for name, loaded, stored in zip(names, reads, writes, strict=True):
                    read[name] += loaded * group.times
                    write[name] += stored * group.times
        names = ("dram", "network") if joined else ("dram",)
        if self.options.fidelity != "analytic":  # whose bounds do not hold the ports to their bandwidth
            names += buffers
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
    return replace(
        row,
        name=in_copy(row.name, copy),
        fused_into=in_copy(row.fused_into, copy),
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
        "predictor": cost.predictor.get("busy", 0),
        "sram port": cost.array.get("sram_port_stall", 0) and cost.cycles,
    }
    return max(working, key=lambda unit: working[unit])
