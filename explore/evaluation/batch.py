"""Many points at once, at `analytic`: points that differ only in what may be a column are one calculation.

A chunk of points is grouped by all their other values. Of each group the accelerator and the workloads are
read once, and the closed forms worked out on columns (`tilewright.sim.batch`). What can't be a column makes
groups of its own, down to single points: dearer, never different.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tilewright.dataflows.columns import COLUMNS, Column
from tilewright.dataflows.estimate import may_be_columns
from tilewright.dataflows.plan import Schema, schemas
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import (
    Base,
    BaseWorkload,
    Outcome,
    Row,
    published_quality,
    read_accelerator,
    read_workload,
    refusal,
    together,
)
from tilewright.explore.evaluation.expressions import condition
from tilewright.explore.evaluation.points import WORKLOAD, Point, override_text
from tilewright.sim.batch import Answers, answers

Group = tuple[str, ...]
"""Overrides that a group's points share."""
RUN_KEYS = (
    "cycles", "latency_s", "utilization", "energy_j.total", "traffic_bytes.dram.read",
    "traffic_bytes.dram.write",
)  # fmt: skip
"""Figures of a workload that every row has."""
MACHINE_KEYS = ("clock_mhz", "peak_macs_per_cycle", "area_mm2.total", "peak_power_w.total")
"""Figures of the accelerator that every row has; of all others those that `Base.figures` names."""
BOUNDS = ("cycles", "latency_s", "energy_j.total")
"""Of which there is a bound in the row, under `bound:<key>`."""


def analytic_outcomes(base: Base, points: Sequence[Point]) -> list[Outcome]:
    """What becomes of each point, in order. Points that can't be read fail, each for itself."""
    begin = time.perf_counter()
    found: list[Outcome | None] = [None] * len(points)
    for group, members in _groups(base, points):
        for index, outcome in zip(members, _of_group(base, group, [points[i] for i in members]), strict=True):
            found[index] = outcome
    each = (time.perf_counter() - begin) / max(1, len(points))
    done = [outcome for outcome in found if outcome is not None]
    assert len(done) == len(points), "every point is in one group"
    return [Outcome(one.status, one.row, one.note, each) for one in done]


def _groups(base: Base, points: Sequence[Point]) -> Iterator[tuple[Group, list[int]]]:
    """Indices of points by the values they share; where not all columns are allowed, cut finer."""
    known: dict[str, Group] = {}
    coarse: dict[tuple[Group, tuple[str, ...]], list[int]] = {}
    for index, point in enumerate(points):
        # a column's key may be conditional: points that lack it have another machine's value there
        keys = tuple([key for key, _ in point.values])
        if all(_is_column(base.accelerator, key, value) for key, value in point.values if key in _KEYS):
            name = structure(point)
            group = known.get(name)
            if group is None:
                group = known[name] = _shared(base, point, _KEYS)
        else:
            group = _shared(base, point, _KEYS)
        coarse.setdefault((group, keys), []).append(index)
    for (group, _), members in coarse.items():
        allowed = _allowed(base, group)
        if allowed == _KEYS:
            yield group, members
            continue
        fine: dict[Group, list[int]] = {}
        for index in members:
            fine.setdefault(_shared(base, points[index], allowed), []).append(index)
        yield from fine.items()


_KEYS = frozenset(f"arch.{key}" for key in COLUMNS)


def _shared(base: Base, point: Point, columns: frozenset[str]) -> Group:
    """The overrides of what is no column. A value that the description refuses is none."""
    accelerator = base.accelerator
    return tuple([
        f"{key}={override_text(value)}"
        for key, value in point.values
        if not (key in columns and _is_column(accelerator, key, value))
    ])  # fmt: skip


def structure(point: Point) -> str:
    """What of a point can't be a column on any machine, as text. Points that have it in common are best
    evaluated together: what they share is worked out once for all of them."""
    return str([item for item in point.values if item[0] not in _KEYS])


def _is_column(accelerator: str, key: str, value: object) -> bool:
    """Whether the value of a key in `_KEYS` may stand in a column."""
    return isinstance(value, (int, float)) and _is_allowed(accelerator, key, value)


@lru_cache(maxsize=65536, typed=True)
def _is_allowed(accelerator: str, key: str, value: float) -> bool:
    """Whether the accelerator may have this value by itself."""
    try:
        read_accelerator(accelerator, (f"{key}={override_text(value)}",))
    except InputError:
        return False
    return True


@lru_cache(maxsize=4096)
def _allowed(base: Base, group: Group) -> frozenset[str]:
    """Columns that the closed forms of all workloads allow; none where the group can't be read."""
    try:
        keys = [set(may_be_columns(_divisions(base, each, group))) for each in _workloads(base, group)]
    except InputError:
        return frozenset()
    return frozenset(f"arch.{key}" for key in set.intersection(*keys))


