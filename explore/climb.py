"""The fidelity ladder of a sweep: bounds of all points first, then simulations until the front is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tilewright.explore.evaluate import BOUNDED
from tilewright.explore.ladder import Confirmed, Costs, confirm
from tilewright.explore.methods import costs_of, is_feasible, points
from tilewright.explore.points import Point
from tilewright.explore.space import Objective
from tilewright.explore.space_load import LoadedSpace
from tilewright.explore.sweep import Engine


def climb(engine: Engine, loaded: LoadedSpace) -> Confirmed:
    """Evaluate all points at `analytic`, and at `event` those that could be on the front."""
    engine.run(points(loaded), "analytic")
    numbers, bounds = _bounds(engine, loaded.space.objectives)

    def simulated(chosen: NDArray[np.int64]) -> Costs:
        some = [_point(engine, int(numbers[index])) for index in chosen]
        engine.progress.total += len(some)
        engine.run(some, "event")
        return _costs(engine, loaded, some)

    return confirm(bounds, np.ones(len(bounds), dtype=np.bool_), simulated)


def _bounds(engine: Engine, objectives: Sequence[Objective]) -> tuple[NDArray[np.int64], Costs]:
    """Row numbers and lower bounds of all points that can be run, in the store's order."""
    numbers: list[NDArray[np.int64]] = []
    tables: list[Costs] = []
    some: list[tuple[int, list[float]]] = []
    for kept in engine.store.rows(engine.space, "analytic"):
        if kept.row is not None:
            some.append((kept.id, _bound(kept.row, objectives)))
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
    """What no simulation of the point undercuts; nothing finite where the row lacks an objective."""
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
    kept = engine.store.row(number)
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
            costs = costs_of(row, objectives)
            if costs is not None:
                table[index] = signs * costs
    return table
