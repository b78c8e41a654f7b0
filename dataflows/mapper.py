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
from tilewright.dataflows.attention_region import jobs_of, sizes_of
from tilewright.dataflows.attention_unit import cycles as unit_cycles
from tilewright.dataflows.attention_unit import least_cycles
from tilewright.dataflows.chain import chain_program
from tilewright.dataflows.chain_tiling import ChainTiling, chain_bound, chain_tilings, chain_traffic
from tilewright.dataflows.machine import Machine, SetAside
from tilewright.dataflows.matmul import Made
from tilewright.dataflows.matmul import program as matmul_program
from tilewright.dataflows.misfits import misfit
from tilewright.dataflows.program import Program, totals
from tilewright.dataflows.rowwise import RowTiling, row_bound, row_program, row_tilings
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.shortlist import Ranked, Shortlist
from tilewright.dataflows.sparse.program import UnitTiling, unit_program
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, RowsSpec, Spec, StreamSpec, UnitSpec
from tilewright.dataflows.task import Task
from tilewright.dataflows.tiling import Tiling

AnyTiling = Tiling | RowTiling | ChainTiling | UnitTiling


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

    tiling: AnyTiling
    program: Program
    cycles: int


_SHORTLISTS = 256
"""Shortlists that are kept: of all regions of a network, mostly; one may take half a megabyte."""


class Known:
    """What has been found out of a network's regions on one accelerator."""

    def __init__(self) -> None:
        self.mappings: dict[tuple[Request, AnyTiling], Mapping] = {}
        """Loop nests costed so far: the cost does not depend on the room for tiles."""
        self._shortlists: dict[tuple[Request, SetAside], Shortlist] = {}

    def shortlist(self, request: Request, spec: MatmulSpec, machine: Machine) -> Shortlist:
        """Tilings that fit. Raises `InputError` if there are none."""
        key = request, machine.set_aside
        if key not in self._shortlists:
            if len(self._shortlists) == _SHORTLISTS:
                del self._shortlists[next(iter(self._shortlists))]
            self._shortlists[key] = _shortlist(request, spec, machine)
        return self._shortlists[key]


def _shortlist(request: Request, spec: MatmulSpec, machine: Machine) -> Shortlist:
    credit, after = request.credit_bytes, ends(request, machine)[1]
    found = [
        bounds.candidates(Task(spec, machine, split, credit, after)) for split in bounds.splits(spec, machine)
    ]
    found = [each for each in found if each.bound.size]
    if not found:
        raise misfit(spec, machine)
    return Shortlist(found)


