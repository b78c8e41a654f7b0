"""Close matches for names that nobody knows."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from tilewright.description.errors import InputError

_PLURALS = {"attention": "attention", "compression": "compression", "technology": "technologies"}


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
    hint = closest(name, known)
    plural = _PLURALS.get(what, f"{what}s")
    return f"unknown {what} {name!r}{', ' if hint else ''}{hint} (tilewright list {plural} shows them all)"
