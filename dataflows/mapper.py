"""The mapper: for each region, the tiling and loop order of least cycles.

The search is exact: candidates are visited in the order of their lower bounds, each is put through the
machine's recurrence, and the search ends when no bound is below the best found. Its outcome is the minimum
over a set that grows with the effort and with the buffers, of costs that fall with bandwidth and lanes; so
more of any of these is never worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.dataflows import bounds
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.matmul import program as matmul_program
from tilewright.dataflows.program import Program
from tilewright.dataflows.regions import MatmulSpec, RowsSpec, Spec
from tilewright.dataflows.rowwise import RowTiling, row_bound, row_program, row_tilings, row_traffic
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.tiling import Tiling
from tilewright.description.errors import InputError


@dataclass(frozen=True, slots=True)
class Request:
    """A region to be mapped: what it is and what it shares with its neighbours."""

    spec: Spec
    credit_bytes: int
    """Bytes of its early loads that are there when it starts."""
    prefetch_bytes: int
    """Bytes that it prefetches for the region after it."""


@dataclass(frozen=True)
class Mapping:
    """A region's chosen loop nest and its exact cycles."""

    tiling: Tiling | RowTiling | None
    program: Program
    cycles: int


def ends(request: Request, machine: Machine) -> tuple[int, int]:
    """DMA cycles spared by what was prefetched, and taken by prefetching for the next region."""
    spared = int(-(-request.credit_bytes // machine.peak_dram)) if request.credit_bytes else 0
    return spared, machine.dram_cycles(request.prefetch_bytes)[0]


@dataclass(frozen=True)
class Bound:
    """The least bound over all tilings, and the DRAM traffic of the tiling that has it."""

    tiling: Tiling | RowTiling
    cycles: int
    dram_read_bytes: int
    dram_write_bytes: int


def best_bound(request: Request, machine: Machine) -> Bound:
    """Least lower bound over all tilings that fit; the `analytic` fidelity's cycles."""
    limits, spec = ends(request, machine), request.spec
    if isinstance(spec, RowsSpec):
        tilings = _fitting_rows(spec, machine)
        read, written = row_traffic(spec, tilings[0])
        return Bound(tilings[0], row_bound(spec, machine, limits, tilings[0]), read, written)
    found = min(_fitting_matmul(request, spec, machine), key=lambda each: int(each.bound.min()))
    index = int(np.lexsort((found.traffic, found.bound))[0])
    written = 0 if spec.out.resident else spec.out.bytes
    read = int(found.traffic[index]) - written
    return Bound(found.tiling(index), int(found.bound[index]), read, written)


def bound_program(request: Request, bound: Bound, machine: Machine) -> Program:
    """The loop nest of the tiling that has the bound."""
    if isinstance(request.spec, RowsSpec):
        assert isinstance(bound.tiling, RowTiling)
        return row_program(request.spec, machine, bound.tiling)
    assert isinstance(bound.tiling, Tiling)
    return matmul_program(request.spec, machine, bound.tiling)


Known = dict[tuple[Request, Tiling | RowTiling], Mapping]
"""Loop nests costed so far, on one accelerator: the cost does not depend on the room for tiles."""


def best_mapping(request: Request, machine: Machine, known: Known) -> Mapping:
    """The tiling of least exact cycles; among equals, of least DRAM traffic. `known` is added to."""
    if isinstance(request.spec, RowsSpec):
        return _best_rows(request, request.spec, machine)
    return _best_matmul(request, request.spec, machine, known)


def _best_matmul(request: Request, spec: MatmulSpec, machine: Machine, known: Known) -> Mapping:
    found = _fitting_matmul(request, spec, machine)
    best: tuple[tuple[int, float], Mapping] | None = None
    bound = np.concatenate([each.bound for each in found])
    traffic = np.concatenate([each.traffic for each in found])
    owners = np.repeat(np.arange(len(found)), [each.bound.size for each in found])
    starts = np.cumsum([0] + [each.bound.size for each in found])
    for index in np.lexsort((traffic, bound)):
        if best is not None and bound[index] >= best[0][0]:
            break
        owner = int(owners[index])
        tiling = found[owner].tiling(int(index - starts[owner]))
        mapping = known.get((request, tiling))
        if mapping is None:
            mapping = _evaluate(request, machine, tiling, matmul_program(spec, machine, tiling))
            known[request, tiling] = mapping
        rank = mapping.cycles, float(traffic[index])
        if best is None or rank < best[0]:
            best = rank, mapping
    assert best is not None, "_fitting_matmul found candidates"
    return best[1]


def _best_rows(request: Request, spec: RowsSpec, machine: Machine) -> Mapping:
    tilings = _fitting_rows(spec, machine)
    limit = row_bound(spec, machine, ends(request, machine), tilings[0])
    best: Mapping | None = None
    for tiling in tilings:
        mapping = _evaluate(request, machine, tiling, row_program(spec, machine, tiling))
        if best is None or mapping.cycles < best.cycles:
            best = mapping
        if best.cycles <= limit:
            break
    assert best is not None, "_fitting_rows found tilings"
    return best


def _evaluate(request: Request, machine: Machine, tiling: Tiling | RowTiling, program: Program) -> Mapping:
    prefetch = machine.dram_cycles(request.prefetch_bytes)
    cycles = region_cycles(program, machine.buffers, request.credit_bytes, prefetch)
    return Mapping(tiling, program, cycles)


def _fitting_matmul(request: Request, spec: MatmulSpec, machine: Machine) -> list[bounds.Candidates]:
    limits, credit = ends(request, machine), request.credit_bytes
    found = [
        bounds.candidates(spec, machine, split, limits, credit) for split in bounds.splits(spec, machine)
    ]
    found = [each for each in found if each.bound.size]
    if not found:
        shape = spec.shape
        raise InputError(
            f"buffers: no tile of the matmul {shape.m} x {shape.k} x {shape.n} fits two slots of each "
            f"operand in {_rooms(machine)}; make a buffer larger or the array smaller"
        )
    return found


def _fitting_rows(spec: RowsSpec, machine: Machine) -> list[RowTiling]:
    tilings = row_tilings(spec, machine)
    if not tilings:
        raise InputError(
            f"buffers: no tile of an operator on {spec.rows} rows of {spec.cols} elements fits "
            f"{_rooms(machine)}; make a buffer larger"
        )
    return tilings


def _rooms(machine: Machine) -> str:
    rooms = zip(machine.names, machine.room_bytes, strict=True)
    return ", ".join(f"{name} ({room:,} bytes)" for name, room in rooms)
