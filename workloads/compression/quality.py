"""Published accuracy of models and of compressed ones: carried along as it was published, never computed.

A value belongs to one task on one split, from one source; values of different splits or sources say nothing
about each other, and nothing here averages or compares them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from tilewright.workloads.compression.base import Technique
from tilewright.workloads.compression.choice import FIELD


@dataclass(frozen=True, slots=True)
class Quality:
    """One published value: a row of `quality.csv`."""

    technique: str
    model: str
    """As the source calls it."""
    workload: str
    """The shipped workload that this is; empty if none is."""
    compression: str
    """The workload's compression, as YAML; empty for none."""
    dataset: str
    metric: str
    value: str
    """As published; two numbers are two metrics."""
    split: str
    """Of the data: `dev`, `test`, …"""
    source: str


@cache
def table() -> tuple[Quality, ...]:
    """Every published value."""
    text = (files("tilewright.workloads.compression") / "quality.csv").read_text(encoding="utf-8")
    return tuple(Quality(**row) for row in csv.DictReader(text.splitlines()))


def published(workload: str, compression: Sequence[Technique] = ()) -> tuple[Quality, ...]:
    """What was published of a shipped workload with exactly this compression."""
    asked = list(compression)
    return tuple(row for row in table() if row.workload == workload and _techniques(row.compression) == asked)


def _techniques(text: str) -> list[object]:
    return [FIELD.parse(each) for each in yaml.safe_load(text) or ()] if text else []


def as_metadata(rows: Iterable[Quality]) -> Mapping[str, str]:
    """The values as metadata of a graph: one entry per split and source."""
    entries: dict[str, list[str]] = {}
    for row in rows:
        entries.setdefault(f"quality, {row.split}, {row.source}", []).append(f"{row.dataset} {row.value}")
    return {key: "; ".join(values) for key, values in entries.items()}
