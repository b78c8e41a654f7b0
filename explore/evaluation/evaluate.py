"""What one point of a space gives: a flat row of figures, or the reason why there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.area import area_mm2
from tilewright.arch.energy import peak_power_w
from tilewright.arch.load import load_accelerator
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.expressions import condition
from tilewright.explore.evaluation.points import WORKLOAD, Point, model_version
from tilewright.sim.result import Result
from tilewright.sim.run import Options, simulate
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import describe_workload, load_workload

Row = dict[str, float | int | str]
Status = Literal["done", "failed", "pruned"]
Fidelity = Literal["analytic", "event"]
KNOWN = (
    "cycles", "latency_s", "energy_j.total", "area_mm2.total", "edp_js", "tokens_per_s", "utilization",
    "average_power_w", "peak_power_w.total", "clock_mhz", "peak_macs_per_cycle", "energy_j.", "stalls.",
    "traffic_bytes.", "quality.",
)  # fmt: skip
"""Keys of rows, and the beginnings of those that depend on the machine or the workload."""
BOUNDED = ("cycles", "latency_s", "energy_j.total", "edp_js", "tokens_per_s")
"""Objectives of which `analytic` has a bound in the row, under `bound:<key>`."""
EXACT = ("area_mm2.", "peak_power_w.", "clock_mhz", "peak_macs_per_cycle", "quality.")
"""Objectives that are the same at every fidelity."""
_SUMMED = ("cycles", "latency_s", "energy_j.", "stalls.", "traffic_bytes.", "bound:")
"""Figures of several workloads that add up; of the others, see `together`."""


@dataclass(frozen=True)
class BaseWorkload:
    """One of the workloads that every point is run with."""

    label: str
    workload: str
    overrides: tuple[str, ...]
    weight: float


@dataclass(frozen=True)
class Base:
    """What points are changes of. Small and picklable: names and overrides only; files are named by absolute
    paths, which must lead to the same files wherever points are evaluated."""

    accelerator: str
    workloads: tuple[BaseWorkload, ...]
    early: tuple[str, ...] = ()
    """Conditions that the accelerator alone decides: where one is not met, nothing is simulated."""
    figures: tuple[str, ...] = ()
    """Keys that objectives and constraints ask for: rows at `analytic` have these, else totals only."""
    choices: tuple[tuple[str, str], ...] = ()
    """Values of the parameter `workload`, and where each is found; empty where there is no such parameter."""

    def run_by(self, chosen: object) -> tuple[BaseWorkload, ...]:
        """The workloads of a point whose parameter `workload` is `chosen`: the only one of `workloads` with
        that in its place; all as they are where there is no such parameter."""
        if not self.choices:
            return self.workloads
        return (replace(self.workloads[0], workload=dict(self.choices)[str(chosen)]),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a point."""

    status: Status
    row: Row | None
    """Only of a point that is done."""
    note: str
    """Of one that is not: the error, or the condition that it violates."""
    seconds: float


def evaluate_chunk(base: Base, points: Sequence[Point], fidelity: Fidelity, version: str) -> list[Outcome]:
    """What becomes of each of some points, in order; a point's failure is its own.

    `version`: the caller's `model_version()`. Raises `RuntimeError` where it is not this installation's.
    """
    if version != model_version():
        raise RuntimeError("a worker runs another version of tilewright: install the same one everywhere")
    if fidelity == "analytic":
        from tilewright.explore.evaluation.batch import analytic_outcomes

        return analytic_outcomes(base, points)
    return [_outcome(base, point) for point in points]


def _outcome(base: Base, point: Point) -> Outcome:
    begin = time.perf_counter()
    try:
        violated = _violated(base, point)
        row = None if violated else evaluate(base, point)
    except InputError as error:
        return refusal(error, time.perf_counter() - begin)
    except Exception as error:  # a mistake of ours in one point must not end the others
        text = f"internal error: {type(error).__name__}: {' '.join(str(error).split())}"
        return Outcome("failed", None, text, time.perf_counter() - begin)
    seconds = time.perf_counter() - begin
    return Outcome("pruned", None, violated, seconds) if violated else Outcome("done", row, "", seconds)


