"""FACT: eager prediction with additions only, from signs and leading ones.

Qin et al., ISCA 2023. A query's and a key's element each stand for the largest power of two in them; their
product is a sum of exponents, and a score a sum of powers of two. Each query keeps its strongest keys, and of
the values only those are fetched that a query keeps.

The paper predicts from the layer's input and the weights, before queries and keys are made, and makes only
those that are needed; here they are made by the operators before, all of them. Its mixed precision in the
feed-forward network is not modelled.
"""

from __future__ import annotations

from math import ceil, log2

from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Fact
from tilewright.dataflows.sparse.base import Mask, Piece, Selection
from tilewright.dataflows.sparse.estimate import leading_ones, quantized, strongest
from tilewright.dataflows.sparse.lanes import lane_cycles, newly_needed, worked
from tilewright.workloads.pairs import Head


def select(unit: Fact, head: Head, array: Array) -> Selection:
    """Each query's keys of the largest estimates."""
    query, key = (leading_ones(quantized(x, unit.bits)[0]) for x in (head.query, head.key))
    kept = strongest(query @ key.T, unit.keep, head.seen)
    fresh = newly_needed(kept, unit.rows)
    pieces = [_piece(unit, array, head, kept, number, fresh[number]) for number in range(len(fresh))]
    return Selection(kept, tuple(pieces))


def _piece(unit: Fact, array: Array, head: Head, kept: Mask, number: int, fresh: int) -> Piece:
    rows = slice(number * unit.rows, (number + 1) * unit.rows)
    mine, looked = kept[rows], int(head.seen[rows].sum())
    (queries, keys), width = mine.shape, head.key.shape[1]
    first = number == 0
    detected = (queries + (keys if first else 0)) * width
    insertion = max(1, ceil(log2(int(mine.sum(axis=1).max()) + 1)))
    piece = Piece(
        queries=queries,
        loads_keys=keys if first else 0,
        loads_values=fresh,
        predict_cycles=max(ceil(looked * width / unit.predictor_adds), ceil(looked / unit.selector)),
        array_cycles=lane_cycles(array, mine.sum(axis=1), width),
        predictor_primitives={
            "add": 2 * looked * width,
            "compare": detected + looked * insertion,
        },
    )
    return worked(piece, mine, width)
