"""Search spaces of neural architecture search (HAT, AutoFormer), and what was measured of their networks."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod

import yaml
from pydantic import ConfigDict, TypeAdapter

from tilewright.description.documented import Documented
from tilewright.description.names import unknown

Choices = dict[str, tuple[float, ...]]


class Stack(Documented):
    """What can be chosen in one stack of layers."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    depth: tuple[int, ...]
    """Numbers of layers."""
    whole: Choices
    """Sizes chosen once for the stack."""
    per_layer: Choices
    """Sizes chosen in each layer anew."""

    @property
    def size(self) -> int:
        """Stacks that can be made."""
        in_layer = prod(len(values) for values in self.per_layer.values())
        layers: int = sum(in_layer**depth for depth in self.depth)
        return layers * prod(len(values) for values in self.whole.values())


class SearchSpace(Documented):
    """All networks that one search chose from."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    title: str
    citation: str
    source: str
    """The file that says it, with its commit."""
    fixed: dict[str, int]
    """Sizes that all networks share."""
    stacks: dict[str, Stack]
    searched: dict[str, float | tuple[float, ...]] | None = None
    """A network that the authors found: sizes of the whole, or layer by layer."""

    @property
    def size(self) -> int:
        """Networks in the space."""
        return prod(stack.size for stack in self.stacks.values())


@dataclass(frozen=True, slots=True)
class Measured:
    """A network that HAT found, as its authors measured it."""

    task: str
    hardware: str
    latency_s: float
    bleu: float
    source: str


@cache
def search_spaces() -> dict[str, SearchSpace]:
    """Every search space by name."""
    text = (files("tilewright.workloads.compression") / "spaces.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, SearchSpace]).validate_python(yaml.safe_load(text))


def search_space(name: str) -> SearchSpace:
    """The search space of that name. Raises `InputError` if there is none."""
    known = search_spaces()
    if name not in known:
        raise unknown("search space", name, known)
    return known[name]


@cache
def hat_networks() -> tuple[Measured, ...]:
    """Latency and BLEU of the networks that HAT found."""
    text = (files("tilewright.workloads.compression") / "hat_latency.csv").read_text(encoding="utf-8")
    return tuple(
        Measured(row["task"], row["hardware"], float(row["latency_s"]), float(row["bleu"]), row["source"])
        for row in csv.DictReader(text.splitlines())
    )
