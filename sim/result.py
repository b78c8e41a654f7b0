"""What a simulation says: plain data, one object for the table, JSON, CSV, the report and the trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from rich.console import Group

Fidelity = Literal["analytic", "event", "cycle"]


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One operator in program order; times in cycles since the start of the run."""

    name: str
    kind: str
    start: int
    end: int
    cycles: int
    """Cycles by which the operator lengthens the run; these add up to the total. Zero for one that runs
    inside another's loop nest (`fused_into`)."""
    macs: int
    useful_macs: int
    """Those of `macs` that the workload's definition asks for; the others are padding of blocks and masked
    pairs."""
    array_busy_cycles: int
    vector_busy_cycles: int
    dram_busy_cycles: int
    dram_read_bytes: int
    dram_write_bytes: int
    shape: str
    """Human-readable, e.g. `12 x (512 x 64 x 512)`."""
    mapping: str = ""
    """The chosen tiling and loop order, human-readable."""
    bound: str = ""
    """The resource that is busy longest: `array`, `vector`, `dram` or a buffer's port."""
    fused_into: str = ""
    energy_pj: Mapping[str, float] = field(default_factory=dict)
    """By component, static ones included; `total` first, the sum of the others."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes read from and written to one memory."""

    read: int
    write: int


@dataclass(frozen=True, slots=True)
class Slice:
    """One stretch of one resource's time, for the trace."""

    resource: str
    name: str
    start: int
    end: int
    count: int = 1
    """Identical iterations that it stands for (more than one where time was fast-forwarded)."""


@dataclass(frozen=True, slots=True)
class CounterSample:
    """A counter's value from `time` on, for the trace."""

    counter: str
    time: int
    value: float


@dataclass(frozen=True)
class Result:
    """The outcome of one run."""

    accelerator: str
    workload: str
    fidelity: Fidelity
    cycles: int
    clock_mhz: float
    parameters: int
    macs: int
    """All that were done."""
    useful_macs: int
    """Those that the workload's definition asks for."""
    peak_memory_bytes: int
    """The most bytes of weights, KV caches and activations that are live at once, wherever they are kept."""
    peak_macs_per_cycle: int
    units: Mapping[str, Mapping[str, int]]
    """By unit (`array`, `vector`, `dram`): cycles by state; `busy` and the causes add up to `cycles`."""
    stalls: Mapping[str, int]
    """The array's stall causes; with `units["array"]["busy"]` they add up to `cycles`."""
    traffic_bytes: Mapping[str, Traffic]
    """By memory, and, where a network joins the cores, of all its links together (`network`): a byte counts
    once for each link that it passes, as read on its way to where it is used, as written on its way from
    there."""
    operators: tuple[OperatorRow, ...]
    provenance: Mapping[str, object]
    peak_dram_bytes_per_cycle: float | None = None
    """None where the memory is ideal."""
    energy_j: Mapping[str, float] = field(default_factory=dict)
    """By component; `total` first, the sum of the others."""
    area_mm2: Mapping[str, float] = field(default_factory=dict)
    """By component; `total` first, the sum of the others."""
    area_fpga: Mapping[str, int] = field(default_factory=dict)
    """Of a unit on an FPGA, as measured: `lut4`, `ff`, `dsp`, `bram`. Empty without one."""
    sparse_attention: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By scores operator on a sparse-attention unit: `pairs` that may be seen, those `kept`, and how good the
    choice is (`recall`, `kept_mass`, `imbalance`; see `tilewright.dataflows.sparse.quality.Quality`)."""
    sources: tuple[Mapping[str, object], ...] = ()
    """Every constant behind the energy and area figures: constant, value, unit, node, source, confidence."""
    slices: tuple[Slice, ...] = ()
    """Only recorded when a trace was asked for."""
    counters: tuple[CounterSample, ...] = ()
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Numerical results by tensor name; only at `cycle` fidelity."""

    @property
    def latency_s(self) -> float:
        """Seconds at the accelerator's clock."""
        return self.cycles / (self.clock_mhz * 1e6)

    @property
    def utilization(self) -> float:
        """Useful MACs over peak MACs of all cycles."""
        return self.useful_macs / (self.peak_macs_per_cycle * self.cycles) if self.cycles else 0.0

    def to_dict(self) -> dict[str, object]:
        """The JSON object of `tilewright run --format json`."""
        return {
            "accelerator": self.accelerator,
            "workload": self.workload,
            "fidelity": self.fidelity,
            "cycles": self.cycles,
            "latency_s": self.latency_s,
            "clock_mhz": self.clock_mhz,
            "parameters": self.parameters,
            "macs": self.macs,
            "useful_macs": self.useful_macs,
            "peak_memory_bytes": self.peak_memory_bytes,
            "peak_macs_per_cycle": self.peak_macs_per_cycle,
            "peak_dram_bytes_per_cycle": self.peak_dram_bytes_per_cycle,
            "utilization": self.utilization,
            "energy_j": dict(self.energy_j),
            "area_mm2": dict(self.area_mm2),
            "area_fpga": dict(self.area_fpga),
            "traffic_bytes": {
                name: {"read": traffic.read, "write": traffic.write}
                for name, traffic in self.traffic_bytes.items()
            },
            "stalls": dict(self.stalls),
            "units": {name: dict(states) for name, states in self.units.items()},
            "operators": [row_dict(row) for row in self.operators],
            "sparse_attention": {name: dict(found) for name, found in self.sparse_attention.items()},
            "provenance": dict(self.provenance),
            "sources": [dict(source) for source in self.sources],
        }

    def to_frame(self) -> pd.DataFrame:
        """A row per operator, units in the column names."""
        import pandas as pd

        return pd.DataFrame([flat_row(row) for row in self.operators], columns=self.columns)

    @property
    def columns(self) -> list[str]:
        """Columns of the operators as a table (`to_frame`, CSV), also where there are none."""
        fields = [name for name in OperatorRow.__slots__ if name != "energy_pj"]
        return [*fields, *(f"energy_pj.{component}" for component in self.energy_j)]

    @property
    def average_power_w(self) -> float:
        """Energy over time."""
        return self.energy_j.get("total", 0.0) / self.latency_s if self.cycles else 0.0

    def __repr__(self) -> str:
        """One line, whatever the size of the workload."""
        return f"<Result of {self.workload} on {self.accelerator}, {self.fidelity}: {self.cycles:,} cycles>"

    def __str__(self) -> str:
        """What `tilewright run` prints."""
        from tilewright.sim import render, summary

        return render.plain_text(summary.summary(self))

    def _repr_html_(self) -> str:
        """For notebooks: the key figures and a bar of what the array did."""
        from tilewright.sim import render, summary

        return render.html(summary.summary(self))

    def __rich__(self) -> Group:
        """For terminals: what `tilewright run` prints."""
        from tilewright.sim import render, summary

        return render.terminal(summary.summary(self))


def flat_row(row: OperatorRow) -> dict[str, object]:
    """An operator's row as one line of a table: `energy_pj.array` and so on in the place of `energy_pj`."""
    fields = {name: getattr(row, name) for name in OperatorRow.__slots__ if name != "energy_pj"}
    return fields | {f"energy_pj.{component}": energy for component, energy in row.energy_pj.items()}


def row_dict(row: OperatorRow) -> dict[str, object]:
    """An operator's row as a dictionary, in field order."""
    return {name: getattr(row, name) for name in OperatorRow.__slots__} | {"energy_pj": dict(row.energy_pj)}
