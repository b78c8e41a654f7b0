"""Validation suites: tables of measured figures, each with what to simulate to predict it.

A suite is a YAML file. What its cases have in common may stand at the top, and long tables in a CSV beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import closest, unknown_message
from tilewright.description.prefixes import PREFIXES
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import Document, dump, parse

Evidence = Literal["silicon", "rtl", "synthesis", "model", "claim", "closed-form"]
Fidelity = Literal["event", "analytic", "cycle"]
Quantity = Literal["area_um2", "area_mm2", "power_mw", "power_w", "energy_pj"]
Tolerance = Annotated[float, Field(ge=0)]
"""A fraction: 0.1 is 10 %."""
Place = Callable[[str, str], Problem]
"""The problem with a key of a case, from the key and a message."""


class Common(BaseModel):
    """What a case says, or the suite for all cases that don't."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    accelerator: str | None = None
    """A preset's name, or a YAML file (relative to the suite's folder)."""
    workload: str | None = None
    """A preset's name, or a file. Left out: only what the accelerator's description says by itself can be
    asked for (`area_mm2`, `peak_power_w`, `peak_macs_per_cycle`, `clock_mhz`)."""
    overrides: tuple[str, ...] = ()
    """`arch.KEY=VALUE` and `workload.KEY=VALUE`; a case's come after the suite's."""
    fidelity: Fidelity | None = None
    """By default `event`."""
    metric: str | None = None
    """Dotted key of the JSON object that `tilewright run --format json` prints."""
    unit: str | None = None
    """Of the measured figure; shown, not converted."""
    evidence: Evidence | None = None
    """What kind of figure was measured."""
    source: str | None = None
    """Where the measured figure comes from: paper and table, or repository and licence."""


class Case(Common):
    """One measured figure."""

    name: str = ""
    """What to call it; by default what is simulated."""
    measured: Annotated[float, Field(gt=0)]
    """The figure that the prediction is held against."""
    tolerance: Tolerance | None = None
    """Largest absolute error of this case, as a fraction; by default only the suite's mean is held."""
    model: str = ""
    """How the case was put into the simulator's terms, where that took a choice."""
    note: str = ""
    """Why the prediction is off, where it is."""


class Suite(Common):
    """A validation suite."""

    name: Annotated[str, Field(min_length=1)]
    title: str = ""
    """A sentence on what is compared with what."""
    tolerance: Tolerance | None = None
    """Largest mean absolute percentage error, as a fraction; left out: reported, and held to nothing."""
    cases: tuple[Case, ...] = ()
    cases_from: str | None = None
    """A CSV file beside the suite with a case a row. Its columns are the keys of a case, and overrides
    (`arch.array.rows`, `workload.m`); an empty cell is a key left out, `overrides` are parted by spaces."""
    published: tuple[Quantity, ...] = ()
    """Take these quantities' rows of the shipped table of published designs (`published.yaml` in
    `arch/technology`), which are modelled from the technology tables without simulation."""

    @model_validator(mode="after")
    def _has_cases(self) -> Suite:
        if not (self.cases or self.cases_from or self.published):
            raise ValueError("a suite needs `cases`, or a table named by `cases_from`")
        return self


@dataclass(frozen=True)
class ResolvedCase:
    """A case with what the suite says for it, and where its mistakes are to be reported."""

    name: str
    accelerator: str
    workload: str | None
    overrides: tuple[str, ...]
    fidelity: Fidelity
    metric: str
    measured: float
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


def suite_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a suite, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Suite.model_json_schema()}


def _loaded(
    text: str, source: str, folder: Path | None, read_table: Callable[[str], str]
) -> LoadedSuite:
    suite = read(Suite, text, source)
    document = parse(text, source)
    cases: list[tuple[Case, Place]] = [
        (case, _yaml_place(document, suite, index)) for index, case in enumerate(suite.cases)
    ]
    if suite.cases_from:
        try:
            table = read_table(suite.cases_from)
        except (InputError, OSError) as error:
            message = str(error) if isinstance(error, InputError) else f"{suite.cases_from}: no such file"
            raise InputError(document.problem(message, ("cases_from",), "cases_from", at_key=False)) from None
        name = suite.cases_from if folder is None else str(folder / suite.cases_from)
        cases += _table_cases(table, name)
    problems: list[Problem] = []
    resolved: list[ResolvedCase] = []
    for case, place in cases:
        missing = [key for key in ("accelerator", "metric") if not _either(case, suite, key)]
        problems += [place(key, "required key is missing: in the case, or for the whole suite") for key in missing]
        if not missing:
            resolved.append(_resolved(case, suite, place, folder))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return LoadedSuite(suite, (*resolved, *_published(suite.published)))


