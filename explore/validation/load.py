"""Suites by name or from a file, with every case complete and its place in the file known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import unknown_message
from tilewright.description.prefixes import PREFIXES
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import Document, parse
from tilewright.explore.validation.suite import Baseline, Case, Common, Fidelity, Quantity, Suite
from tilewright.explore.validation.table import Place, table_cases


@dataclass(frozen=True)
class ResolvedCase:
    """A case with what the suite says for it, and where its mistakes are to be reported."""

    name: str
    accelerator: str
    workload: str | None
    overrides: tuple[str, ...]
    fidelity: Fidelity
    metric: str
    measured: float | Literal["rtl"]
    unit: str
    evidence: str
    source: str
    tolerance: float | None
    model: str
    note: str
    place: Place
    folder: Path | None
    """Of the suite's file, for the files that the case names; None for a shipped suite."""
    predicted: float | None = None
    """Known without a simulation."""
    points: bool = False
    """Whether the figures are shares in per cent."""
    baseline: ResolvedCase | None = None
    """What the predicted figure is relative to."""


@dataclass(frozen=True)
class LoadedSuite:
    """A suite with its cases, from the file and from the tables that it names."""

    suite: Suite
    cases: tuple[ResolvedCase, ...]


@lru_cache(maxsize=1)
def suite_names() -> tuple[str, ...]:
    """Names of the shipped suites, sorted."""
    folder = files("tilewright.explore") / "suites"
    names = (entry.name for entry in folder.iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def load_suite(name_or_path: str | Path) -> LoadedSuite:
    """A shipped suite, or one from a YAML file. Raises `InputError` with all its mistakes."""
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in suite_names():
        home = files("tilewright.explore") / "suites"
        return _loaded(
            (home / f"{name}.yaml").read_text(encoding="utf-8"),
            f"{name}.yaml",
            None,
            lambda table: (home / table).read_text(encoding="utf-8"),
        )
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"} and len(path.parts) < 2 and not path.exists():
        raise InputError(f"{unknown_message('suite', name, suite_names())}; it is no file either")
    return _loaded(read_text(path), name, path.parent, lambda table: read_text(path.parent / table))


def _loaded(text: str, source: str, folder: Path | None, read_table: Callable[[str], str]) -> LoadedSuite:
    suite = read(Suite, text, source)
    document = parse(text, source)
    cases = [(case, _yaml_place(document, suite, index)) for index, case in enumerate(suite.cases)]
    cases += _from_table(suite, document, folder, read_table)
    problems: list[Problem] = []
    resolved: list[ResolvedCase] = []
    for own, place in cases:
        case = _completed(own, suite)
        missing = [key for key in ("accelerator", "metric") if not getattr(case, key)]
        problems += [place(key, "required key is missing: in the case, or for the suite") for key in missing]
        if (
            case.measured == "rtl"
            and not missing
            and (case.metric != "cycles" or case.baseline or not case.workload)
        ):
            message = "`measured: rtl` needs a `workload`, `metric: cycles`, and no `baseline`"
            problems.append(place("measured", message))
        if not missing:
            resolved.append(_resolved(case, place, folder, names_machine=suite.accelerator is None))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return LoadedSuite(suite, (*resolved, *_published(suite.published)))


def _from_table(
    suite: Suite, document: Document, folder: Path | None, read_table: Callable[[str], str]
) -> list[tuple[Case, Place]]:
    if not suite.cases_from:
        return []
    try:
        table = read_table(suite.cases_from)
    except InputError as error:
        message = error.problems[0].message
        raise InputError(document.problem(message, ("cases_from",), "cases_from", at_key=False)) from None
    return table_cases(table, suite.cases_from if folder is None else str(folder / suite.cases_from))


def _completed(case: Case, suite: Suite) -> Case:
    """The case with what the suite says for it."""
    left_out = [key for key in Common.model_fields if getattr(case, key) is None]
    common = {key: getattr(suite, key) for key in left_out}
    return case.model_copy(update=common | {"overrides": (*suite.overrides, *case.overrides)})


def _resolved(case: Case, place: Place, folder: Path | None, *, names_machine: bool) -> ResolvedCase:
    assert case.accelerator is not None
    assert case.metric is not None
    made = ResolvedCase(
        name=case.name or _label(case, names_machine),
        accelerator=case.accelerator,
        workload=case.workload,
        overrides=case.overrides,
        fidelity=case.fidelity or "event",
        metric=case.metric,
        measured=case.measured,
        unit=case.unit or "",
        evidence=case.evidence or "",
        source=_one_line(case.source or ""),
        tolerance=case.tolerance,
        model=_one_line(case.model),
        note=_one_line(case.note),
        place=place,
        folder=folder,
        points=case.points,
    )
    return made if case.baseline is None else replace(made, baseline=_baseline(made, case.baseline))


def _baseline(case: ResolvedCase, baseline: Baseline) -> ResolvedCase:
    """The run that a case is compared with."""

    def place(key: str, message: str) -> Problem:
        return case.place(f"baseline.{key}" if key in baseline.model_fields_set else key, message)

    inherited = case.overrides if baseline.workload is None else ()
    kept = [text for text in inherited if text.partition(".")[0] == "workload"]
    return replace(
        case,
        accelerator=baseline.accelerator or case.accelerator,
        workload=baseline.workload or case.workload,
        overrides=(*kept, *baseline.overrides),
        place=place,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")


def _label(case: Case, names_machine: bool) -> str:
    """What is simulated, in short: the accelerator if the cases choose it, the workload, the overrides."""
    parts = [case.accelerator if names_machine or not case.workload else "", case.workload]
    keys = ", ".join(_without_prefix(text) for text in case.overrides)
    over = ""
    if case.baseline is not None:
        named = (
            case.baseline.accelerator,
            case.baseline.workload,
            *map(_without_prefix, case.baseline.overrides),
        )
        over = f"against {', '.join(text for text in named if text)}"
    return " ".join(part for part in (*parts, keys, over) if part)


def _without_prefix(override: str) -> str:
    prefix, _, rest = override.partition(".")
    return rest if prefix in PREFIXES else override


def _yaml_place(document: Document, suite: Suite, index: int) -> Place:
    case = suite.cases[index]

    def problem(key: str, message: str) -> Problem:
        above = key not in case.model_fields_set and key in suite.model_fields_set
        path: tuple[str | int, ...] = (key,) if above else ("cases", index, *key.split("."))
        return document.problem(message, path, ".".join(map(str, path)), at_key=False)

    return problem


def _published(quantities: Sequence[Quantity]) -> Iterator[ResolvedCase]:
    from tilewright.arch.technology_published import published

    for row in published() if quantities else ():
        if row.quantity in quantities:
            yield ResolvedCase(
                name=row.system,
                accelerator="",
                workload=None,
                overrides=(),
                fidelity="event",
                metric=row.quantity,
                measured=row.published,
                unit=row.quantity.rpartition("_")[2],
                evidence=row.evidence,
                source=row.source,
                tolerance=None,
                model=row.model,
                note=row.why,
                place=lambda key, message: Problem(message, "published.yaml", key=key),
                folder=None,
                predicted=row.modelled,
            )
