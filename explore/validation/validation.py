"""Predicted against measured: runs the cases of validation suites. Nothing is fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from tilewright.description.errors import InputError, Problem
from tilewright.explore.validation.load import LoadedSuite, ResolvedCase, load_suite, suite_names
from tilewright.explore.validation.runs import Progress, measurements, predictions

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """One case: what was measured and what was predicted."""

    case: str
    accelerator: str
    """Empty where the figure comes from the technology tables alone."""
    workload: str
    overrides: tuple[str, ...]
    fidelity: str
    metric: str
    unit: str
    measured: float
    predicted: float
    tolerance: float | None
    """Largest absolute error, as a fraction; None: only the suite's mean is held."""
    evidence: str
    source: str
    model: str
    note: str
    points: bool = False
    """Whether the figures are shares in per cent."""

    @property
    def error(self) -> float:
        """Predicted over measured, less one; of shares in per cent the difference (0.06 is 6 points)."""
        if self.points:
            return (self.predicted - self.measured) / 100
        return self.predicted / self.measured - 1.0

    @property
    def passed(self) -> bool:
        """Whether the case keeps its own tolerance, if it has one."""
        return self.tolerance is None or abs(self.error) <= self.tolerance

    def to_dict(self) -> dict[str, object]:
        """The fields in order, `error` after `predicted`."""
        own = vars(self) | {"overrides": list(self.overrides)}
        names = list(own)
        names.insert(names.index("predicted") + 1, "error")
        return {name: own.get(name, self.error) for name in names}


@dataclass(frozen=True)
class SuiteOutcome:
    """A suite's cases and how far off they are together."""

    name: str
    title: str
    tolerance: float | None
    """Largest `mape`; None: reported only."""
    cases: tuple[Outcome, ...]

    @property
    def mape(self) -> float:
        """Mean absolute percentage error of the cases, as a fraction (0.1 is 10 %)."""
        return fmean(abs(case.error) for case in self.cases)

    @property
    def failures(self) -> tuple[str, ...]:
        """What exceeds its tolerance, a sentence each."""
        found = []
        if self.tolerance is not None and self.mape > self.tolerance:
            mape, allowed = 100 * self.mape, 100 * self.tolerance
            found.append(f"{self.name}: MAPE {mape:.2f} % exceeds the tolerance of {allowed:g} %")
        for case in self.cases:
            if case.tolerance is not None and not case.passed:
                error, allowed, unit = 100 * case.error, 100 * case.tolerance, "pt" if case.points else "%"
                found.append(
                    f"{self.name}: {case.case}: error {error:+.2f} {unit} exceeds the tolerance of "
                    f"{allowed:g} {unit}"
                )
        return tuple(found)

    @property
    def passed(self) -> bool:
        """Whether nothing exceeds its tolerance."""
        return not self.failures

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "mape": self.mape,
            "tolerance": self.tolerance,
            "passed": self.passed,
            "cases": [case.to_dict() for case in self.cases],
        }


@dataclass(frozen=True)
class Validation:
    """The outcome of one or more suites."""

    suites: tuple[SuiteOutcome, ...]

    def __repr__(self) -> str:
        """One line, whatever the number of cases."""
        errors = ", ".join(f"{suite.name} {100 * suite.mape:.1f} %" for suite in self.suites)
        return f"<Validation, mean absolute error: {errors}>"

    def __str__(self) -> str:
        """What `tilewright validate` prints."""
        from tilewright.explore.validation.text import plain_text

        return plain_text(self)

    @property
    def passed(self) -> bool:
        """Whether nothing exceeds its tolerance."""
        return all(suite.passed for suite in self.suites)

    @property
    def mape(self) -> dict[str, float]:
        """Mean absolute percentage error by suite, as a fraction."""
        return {suite.name: suite.mape for suite in self.suites}

    def rows(self) -> list[dict[str, object]]:
        """A row per case, its suite's name first; `overrides` as one text."""
        return [
            {"suite": suite.name, **case.to_dict(), "overrides": " ".join(case.overrides)}
            for suite in self.suites
            for case in suite.cases
        ]

    def to_dict(self) -> dict[str, object]:
        """The JSON object of `tilewright validate --format json`."""
        return {"passed": self.passed, "suites": [suite.to_dict() for suite in self.suites]}

    def to_frame(self) -> pd.DataFrame:
        """A row per case: `predicted` and `measured` in `unit`, `error` a fraction (0.1: 10 % too much)."""
        import pandas as pd

        return pd.DataFrame(self.rows())


def validate(
    suites: Sequence[str | Path] = (), jobs: int = 1, progress: Progress | None = None
) -> Validation:
    """Run suites, by shipped name or from files; by default all that are shipped.

    Cases that simulate the same are run once; `jobs` processes share the runs. Raises `InputError` with all
    the mistakes of the suites, before anything is simulated where they can be found that early.
    """
    loaded = _loaded(suites or suite_names())
    cases = [case for suite in loaded for case in suite.cases]
    figures = iter(zip(predictions(cases, jobs, progress), measurements(cases), strict=True))
    return Validation(tuple(_suite_outcome(suite, [next(figures) for _ in suite.cases]) for suite in loaded))


def _loaded(names: Sequence[str | Path]) -> list[LoadedSuite]:
    suites: list[LoadedSuite] = []
    problems: list[Problem] = []
    for name in names:
        try:
            suites.append(load_suite(name))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    return suites


def _suite_outcome(loaded: LoadedSuite, figures: Sequence[tuple[float, float]]) -> SuiteOutcome:
    suite = loaded.suite
    cases = tuple(_outcome(case, *pair) for case, pair in zip(loaded.cases, figures, strict=True))
    return SuiteOutcome(suite.name, " ".join(suite.title.split()), suite.tolerance, cases)


def _outcome(case: ResolvedCase, predicted: float, measured: float) -> Outcome:
    return Outcome(
        case=case.name,
        accelerator=case.accelerator,
        workload=case.workload or "",
        overrides=case.overrides,
        fidelity=case.fidelity,
        metric=case.metric,
        unit=case.unit,
        measured=measured,
        predicted=predicted,
        tolerance=case.tolerance,
        evidence=case.evidence,
        source=case.source,
        model=case.model,
        note=case.note,
        points=case.points,
    )