def ends(request: Request, machine: Machine) -> tuple[int, int]:
    """DMA cycles spared by what was prefetched, and taken by prefetching for the next region."""
    spared = int(-(-request.credit_bytes // machine.peak_moved)) if request.credit_bytes else 0
    return spared, int(machine.dram_cycles(request.prefetch_bytes)[0] * machine.dram_share(store=False))


def best_bound(request: Request, machine: Machine, known: Known) -> int:
    """Least lower bound on the cycles over all tilings that fit."""
    limits, spec = ends(request, machine), request.spec
    if isinstance(spec, RowsSpec):
        return row_bound(spec, machine, limits, _fitting_rows(spec, machine)[0])
    if isinstance(spec, StreamSpec):
        return least_cycles(sizes_of(spec, machine.array), jobs_of(spec, machine.array))
    if isinstance(spec, UnitSpec):
        return _unit_bound(spec, machine, limits)
    if isinstance(spec, ChainSpec):
        return min(chain_bound(spec, machine, limits, each) for each in _fitting_chain(spec, machine))
    return known.shortlist(request, spec, machine).least()


def best_mapping(request: Request, machine: Machine, known: Known) -> Mapping:
    """The tiling of least exact cycles; among equals, of least DRAM traffic, then of larger tiles. `known` is
    added to."""
    if isinstance(request.spec, RowsSpec):
        return _best_rows(request, request.spec, machine)
    if isinstance(request.spec, StreamSpec):
        sizes, jobs = sizes_of(request.spec, machine.array), jobs_of(request.spec, machine.array)
        return Mapping(UnitTiling(request.spec.unit.kind), (), unit_cycles(sizes, jobs).cycles)
    if isinstance(request.spec, UnitSpec):
        tiling = UnitTiling(request.spec.unit.kind)
        return _evaluate(request, machine, tiling, unit_program(request.spec, machine))
    if isinstance(request.spec, ChainSpec):
        return _best_chain(request, request.spec, machine, known)
    return _best_matmul(request, request.spec, machine, known)


def _best_matmul(request: Request, spec: MatmulSpec, machine: Machine, known: Known) -> Mapping:
    found = known.shortlist(request, spec, machine)
    made: Made = {}

    def mapped(row: int) -> Mapping:
        tiling = found.tiling(row)
        mapping = known.mappings.get((request, tiling))
        if mapping is None:
            mapping = _evaluate(request, machine, tiling, matmul_program(spec, machine, tiling, made))
            known.mappings[request, tiling] = mapping
        return mapping

    best: tuple[Ranked, Mapping] | None = None
    for bound in found.ranked():
        if best is not None and bound >= best[0]:
            break
        mapping = mapped(bound.row)
        rank = bound._replace(cycles=mapping.cycles)
        if best is None or rank < best[0]:
            best = rank, mapping
    assert best is not None, "a shortlist has candidates"
    limit = int(best[1].cycles * (1 + machine.accelerator.mapper.slack))
    if limit > best[1].cycles:
        frugal = np.flatnonzero((found.bound <= limit) & (found.traffic < best[0].traffic)).tolist()
        for row in sorted(frugal, key=lambda each: (found.traffic[each], found.bound[each])):
            if mapped(row).cycles <= limit:
                return mapped(row)
    return best[1]


def _unit_bound(spec: UnitSpec, machine: Machine, limits: tuple[int, int]) -> int:
    """What each unit of the machine must do in any case: there is one order only."""
    sums = totals(unit_program(spec, machine), machine.buffers)
    moved = int((sums.dram_read + sums.dram_write) / machine.peak_moved)
    dma = (max(0, moved - limits[0]) if limits[0] else sums.dma) + limits[1]
    return max(sums.array, sums.vector, sums.predict, dma, 1)


def _best_chain(request: Request, spec: ChainSpec, machine: Machine, known: Known) -> Mapping:
    limits = ends(request, machine)
    ranked = sorted(
        ((chain_bound(spec, machine, limits, each), each) for each in _fitting_chain(spec, machine)),
        key=lambda pair: pair[0],
    )
    best: tuple[tuple[int, int], Mapping] | None = None
    for bound, tiling in ranked:
        if best is not None and bound >= best[0][0]:
            break
        mapping = known.mappings.get((request, tiling))
        if mapping is None:
            mapping = _evaluate(request, machine, tiling, chain_program(spec, machine, tiling))
            known.mappings[request, tiling] = mapping
        rank = mapping.cycles, sum(chain_traffic(spec, tiling))
        if best is None or rank < best[0]:
            best = rank, mapping
    assert best is not None, "_fitting_chain found tilings"
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


def _evaluate(request: Request, machine: Machine, tiling: AnyTiling, program: Program) -> Mapping:
    prefetch = machine.dram_cycles(request.prefetch_bytes)
    cycles = region_cycles(program, machine.buffers, request.credit_bytes, prefetch)
    return Mapping(tiling, program, cycles)


def _fitting_rows(spec: RowsSpec, machine: Machine) -> list[RowTiling]:
    tilings = row_tilings(spec, machine)
    if not tilings:
        raise misfit(spec, machine)
    return tilings


def _fitting_chain(spec: ChainSpec, machine: Machine) -> list[ChainTiling]:
    tilings = chain_tilings(spec, machine)
    if not tilings:
        raise misfit(spec, machine)
    return tilings
