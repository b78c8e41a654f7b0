"""`tilewright sweep` and `export`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tilewright.cli import ExitCode
from tilewright.cli.output import columns_text, csv_text, note, staged, write_stdout
from tilewright.cli.texts import Format, FormatOption, counted
from tilewright.description.errors import InputError
from tilewright.description.names import folder_path

if TYPE_CHECKING:
    from tilewright.explore.study.study import Study
    from tilewright.explore.sweep.plan import Forecast
    from tilewright.explore.sweep.sweep import Progress, Summary

SHOWN = 20
"""Points of the front in the table."""

QUIET_S = 5.0
"""At least, between two lines of progress where stderr is no terminal."""

FolderOption = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", parser=folder_path, help="The study's folder; the same one resumes."
    ),
]


def sweep_command(
    space: Annotated[str, typer.Argument(metavar="SPACE.yaml", help="What to look at, and for what.")],
    output: FolderOption,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="OVERRIDE",
            help="arch.KEY=V1,V2, workload.KEY=V1,V2 or workload=NAME1,NAME2: a parameter to vary.",
            show_default=False,
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Local processes; by default one per core.")
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS|FILE", help="A Dask scheduler (tcp://host:8786), or a cluster's YAML."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and why; run and write nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run points again that failed before.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Evaluate the points of a space; the front goes to stdout. Exit code 1 if points failed."""
    if dask is not None and jobs is not None:
        raise InputError("--jobs is for local processes, --dask for those of a cluster: leave one out")
    from tilewright.explore.space.load import load_space
    from tilewright.explore.study.study import Study
    from tilewright.explore.sweep.sweep import sweep

    loaded = load_space(space, overrides or ())
    if dry_run:
        from tilewright.explore.sweep.plan import forecast

        write_stdout(_forecast_text(forecast(loaded, output, retry_failed=retry_failed)))
        return
    again = _command(space, output, overrides or (), jobs, dask)
    with _progress() as report:
        try:
            summary = sweep(
                loaded, output, jobs=jobs, dask=dask, retry_failed=retry_failed, report=report, tell=note
            )
        except KeyboardInterrupt:
            note(f"stopped; everything that finished is kept. To go on:\n  {again}")
            raise
    study = Study(output)
    rows = study.front_rows()
    write_stdout(_front_text(study, rows, output_format))
    _conclude(summary, study, again, bool(rows))


def export_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The file to write.")],
    output_format: Annotated[
        ExportFormat | None, typer.Option("--format", help="By default as the file's name ends.")
    ] = None,
) -> None:
    """Write all points of a sweep as a table: columns are override keys and result keys."""
    from tilewright.explore.libraries import need
    from tilewright.explore.study.study import Study

    chosen = output_format or _format_of(output)
    if chosen is ExportFormat.PARQUET:
        need("pyarrow", "PyArrow", "writing Parquet", "search")
    study = Study(directory)
    with staged([output]) as (part,):
        assert part is not None
        if chosen is ExportFormat.CSV:
            _write_csv(study, part)
        else:
            _write_parquet(study, part)
    note(f"points written to {output}")


class ExportFormat(StrEnum):
    """How points are written."""

    CSV = "csv"
    PARQUET = "parquet"


def _format_of(path: Path) -> ExportFormat:
    name = path.suffix.removeprefix(".").lower()
    if name not in list(ExportFormat):
        raise InputError(f"{path}: name a file that ends in .csv or .parquet, or say --format")
    return ExportFormat(name)


def _write_csv(study: Study, path: Path) -> None:
    """Row by row, in two passes: the first finds the columns."""
    import csv

    columns = list(dict.fromkeys(key for row in study.rows() for key in row))
    with path.open("w", newline="", encoding="utf-8") as sink:
        writer = csv.DictWriter(sink, columns, lineterminator="\n")
        writer.writeheader()
        for row in study.rows():
            writer.writerow({key: _cell(value) for key, value in row.items()})


