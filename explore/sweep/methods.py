"""Which points of a space are looked at: all, some spread over it, or those that a search asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tilewright.explore.evaluation.evaluate import Row
from tilewright.explore.evaluation.expressions import Condition
from tilewright.explore.evaluation.points import Axis, Chosen, Point, Value, grid
from tilewright.explore.libraries import need
from tilewright.explore.space.draws import Numbered, Seen, point_at, shuffled_points
from tilewright.explore.space.load import LoadedSpace
from tilewright.explore.space.schema import Method, Objective

if TYPE_CHECKING:
    import optuna

_DRAWN = 256
"""Points of Sobol's sequence that are made at once; a power of two, as it wants it."""
_TRIES = 100_000
"""How often in a row nothing new may be drawn before a space counts as used up."""
GENERATION: Mapping[str, int] = {"nsga2": 50, "tpe": 10}
"""Points that a search asks for before it learns what they gave. The same whoever evaluates them, so that the
same seed finds the same points on any machine."""
_LIBRARIES: Mapping[Method, tuple[str, str]] = {
    "sobol": ("scipy", "SciPy"),
    "nsga2": ("optuna", "Optuna"),
    "tpe": ("optuna", "Optuna"),
}
"""Methods that need one: its import name, and its name."""


def check_installed(method: Method) -> None:
    """Raise `InputError` if a method needs a library that is not installed."""
    if method in _LIBRARIES:
        need(*_LIBRARIES[method], f"the method {method!r}", "search")


def points(loaded: LoadedSpace) -> Iterator[Point]:
    """The points of a space whose method knows them beforehand, each once, one by one; only those that the
    constraints on keys allow."""
    space, axes = loaded.space, loaded.axes
    finite = all(not axis.is_interval for axis in axes)
    if space.method == "grid" or (finite and Numbered(axes).size <= (space.budget or 0)):
        yield from (point for point in grid(axes) if loaded.is_wanted(dict(point.values)))
        return
    seen = None if space.method == "random" else Seen()
    found = fruitless = 0
    for point in shuffled_points(axes, space.seed) if seen is None else _sobol(axes, space.seed):
        if loaded.is_wanted(dict(point.values)) and (seen is None or seen.add(point.canonical)):
            found, fruitless = found + 1, 0
            yield point
        else:
            fruitless += 1
        if found == space.budget or fruitless == _TRIES:
            return


def _sobol(axes: Sequence[Axis], seed: int) -> Iterator[Point]:
    """Points along Sobol's sequence; on a grid they come back."""
    from scipy.stats.qmc import Sobol

    sequence = Sobol(len(axes), scramble=True, rng=np.random.default_rng(seed))
    while sequence.num_generated + _DRAWN <= sequence.maxn:
        yield from (point_at(axes, shares) for shares in sequence.random(_DRAWN).tolist())


class Search:
    """A search by Optuna: asked for points, told what they gave.

    Nothing of it is stored: told the same results again, it asks for the same points, so that a sweep which
    is started again walks quickly through what it has already.
    """

    def __init__(self, loaded: LoadedSpace) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna = optuna
        self._loaded = loaded
        directions = [objective.goal for objective in loaded.space.objectives]
        self._study = optuna.create_study(sampler=self._sampler(), directions=directions)
        self._trials: list[optuna.Trial] = []

    def _sampler(self) -> optuna.samplers.BaseSampler:
        space, samplers = self._loaded.space, self._optuna.samplers
        sampler: optuna.samplers.BaseSampler
        if space.method == "nsga2":
            size = min(GENERATION["nsga2"], max(2, (space.budget or 1) // 4))
            sampler = samplers.NSGAIISampler(population_size=size, seed=space.seed)
        else:
            sampler = samplers.TPESampler(seed=space.seed)
        return sampler

    def ask(self, number: int) -> list[Point]:
        """The next points; some may have been asked for before."""
        self._trials = [self._study.ask() for _ in range(number)]
        return [Point(self._suggested(trial)) for trial in self._trials]

    def tell(self, points: Sequence[Point], rows: Sequence[Row | None]) -> None:
        """What they gave, in order; None for those that failed or were not run."""
        failed = self._optuna.trial.TrialState.FAIL
        for trial, point, row in zip(self._trials, points, rows, strict=True):
            costs = None if row is None else costs_of(dict(point.values), row, self._loaded.space.objectives)
            if row is None or costs is None:
                self._study.tell(trial, state=failed)
                continue
            for rule in self._loaded.constraints:
                trial.set_constraint(rule.text, float(not is_feasible(dict(point.values), row, [rule])))
            self._study.tell(trial, costs)

    def _suggested(self, trial: optuna.Trial) -> Chosen:
        chosen: dict[str, Value] = {}
        for axis in self._loaded.axes:
            if not axis.is_there(chosen):
                continue
            last = len(axis.values) - 1
            if axis.is_interval:
                chosen[axis.key] = trial.suggest_float(axis.key, axis.low, axis.high)
            elif _is_ordered(axis):
                chosen[axis.key] = axis.values[trial.suggest_int(axis.key, 0, last)]
            else:
                chosen[axis.key] = axis.values[int(trial.suggest_categorical(axis.key, range(last + 1)))]
        return tuple(chosen.items())


def _is_ordered(axis: Axis) -> bool:
    numbers = [each for each in axis.values if isinstance(each, int | float) and not isinstance(each, bool)]
    return len(numbers) == len(axis.values) and numbers == sorted(numbers)


def costs_of(
    values: Mapping[str, object], row: Mapping[str, object], objectives: Sequence[Objective]
) -> list[float] | None:
    """A point's figures for the objectives as they are, some of which may be its own values; None if it lacks
    one."""
    found = [row.get(objective.name, values.get(objective.name)) for objective in objectives]
    numbers = [float(each) for each in found if isinstance(each, int | float)]
    return numbers if len(numbers) == len(found) else None


def is_feasible(values: Mapping[str, Value], row: Mapping[str, object], rules: Sequence[Condition]) -> bool:
    """Whether a finished point meets all constraints."""
    figures = {**values, **row}
    return all(rule.keys <= figures.keys() and bool(rule.holds(figures)) for rule in rules)
