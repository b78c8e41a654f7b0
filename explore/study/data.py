"""What the figures of a study show, as plain data; `study_figures` draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.explore.evaluation.points import WORKLOAD
from tilewright.explore.study.view import POINT, StudyView, axis_of, plain, text_of, title_of
from tilewright.explore.sweep import pareto

MOST_POINTS = 4000
"""Points off the front that a figure shows; more are thinned to one for each spot of the figure."""
MOST_LINES = 400
CHECKPOINTS = 200


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with a name of its own: the knee, a preset."""

    name: str
    x: float
    y: float
    point: str = ""
    """Empty for what is no point of the study."""
    text: str = ""
    """What it is and what it costs, a line each."""


@dataclass(frozen=True, slots=True)
class Points:
    """Columns of equal length."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    point: tuple[str, ...]
    text: tuple[str, ...]
    """Parameters and objectives, a line each."""


@dataclass(frozen=True, slots=True)
class FrontData:
    """All points over two objectives."""

    x_title: str
    y_title: str
    log: tuple[bool, bool]
    """Axes whose values span more than a factor of 20."""
    front: Points
    """In order of x."""
    others: Points
    """Confirmed and dominated, thinned to `MOST_POINTS`."""
    bounds: Points
    """Not confirmed: lower bounds."""
    excluded: Points
    """Those that break a constraint."""
    steps: bool
    """Whether the front is a line here: there are no objectives but these two."""
    marks: tuple[Mark, ...]
    beyond: tuple[str, ...]
    """Presets so far from every point that the figure would be theirs: what they are, in words."""
    left_out: int
    """Points that were thinned away."""


def front_data(
    view: StudyView, x: int = 0, y: int = 1, presets: Mapping[str, Mapping[str, float]] | None = None
) -> FrontData:
    """Points over objectives number `x` and `y`; `presets` are figures of named machines on the same work."""
    keys = [view.objectives[x].name, view.objectives[min(y, len(view.objectives) - 1)].name]
    tables = [_column(view, key) for key in keys]
    (x_factor, x_title), (y_factor, y_title) = (
        axis_of(key, table) for key, table in zip(keys, tables, strict=True)
    )
    place = np.column_stack([tables[0] / x_factor, tables[1] / y_factor])
    valid = np.isfinite(place).all(axis=1)
    groups = {
        "front": valid & view.on_front,
        "others": valid & ~view.on_front & view.confirmed & view.feasible,
        "bounds": valid & ~view.confirmed & view.feasible,
        "excluded": valid & ~view.feasible,
    }
    rows = {name: np.flatnonzero(mask) for name, mask in groups.items()}
    rows["front"] = rows["front"][np.lexsort(place[rows["front"]].T[::-1])]
    kept = {name: found if name == "front" else _thinned(found, place) for name, found in rows.items()}
    points = {name: _points(view, found, place) for name, found in kept.items()}
    marks = _presets(view, presets or {}, keys, (x_factor, y_factor))
    near = [mark for mark in marks if _is_near(mark, place[valid])]
    far = {mark.name: (presets or {})[mark.name] for mark in marks if mark not in near}
    told = {name: [text_of(key, figures[key]) for key in keys] for name, figures in far.items()}
    return FrontData(
        x_title=x_title, y_title=y_title, log=(_wide(place[valid, 0]), _wide(place[valid, 1])),
        front=points["front"], others=points["others"], bounds=points["bounds"], excluded=points["excluded"],
        steps=len(view.objectives) <= 2, marks=(*_knee(view, place), *near),
        beyond=tuple(f"{name} ({', '.join(texts)})" for name, texts in told.items()),
        left_out=sum(len(rows[name]) - len(kept[name]) for name in rows),
    )  # fmt: skip


def _column(view: StudyView, key: str) -> NDArray[np.float64]:
    if key not in view.frame:
        return np.full(len(view.frame), np.nan)
    return np.asarray(view.frame[key].to_numpy(dtype=float, na_value=np.nan), dtype=np.float64)


def _wide(values: NDArray[np.float64]) -> bool:
    return bool(len(values)) and bool(values.min() > 0) and bool(values.max() > 20 * values.min())


def _thinned(rows: NDArray[np.int64], place: NDArray[np.float64]) -> NDArray[np.int64]:
    """One point for each spot of a grid that has about `MOST_POINTS` spots, the first that finished."""
    if len(rows) <= MOST_POINTS:
        return rows
    side = int(MOST_POINTS**0.5)
    cells = np.empty((len(rows), 2), dtype=np.int64)
    for axis in range(2):
        order = np.argsort(np.argsort(place[rows, axis], kind="stable"), kind="stable")
        cells[:, axis] = order * side // len(rows)
    _, first = np.unique(cells[:, 0] * side + cells[:, 1], return_index=True)
    kept: NDArray[np.int64] = rows[np.sort(first)]
    return kept


def _points(view: StudyView, rows: NDArray[np.int64], place: NDArray[np.float64]) -> Points:
    return Points(
        x=tuple(place[rows, 0].tolist()),
        y=tuple(place[rows, 1].tolist()),
        point=tuple(str(view.frame[POINT].iloc[row]) for row in rows),
        text=tuple(describe(view, int(row)) for row in rows),
    )


def describe(view: StudyView, row: int) -> str:
    """A point's parameters and objectives, a line each, for a hover box."""
    parameters = [f"{title_of(key)} = {value}" for key, value in view.values(row).items()]
    results = [f"{title_of(o.name)} {text_of(o.name, view.number(row, o.name))}" for o in view.objectives]
    return "<br>".join((*results, *parameters))


