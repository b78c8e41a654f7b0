"""A study as the figures see it: its space, its rows, which of them are on the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tilewright.explore.evaluation.points import WORKLOAD
from tilewright.explore.study.fpga import StudyFpga
from tilewright.explore.sweep import pareto
from tilewright.sim.quantities import fraction_of, fractional, percent, short

POINT = "point"
"""The column that names a row, in figures, in the dashboard and after `@` on the command line."""
_UNITS = {
    "_s": "s",
    "_j": "J",
    "_js": "J s",
    "_mm2": "mm²",
    "_mhz": "MHz",
    "_per_s": "/s",
    "_bytes": "B",
    "_w": "W",
}
_NAMES = {"edp_js": "energy-delay product", "tokens_per_s": "tokens per second"}


@dataclass(frozen=True, slots=True)
class Objective:
    """A result key and which way is better."""

    name: str
    maximize: bool = False

    @property
    def goal(self) -> str:
        """As a space file writes it."""
        return "maximize" if self.maximize else "minimize"


@dataclass(frozen=True, slots=True)
class StudyWorkload:
    """One of the workloads that every point runs."""

    label: str
    workload: str
    overrides: tuple[str, ...] = ()
    weight: float = 1.0


@dataclass(frozen=True)
class StudyView:
    """One moment of a study; a live one gives a new view."""

    name: str
    accelerator: str
    """A preset's name or a file."""
    workloads: tuple[StudyWorkload, ...]
    parameters: tuple[str, ...]
    """Override keys, `arch.array.rows`."""
    objectives: tuple[Objective, ...]
    frame: pd.DataFrame
    """A row per finished point, in the order in which they finished: `point` (text, unique), `fidelity`, the
    parameters, the result keys."""
    failures: tuple[tuple[str, str], ...] = ()
    """Points that failed, and their errors."""
    final: str = ""
    """The fidelity of confirmed points; by default the best that any was run at."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What else the page says of the study: method, seed, budget, constraints, points pruned."""
    fpga: StudyFpga = field(default_factory=StudyFpga)
    """What was measured of its attention units on FPGAs."""
    folder: Path | None = None
    """Where it is kept, if it is."""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Values of the parameter `workload`, and where each is found; empty where there is no such parameter."""

    @cached_property
    def fidelity(self) -> str:
        """Of confirmed points: `final`, or the best that any point was run at."""
        if self.final:
            return self.final
        found = set(self.frame["fidelity"]) if len(self.frame) else set()
        return next((name for name in ("cycle", "event", "analytic") if name in found), "event")

    @cached_property
    def confirmed(self) -> NDArray[np.bool_]:
        """Rows whose costs are no mere bounds."""
        return np.asarray(self.frame["fidelity"] == self.fidelity, dtype=bool)

    @cached_property
    def feasible(self) -> NDArray[np.bool_]:
        """Rows that meet the study's constraints: all of them where there is no column `feasible`."""
        if "feasible" not in self.frame:
            return np.ones(len(self.frame), dtype=bool)
        return np.asarray(self.frame["feasible"] == True, dtype=bool)  # noqa: E712  # None is no yes

    @cached_property
    def costs(self) -> NDArray[np.float64]:
        """Shape (rows, objectives), less is better; NaN without such a figure, where not confirmed or
        not feasible."""
        table = self.all_costs.copy()
        table[~(self.confirmed & self.feasible)] = np.nan
        return table

    @cached_property
    def all_costs(self) -> NDArray[np.float64]:
        """As `costs`, of every row: also those that break a constraint, and bounds of those not confirmed."""
        table = np.full((len(self.frame), len(self.objectives)), np.nan)
        for column, objective in enumerate(self.objectives):
            if objective.name in self.frame:
                values = pd.to_numeric(self.frame[objective.name], errors="coerce").to_numpy(dtype=float)
                table[:, column] = -values if objective.maximize else values
        return table

    @cached_property
    def on_front(self) -> NDArray[np.bool_]:
        """Rows that no other one dominates."""
        return pareto.non_dominated(self.costs)

    @cached_property
    def knee(self) -> int | None:
        """The row where the front bends; None without a front."""
        return pareto.knee(self.costs)

    @cached_property
    def front_rows(self) -> list[int]:
        """Rows on the front, best in the first objective first; equal ones by the others, then by number."""
        rows = np.flatnonzero(self.on_front)
        numbers = pd.to_numeric(self.frame[POINT]).to_numpy()[rows]
        return [int(row) for row in rows[np.lexsort((numbers, *self.costs[rows].T[::-1]))]]

    def best(self, objective: int) -> int | None:
        """The front's best row in one objective."""
        rows = self.front_rows
        return min(rows, key=lambda row: tuple(np.roll(self.costs[row], -objective))) if rows else None

    def row_of(self, point: str) -> int | None:
        """The row of a point's name."""
        return self._rows.get(point)

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {str(point): row for row, point in enumerate(self.frame[POINT])}

    def run_by(self, row: int, workload: StudyWorkload) -> StudyWorkload:
        """One of `workloads` as a row has it: where the workload is a parameter, with the row's in its
        place."""
        chosen = self.values(row).get(WORKLOAD)
        if chosen is None or not self.choices:
            return workload
        return replace(workload, label=str(chosen), workload=self.choices[str(chosen)])

    @property
    def labels(self) -> tuple[str, ...]:
        """What the workloads are called: those that every point runs, or that the parameter chooses from."""
        return tuple(self.choices) or tuple(dict.fromkeys(each.label for each in self.workloads))

    def values(self, row: int) -> dict[str, object]:
        """A row's parameters, without those whose condition it does not meet."""
        cells = ((key, plain(self.frame[key].iloc[row])) for key in self.parameters if key in self.frame)
        return {key: value for key, value in cells if value is not None}

    def number(self, row: int, key: str) -> float:
        """A row's figure; NaN if it has none."""
        return float(self.frame[key].iloc[row]) if key in self.frame else float("nan")


