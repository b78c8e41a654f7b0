"""Closed-form cycles of one SRAM tile on a systolic array: a run of folds.

A fold is what fits the R x C processing elements at once; edge folds cost the full R and C. With n folds,
streamed length L, skew S = R + C - 2 (first to last PE) and P = R cycles to load the stationary operand:

| dataflow | rows hold | columns hold | streamed L |
|---|---|---|---|
| output stationary | M | N | K |
| weight stationary | K | N | M |
| input stationary | K | M | N |

The bare machine (no overlap, one stationary register) takes n (P + L + S), or n (L + S) output stationary,
as SCALE-Sim v3 counts them. What a machine overlaps is said in its description; each form is stepped out PE
by PE in `tilewright.sim.pe_array`, which does not know these formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from tilewright.arch.accelerator import Array
from tilewright.dataflows.arith import Whole, ceil_div, larger


@dataclass(frozen=True, slots=True)
class TileCycles(Generic[Whole]):
    """Where an array's time goes on one tile; the parts add up to `total`."""

    total: Whole
    streaming: Whole
    """Operands enter (and useful work is done)."""
    shift: Whole
    """The stationary operand is loaded, or sums are shifted out, and nothing streams."""
    skew: Whole
    """The wavefront fills and drains the array."""


def folds(array: Array, m: Whole, k: Whole, n: Whole) -> tuple[Whole, Whole]:
    """Folds of C[m, n] = A[m, k] B[k, n] on the busiest of the core's arrays, and the streamed length."""
    if array.dataflow == "output_stationary":
        down, across, streamed = m, n, k
    elif array.dataflow == "weight_stationary":
        down, across, streamed = k, n, m
    else:
        down, across, streamed = k, m, n
    all_folds = ceil_div(down, array.rows) * ceil_div(across, array.cols)
    return ceil_div(all_folds, array.count), streamed


def tile_cycles(array: Array, m: Whole, k: Whole, n: Whole) -> TileCycles[Whole]:
    """Cycles of C[m, n] (+)= A[m, k] B[k, n] from the first operand to the last result."""
    count, streamed = folds(array, m, k, n)
    skew = array.rows + array.cols - 2
    if array.dataflow == "output_stationary":
        total = _output_stationary(array, count, streamed, skew)
    else:
        total = _preloaded(array, count, streamed, skew)
    streaming = count * streamed
    skews = count * 0 + 1 if array.fold_overlap else count
    shift = total - streaming - skews * skew
    return TileCycles(total, streaming, shift, total - streaming - shift)


def _preloaded(array: Array, count: Whole, streamed: Whole, skew: int) -> Whole:
    """Weight and input stationary: the stationary operand takes `rows` cycles to load."""
    load = array.rows
    if array.stationary_buffers == 1:
        if array.fold_overlap:
            return count * (load + streamed) + skew
        return count * (load + streamed + skew)
    if array.fold_overlap:
        return load + (count - 1) * larger(streamed, load) + streamed + skew
    return load + (count - 1) * larger(streamed + skew, load) + streamed + skew


def _output_stationary(array: Array, count: Whole, streamed: Whole, skew: int) -> Whole:
    """Sums stay in place and are drained down the columns, `rows` cycles a fold."""
    drain = array.rows
    body = streamed if array.fold_overlap else streamed + skew
    tail = skew if array.fold_overlap else 0
    if array.output_drain == "ideal":
        return count * body + tail
    if array.output_drain == "exposed":
        return count * (body + drain) + tail
    return (count - 1) * larger(body, drain) + body + tail + drain