def refusal(error: InputError, seconds: float = 0.0) -> Outcome:
    """Of a point that can't be read or run."""
    return Outcome("failed", None, "; ".join(map(_one_line, error.problems)), seconds)


def _one_line(problem: object) -> str:
    return " ".join(str(problem).splitlines()[0].split())


def evaluate(base: Base, point: Point) -> Row:
    """The point's figures, simulated, by dotted result key; its own values are not repeated. Raises
    `InputError`.

    cycles, latency_s, energy_j.<component>, area_mm2.<component>, edp_js, tokens_per_s, utilization,
    average_power_w, peak_power_w.<component>, stalls.<cause>, traffic_bytes.<memory>.read and .write,
    quality.<data set> where one was published. Of several workloads: sums weighted by how often each runs,
    and each workload's own under `<label>:<key>`. At `analytic` also `bound:<key>`, which no simulation
    undercuts (of tokens per second: none exceeds).
    """
    accelerator = read_accelerator(base.accelerator, point.overrides("arch"))
    own = point.overrides("workload")
    parts = []
    for each in base.run_by(dict(point.values).get(WORKLOAD)):
        graph, tokens = read_workload(each.workload, (*each.overrides, *own))
        parts.append(_figures(accelerator, graph, tokens))
    return together(base, parts) | machine_figures(accelerator)


def description_figures(accelerator: Accelerator) -> dict[str, object]:
    """The metrics that an accelerator has without a workload."""
    area, power = area_mm2(accelerator), peak_power_w(accelerator)
    return {
        "clock_mhz": accelerator.clock_mhz,
        "peak_macs_per_cycle": accelerator.macs_per_cycle,
        "area_mm2": {"total": sum(area.values()), **area},
        "peak_power_w": {"total": sum(power.values()), **power},
    }


def machine_figures(accelerator: Accelerator) -> Row:
    """What an accelerator's description says by itself, by dotted key: clock, peak, area and peak power."""
    row: Row = {}
    for key, value in description_figures(accelerator).items():
        if isinstance(value, Mapping):
            row |= {f"{key}.{part}": number for part, number in value.items()}
        else:
            assert isinstance(value, int | float)
            row[key] = value
    return row


def _violated(base: Base, point: Point) -> str:
    """The first early condition that the point's accelerator does not meet; empty if it meets all."""
    if not base.early:
        return ""
    accelerator = read_accelerator(base.accelerator, point.overrides("arch"))
    figures: dict[str, Any] = dict(machine_figures(accelerator)) | dict(point.values)
    for text in base.early:
        rule = condition(text)
        if rule.keys <= figures.keys() and not rule.holds(figures):
            return text
    return ""


@lru_cache(maxsize=256)
def read_accelerator(name: str, overrides: tuple[str, ...]) -> Accelerator:
    """As `load_accelerator`; the last ones are kept."""
    return load_accelerator(name, overrides)


@lru_cache(maxsize=16)
def read_workload(name: str, overrides: tuple[str, ...]) -> tuple[OperatorGraph, int | None]:
    """A workload, and the tokens that a run of it yields."""
    described = describe_workload(name, overrides)
    return load_workload(name, overrides), tokens(described.model_dump())


