"""The `analytic` answer: what a workload needs at least on an accelerator, without mapping it.

One division of the buffers, and one choice of what to fuse, is looked at after another; the answer is the
least of their cycles, and no plan undercuts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.columns import COLUMNS, OF_ARRAY, Column, Columns
from tilewright.dataflows.least import Needs, OneMachine, cycles, least_needs
from tilewright.dataflows.least_traffic import Numbers
from tilewright.dataflows.mapper import Request
from tilewright.dataflows.plan import Schema, schemas
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph


@dataclass(frozen=True)
class Estimate:
    """The least of all divisions."""

    schema: Schema
    regions: Mapping[Request, tuple[Needs, int]]
    """What each region needs, and its cycles."""
    cycles: int


def estimate(graph: OperatorGraph, accelerator: Accelerator) -> Estimate:
    """A lower bound on the cycles of every plan, from closed forms alone.

    Raises `InputError` if the buffers are too small for any tile of an operator.
    """
    return min(estimates(graph, accelerator), key=lambda each: each.cycles)


def estimates(graph: OperatorGraph, accelerator: Accelerator) -> Iterator[Estimate]:
    """That of each division of the buffers which leaves room for tiles of every operator."""
    failure: InputError | None = None
    found = False
    for schema in schemas(graph, accelerator):
        try:
            regions = {request: _region(request, schema) for request in schema.requests}
        except InputError as error:
            failure = failure or error
            continue
        found = True
        total = sum(times * regions[request][1] for request, times in schema.requests.items())
        yield Estimate(schema, regions, total)
    if not found:
        assert failure is not None, "schemas yields at least one"
        raise failure


@dataclass(frozen=True)
class ColumnEstimate:
    """What one division needs on every machine of some columns."""

    schema: Schema
    regions: Mapping[Request, tuple[Needs, Numbers]]
    """As in `Estimate`; amounts and cycles may be columns."""
    cycles: Column


def column_estimates(divisions: Sequence[Schema], columns: Mapping[str, Column]) -> Iterator[ColumnEstimate]:
    """`estimates` for many machines at once: that of `divisions` (of `schemas`) with columns in place of some
    values.

    Raises `InputError` as `estimates` does: whether tiles fit does not depend on what may be a column.
    """
    failure: InputError | None = None
    found = False
    for schema in divisions:
        rates = Columns(schema.machine, columns)
        try:
            regions = {request: _region_columns(request, schema, rates) for request in schema.requests}
        except InputError as error:
            failure = failure or error
            continue
        found = True
        total = sum(times * regions[request][1] for request, times in schema.requests.items())
        yield ColumnEstimate(schema, regions, np.asarray(total))
    if not found:
        assert failure is not None, "schemas yields at least one"
        raise failure


def may_be_columns(divisions: Sequence[Schema]) -> tuple[str, ...]:
    """Keys that may be columns: where attention or chains may run fused, tilings depend on the array; on a
    sparse-attention unit all does."""
    if divisions[0].machine.accelerator.attention_unit is not None:
        return ()
    fused = any(region.second is not None for each in divisions for region in each.cut.regions)
    return tuple(key for key in COLUMNS if not (fused and key in OF_ARRAY))


def _region_columns(request: Request, schema: Schema, rates: Columns) -> tuple[Needs, Numbers]:
    options = least_needs(request.spec, schema.machine, rates)
    timed = [cycles(needs, rates, request.credit_bytes, request.prefetch_bytes) for needs in options]
    if len(options) == 1:
        return options[0], timed[0]
    chosen = np.argmin(np.stack(timed), axis=0)
    moved = [
        np.array([getattr(each, name) for each in options])[chosen] for name in ("dram_read", "dram_write")
    ]
    return replace(options[0], dram_read=moved[0], dram_write=moved[1]), np.min(np.stack(timed), axis=0)


def _region(request: Request, schema: Schema) -> tuple[Needs, int]:
    rates = OneMachine(schema.machine)
    timed = [
        (int(cycles(needs, rates, request.credit_bytes, request.prefetch_bytes)), number, needs)
        for number, needs in enumerate(least_needs(request.spec, schema.machine, rates))
    ]
    least, _, needs = min(timed, key=lambda each: each[:2])
    return needs, least
