"""The whole unit in numpy, bit for bit: the blocks' models in the order of docs/attention-unit.md."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl import exponential, reciprocal, row_score, row_value
from tilewright.rtl.job import Integers, Job, attended, check_job, tiles, visited
from tilewright.rtl.row_value import within


@dataclass
class Rows:
    """What the lanes keep of some queries between two K tiles."""

    peak: Integers
    """[queries]"""
    total: Integers
    """[queries]"""
    o: Integers
    """[queries, D]"""

    @classmethod
    def fresh(cls, parameters: UnitSizes, queries: int) -> Rows:
        """Before the first tile."""
        peak = np.full(queries, row_score.lowest_peak(parameters), dtype=np.int64)
        return cls(peak, np.zeros(queries, np.int64), np.zeros((queries, parameters.head_dim), np.int64))


def attention(parameters: UnitSizes, job: Job, q: Integers, k: Integers, v: Integers) -> Integers:
    """O [queries, D] of Q [queries, D], K and V [keys, D] (integers of W bits), as the unit computes it."""
    rows = accumulated(parameters, job, q, k, v)
    length, factor = reciprocal.model(parameters, rows.total)
    return row_value.model_normalised(parameters, rows.o, length, factor)


def accumulated(parameters: UnitSizes, job: Job, q: Integers, k: Integers, v: Integers) -> Rows:
    """What the lanes hold after the last K tile.

    Rows don't meet, so all Q tiles that visit a K tile take it at once. Asserts that each sum fits its width.
    """
    check_job(parameters, job)
    check_operands(parameters, q, k, v)
    rows = Rows.fresh(parameters, job.queries)
    x = row_score.model(parameters, exact_product(q, k.T), job.scale)
    masked = ~attended(parameters, job)
    visiting = _visiting(parameters, job)
    for tile in np.flatnonzero(visiting.any(axis=0)):
        keys = slice(tile * parameters.cols, (tile + 1) * parameters.cols)
        who = np.flatnonzero(visiting[np.arange(job.queries) // parameters.rows, tile])
        _take(parameters, rows, who, x[who, keys], masked[who, keys], v[keys])
    return rows


def _visiting(parameters: UnitSizes, job: Job) -> NDArray[np.bool_]:
    """[Q tiles, K tiles]; dead tiles are left out, they change nothing."""
    of_queries = visited(parameters, job)
    found = np.zeros((len(of_queries), tiles(job.keys, parameters.cols)), dtype=bool)
    for q_tile, visits in enumerate(of_queries):
        found[q_tile, [visit.tile for visit in visits if not visit.dead]] = True
    return found


def _take(
    parameters: UnitSizes, rows: Rows, who: Integers, x: Integers, masked: NDArray[np.bool_], v: Integers
) -> None:
    """One K tile, into the rows `who`: scores `x` and `masked` [who, keys], `v` [keys, D]."""
    before = rows.peak[who]
    after = np.maximum(before, row_score.model_peak(parameters, x, masked))
    shift = row_value.model_rescale(parameters, before, after)
    t = (after[:, None] << parameters.exponent_fraction_bits) - x
    p = exponential.model(parameters, t, masked)
    rows.peak[who] = after
    rows.total[who] = row_value.model_sum(parameters, rows.total[who], shift, p)
    rows.o[who] = row_value.model_output(parameters, rows.o[who], shift, exact_product(p, v))


def exact_product(a: Integers, b: Integers) -> Integers:
    """The integer matrix product, by floating point where that is exact (it is much faster)."""
    most = float(np.abs(a).max(initial=0)) * float(np.abs(b).max(initial=0)) * a.shape[1]
    if most < 2.0**53:
        return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
    return a @ b


def check_operands(parameters: UnitSizes, *operands: Integers) -> None:
    """Asserts that integers fit the operand width."""
    half = 1 << (parameters.operand_bits - 1)
    for values in operands:
        assert within(values, -half, half), "operand out of range"