def tokens(described: Mapping[str, Any]) -> int | None:
    """Tokens that one run of a described workload yields: those generated, one per sequence for a decode
    step, else those of the input (of an image: its patches); None where the workload has none."""
    batch = described.get("batch") or 1
    if described.get("generate"):
        return int(batch * described["generate"])
    if described.get("phase") == "decode":
        return int(batch)
    if described.get("seq"):
        return int(batch * described["seq"])
    if described.get("image") and described.get("patch"):
        return int(batch * (described["image"] // described["patch"]) ** 2)
    return None


def _figures(accelerator: Accelerator, graph: OperatorGraph, tokens_out: int | None) -> Row:
    result = simulate(graph, accelerator, Options("event"))
    row: Row = {
        "cycles": result.cycles,
        "latency_s": result.latency_s,
        "utilization": result.utilization,
        **{f"energy_j.{part}": value for part, value in result.energy_j.items()},
        **{f"stalls.{cause}": count for cause, count in result.stalls.items()},
        **_traffic(result),
        **published_quality(graph),
    }
    if tokens_out is not None:
        row["tokens"] = tokens_out
    return row


def _traffic(result: Result) -> Row:
    row: Row = {}
    for memory, moved in result.traffic_bytes.items():
        row |= {f"traffic_bytes.{memory}.read": moved.read, f"traffic_bytes.{memory}.write": moved.write}
    return row


def published_quality(graph: OperatorGraph) -> Row:
    """Published accuracy by data set; of a data set with several figures the first that is listed."""
    row: Row = {}
    for key, text in graph.metadata.items():
        if key.startswith("quality, "):
            for entry in text.split("; "):
                data_set, _, value = entry.rpartition(" ")
                try:
                    row.setdefault(f"quality.{data_set}", float(value))
                except ValueError:
                    continue
    return row


def together(base: Base, parts: Sequence[Row]) -> Row:
    """One row of the workloads' own, with what follows from its sums."""
    row = dict(parts[0]) if len(parts) == 1 and base.workloads[0].weight == 1 else _summed(base, parts)
    _finish(row)
    return row


def _summed(base: Base, parts: Sequence[Row]) -> Row:
    row: Row = {}
    for key in dict.fromkeys(key for part in parts for key in part):
        if key.startswith(_SUMMED):
            row[key] = _weighted(base, parts, key)
    if all("tokens" in part for part in parts):
        row["tokens"] = _weighted(base, parts, "tokens")
    busy = [each.weight * _number(part, "cycles") for each, part in zip(base.workloads, parts, strict=True)]
    shares = [count * _number(part, "utilization") for count, part in zip(busy, parts, strict=True)]
    row["utilization"] = sum(shares) / sum(busy) if sum(busy) else 0.0
    for each, part in zip(base.workloads, parts, strict=True):
        own = dict(part)
        _finish(own)
        if len(parts) > 1:
            row |= {
                f"{each.label}:{key}": value for key, value in own.items() if not key.startswith("bound:")
            }
        else:
            row |= {key: value for key, value in own.items() if key.startswith("quality.")}
    return row


def _weighted(base: Base, parts: Sequence[Row], key: str) -> float | int:
    total = sum(each.weight * _number(part, key) for each, part in zip(base.workloads, parts, strict=True))
    return int(total) if float(total).is_integer() else total


def _number(row: Row, key: str) -> float | int:
    value = row.get(key, 0)
    assert not isinstance(value, str)
    return value


def _finish(row: Row) -> None:
    """Add what follows from a row's sums."""
    _derived(row, "")
    if "bound:latency_s" in row:
        _derived(row, "bound:")
        row.pop("bound:average_power_w", None)  # a quotient of two bounds is none
    row.pop("tokens", None)


def _derived(row: Row, prefix: str) -> None:
    latency, energy = _number(row, f"{prefix}latency_s"), _number(row, f"{prefix}energy_j.total")
    row[f"{prefix}edp_js"] = latency * energy
    if latency:
        row[f"{prefix}average_power_w"] = energy / latency
        if "tokens" in row:
            row[f"{prefix}tokens_per_s"] = _number(row, "tokens") / latency


Evaluate = Callable[[Base, Sequence[Point], Fidelity, str], list[Outcome]]
"""`evaluate_chunk`, or what stands in for it."""
