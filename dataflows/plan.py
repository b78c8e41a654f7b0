"""The plan: which regions run, in which order and how often, each with its chosen loop nest.

graph --cut--> regions --place tensors--> requests --map--> plan
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from tilewright.arch.accelerator import Accelerator, Operand
from tilewright.dataflows.chosen import Chosen, chosen
from tilewright.dataflows.layout import Group, lay_out
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Known, Mapping, Request
from tilewright.dataflows.regions import Cut, Region, cut
from tilewright.dataflows.residency import resident_tensors
from tilewright.dataflows.sparse.cascade import cascaded
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph

_STAYING: tuple[Operand, ...] = ("input", "weight")
"""Operands that may stay on chip, in the buffers where they are kept."""


@dataclass(frozen=True)
class Schema:
    """All of a plan but the chosen loop nests."""

    cut: Cut
    machine: Machine
    resident: frozenset[str]
    groups: tuple[Group, ...]

    @cached_property
    def requests(self) -> dict[Request, int]:
        """The distinct regions that it asks to be mapped, in order, and how often each runs."""
        times: dict[Request, int] = {}
        for group in self.groups:
            for step in group.steps:
                times[step.request] = times.get(step.request, 0) + group.times
        return times


@dataclass(frozen=True)
class Plan:
    """What the simulator runs."""

    schema: Schema
    mappings: dict[Request, Mapping]
    cycles: int
    """By the recurrence; the simulation arrives at it on its own."""


@dataclass(frozen=True)
class _Outlook:
    """Least bounds per request, added up: what the search of a schema's mappings starts from."""

    schema: Schema
    bounds: dict[Request, int]
    cycles: int


def plan(graph: OperatorGraph, accelerator: Accelerator) -> Plan:
    """The mapping of least cycles; among equal divisions of the buffers, of the first.

    Divisions are visited in the order of their lower bounds, and left as soon as they can't be the best.
    Raises `InputError` if the buffers are too small for any tile of an operator.
    """
    known, before = Known(), chosen(accelerator)
    outlooks = _outlooks(graph, accelerator, before, known)
    found = [(each.cycles, number, each) for number, each in enumerate(outlooks)]
    best: tuple[int, int, Plan] | None = None
    for _, number, each in sorted(found, key=lambda item: item[:2]):
        mapped = _map(each, before, known, None if best is None else best[0] - (number > best[1]))
        if mapped is not None:
            best = mapped.cycles, number, mapped
    assert best is not None, "_outlooks yields at least one, and the first is not limited"
    return best[2]


def _map(bound: _Outlook, before: Chosen, known: Known, limit: int | None) -> Plan | None:
    """The plan of one division of the buffers; None once it must exceed `limit` cycles."""
    schema, cycles, mappings = bound.schema, bound.cycles, {}
    for request, times in schema.requests.items():
        if limit is not None and cycles > limit:
            return None
        mappings[request] = before.mapping(request, schema.machine, known)
        cycles += times * (mappings[request].cycles - bound.bounds[request])
    return Plan(schema, mappings, cycles) if limit is None or cycles <= limit else None


def _outlooks(graph: OperatorGraph, accelerator: Accelerator, before: Chosen, known: Known) -> list[_Outlook]:
    """The least bounds for each division of the buffers that leaves room for a tile of every operator."""
    found: list[_Outlook] = []
    failure: InputError | None = None
    for schema in schemas(graph, accelerator):
        try:
            bounds = {request: before.bound(request, schema.machine, known) for request in schema.requests}
        except InputError as error:
            failure = failure or error
            continue
        cycles = sum(times * bounds[request] for request, times in schema.requests.items())
        found.append(_Outlook(schema, bounds, cycles))
    if not found:
        assert failure is not None, "schemas yields at least one"
        raise failure
    return found


def schemas(graph: OperatorGraph, accelerator: Accelerator) -> Iterator[Schema]:
    """One for each choice of what to fuse and each way to divide the buffers between tiles and tensors that
    stay."""
    for the_cut in _cuts(cascaded(graph, accelerator.attention_unit), accelerator):
        yield from _divisions(the_cut, accelerator)


def _cuts(graph: OperatorGraph, accelerator: Accelerator) -> Iterator[Cut]:
    """What the mapper may fuse, and what not, as regions; equal ones once."""
    mapper, seen = accelerator.mapper, set[tuple[Region, ...]]()
    attend, chain = ({order != "unfused" for order in orders} for orders in (mapper.attention, mapper.chains))
    if accelerator.attention_unit is not None:  # which works on scores, softmax and context as one
        attend = {True}
    for attention, chains in product(sorted(attend), sorted(chain)):
        the_cut = cut(graph, attention=attention, chains=chains)
        if the_cut.regions not in seen:
            seen.add(the_cut.regions)
            yield the_cut


def _divisions(the_cut: Cut, accelerator: Accelerator) -> Iterator[Schema]:
    homes = sorted({str(accelerator.home(operand)) for operand in _STAYING}) if accelerator.buffers else []
    fractions = sorted({0.0, *accelerator.mapper.resident_fractions})
    seen: set[frozenset[str]] = set()
    for shares in product(fractions, repeat=len(homes)):
        machine = Machine(accelerator, tuple(zip(homes, shares, strict=True)))
        resident = resident_tensors(the_cut, machine)
        if resident not in seen:
            seen.add(resident)
            yield Schema(the_cut, machine, resident, lay_out(the_cut, machine, resident))
