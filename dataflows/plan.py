"""The plan: which regions run, in which order and how often, each with its chosen loop nest.

graph --cut--> regions --place tensors--> requests --map--> plan
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from tilewright.arch.accelerator import Accelerator, Operand
from tilewright.dataflows.layout import Group, lay_out
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Bound, Known, Mapping, Request, best_bound, best_mapping
from tilewright.dataflows.regions import Cut, cut
from tilewright.dataflows.residency import resident_tensors
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph

Answer = TypeVar("Answer")
_STAYING: tuple[Operand, ...] = ("input", "weight")
"""Operands that may stay on chip, in the buffers where they are kept."""


@dataclass(frozen=True)
class Schema:
    """All of a plan but the chosen loop nests."""

    cut: Cut
    machine: Machine
    resident: frozenset[str]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Plan:
    """What the simulator runs."""

    schema: Schema
    mappings: dict[Request, Mapping]
    cycles: int
    """By the recurrence; the simulation arrives at it on its own."""


@dataclass(frozen=True)
class Estimate:
    """The analytic answer: least bounds per request, added up."""

    schema: Schema
    bounds: dict[Request, Bound]
    cycles: int


def plan(graph: OperatorGraph, accelerator: Accelerator) -> Plan:
    """The mapping of least cycles.

    Raises `InputError` if the buffers are too small for any tile of an operator.
    """
    known: Known = {}

    def solve(request: Request, machine: Machine) -> Mapping:
        return best_mapping(request, machine, known)

    schema, mappings = _least(graph, accelerator, solve, lambda mapping: mapping.cycles)
    return Plan(schema, mappings, _total(schema, {r: m.cycles for r, m in mappings.items()}))


def estimate(graph: OperatorGraph, accelerator: Accelerator) -> Estimate:
    """A lower bound on the cycles of every plan, from closed forms alone."""
    schema, found = _least(graph, accelerator, best_bound, lambda bound: bound.cycles)
    return Estimate(schema, found, _total(schema, {r: b.cycles for r, b in found.items()}))


def _least(
    graph: OperatorGraph,
    accelerator: Accelerator,
    solve: Callable[[Request, Machine], Answer],
    cycles: Callable[[Answer], int],
) -> tuple[Schema, dict[Request, Answer]]:
    """The division of the buffers of least total cycles, and the answer for each of its requests."""
    best: tuple[int, Schema, dict[Request, Answer]] | None = None
    failure: InputError | None = None
    for schema in _schemas(graph, accelerator):
        requests = dict.fromkeys(step.request for group in schema.groups for step in group.steps)
        try:
            answers = {request: solve(request, schema.machine) for request in requests}
        except InputError as error:
            failure = failure or error
            continue
        total = _total(schema, {request: cycles(answer) for request, answer in answers.items()})
        if best is None or total < best[0]:
            best = total, schema, answers
    if best is None:
        assert failure is not None, "_schemas yields at least one"
        raise failure
    return best[1], best[2]


def _total(schema: Schema, cycles: dict[Request, int]) -> int:
    return sum(group.times * sum(cycles[step.request] for step in group.steps) for group in schema.groups)


def _schemas(graph: OperatorGraph, accelerator: Accelerator) -> Iterator[Schema]:
    """One for each way to divide the buffers between tiles and tensors that stay."""
    the_cut = cut(graph)
    homes = sorted({str(accelerator.home(operand)) for operand in _STAYING}) if accelerator.buffers else []
    fractions = sorted({0.0, *accelerator.mapper.resident_fractions})
    seen: set[frozenset[str]] = set()
    for shares in product(fractions, repeat=len(homes)):
        machine = Machine(accelerator, tuple(zip(homes, shares, strict=True)))
        resident = resident_tensors(the_cut, machine)
        if resident not in seen:
            seen.add(resident)
            yield Schema(the_cut, machine, resident, lay_out(the_cut, machine, resident))
