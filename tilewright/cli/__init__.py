"""The command line. Data goes to stdout, everything else to stderr; `ExitCode` says what the number means."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NoReturn

from tilewright.cli.output import note, open_streams


class ExitCode(IntEnum):
    """What `tilewright` returns to the shell; each member's docstring is what `--help` prints."""

    OK = 0, "fine"
    FAILURES = 1, "the run found failures (a sweep's point, a validation beyond its tolerance)"
    BAD_INPUT = 2, "bad usage or bad input; nothing was written"
    INTERNAL_ERROR = 3, "internal error"
    INTERRUPTED = 130, "interrupted"

    def __new__(cls, value: int, doc: str) -> ExitCode:
        """A member from its number and docstring."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.__doc__ = doc
        return member


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line on `arguments` (by default the program's own) and exit with an `ExitCode`."""
    open_streams()
    code = execute(arguments)
    if code == ExitCode.INTERRUPTED:
        # where an interrupt passed through C code, Python would end by the signal instead of with the code
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def execute(arguments: Sequence[str] | None = None) -> int:
    """Like `main`, but returns the exit code; a mistake is told on stderr and never raised."""
    from tilewright.description.errors import InputError

    try:
        from tilewright.cli.app import app

        app(args=None if arguments is None else list(arguments), prog_name="tilewright")
    except SystemExit as stop:
        if stop.code == ExitCode.INTERRUPTED:
            note("interrupted")
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:  # before the application could turn it into an exit code
        note("interrupted")
        return ExitCode.INTERRUPTED
    except InputError as error:
        for problem in error.problems:
            note(f"error: {problem}")
        return ExitCode.BAD_INPUT
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            note("error: can't write: no space left on device")
            return ExitCode.BAD_INPUT
        return _internal_error(error)
    return ExitCode.OK


def _internal_error(error: Exception) -> ExitCode:
    if os.environ.get("TILEWRIGHT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    summary = " ".join(str(error).split())
    note(f"internal error: {type(error).__name__}: {summary}; run with TILEWRIGHT_DEBUG=1 for the traceback")
    return ExitCode.INTERNAL_ERROR
