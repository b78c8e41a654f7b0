"""DOTA: a low-rank, low-precision detector, and queries that share the keys they have in common.

Qu et al., ASPLOS 2022. The projection P of `width` to `rank` has elements of sqrt(3 / rank) times -1, 0 or 1,
with probabilities 1/6, 2/3 and 1/6 (Achlioptas, J. Comput. Syst. Sci. 66, 2003), so that (Q P)(K P)^T is on
average Q K^T. The paper projects the layer's input and trains the weights behind it; that needs a model, and
so here P works on Q and K as they are: its recall is that of the untrained detector.

`parallel` queries are worked on together, each in its part of the array, and the slowest counts; a key is
given to all that keep it at once (the paper's out-of-order scheduling, here perfect).
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Dota
from tilewright.dataflows.sparse.base import Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import quantized, strongest
from tilewright.dataflows.sparse.lanes import lane_cycles, worked
from tilewright.dataflows.sparse.scoring import with_one
from tilewright.workloads.pairs import Head


def select(unit: Dota, head: Head, array: Array) -> Selection:
    """The pairs that the detector takes for strong."""
    width = head.key.shape[1]
    signs = projection(unit, width)
    factor = np.sqrt(3 / unit.rank)
    (query, one), (key, other) = (quantized(factor * (x @ signs), unit.bits) for x in (head.query, head.key))
    logits = query @ key.T * (one * other / np.sqrt(width))
    if unit.threshold is not None:
        kept = with_one(logits >= unit.threshold, logits, head.seen)
    else:
        kept = strongest(logits, unit.keep or 1.0, head.seen)
    additions = int(np.abs(signs).sum())
    starts = range(0, len(kept), unit.rows)
    return Selection(kept, tuple(_piece(unit, array, head, kept, start, additions) for start in starts))


def projection(unit: Dota, width: int) -> Values:
    """The random signs, [width, rank]."""
    rng = np.random.default_rng(unit.seed)
    return rng.choice([-1.0, 0.0, 1.0], size=(width, unit.rank), p=[1 / 6, 2 / 3, 1 / 6])


def _piece(unit: Dota, array: Array, head: Head, kept: Mask, start: int, additions: int) -> Piece:
    """`additions`: of a query's or a key's projection."""
    mine, seen = kept[start : start + unit.rows], head.seen[start : start + unit.rows]
    (queries, keys), width = mine.shape, head.key.shape[1]
    looked = int(seen.sum())
    projected = (queries + (keys if start == 0 else 0)) * additions
    products = looked * unit.rank
    groups = np.logical_or.reduceat(mine, np.arange(0, queries, unit.parallel), axis=0)
    given = 2 * int(np.ceil(groups.sum(axis=1) / unit.keys_per_cycle).sum())
    each = 1 if unit.keep is None else max(1, ceil(log2(int(mine.sum(axis=1).max()) + 1)))
    piece = Piece(
        queries=queries,
        loads_keys=keys if start == 0 else 0,
        loads_values=keys if start == 0 else 0,
        predict_cycles=max(
            ceil(projected / unit.predictor_macs) + ceil(products / unit.predictor_macs),
            ceil(looked / unit.selector),
        ),
        array_cycles=max(given, lane_cycles(array, mine.sum(axis=1), width, unit.parallel)),
        predictor_macs=products,
        predictor_bits=unit.bits,
        predictor_primitives={"add": projected, "compare": looked * each},
    )
    return worked(piece, mine, width)
