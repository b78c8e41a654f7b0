"""Sanger: 4-bit prediction of the softmax, a threshold, and a score-stationary array that is packed full.

Lu et al., MICRO 2021, and its repository (github.com/hatsu3/Sanger): `quant_utils.py` (rounding),
`modeling_sanger_spattn.py` (threshold; how rows are split), `mask.scala` and `pe_row.scala` (the two arrays).

A tile of the predictor takes its products, then a cycle for each key whose exponentials leave it. Once all
keys of the queries have passed, the sums are known; packing reads a key in each cycle, beside the array but
for the first keys. The kept scores of a query and `split` keys are cut into pieces of as many as a row of
PEs holds; as many pieces as there are rows of PEs make a pack. Scores stay in the PEs while the pack's
queries and keys stream through, element by element, and then its values.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Sanger
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import quantized, weights
from tilewright.dataflows.sparse.lanes import worked
from tilewright.dataflows.sparse.scoring import with_one
from tilewright.workloads.pairs import Head


def select(unit: Sanger, head: Head, array: Array) -> Selection:
    """The pairs of which the predicted weight reaches the threshold, in packs."""
    predicted = weights(_logits(unit, head), head.seen)
    kept = with_one(predicted >= unit.threshold, predicted, head.seen)
    starts = range(0, len(kept), unit.rows)
    return Selection(kept, tuple(_piece(unit, array, head, kept, start) for start in starts))


def packs(unit: Sanger, array: Array, kept: Mask) -> int:
    """Packs that the kept pairs [queries, keys] make: pieces of rows, over the rows of PEs."""
    return int(np.ceil(_by_split(kept, unit.split, array.cols) / array.rows).sum())


def _by_split(kept: Mask, split: int, width: int) -> Counts:
    """Pieces of at most `width` scores, for each stretch of `split` keys."""
    counts = np.add.reduceat(kept, np.arange(0, kept.shape[1], split), axis=1, dtype=np.int64)
    return np.asarray((-(-counts // width)).sum(axis=0))


def _logits(unit: Sanger, head: Head) -> Values:
    """What the predictor takes for the logits. Integers are multiplied, exactly; scales come after that."""
    sides = (head.query, head.key)
    lengths = [
        np.linalg.norm(x, axis=1, keepdims=True) if unit.normalized else np.ones((len(x), 1)) for x in sides
    ]
    (query, one), (key, other) = (
        quantized(x / np.where(length > 0, length, 1.0), unit.bits)
        for x, length in zip(sides, lengths, strict=True)
    )
    scale = one * other / np.sqrt(head.query.shape[1])
    return np.asarray(query @ key.T * scale * lengths[0] * lengths[1].T)


def _piece(unit: Sanger, array: Array, head: Head, kept: Mask, start: int) -> Piece:
    mine, seen = kept[start : start + unit.rows], head.seen[start : start + unit.rows]
    (queries, keys), width = mine.shape, head.key.shape[1]
    stretches = np.add.reduceat(seen.any(axis=0), np.arange(0, keys, unit.split), dtype=np.int64)
    tiles = [min(unit.split, keys - int(n) * unit.split) for n in np.flatnonzero(stretches)]
    predicted = queries * sum(tiles)
    folds = ceil(packs(unit, array, mine) / array.count)
    skew = 0 if array.fold_overlap else array.rows + unit.split - 2
    scaled = 2 * predicted + queries + (keys if start == 0 else 0) if unit.normalized else 0
    piece = Piece(
        queries=queries,
        loads_keys=keys if start == 0 else 0,
        loads_values=keys if start == 0 else 0,
        predict_cycles=sum(ceil(queries * size * width / unit.predictor_macs) + size for size in tiles)
        + (tiles[0] if tiles else 0),
        array_cycles=2 * folds * (width + skew),
        streaming_cycles=2 * folds * width,
        predictor_macs=predicted * width,
        predictor_bits=unit.bits,
        predictor_primitives={
            "exp": predicted,
            "add": predicted,
            "compare": predicted,
            "multiply": scaled,
            "move": int(mine.sum()),
        },
    )
    return worked(piece, mine, width)