def plain(value: object) -> object:
    """A cell as Python has it: no numpy scalar, None for what is missing, whole numbers as such."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def title_of(key: str) -> str:
    """A key for people: `arch.array.rows` is `array.rows`, `energy_j.total` is `energy`."""
    label, _, rest = key.rpartition(":")
    name = rest.removeprefix("arch.").removeprefix("workload.")
    if name in _NAMES:
        name = _NAMES[name]
    elif not rest.startswith(("arch.", "workload.")):
        head, dot, tail = name.partition(".")
        head = head.removesuffix(_suffix(head)).replace("_", " ")
        name = head if tail in ("", "total") else f"{head}{dot}{tail}"
    return f"{name} of {label}" if label else name


def unit_of(key: str) -> str:
    """The unit of a result key, from its name; empty where it has none."""
    return _UNITS.get(_suffix(key.rpartition(":")[2].partition(".")[0]), "")


def _suffix(name: str) -> str:
    return max((s for s in _UNITS if name.endswith(s)), key=len, default="")


def text_of(key: str, value: float) -> str:
    """A figure with its unit: `1.23 ms`, `0.42 mm²`, `12.3 k /s`."""
    unit = unit_of(key)
    if not np.isfinite(value):
        return "none"
    if unit in ("s", "J", "J s", "W"):
        return fractional(value, unit)
    if key.rpartition(":")[2] == "utilization":
        return percent(value)
    return f"{value:,.4g} {unit}".strip() if abs(value) < 1e5 else f"{short(value)} {unit}".strip()


def axis_of(key: str, values: NDArray[np.float64]) -> tuple[float, str]:
    """What to divide the values by on an axis, and the axis's title: `(1e-3, "latency (ms)")`."""
    unit = unit_of(key)
    finite = np.abs(values[np.isfinite(values)])
    factor = 1.0
    if unit in ("s", "J", "J s", "W") and len(finite):
        factor, unit = fraction_of(float(np.median(finite)), unit)
    return factor, f"{title_of(key)} ({unit})" if unit else title_of(key)
