"""The fidelity ladder of a sweep: bounds of all points first, then simulations until the front is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tilewright.explore.evaluation.evaluate import BOUNDED
from tilewright.explore.evaluation.points import Point
from tilewright.explore.space.load import LoadedSpace
from tilewright.explore.space.schema import Objective
from tilewright.explore.sweep.implied import figures_wanted, implied
from tilewright.explore.sweep.ladder import Costs, confirm
from tilewright.explore.sweep.methods import costs_of, is_feasible, points
from tilewright.explore.sweep.sweep import Climbed, Engine


def climb(engine: Engine, loaded: LoadedSpace) -> Climbed:
    """Evaluate all points at `analytic`, and at `event` those that could be on the front."""
    figures = (*engine.base.figures, *figures_wanted(loaded.constraints))
    engine.base = replace(engine.base, figures=tuple(sorted({*figures})))
    engine.run(enumerate(points(loaded), 1), "analytic")
    numbers, bounds = _bounds(engine, loaded)
    before = engine.progress.evaluated

    def simulated(chosen: NDArray[np.int64]) -> Costs:
        some = [(int(numbers[index]), _point(engine, int(numbers[index]))) for index in chosen]
        engine.progress.total += len(some)
        engine.run(some, "event")
        return _costs(engine, loaded, [point for _, point in some])

    found = confirm(bounds, np.ones(len(bounds), dtype=np.bool_), simulated)
    return Climbed(len(bounds), int(found.simulated.sum()), engine.progress.evaluated - before)


def _bounds(engine: Engine, loaded: LoadedSpace) -> tuple[NDArray[np.int64], Costs]:
    """Numbers of all points that can be run, rising, and lower bounds on their costs if they meet the
    constraints; NaN for those that can't."""
    objectives = loaded.space.objectives
    numbers: list[NDArray[np.int64]] = []
    tables: list[Costs] = []
    some: list[tuple[int, list[float]]] = []
    for kept in engine.store.rows(engine.space, "analytic"):
        if kept.row is not None:
            figures = implied(kept.values, kept.row, loaded.constraints)
            none = [np.nan] * len(objectives)
            bound = none if figures is None else _bound({**kept.values, **figures}, objectives)
            some.append((kept.number, bound))
        if len(some) == 100_000:  # small arrays in the place of many objects
            _pack(some, numbers, tables)
    _pack(some, numbers, tables)
    width = len(objectives)
    return (
        np.concatenate([np.zeros(0, dtype=np.int64), *numbers]),
        np.concatenate([np.zeros((0, width)), *tables]),
    )


def _pack(some: list[tuple[int, list[float]]], numbers: list[NDArray[np.int64]], tables: list[Costs]) -> None:
    if some:
        numbers.append(np.array([number for number, _ in some], dtype=np.int64))
        tables.append(np.array([bound for _, bound in some], dtype=np.float64))
        some.clear()


def _bound(row: Mapping[str, object], objectives: Sequence[Objective]) -> list[float]:
    """What no simulation of the point undercuts; nothing finite where the row lacks an objective. Its own
    values are the same at every fidelity."""
    found = []
    for objective in objectives:
        key = f"bound:{objective.name}" if objective.name in BOUNDED else objective.name
        value = row.get(key)
        if isinstance(value, int | float) and _bounds_goal(objective):
            found.append(-float(value) if objective.goal == "maximize" else float(value))
        else:
            found.append(np.nan)
    return found


def _bounds_goal(objective: Objective) -> bool:
    """Whether the bound is on the side that the goal needs: least costs, most tokens per second."""
    if objective.name not in BOUNDED:
        return True
    return (objective.goal == "maximize") == (objective.name == "tokens_per_s")


def _point(engine: Engine, number: int) -> Point:
    kept = engine.store.row(engine.space, number)
    assert kept is not None
    return Point(tuple(kept.values.items()))


def _costs(engine: Engine, loaded: LoadedSpace, some: Sequence[Point]) -> Costs:
    """Less is better; NaN for points that failed or violate a constraint."""
    objectives = loaded.space.objectives
    signs = np.array([-1.0 if each.goal == "maximize" else 1.0 for each in objectives])
    table = np.full((len(some), len(objectives)), np.nan)
    names = engine.keys(some, "event")
    kept = engine.store.results(names)
    for index, name in enumerate(names):
        row = kept[name].row
        if row is not None and is_feasible(kept[name].values, row, loaded.constraints):
            costs = costs_of(kept[name].values, row, objectives)
            if costs is not None:
                table[index] = signs * costs
    return table
