"""Names: close matches for those that nobody knows, and those of folders to write to."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from tilewright.description.errors import InputError

_LISTS = {
    "accelerator": "accelerators",
    "attention": "attention",
    "compression": "compression",
    "suite": "suites",
    "technology": "technologies",
    "workload": "workloads",
}
"""What `tilewright list` lists."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name closest to `name`, whatever its case; None if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[matches[0]] if matches else None


def closest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean 'x'?` for the known name closest to `name`, or an empty string."""
    match = nearest(name, known)
    return f"did you mean {match!r}?" if match else ""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """Return the error for a `name` that is no known `what` ("accelerator", "workload", …)."""
    return InputError(unknown_message(what, name, known))


def unknown_message(what: str, name: str, known: Iterable[str]) -> str:
    """Return the text of `unknown`, for a caller that has more to say."""
    known = list(known)
    hint = closest(name, known)
    names = f"known: {', '.join(known)}"
    where = f"tilewright list {_LISTS[what]} shows them all" if what in _LISTS else names
    return f"unknown {what} {name!r}{', ' if hint else ''}{hint} ({where})"


def folder_path(name: str | Path) -> Path:
    """A folder to write to. Raises `InputError` for an empty name, which would be the working directory."""
    if not str(name):
        raise InputError("'' names no folder; '.' is the working directory")
    return Path(name)