def _either(case: Case, suite: Suite, key: str) -> Any:
    """What the case says, or else the suite."""
    own = getattr(case, key)
    return getattr(suite, key) if own is None else own


def _resolved(case: Case, suite: Suite, place: Place, folder: Path | None) -> ResolvedCase:
    overrides = (*suite.overrides, *case.overrides)
    accelerator, workload = _either(case, suite, "accelerator"), _either(case, suite, "workload")
    return ResolvedCase(
        name=case.name or _label(case, suite, workload or accelerator, overrides),
        accelerator=accelerator,
        workload=workload,
        overrides=overrides,
        fidelity=_either(case, suite, "fidelity") or "event",
        metric=_either(case, suite, "metric"),
        measured=case.measured,
        unit=_either(case, suite, "unit") or "",
        evidence=_either(case, suite, "evidence") or "",
        source=" ".join((_either(case, suite, "source") or "").split()),
        tolerance=case.tolerance,
        model=" ".join(case.model.split()),
        note=" ".join(case.note.split()),
        place=place,
        folder=folder,
    )


def _label(case: Case, suite: Suite, what: str, overrides: Sequence[str]) -> str:
    """What is simulated, in short: the accelerator where the cases differ in it, the workload, the overrides."""
    own = case.accelerator is not None and suite.accelerator is None and what != case.accelerator
    head = f"{case.accelerator} {what}" if own else what
    keys = [_without_prefix(text) for text in overrides]
    return f"{head} {', '.join(keys)}" if keys else head


def _without_prefix(override: str) -> str:
    prefix, _, rest = override.partition(".")
    return rest if prefix in PREFIXES else override


def _yaml_place(document: Document, suite: Suite, index: int) -> Place:
    case = suite.cases[index]

    def problem(key: str, message: str) -> Problem:
        above = key not in case.model_fields_set and key in suite.model_fields_set
        path = (key,) if above else ("cases", index, key)
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


def _table_cases(text: str, source: str) -> list[tuple[Case, Place]]:
    """The cases of a CSV table; `InputError` with the mistakes of all its rows."""
    lines = text.splitlines()
    reader = csv.reader(io.StringIO(text))
    heads = [head.strip() for head in next(reader, [])]
    problems = list(_bad_heads(heads, source, lines))
    cases: list[tuple[Case, Place]] = []
    start = reader.line_num + 1
    for cells in [] if problems else reader:
        place = _table_place(source, start, lines[start - 1], heads)
        start = reader.line_num + 1
        if not cells:
            continue
        if len(cells) != len(heads):
            problems.append(place("", f"{len(cells)} cells in a table of {len(heads)} columns"))
            continue
        try:
            cases.append((_table_case(dict(zip(heads, cells, strict=True)), place), place))
        except InputError as error:
            problems += error.problems
    if not (problems or cases):
        problems.append(Problem("no cases: only a header", source))
    if problems:
        raise InputError(*problems)
    return cases


def _bad_heads(heads: Sequence[str], source: str, lines: Sequence[str]) -> Iterator[Problem]:
    place = _table_place(source, 1, lines[0] if lines else "", heads)
    known = list(Case.model_fields)
    for head in heads:
        if head not in known and head.partition(".")[0] not in PREFIXES:
            hint = closest(head, known)
            yield place(head, f"unknown column {head!r}, {hint or 'known: ' + ', '.join(known)}")
        if heads.count(head) > 1:
            yield place(head, f"column {head!r} stands here more than once")
    if "measured" not in heads:
        yield place("", "no column 'measured'")


def _table_place(source: str, line: int, text: str, heads: Sequence[str]) -> Place:
    def problem(key: str, message: str) -> Problem:
        cells = text.split(",")
        if key not in heads or len(cells) != len(heads):  # cells in quotes: the line has to do
            return Problem(message, source, line, 1, key)
        before = ",".join(cells[: heads.index(key)])
        return Problem(message, source, line, len(before) + bool(before) + 1, key, text)

    return problem


def _table_case(row: Mapping[str, str], place: Place) -> Case:
    data: dict[str, Any] = {key: cell.strip() for key, cell in row.items() if cell.strip()}
    overrides = data.pop("overrides", "").split()
    for key in [key for key in data if key.partition(".")[0] in PREFIXES]:
        overrides.append(f"{key}={data.pop(key)}")
    data["overrides"] = overrides
    try:
        return Case.model_validate(data)
    except ValidationError:
        pass
    try:
        return read(Case, dump(data), "")  # only for its words on what is wrong
    except InputError as error:
        problems = (place(problem.key.partition(".")[0], problem.message) for problem in error.problems)
        raise InputError(*problems) from None
