"""The cases of a validation suite that stand in a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import closest
from tilewright.description.prefixes import PREFIXES
from tilewright.description.reading import read
from tilewright.description.yaml_text import dump
from tilewright.explore.validation.suite import Case

Place = Callable[[str, str], Problem]
"""The problem with a key of a case, from the key and a message."""


def table_cases(text: str, source: str) -> list[tuple[Case, Place]]:
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
        if head not in known and not _overrides(head):
            hint = closest(head, known)
            yield place(head, f"unknown column {head!r}, {hint or 'known: ' + ', '.join(known)}")
        if heads.count(head) > 1:
            yield place(head, f"column {head!r} stands here more than once")
    if "measured" not in heads:
        yield place("", "no column 'measured'")


def _overrides(head: str) -> bool:
    """Whether a column is an override by its key; `workload` alone names the workload."""
    prefix, dot, _ = head.partition(".")
    return bool(dot) and prefix in PREFIXES


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
    for key in filter(_overrides, list(data)):
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
