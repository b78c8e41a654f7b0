"""Timing and organisation of DRAM standards, from `dram_standards.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal, cast, get_args

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import closest
from tilewright.description.yaml_text import parse

Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Standard:
    """One DRAM standard: the fields of `BankedDram` that it fills in, and where they come from."""

    name: str
    fields: Mapping[str, float]
    """By field name: bytes, nanoseconds, transfers per second."""
    source: str
    confidence: Confidence


@lru_cache(maxsize=1)
def standards() -> Mapping[str, Standard]:
    """Return the shipped standards by name."""
    text = (files("tilewright.arch") / "dram_standards.yaml").read_text(encoding="utf-8")
    table = cast("dict[str, dict[str, object]]", parse(text, "dram_standards.yaml").data)
    return MappingProxyType({name: _standard(name, row) for name, row in table.items()})


def complete_from_standard(data: object) -> object:
    """Return a banked DRAM's description with what it leaves out filled in from the `standard` it names.

    Data that names none, or that is no mapping, comes back as it is, for the schema to judge. Raises
    InputError (a ValueError) for a standard that isn't shipped.
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("standard"), str):
        return data
    name = data["standard"]
    if name not in standards():
        hint = closest(name, standards())
        choices = f", {hint}" if hint else f"; known: {', '.join(standards())}"
        raise InputError(Problem(f"unknown DRAM standard {name!r}{choices}", key="standard"))
    return {**standards()[name].fields, **data}


def _standard(name: str, row: Mapping[str, object]) -> Standard:
    numbers = {key: value for key, value in row.items() if isinstance(value, int | float)}
    confidence = row["confidence"]
    if confidence not in get_args(Confidence):
        raise ValueError(f"dram_standards.yaml: {name}: confidence {confidence!r}")
    return Standard(name, MappingProxyType(numbers), str(row["source"]), cast("Confidence", confidence))
