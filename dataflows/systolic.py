"""Closed-form cycles of one SRAM tile on a systolic array: a run of folds.

A fold is what fits the R x C processing elements at once; edge folds cost the full R and C. With n folds,
streamed length L, skew S = R + C - 2 (first to last PE) and P = R cycles to load the stationary operand:

| dataflow | rows hold | columns hold | streamed L |
|---|---|---|---|
| output stationary | M | N | K |
| weight stationary | K | N | M |
| input stationary | K | M | N |

Where folds overlap, tiles do too: the next tile streams in right behind, its stationary operand is loaded
while this one's last fold streams, and this one's results leave meanwhile. So a tile is cut into what it
takes before its first operand, from that to the next tile's, and after that.

Alone, a tile takes all three. On the bare machine (no overlap, one stationary register) these are
n (P + L + S), or n (L + S) output stationary, as SCALE-Sim v3 counts them. What a machine overlaps is said in
its description; each form is stepped out PE by PE in `tilewright.sim.pe_array`, which does not know these
formulas.

A flexible array is one pool of PEs and has no folds: a tile takes ceil(m k n / PEs) cycles, and nothing is
shifted or skewed. Where each of H heads has a share of S = floor(PEs / H) PEs, its W products take floor(W /
S) cycles, and those that fill no further one go to the PEs that are left over, as long as these have cycles
for all heads' (so the authors of ViTCoD count); else it is a cycle more. More heads than PEs share the pool.

Of N:M sparse weights an array that supports them holds (or, output stationary, streams) the kept ones only,
so that K is n/m as long; picking the inputs that belong to them adds pipeline stages after the skew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic

from tilewright.arch.array import Array
from tilewright.dataflows.arith import Whole, ceil_div, larger


@dataclass(frozen=True, slots=True)
class TileCycles(Generic[Whole]):
    """Where an array's time goes on one tile; `streaming`, `shift` and `skew` add up to `total`."""

    preload: int
    """The first stationary operand is shifted in."""
    stream: Whole
    """From the first operand to when the next tile's may follow."""
    latency: int
    """From there to the last result."""
    streaming: Whole
    """Operands enter (and useful work is done)."""
    stream_skew: Whole
    """Cycles of `stream` in which the wavefront fills and drains the array."""
    skew: Whole
    """The same, over the whole tile."""
    swap: Whole
    """Cycles of `stream` before the shadow registers are needed for sums: the first fold."""
    shadow: Whole
    """From the end of `stream` to when the next tile may have the shadow registers; mostly negative."""

    @property
    def total(self) -> Whole:
        """Cycles of the tile alone, from the first operand to the last result."""
        return self.preload + self.stream + self.latency

    @property
    def shift(self) -> Whole:
        """The stationary operand is loaded, or sums are shifted out, and nothing streams."""
        return self.total - self.streaming - self.skew

    @property
    def stream_shift(self) -> Whole:
        """The part of `stream` of which that is true."""
        return self.stream - self.streaming - self.stream_skew


@dataclass(frozen=True, slots=True)
class ByHead:
    """Heads that a product's k is made of, and how much of k each has."""

    heads: int
    width: int


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


def packed(array: Array, k: Whole) -> Whole:
    """Rows that are left of `k` rows of N:M sparse weights, whole groups of m first."""
    if array.structured is None:
        raise ValueError("this array does not pack weights")
    kept, group = array.structured.n, array.structured.m
    rest = k % group
    return k // group * kept + rest - larger(rest - kept, 0)


def tile_cycles(
    array: Array, m: Whole, k: Whole, n: Whole, *, structured: bool = False, by_head: ByHead | None = None
) -> TileCycles[Whole]:
    """Cycles of C[m, n] (+)= A[m, k] B[k, n]. `structured`: B is N:M sparse as the array's are; `by_head`:
    where the array is flexible, these heads have shares of it."""
    if array.flexible is not None:
        return _pooled(array, m, k, n, by_head)
    select = 0
    if structured and array.structured is not None:
        k, select = packed(array, k), array.structured.select_cycles
    count, streamed = folds(array, m, k, n)
    skew = array.rows + array.cols - 2
    if array.fold_overlap:
        fold, after, paid = streamed, skew + select, count * 0
    else:
        fold, after, paid = streamed + skew, select, count * skew
    shift = array.rows  # cycles to load a stationary operand, or to drain sums
    preload, latency, swap, shadow = 0, after, count * 0, count * 0
    if array.dataflow != "output_stationary":
        preload = shift
        if array.stationary_buffers == 1:
            stream = count * (fold + shift) - shift
        else:
            stream, shadow = (count - 1) * larger(fold, shift) + fold, -fold
    elif array.output_drain == "ideal":
        stream = count * fold
    elif array.output_drain == "exposed":
        stream = count * (fold + shift)
    else:
        stream, swap = (count - 1) * larger(fold, shift) + fold, fold
        shadow, latency = shadow + shift, after + shift
    return TileCycles(
        preload,
        stream,
        latency,
        count * streamed,
        stream_skew=paid,
        skew=paid + after,
        swap=swap,
        shadow=shadow,
    )


def _pooled(array: Array, m: Whole, k: Whole, n: Whole, by_head: ByHead | None) -> TileCycles[Whole]:
    """On a flexible array."""
    assert array.flexible is not None
    if by_head is None or by_head.heads > array.macs_per_cycle:
        stream = ceil_div(m * k * n, array.macs_per_cycle)
    else:
        of_head = k - larger(k - by_head.width, 0)
        stream = _shared_out(array.macs_per_cycle, m * of_head * n, by_head.heads)
    none = stream * 0
    latency = array.flexible.latency_cycles
    return TileCycles(
        0, stream, latency, stream, stream_skew=none, skew=none + latency, swap=none, shadow=none
    )


def _shared_out(pes: int, products: Whole, heads: int) -> Whole:
    """Cycles of so many products for each head, on its share of the PEs and on those left over."""
    share, spare = divmod(pes, heads)
    full, rest = products // share, products % share
    return full + (rest * heads > spare * full)
