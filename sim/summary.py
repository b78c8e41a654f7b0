"""What a person wants to know of a `Result` at a glance, as plain data.

The terminal table, the notebook view and the HTML report are all drawn from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tilewright.sim.result import OperatorRow, Result

BUSY = "busy"
_NUMBERED = re.compile(r"(?:(?<=\.)|^)(\d+|decode\d+)(?=\.|$)")
_COPIES = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Share:
    """A part of all cycles: the array at work, or one reason why it is not."""

    name: str
    cycles: int
    share: float
    """Of all cycles, 0 to 1."""


@dataclass(frozen=True, slots=True)
class MemoryTraffic:
    """Bytes moved to and from one memory over the run."""

    memory: str
    read_bytes: int
    write_bytes: int
    bytes_per_cycle: float
    """Reads and writes together, averaged over all cycles."""


@dataclass(frozen=True, slots=True)
class Component:
    """What one component takes of the run's energy and of the area; 0 where it has none."""

    name: str
    energy_j: float
    energy_share: float
    """Of the run's energy, 0 to 1."""
    area_mm2: float
    area_share: float
    """Of all area, 0 to 1."""


@dataclass(frozen=True, slots=True)
class OperatorGroup:
    """Operators that differ only in the number of their layer or decode step."""

    name: str
    """With `*` for the number where there are several: `layers.*.attention.query`."""
    count: int
    kind: str
    shape: str
    """Empty where the members differ in it."""
    along: tuple[str, ...]
    """Matmuls and row operators that run within it, fused, by the last part of their names."""
    bound: str
    """What binds the members that take most of the cycles."""
    cycles: int
    share: float
    macs: int
    useful_macs: int
    dram_bytes: int
    energy_pj: float
    own_cycles: int
    """Each member's time by itself: the cycles that it adds to the run, or the busy time of the array or the
    DRAM where that is longer (work that overlaps a neighbour's adds nothing to the run)."""

    @property
    def label(self) -> str:
        """The name, and how many there are if there are several."""
        return f"{self.name} x{self.count}" if self.count > 1 else self.name

    @property
    def extent(self) -> str:
        """The shape, and what runs along with it."""
        return " + ".join((self.shape or "various", *self.along))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a sparse-attention unit kept; means over layers and decode steps that differ only in number."""

    name: str
    kept: float
    """Of the pairs that may be seen, 0 to 1."""
    recall: float | None
    """Of each query's largest true scores, the share that is kept; None where nothing is predicted."""
    kept_weight: float | None
    """Of the true softmax, 0 to 1; None where nothing is predicted."""
    imbalance: float
    """Most scores kept of a query over the mean."""


@dataclass(frozen=True)
class Summary:
    """The figures of one run, ready to be laid out."""

    accelerator: str
    workload: str
    fidelity: str
    cycles: int
    latency_s: float
    clock_mhz: float
    utilization: float
    macs: int
    useful_macs: int
    peak_macs_per_cycle: int
    parameters: int
    peak_memory_bytes: int
    array: tuple[Share, ...]
    """`busy` first, then the stall causes, longest first; they add up to `cycles`."""
    traffic: tuple[MemoryTraffic, ...]
    slowest: tuple[OperatorGroup, ...]
    """The groups that add most cycles, slowest first."""
    others: Share
    """What is not in `slowest`."""
    operator_count: int
    energy_j: float
    average_power_w: float
    area_mm2: float
    components: tuple[Component, ...]
    """Those with energy, most first, then those with area only; without those that have neither."""
    area_fpga: Mapping[str, int] = field(default_factory=dict)
    """LUTs, flip-flops and so on of a unit on an FPGA; empty without one."""
    choices: tuple[Choice, ...] = ()
    """In program order; empty without a sparse-attention unit."""

    @property
    def energy_per_mac_pj(self) -> float | None:
        """All energy of the run over its MACs; None where there are none."""
        return 1e12 * self.energy_j / self.macs if self.macs else None


def summary(result: Result, slowest: int = 10) -> Summary:
    """The figures of `result`, with its `slowest` groups of operators."""
    groups = operator_groups(result.operators, result.cycles)
    shown = tuple(group for group in groups[:slowest] if group.cycles)
    rest = result.cycles - sum(group.cycles for group in shown)
    return Summary(
        accelerator=result.accelerator,
        workload=result.workload,
        fidelity=result.fidelity,
        cycles=result.cycles,
        latency_s=result.latency_s,
        clock_mhz=result.clock_mhz,
        utilization=result.utilization,
        macs=result.macs,
        useful_macs=result.useful_macs,
        peak_macs_per_cycle=result.peak_macs_per_cycle,
        parameters=result.parameters,
        peak_memory_bytes=result.peak_memory_bytes,
        array=_array_shares(result),
        traffic=_traffic(result),
        slowest=shown,
        others=Share("others", rest, _part(rest, result.cycles)),
        operator_count=len(result.operators),
        energy_j=result.energy_j.get("total", 0.0),
        average_power_w=result.average_power_w,
        area_mm2=result.area_mm2.get("total", 0.0),
        components=components(result.energy_j, result.area_mm2),
        area_fpga=result.area_fpga,
        choices=choices(result.sparse_attention),
    )


