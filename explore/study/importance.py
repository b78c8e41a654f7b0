"""Which parameters matter: how much of an objective's spread each explains, which decide who gets to the top,
and where along a parameter an objective goes up or down."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tilewright.explore.study.data import level_order
from tilewright.explore.study.view import StudyView, plain, title_of

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LEVELS = 8
"""Groups that a parameter with many values is cut into, equally full."""
TOP = 0.1
_MOST_TRIALS = 5000


@dataclass(frozen=True, slots=True)
class ImportanceData:
    """Parameters that vary, most important first."""

    parameters: tuple[str, ...]
    objectives: tuple[str, ...]
    explained: tuple[tuple[float, ...], ...]
    """By objective, by parameter: the share of the variance between the parameter's values, 0 to 1."""
    top: tuple[float, ...] | None
    """By parameter: its share in deciding which points are among the best tenth; None without Optuna, or
    where the points are too few."""


@dataclass(frozen=True, slots=True)
class Swing:
    """What one parameter does to one objective on average over everything else."""

    parameter: str
    objective: str
    levels: tuple[str, ...]
    """Values, or ranges of values, in order."""
    ratios: tuple[float, ...]
    """Geometric mean of the objective at each level over that of the whole study; arithmetic where the
    objective is not positive throughout."""


def importance_data(view: StudyView) -> ImportanceData:
    """Omega squared (the unbiased correlation ratio; Hays, Statistics for Psychologists, 1963) of each
    objective's logarithm over all points, whether they meet the constraints or not, and by their bounds where
    they were not simulated: what is simulated and allowed was chosen by these very objectives; and PED-ANOVA
    (Watanabe, Bansal and Hutter, IJCAI 2023) of the ranks of dominance, by Optuna."""
    groups = _groups(view)
    tables = [_measure(view.all_costs[:, column]) for column in range(len(view.objectives))]
    explained = [[_explained(table, places) for _, places in groups.values()] for table in tables]
    weight = np.array(explained).mean(axis=0) if groups else np.zeros(0)
    order = np.argsort(-weight, kind="stable")
    names = list(groups)
    top = _top_importance(view, names)
    return ImportanceData(
        parameters=tuple(title_of(names[i]) for i in order),
        objectives=tuple(title_of(o.name) for o in view.objectives),
        explained=tuple(tuple(row[i] for i in order) for row in explained),
        top=None if top is None else tuple(top[names[i]] for i in order),
    )


def swing_data(view: StudyView) -> list[Swing]:
    """For each objective and parameter, in the order of the study."""
    swings = []
    groups = _groups(view)
    for column, objective in enumerate(view.objectives):
        costs = view.all_costs[:, column]
        values = -costs if objective.maximize else costs
        finite = np.isfinite(values)
        positive = bool(finite.any()) and bool((values[finite] > 0).all())
        table = np.log(values, where=finite, out=np.full(len(values), np.nan)) if positive else values
        middle = float(table[finite].mean()) if finite.any() else 0.0
        for key, (labels, places) in groups.items():
            means = [_mean(table[(places == level) & finite]) for level in range(len(labels))]
            ratios = [float(np.exp(m - middle)) if positive else m / middle if middle else 1.0 for m in means]
            swings.append(Swing(title_of(key), title_of(objective.name), labels, tuple(ratios)))
    return swings


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _measure(costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms where all are of one sign: objectives are products more often than sums."""
    finite = costs[np.isfinite(costs)]
    if len(finite) and ((finite > 0).all() or (finite < 0).all()):
        return np.log(np.abs(costs))
    return costs


def _groups(view: StudyView) -> dict[str, tuple[tuple[str, ...], NDArray[np.int64]]]:
    """By parameter that varies: its levels in order, and each row's level."""
    found = {}
    for key in view.parameters:
        if key in view.frame:
            labels, places = _levels([plain(cell) for cell in view.frame[key].tolist()])
            if len(labels) > 1:
                found[key] = (labels, places)
    return found


def _levels(cells: Sequence[object]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    levels = sorted(set(cells), key=level_order)
    numeric = all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
    index = {level: place for place, level in enumerate(levels)}
    places = np.array([index[cell] for cell in cells], dtype=np.int64)
    if not numeric or len(levels) <= LEVELS:
        return tuple("none" if level is None else str(level) for level in levels), places
    edges = np.array_split(np.arange(len(levels)), LEVELS)
    labels = tuple(f"{levels[part[0]]:.4g} to {levels[part[-1]]:.4g}" for part in edges)
    starts = np.array([part[0] for part in edges])
    return labels, np.searchsorted(starts, places, side="right").astype(np.int64) - 1


def _explained(values: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    """Omega squared of the groups; 0 where there is nothing to explain, or too few points to tell."""
    finite = np.isfinite(values)
    values, places = values[finite], places[finite]
    counts = np.bincount(places)
    groups = int((counts > 0).sum())
    spare = len(values) - groups
    if groups < 2 or spare < 1:
        return 0.0
    total = float(((values - values.mean()) ** 2).sum())
    means = np.bincount(places, values) / np.maximum(counts, 1)
    within = float(((values - means[places]) ** 2).sum())
    if total <= 1e-12 * max(1.0, float((values**2).sum())):
        return 0.0
    error = within / spare
    return max(0.0, (total - within - (groups - 1) * error) / (total + error))


def _top_importance(view: StudyView, keys: Sequence[str]) -> dict[str, float] | None:
    try:
        import optuna
    except ImportError:
        return None
    rows = np.flatnonzero(np.isfinite(view.costs).all(axis=1))
    rows = rows[np.unique(np.linspace(0, max(len(rows) - 1, 0), min(len(rows), _MOST_TRIALS)).astype(int))]
    if len(rows) < 2 / TOP or not keys:
        return None
    from tilewright.explore.sweep.pareto import ranks

    standing = ranks(view.costs[rows])
    distributions = {key: _distribution([plain(view.frame[key].iloc[row]) for row in rows]) for key in keys}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for row, rank in zip(rows, standing, strict=True):
            values = {key: plain(view.frame[key].iloc[row]) for key in keys}
            known = {key: value for key, value in values.items() if value is not None}
            study.add_trial(
                optuna.trial.create_trial(
                    params=known, distributions={key: distributions[key] for key in known}, value=float(rank)
                )
            )
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=TOP)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(keys))
    return {key: float(found.get(key, 0.0)) for key in keys}


def _distribution(cells: Sequence[object]) -> BaseDistribution:
    """What Optuna is told of a parameter: an unordered choice among the values that came up."""
    import optuna

    known = sorted({cell for cell in cells if cell is not None}, key=level_order)
    if len(known) > 50 and all(isinstance(cell, int | float) for cell in known):
        return optuna.distributions.FloatDistribution(float(known[0]), float(known[-1]))  # type: ignore[arg-type]
    return optuna.distributions.CategoricalDistribution(known)  # type: ignore[arg-type]