def _workloads(base: Base, group: Group) -> tuple[BaseWorkload, ...]:
    """What a group's points are run with."""
    chosen = (text.partition("=")[2] for text in group if text.startswith(f"{WORKLOAD}="))
    return base.run_by(json.loads(next(chosen, "null")))


@lru_cache(maxsize=512)
def _divisions(base: Base, workload: BaseWorkload, group: Group) -> list[Schema]:
    graph, _ = read_workload(workload.workload, (*workload.overrides, *_of(group, "workload.")))
    return list(schemas(graph, read_accelerator(base.accelerator, _of(group, "arch."))))


def _of(group: Group, prefix: str) -> tuple[str, ...]:
    return tuple(text for text in group if text.startswith(prefix))


def _of_group(base: Base, group: Group, points: Sequence[Point]) -> list[Outcome]:
    try:
        parts = [
            answers(_divisions(base, each, group), _columns(base, group, points))
            for each in _workloads(base, group)
        ]
        rows = _rows(base, group, parts, len(points))
        violated = _violated(base, parts[0], points)
    except InputError as error:
        return [refusal(error)] * len(points)
    if len(points) == 1 and not all(part.fits.all() for part in parts):
        raise AssertionError("a single machine without room is an InputError")
    fits = np.logical_and.reduce([part.fits for part in parts]).tolist()
    return [
        _outcome(base, group, point, *each) for point, *each in zip(points, violated, rows, fits, strict=True)
    ]


def _outcome(base: Base, group: Group, point: Point, violated: str, row: Row, fits: bool) -> Outcome:
    if violated:
        return Outcome("pruned", None, violated, 0.0)
    return Outcome("done", row, "", 0.0) if fits else _of_group(base, group, [point])[0]


def _columns(base: Base, group: Group, points: Sequence[Point]) -> dict[str, Column]:
    """At least one: the clock, where nothing else varies."""
    shared = {text.partition("=")[0] for text in group}
    keys = [key for key, _ in points[0].values if key in _KEYS and key not in shared]
    chosen = [dict(point.values) for point in points]
    columns = {key.removeprefix("arch."): np.array([each[key] for each in chosen]) for key in keys}
    if not columns:
        clock = read_accelerator(base.accelerator, _of(group, "arch.")).clock_mhz
        columns["clock_mhz"] = np.full(len(points), clock)
    return columns


def _rows(base: Base, group: Group, parts: Sequence[Answers], count: int) -> Iterator[Row]:
    """The points' rows, those of several workloads together."""
    machine = _table(parts[0], MACHINE_KEYS, [key for key in base.figures if key.startswith(_OF_MACHINE)])
    tables = []
    for each, part in zip(_workloads(base, group), parts, strict=True):
        graph, tokens = read_workload(each.workload, (*each.overrides, *_of(group, "workload.")))
        fixed: Row = published_quality(graph) | ({} if tokens is None else {"tokens": tokens})
        run = _table(part, RUN_KEYS, [key for key in base.figures if not key.startswith(_OF_MACHINE)])
        run |= {f"bound:{key}": part.bounds[key].tolist() for key in BOUNDS}
        tables.append((run, fixed))
    for index in range(count):
        own = [{key: column[index] for key, column in run.items()} | fixed for run, fixed in tables]
        yield together(base, own) | {key: column[index] for key, column in machine.items()}


_OF_MACHINE = ("clock_mhz", "peak_macs_per_cycle", "area_mm2.", "peak_power_w.")


def _table(part: Answers, always: Sequence[str], asked: Sequence[str]) -> dict[str, list[float | int | str]]:
    keys = dict.fromkeys((*always, *(key for key in asked if key in part.results)))
    return {key: part.results[key].tolist() for key in keys}


def _violated(base: Base, part: Answers, points: Sequence[Point]) -> list[str]:
    """Of each point the first early condition that its accelerator does not meet; empty if it meets all."""
    found = [""] * len(points)
    for text in reversed(base.early):
        rule = condition(text)
        own = {key for key in rule.keys if key.startswith("arch.") and key in dict(points[0].values)}
        figures: dict[str, Any] = dict(part.results)
        figures |= {key: np.array([dict(point.values)[key] for point in points]) for key in own}
        if rule.keys <= figures.keys():
            met = np.broadcast_to(np.asarray(rule.holds(figures)), (len(points),))
            found = [kept if fine else text for kept, fine in zip(found, met.tolist(), strict=True)]
    return found