def components(energy_j: Mapping[str, float], area_mm2: Mapping[str, float]) -> tuple[Component, ...]:
    """Both breakdowns side by side, in the order of `Summary.components`."""
    names = [name for name in {**energy_j, **area_mm2} if name != "total"]
    rows = [
        Component(
            name=name,
            energy_j=energy_j.get(name, 0.0),
            energy_share=_part(energy_j.get(name, 0.0), energy_j.get("total", 0.0)),
            area_mm2=area_mm2.get(name, 0.0),
            area_share=_part(area_mm2.get(name, 0.0), area_mm2.get("total", 0.0)),
        )
        for name in names
    ]
    found = [row for row in rows if row.energy_j or row.area_mm2]
    return tuple(sorted(found, key=lambda row: (-row.energy_j, -row.area_mm2)))


def choices(found: Mapping[str, Mapping[str, float]]) -> tuple[Choice, ...]:
    """`Result.sparse_attention` with the numbers of layers and decode steps folded."""
    members: dict[str, list[Mapping[str, float]]] = {}
    for name, quality in found.items():
        members.setdefault(_NUMBERED.sub(_star, _COPIES.sub("*", name)), []).append(quality)
    return tuple(_choice(name, each) for name, each in members.items())


def _choice(name: str, members: list[Mapping[str, float]]) -> Choice:
    def mean(key: str) -> float:
        return sum(each[key] for each in members) / len(members)

    predicts = mean("recall") > 0
    return Choice(
        name=name,
        kept=_part(mean("kept"), mean("pairs")),
        recall=mean("recall") if predicts else None,
        kept_weight=mean("kept_mass") if predicts else None,
        imbalance=mean("imbalance"),
    )


def operator_groups(operators: Iterable[OperatorRow], total_cycles: int) -> list[OperatorGroup]:
    """`operators` with the numbers of layers and decode steps folded, slowest first.

    Groups keep program order where they tie. Cycles, MACs and bytes are sums over the members.
    """
    members: dict[tuple[str, str], list[OperatorRow]] = {}
    along: dict[str, list[str]] = {}
    for row in operators:
        members.setdefault((_NUMBERED.sub(_star, row.name), row.kind), []).append(row)
        if row.fused_into and row.kind != "elementwise":
            along.setdefault(row.fused_into, []).append(row.name.rpartition(".")[2])
    groups = [_group(name, rows, total_cycles, along) for (name, _), rows in members.items()]
    return sorted(groups, key=lambda group: -group.cycles)


def own_cycles(row: OperatorRow) -> int:
    """The operator's time by itself, see `OperatorGroup.own_cycles`."""
    return max(row.cycles, row.array_busy_cycles, row.dram_busy_cycles)


def _star(match: re.Match[str]) -> str:
    return "decode*" if match.group().startswith("decode") else "*"


def _group(
    name: str, rows: list[OperatorRow], total_cycles: int, along: Mapping[str, list[str]]
) -> OperatorGroup:
    cycles = sum(row.cycles for row in rows)
    bounds: dict[str, int] = {}
    for row in rows:
        bounds[row.bound] = bounds.get(row.bound, 0) + row.cycles
    return OperatorGroup(
        name=name if len(rows) > 1 else rows[0].name,
        count=len(rows),
        kind=rows[0].kind,
        shape=rows[0].shape if len({row.shape for row in rows}) == 1 else "",
        along=tuple(dict.fromkeys(part for row in rows for part in along.get(row.name, ()))),
        bound=max(bounds, key=lambda bound: bounds[bound]),
        cycles=cycles,
        share=_part(cycles, total_cycles),
        macs=sum(row.macs for row in rows),
        useful_macs=sum(row.useful_macs for row in rows),
        dram_bytes=sum(row.dram_read_bytes + row.dram_write_bytes for row in rows),
        energy_pj=sum(row.energy_pj.get("total", 0.0) for row in rows),
        own_cycles=sum(own_cycles(row) for row in rows),
    )


def _array_shares(result: Result) -> tuple[Share, ...]:
    causes = sorted(result.stalls.items(), key=lambda item: -item[1])
    busy = result.units.get("array", {}).get(BUSY, result.cycles - sum(result.stalls.values()))
    return tuple(
        Share(name, cycles, _part(cycles, result.cycles))
        for name, cycles in [(BUSY, busy), *causes]
        if cycles or name == BUSY
    )


def _traffic(result: Result) -> tuple[MemoryTraffic, ...]:
    return tuple(
        MemoryTraffic(name, moved.read, moved.write, _part(moved.read + moved.write, result.cycles))
        for name, moved in result.traffic_bytes.items()
    )


def _part(amount: float, whole: float) -> float:
    return amount / whole if whole else 0.0
