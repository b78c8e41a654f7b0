"""`tilewright validate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import ExitCode
from tilewright.cli.output import csv_text, note, write_stdout

if TYPE_CHECKING:
    from tilewright.explore.validation.runs import Progress
    from tilewright.explore.validation.validation import Validation


class ValidationFormat(StrEnum):
    """How a validation is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MARKDOWN = "md"


def validate_command(
    suites: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUITE", help="A shipped suite's name or a YAML file; all shipped ones if left out."
        ),
    ] = None,
    output_format: Annotated[
        ValidationFormat, typer.Option("--format", help="How to print to stdout.")
    ] = ValidationFormat.TABLE,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes that share the runs.")] = 1,
) -> None:
    """Hold predictions against measured figures; exit code 1 if a suite exceeds its tolerance."""
    from tilewright.explore.validation.validation import validate

    with _progress() as progress:
        validation = validate(suites or (), jobs, progress)
    write_stdout(_formatted(validation, output_format))
    for suite in validation.suites:
        for failure in suite.failures:
            note(failure)
    if not validation.passed:
        raise typer.Exit(ExitCode.FAILURES)


def _formatted(validation: Validation, output_format: ValidationFormat) -> str:
    if output_format is ValidationFormat.JSON:
        return json.dumps(validation.to_dict(), indent=2, ensure_ascii=False) + "\n"
    if output_format is ValidationFormat.CSV:
        rows = validation.rows()
        return csv_text(rows, list(rows[0]))
    from tilewright.explore.validation.text import markdown, plain_text

    return markdown(validation) if output_format is ValidationFormat.MARKDOWN else plain_text(validation)


@contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr while it is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("validating", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def suite_rows() -> list[dict[str, object]]:
    """The shipped suites, for `tilewright list suites`."""
    from tilewright.explore.validation.load import load_suite, suite_names

    rows: list[dict[str, object]] = []
    for name in suite_names():
        loaded = load_suite(name)
        kinds = dict.fromkeys(case.evidence for case in loaded.cases if case.evidence)
        tolerance = loaded.suite.tolerance
        rows.append(
            {
                "name": name,
                "cases": len(loaded.cases),
                "evidence": ", ".join(kinds),
                "tolerance": "none" if tolerance is None else f"{100 * tolerance:g} %",
                "description": " ".join(loaded.suite.title.split()).rstrip("."),
            }
        )
    return rows
