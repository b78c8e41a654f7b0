"""Where the command line's output goes: stdout for data, files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from tilewright.description.errors import InputError
from tilewright.description.text_table import aligned


def write_stdout(text: str) -> None:
    """Write data. A reader that has gone away (`| head`) is not our mistake: the rest is dropped quietly."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _give_up(sys.stdout)
    except OSError as error:
        _give_up(sys.stdout)
        raise InputError(f"can't write to stdout: {_reason(error)}") from error


def note(text: str) -> None:
    """Say something that is not data. Where nobody can hear it, the work goes on."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)


def open_streams() -> None:
    """Make standard streams that the caller has closed (`>&-`) lead nowhere, as files opened later would get
    their numbers; and have characters that an encoding lacks written as `?`."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
            mode = "w" if number else "r"
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
        stream = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _give_up(stream: TextIO) -> None:
    """What Python would flush at exit must go somewhere, or it complains again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def csv_text(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> str:
    """`rows` as CSV with a header line, also where there are no rows."""
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def columns_text(rows: Sequence[Mapping[str, object]], right: Sequence[str] = ()) -> str:
    """`rows` under their headings, as wide as they need; numbers and the columns `right` to the right."""
    heads = list(rows[0])
    cells = [heads, *([_cell(value) for value in row.values()] for row in rows)]
    to_right = [name in right or isinstance(value, int | float) for name, value in rows[0].items()]
    return aligned(cells, to_right)


def _cell(value: object) -> str:
    return (
        f"{value:,g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


@contextmanager
def staged(paths: Sequence[Path | None]) -> Iterator[list[Path | None]]:
    """Temporary files to write in the place of `paths`, renamed to them when the block succeeds.

    They are made on entry, so that a path that can't be written is found before the work, not after it
    (`InputError`); whatever goes wrong in the block, `paths` are left as they were. What exists and is no
    regular file (`/dev/null`, a pipe) is written directly. None stays None.
    """
    wanted = [None if path is None else _resolved(path) for path in paths]
    named = [path for path in wanted if path is not None]
    if len(set(named)) < len(named):
        raise InputError(f"two outputs go to the same file, {named[0]}")
    parts: dict[Path, Path] = {}
    try:
        for path in named:
            parts[path] = _part(path)
        yield [None if path is None else parts[path] for path in wanted]
        for path, part in parts.items():
            part.replace(path) if part != path else None
    except OSError as error:  # the disk is full, say: the block only ever writes the parts
        names = ", ".join(str(path) for path in named)
        raise InputError(f"can't write {names}: {_reason(error)}") from error
    finally:
        for path, part in parts.items():
            if part != path:
                part.unlink(missing_ok=True)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, until Python 3.12
        reason = _reason(error) if isinstance(error, OSError) else "its symbolic links lead in a circle"
        raise InputError(f"can't write {path}: {reason}") from error


def _part(path: Path) -> Path:
    """An empty file beside `path`, or `path` itself where it is no regular file."""
    if path.is_dir():
        raise InputError(f"can't write {path}: it is a directory")
    if path.exists() and not path.is_file():
        return path
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.touch(exist_ok=False)
    except OSError as error:
        raise InputError(f"can't write {path}: {_reason(error)}") from error
    return part


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