def _knee(view: StudyView, place: NDArray[np.float64]) -> list[Mark]:
    if view.knee is None:
        return []
    x, y = place[view.knee].tolist()
    text = f"<b>knee</b><br>{describe(view, view.knee)}"
    return [Mark("knee", x, y, str(view.frame[POINT].iloc[view.knee]), text)]


def _presets(
    view: StudyView,
    presets: Mapping[str, Mapping[str, float]],
    keys: Sequence[str],
    factors: tuple[float, float],
) -> list[Mark]:
    """Those that have both figures."""
    marks = []
    for name, figures in presets.items():
        if all(key in figures for key in keys):
            x, y = (figures[key] / factor for key, factor in zip(keys, factors, strict=True))
            own = [o.name for o in view.objectives if o.name in figures]
            lines = [f"{title_of(key)} {text_of(key, figures[key])}" for key in own]
            if "peak_macs_per_cycle" in figures:
                lines.append(f"{figures['peak_macs_per_cycle']:,.0f} MACs per cycle")
            marks.append(Mark(name, x, y, text="<br>".join((f"<b>{name}</b>, shipped", *lines))))
    return marks


def _is_near(mark: Mark, place: NDArray[np.float64]) -> bool:
    """Whether it lies within the points, no farther beyond them than half their spread, or within twice their
    largest and half their smallest."""
    low, high = place.min(axis=0), place.max(axis=0)
    margin = (high - low) / 2
    least, most = np.minimum(low - margin, low / 2), np.maximum(high + margin, 2 * high)
    spot = np.array([mark.x, mark.y])
    return bool(((spot >= least) & (spot <= most)).all())


@dataclass(frozen=True, slots=True)
class ProgressData:
    """The front's hypervolume as points finished."""

    evaluated: tuple[int, ...]
    share: tuple[float, ...]
    """Of the box between the best and the worst of every objective over the whole study, 0 to 1."""