def _write_parquet(study: Study, path: Path) -> None:
    frame = study.to_frame()
    for column in [name for name, kind in frame.dtypes.items() if kind == "object"]:
        if len({type(value) for value in frame[column] if value is not None}) > 1:
            frame[column] = frame[column].map(lambda value: None if value is None else json.dumps(value))
    frame.to_parquet(path, index=False)


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _command(space: str, output: Path, overrides: Sequence[str], jobs: int | None, dask: str | None) -> str:
    words = ["tilewright", "sweep", space, "-o", str(output), *overrides]
    words += ["--jobs", str(jobs)] if jobs else []
    words += ["--dask", dask] if dask else []
    return shlex.join(words)


def _conclude(summary: Summary, study: Study, again: str, has_front: bool) -> None:
    points, kept = summary.points, summary.points - summary.evaluated
    note(
        f"{counted(points)}: {summary.evaluated:,} evaluated, {kept:,} known already; study in {study.folder}"
    )
    if summary.climbed is not None:
        bounded, simulated = summary.climbed.bounded, summary.climbed.simulated
        left = bounded - simulated
        note(f"ladder: {bounded:,} bounded, {simulated:,} simulated, {left:,} can't be on the front")
    for text in () if has_front else study.unmet():
        note(f"no point meets the constraint {text!r}")
    if summary.failed:
        first = next(row for row in study.rows() if row["status"] == "failed")
        note(f"{counted(summary.failed)} failed; the first, point {first['point']}: {first['error']}")
        note(f"to try them again: {again} --retry-failed")
        raise typer.Exit(ExitCode.FAILURES)


def _front_text(study: Study, rows: Sequence[Mapping[str, object]], output_format: Format) -> str:
    names = [each.name for each in study.loaded.space.objectives]
    columns = ["point", *dict.fromkeys(names), *study.parameters]
    cells = [{key: row.get(key) for key in columns} for row in rows]
    if output_format is Format.JSON:
        return json.dumps(cells, indent=2, ensure_ascii=False) + "\n"
    if output_format is Format.CSV:
        return csv_text([{key: _cell(value) for key, value in row.items()} for row in cells], columns)
    if not rows:
        met = "meets the constraints" if study.loaded.constraints else "has all objectives"
        return f"front: no point {met}\n"
    shown = [{key: _shown(value) for key, value in row.items()} for row in cells[:SHOWN]]
    more = f"… {len(rows) - SHOWN} more: --format csv lists all\n" if len(rows) > SHOWN else ""
    order = f", best {names[0]} first" * (len(rows) > 1)
    return f"front: {counted(len(rows))}{order}\n" + columns_text(shown, columns[1:]) + more


def _shown(value: object) -> object:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return _cell(value) if isinstance(value, list | dict) else str(value)


def _forecast_text(found: Forecast) -> str:
    lines = [f"{'up to ' if found.chosen_as_it_goes else ''}{counted(found.total)}"]
    lines += [f"  {count:>10,}  {reason}" for reason, count in found.reasons.items() if count]
    if found.seconds is not None:
        lines.append(f"about {_duration(found.seconds)} on one core, by what points took so far")
    return "".join(f"{line}\n" for line in (*found.changes, *lines))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr, or, where that is no terminal, a line at each 10 %."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    looks = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*looks, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sweeping", total=None)

        def show(progress: Progress) -> None:
            failed = f", {progress.failed} failed" if progress.failed else ""
            bar.update(task, completed=progress.done, total=progress.total, description=f"sweeping{failed}")

        yield show


class _Lines:
    """A line whenever another tenth is done, but not in quick succession: a short sweep says nothing."""

    def __init__(self) -> None:
        self.tenths = 0
        self.said = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        tenths = 10 * progress.done // max(progress.total, 1)
        now = time.monotonic()
        if progress.evaluated and tenths > self.tenths and now - self.said >= QUIET_S:
            self.tenths, self.said = tenths, now
            failed = f", {progress.failed:,} failed" if progress.failed else ""
            note(f"{progress.done:,} of {counted(progress.total)}{failed}")
