"""Which points of a space are looked at: all, some spread over it, or those that a search asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.description.errors import InputError
from tilewright.explore.evaluate import Row
from tilewright.explore.expressions import Condition
from tilewright.explore.points import Axis, Chosen, Point, Value, grid, grid_size
from tilewright.explore.space import Objective
from tilewright.explore.space_load import LoadedSpace

if TYPE_CHECKING:
    import optuna

_DRAWN = 256
"""Points drawn at once; a power of two, as Sobol's sequence wants it."""
_TRIES = 50
"""How often in a row, times `_DRAWN`, nothing new may be drawn before a space counts as used up."""
GENERATION: Mapping[str, int] = {"nsga2": 50, "tpe": 10}
"""Points that a search asks for before it learns what they gave. The same whoever evaluates them, so that the
same seed finds the same points on any machine."""


def points(loaded: LoadedSpace) -> Iterator[Point]:
    """The points of a space whose method knows them beforehand, each once, one by one; only those that the
    constraints on keys allow."""
    space, axes = loaded.space, loaded.axes
    finite = all(not axis.is_interval for axis in axes)
    if space.method == "grid" or (finite and not _exceeds(grid_size(axes), space.budget)):
        yield from (point for point in grid(axes) if loaded.is_wanted(dict(point.values)))
        return
    seen: set[int] = set()
    fruitless = 0
    for shares in _shares(space.method, len(axes), space.seed):
        new = False
        for row in shares:
            point = _point(axes, row)
            name = hash(point.canonical)
            if name not in seen and loaded.is_wanted(dict(point.values)):
                seen.add(name)
                new = True
                yield point
                if len(seen) == space.budget:
                    return
        fruitless = 0 if new else fruitless + 1
        if fruitless == _TRIES:
            return


def _exceeds(size: int, budget: int | None) -> bool:
    return budget is not None and size > budget


def _shares(method: str, dimensions: int, seed: int) -> Iterator[Any]:
    """Rows of numbers from 0 to 1 (without 1), without an end."""
    if method == "random":
        generator = np.random.default_rng(seed)
        while True:
            yield generator.random((_DRAWN, dimensions))
    try:
        from scipy.stats.qmc import Sobol
    except ModuleNotFoundError:
        raise InputError("the method 'sobol' needs SciPy: pip install 'tilewright[search]'") from None
    sequence = Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    while sequence.num_generated + _DRAWN <= sequence.maxn:
        yield sequence.random(_DRAWN)


def _point(axes: Sequence[Axis], shares: Iterable[float]) -> Point:
    chosen: dict[str, Value] = {}
    for axis, share in zip(axes, shares, strict=True):
        if axis.is_there(chosen):
            chosen[axis.key] = axis.at(float(share))
    return Point(tuple(chosen.items()))


class Search:
    """A search by Optuna: asked for points, told what they gave.

    Nothing of it is stored: told the same results again, it asks for the same points, so that a sweep which
    is started again walks quickly through what it has already.
    """

    def __init__(self, loaded: LoadedSpace) -> None:
        try:
            import optuna
        except ModuleNotFoundError:
            raise InputError(
                f"the method {loaded.space.method!r} needs Optuna: pip install 'tilewright[search]'"
            ) from None
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
            costs = None if row is None else costs_of(row, self._loaded.space.objectives)
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


def costs_of(row: Mapping[str, object], objectives: Sequence[Objective]) -> list[float] | None:
    """A row's figures for the objectives as they are; None if it lacks one."""
    found = [row.get(objective.name) for objective in objectives]
    return [float(each) for each in found if isinstance(each, int | float)] if None not in found else None


def is_feasible(values: Mapping[str, Value], row: Mapping[str, object], rules: Sequence[Condition]) -> bool:
    """Whether a finished point meets all constraints."""
    figures = {**values, **row}
    return all(rule.keys <= figures.keys() and bool(rule.holds(figures)) for rule in rules)