def progress_data(view: StudyView) -> ProgressData:
    """Hypervolume after 1, 2, … points, at `CHECKPOINTS` places at most; empty without a confirmed point."""
    costs = view.costs[np.isfinite(view.costs).all(axis=1)]
    if not len(costs):
        return ProgressData((), ())
    places = np.unique(np.linspace(1, len(costs), min(CHECKPOINTS, len(costs))).astype(int))
    unit = pareto.scaled(costs)
    front, start, shares = unit[:0], 0, []
    for end in places.tolist():
        front = np.concatenate((front, unit[start:end]))
        front = front[pareto.non_dominated(front)]
        # A margin, so that the extremes of the front count for something.
        shares.append(pareto.hypervolume(front, np.full(unit.shape[1], 1.05)) / 1.05 ** unit.shape[1])
        start = end
    return ProgressData(tuple(places.tolist()), tuple(shares))


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the parallel coordinates."""

    title: str
    values: tuple[float, ...]
    labels: tuple[str, ...] = ()
    """Of values 0, 1, …, where the axis has names instead of numbers."""


@dataclass(frozen=True, slots=True)
class ParallelData:
    """A line per point across all parameters and objectives."""

    axes: tuple[Axis, ...]
    front: tuple[bool, ...]
    left_out: int


def parallel_data(view: StudyView) -> ParallelData:
    """The front's points and, up to `MOST_LINES` in all, others evenly from the whole study."""
    valid = np.isfinite(view.costs).all(axis=1)
    others = np.flatnonzero(valid & ~view.on_front)
    room = max(0, MOST_LINES - int(view.on_front.sum()))
    places = np.unique(np.linspace(0, max(len(others) - 1, 0), min(room, len(others))).astype(int))
    rows = np.concatenate((others[places], np.flatnonzero(view.on_front)))  # the front is drawn on top
    varied = [
        key for key in view.parameters if key in view.frame and view.frame[key].nunique(dropna=False) > 1
    ]
    axes = [_parameter_axis(view, key, rows) for key in varied]
    axes += [_objective_axis(view, o.name, rows) for o in view.objectives]
    return ParallelData(tuple(axes), tuple(view.on_front[rows].tolist()), len(others) - len(places))


def _parameter_axis(view: StudyView, key: str, rows: NDArray[np.int64]) -> Axis:
    cells = [plain(view.frame[key].iloc[row]) for row in rows]
    numbers = [cell for cell in cells if isinstance(cell, int | float) and not isinstance(cell, bool)]
    if len(numbers) == len(cells) and len(set(numbers)) > 12:
        return Axis(title_of(key), tuple(float(number) for number in numbers))
    levels = sorted(set(cells), key=level_order)
    index = {level: number for number, level in enumerate(levels)}
    labels = tuple("none" if level is None else str(level) for level in levels)
    return Axis(title_of(key), tuple(float(index[cell]) for cell in cells), labels)


def _objective_axis(view: StudyView, key: str, rows: NDArray[np.int64]) -> Axis:
    column = _column(view, key)
    factor, title = axis_of(key, column)
    return Axis(title, tuple((column[rows] / factor).tolist()))


def level_order(level: object) -> tuple[int, float, str]:
    """Numbers by size, then texts by letter, then what is missing."""
    if isinstance(level, int | float) and not isinstance(level, bool):
        return (0, float(level), "")
    return (2, 0.0, "") if level is None else (1, 0.0, str(level))


def _by_choice(view: StudyView, quantity: str) -> dict[str, NDArray[np.float64]]:
    """Where the workload is a parameter: a column for each that came up, NaN at points that ran another."""
    if not view.choices:
        return {}
    column, ran = _column(view, quantity), view.frame[WORKLOAD].to_numpy()
    return {name: np.where(ran == name, column, np.nan) for name in view.choices if (ran == name).any()}


@dataclass(frozen=True, slots=True)
class TradeoffData:
    """How far each point of the front is from the best that each workload could have."""

    quantity: str
    workloads: tuple[str, ...]
    points: tuple[str, ...]
    """Best in the first objective first."""
    times_best: tuple[tuple[float, ...], ...]
    """By workload, by point: 1 is the best of the whole study for that workload; NaN where the point does not
    run it."""
    text: tuple[str, ...]
    knee: str


def tradeoff_data(view: StudyView, quantity: str = "latency_s") -> TradeoffData:
    """Without workloads where the study has only one, as there is nothing to trade."""
    columns = {w.label: _column(view, f"{w.label}:{quantity}") for w in view.workloads
               if f"{w.label}:{quantity}" in view.frame} or _by_choice(view, quantity)  # fmt: skip
    labels, rows = tuple(columns), view.front_rows
    table = []
    for column in columns.values():
        usable = column[view.confirmed & np.isfinite(column)]
        best = usable.min() if len(usable) else np.nan
        table.append(tuple((column[rows] / best).tolist()))
    names = [str(view.frame[POINT].iloc[row]) for row in rows]
    return TradeoffData(
        quantity, labels if len(labels) > 1 else (), tuple(names), tuple(table),
        tuple(describe(view, row) for row in rows),
        "" if view.knee is None else str(view.frame[POINT].iloc[view.knee]),
    )  # fmt: skip
