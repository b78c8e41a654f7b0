"""AccelTran: activations below a threshold become zero, and lanes multiply only where both factors are left.

Tuli and Jha, "AccelTran: A Sparsity-Aware Accelerator for Dynamic Inference with Transformers", IEEE TCAD
2023, arXiv:2302.14705; tiles, lanes and modules as in its simulator (github.com/jha-lab/acceltran, BSD-3).
DynaTran compares all elements of a tile with the threshold in one cycle, before a product of queries and keys
and, for the weights, before the product with the values. A product of two tiles is given to the lane that is
free first, in order, and takes it as many cycles as pairs of nonzero elements need on its multipliers: lanes
end at different times, and the last one counts.

Scores and weights are computed for all pairs, masked ones too; `kept` are the pairs whose weight is left.

Simplified: the values are not known here, and are taken to have the zeros of the keys; tensors are moved
with their zeros; and a head has the core's lanes for itself, so that heads that are to run side by side need
cores.
"""

from __future__ import annotations

from heapq import heapreplace
from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_search import AccelTran
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import weights
from tilewright.dataflows.sparse.scoring import logits, stretches
from tilewright.workloads.pairs import Head


def select(unit: AccelTran, head: Head, array: Array) -> Selection:
    """The pairs whose weight is left, and a piece for each `queries` queries."""
    query, key = pruned(head.query, unit.threshold), pruned(head.key, unit.threshold)
    left = pruned(weights(logits(query, key), head.seen), unit.threshold) != 0
    pieces = [
        _piece(unit, array, query[rows], key, left[rows], rows) for rows in stretches(len(left), unit.queries)
    ]
    return Selection(left, tuple(pieces))


def pruned(x: Values, threshold: float) -> Values:
    """DynaTran: zero where the magnitude is below the threshold."""
    return np.where(np.abs(x) < threshold, 0.0, x)


def tile_products(a: Mask, b: Mask, tile: int) -> Counts:
    """Pairs of nonzero elements in the product of every two tiles of a [m, k] and b [k, n], in order."""
    rows = np.add.reduceat(a.astype(np.int64), np.arange(0, a.shape[0], tile), axis=0)
    cols = np.add.reduceat(b.astype(np.int64), np.arange(0, b.shape[1], tile), axis=1)
    parts = [rows[:, at] @ cols[at] for at in stretches(a.shape[1], tile)]
    return np.stack(parts, axis=-1).ravel()


def makespan(durations: Counts, lanes: int) -> int:
    """When the last job ends, each given in order to the lane that is free first."""
    if len(durations) <= lanes:
        return int(durations.max(initial=0))
    free = [0] * lanes
    for duration in durations.tolist():
        heapreplace(free, free[0] + duration)
    return max(free)


def _piece(unit: AccelTran, array: Array, query: Values, key: Values, left: Mask, rows: slice) -> Piece:
    (queries, width), keys = query.shape, len(key)
    first = rows.start == 0
    asks, offers = query != 0, key != 0
    products = [tile_products(asks, offers.T, unit.tile), tile_products(left, offers, unit.tile)]
    lanes = max(1, array.macs_per_cycle // unit.lane_macs)
    lane_macs = min(unit.lane_macs, array.macs_per_cycle)
    busy = sum(makespan(-(-count // lane_macs), lanes) for count in products)
    macs = int(sum(count.sum() for count in products))
    compared = queries * width + (2 * keys * width if first else 0)
    before = _tiles(unit, queries, width) + (2 * _tiles(unit, keys, width) if first else 0)
    between = ceil(_tiles(unit, queries, keys) / unit.pruners)
    return Piece(
        queries=queries,
        loads_keys=keys if first else 0,
        loads_values=keys if first else 0,
        predict_cycles=ceil(before / unit.pruners),
        array_cycles=max(1, busy + between),
        streaming_cycles=max(1, ceil(macs / (lanes * lane_macs))),
        scores=queries * keys,
        macs=macs,
        predictor_primitives={"compare": compared + queries * keys},
    )


def _tiles(unit: AccelTran, rows: int, cols: int) -> int:
    return ceil(rows / unit.tile) * ceil(cols / unit.tile)
