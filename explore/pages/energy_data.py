"""What the report's figures of energy and area show, as plain data; `energy_figures` draws it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tilewright.sim.result import OperatorRow, Result

_LAYER = re.compile(r"(?:decode\d+\.)?(?P<layer>(?:.*?\.)?\d+|[^.]+)(?:\.|$)")


@dataclass(frozen=True, slots=True)
class ComponentData:
    """A breakdown by component, most first; components that have nothing are left out."""

    components: tuple[str, ...]
    amounts: tuple[float, ...]
    """In J or mm2; they add up to `total`."""
    total: float

    @property
    def shares(self) -> tuple[float, ...]:
        """Each amount's part of the total, 0 to 1."""
        return tuple(amount / self.total for amount in self.amounts)


def energy_data(result: Result) -> ComponentData:
    """The run's energy by component, in J."""
    return _component_data(result.energy_j)


def area_data(result: Result) -> ComponentData:
    """The accelerator's area by component, in mm2."""
    return _component_data(result.area_mm2)


def _component_data(breakdown: Mapping[str, float]) -> ComponentData:
    parts = {name: amount for name, amount in breakdown.items() if name != "total" and amount}
    ordered = sorted(parts, key=lambda name: -parts[name])
    return ComponentData(tuple(ordered), tuple(parts[name] for name in ordered), breakdown.get("total", 0.0))


@dataclass(frozen=True, slots=True)
class StackData:
    """Energy of groups of operators, divided up by component."""

    groups: tuple[str, ...]
    components: tuple[str, ...]
    """Those that take most of the run first."""
    energy_j: Mapping[str, tuple[float, ...]]
    """By component: the energy of each of `groups`."""

    @property
    def totals_j(self) -> tuple[float, ...]:
        """Energy of each group, all components together."""
        return tuple(map(sum, zip(*self.energy_j.values(), strict=True))) or (0.0,) * len(self.groups)


def energy_kind_data(result: Result) -> StackData:
    """Energy by kind of operator, most first; the groups add up to the run."""
    data = _stacked(result, lambda row: row.kind)
    order = sorted(range(len(data.groups)), key=lambda index: -data.totals_j[index])
    energy = {name: tuple(parts[index] for index in order) for name, parts in data.energy_j.items()}
    return StackData(tuple(data.groups[index] for index in order), data.components, energy)


def energy_layer_data(result: Result) -> StackData:
    """Energy by layer in program order; the groups add up to the run.

    A layer is what an operator's name says up to its first number (`layers.3`), and the name's first word
    where there is none (`embeddings`). All decode steps of a layer count as that layer.
    """
    return _stacked(result, lambda row: layer_of(row.name))


def layer_of(name: str) -> str:
    """The layer that an operator belongs to by its name, see `energy_layer_data`."""
    match = _LAYER.match(name)
    return match["layer"] if match else name


def _stacked(result: Result, group_of: Callable[[OperatorRow], str]) -> StackData:
    components = energy_data(result).components
    groups: dict[str, dict[str, float]] = {}
    for row in result.operators:
        sums = groups.setdefault(group_of(row), dict.fromkeys(components, 0.0))
        for component in components:
            sums[component] += 1e-12 * row.energy_pj.get(component, 0.0)
    energy = {name: tuple(sums[name] for sums in groups.values()) for name in components}
    return StackData(tuple(groups), components, energy)
