"""The constants behind a result, with each citation written once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SOURCE_COLUMNS = ("constant", "value", "unit", "node_nm", "scaled_from", "confidence")
"""What is said of a constant, but for its source."""


def citations(sources: Sequence[Mapping[str, object]]) -> dict[str, int]:
    """Each distinct source of `sources`, numbered from 1 in order of appearance."""
    found = dict.fromkeys(str(row["source"]) for row in sources)
    return {source: number for number, source in enumerate(found, start=1)}


def source_cells(row: Mapping[str, object]) -> list[str]:
    """A constant as text, in the order of `SOURCE_COLUMNS`; values with four digits or more."""
    return [_cell(row[column]) for column in SOURCE_COLUMNS]


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"
    return "" if value is None else str(value)
