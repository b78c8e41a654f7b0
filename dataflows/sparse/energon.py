"""Energon: mix-precision multi-round filtering (MP-MRF).

Zhou et al., arXiv:2110.09310. Queries and keys are 16-bit integers, of which the filter takes the upper bits.
In each round, a query's scores with the keys that are left are compared with a threshold between their mean
and their maximum or minimum:

    alpha >= 0:  theta =  alpha max + (1 - alpha) mean
    alpha <  0:  theta = -alpha min + (1 + alpha) mean

A later round has more bits of the keys, and adds their products to those of the round before. Full keys and
values are fetched when a query first keeps them. The bounds of theta being reached by a score keeps it
(guess); that upper bits are cut off, not rounded, is a guess.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tilewright.arch.array import ELEMENT_BITS, Array
from tilewright.arch.sparse_predictors import Energon
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import quantized, upper_bits
from tilewright.dataflows.sparse.lanes import lane_cycles, newly_needed, worked
from tilewright.workloads.pairs import Head


def select(unit: Energon, head: Head, array: Array) -> Selection:
    """The pairs that are left after the last round."""
    query = upper_bits(quantized(head.query, 16)[0], unit.query_bits)
    key = quantized(head.key, 16)[0]
    entered, kept = [], head.seen
    for bits, alpha in zip(unit.key_bits, unit.alphas, strict=True):
        entered.append(kept.sum(axis=1))
        kept = kept & _reach(query @ upper_bits(key, bits).T, kept, alpha)
    fresh = newly_needed(kept, unit.rows)
    pieces = [
        _piece(unit, array, kept, np.stack(entered), number, fresh[number], head.key.shape[1])
        for number in range(len(fresh))
    ]
    return Selection(kept, tuple(pieces))


def _reach(scores: Values, left: Mask, alpha: float) -> Mask:
    """Which scores reach the threshold of their row. Everything times the row's count, so that a mean of
    integers is exact."""
    count = left.sum(axis=1, keepdims=True)
    total = np.where(left, scores, 0.0).sum(axis=1, keepdims=True)
    high = np.where(left, scores, -np.inf).max(axis=1, keepdims=True)
    low = np.where(left, scores, np.inf).min(axis=1, keepdims=True)
    high, low = (np.where(count > 0, extreme, 0.0) * count for extreme in (high, low))
    threshold = alpha * high + (1 - alpha) * total if alpha >= 0 else (1 + alpha) * total - alpha * low
    return np.asarray(scores * count >= np.minimum(threshold, high))


def _piece(
    unit: Energon, array: Array, kept: Mask, entered: Counts, number: int, fresh: int, width: int
) -> Piece:
    """`entered` [rounds, queries]: keys that each round looks at."""
    rows = slice(number * unit.rows, (number + 1) * unit.rows)
    mine, looked = kept[rows], entered[:, rows]
    steps = np.diff([0, *unit.key_bits])
    products = looked * width * np.ceil(steps / 2).astype(np.int64)[:, None]
    cycles = np.maximum(np.ceil(products / unit.predictor_macs), np.ceil(looked / unit.selector))
    first, early = number == 0, min(1.0, max(unit.key_bits) / ELEMENT_BITS[array.operand])
    piece = Piece(
        queries=len(mine),
        loads_keys=(ceil(kept.shape[1] * early) if first else 0) + ceil(fresh * (1 - early)),
        loads_values=fresh,
        predict_cycles=int(cycles.sum()),
        array_cycles=lane_cycles(array, mine.sum(axis=1), width),
        predictor_macs=int(products.sum()),
        predictor_bits=unit.query_bits,
        predictor_primitives={
            "compare": 3 * int(looked.sum()),
            "add": int(looked.sum()),
            "divide": looked.size,
            "multiply": 2 * looked.size,
        },
    )
    return worked(piece, mine, width)
