"""Dotted keys into the JSON object of a result: `cycles`, `energy_j.total`, `operators.0.cycles`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.description.errors import InputError
from tilewright.description.names import nearest

_MOST_LISTED = 12


def metric_value(figures: Mapping[str, object], metric: str) -> float:
    """The number at a dotted key; an item of a list is named by its index.

    Raises `InputError` if there is no such key, or no number at it.
    """
    found: object = figures
    parts = metric.split(".")
    for depth, part in enumerate(parts):
        inner = _entries(found)
        if part not in inner:
            raise InputError(_unknown(parts, depth, inner))
        found = inner[part]
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(_no_number(metric, found))
    return found


def _entries(found: object) -> Mapping[str, object]:
    if isinstance(found, Mapping):
        return found
    if isinstance(found, Sequence) and not isinstance(found, str):
        return {str(index): item for index, item in enumerate(found)}
    return {}


def _unknown(parts: Sequence[str], depth: int, inner: Mapping[str, object]) -> str:
    above, metric = ".".join(parts[:depth]), ".".join(parts)
    if not inner:
        return f"unknown metric {metric!r}: {above!r} holds nothing further"
    meant = nearest(parts[depth], inner)
    if meant:
        suggested = ".".join((*parts[:depth], meant, *parts[depth + 1 :]))
        return f"unknown metric {metric!r}, did you mean {suggested!r}?"
    where = f"in {above!r}" if above else "here"
    return f"unknown metric {metric!r}; known {where}: {_listed(inner)}"


def _no_number(metric: str, found: object) -> str:
    inner = _entries(found)
    if inner:
        return f"metric {metric!r} is no number but holds several: {_listed(inner)}"
    return f"metric {metric!r} is no number here, but {'empty' if found is None else repr(found)}"


def _listed(inner: Mapping[str, object]) -> str:
    names = list(inner)
    more = f", … ({len(names)} in all)" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
