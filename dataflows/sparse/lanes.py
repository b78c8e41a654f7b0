"""How long the array takes: as lanes for scattered pairs, as it is for blocks; what that makes of a piece.

Each column of PEs is a lane, which works on one pair of a query and a key at a time. A lane of `rows`
multipliers takes a score's inner product, and then a weighted value, in ceil(width / rows) cycles each. Which
keys a lane takes is free, so that scattered pairs fill it.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.dataflows.sparse.base import Counts, Mask, Piece
from tilewright.dataflows.systolic import tile_cycles


def lane_cycles(array: Array, pairs: Counts, width: int, parallel: int = 1) -> int:
    """Cycles for scores and context of queries with so many pairs each.

    `parallel` queries side by side share the lanes in equal parts, and wait for the one of most pairs.
    """
    lanes = array.cols * array.count
    each = 2 * ceil(width / array.rows)
    groups = np.maximum.reduceat(pairs, np.arange(0, len(pairs), parallel))
    return int(np.ceil(groups * parallel / lanes).sum()) * each


def dense_cycles(array: Array, queries: int, keys: int, width: int) -> tuple[int, int]:
    """Cycles for scores and context of all pairs of these queries and keys, on the array as it is; and those
    of them in which operands enter."""
    if not keys:
        return 0, 0
    tiles = [tile_cycles(array, *tile) for tile in ((queries, width, keys), (queries, keys, width))]
    return sum(tile.stream for tile in tiles), sum(tile.streaming for tile in tiles)


def newly_needed(kept: Mask, rows: int) -> list[int]:
    """For each piece of `rows` queries, the keys that it keeps and that no piece before did."""
    needed = np.logical_or.reduceat(kept, np.arange(0, len(kept), rows), axis=0)
    before = np.logical_or.accumulate(needed, axis=0)
    fresh = needed.copy()
    fresh[1:] &= ~before[:-1]
    return [int(count) for count in fresh.sum(axis=1)]


def worked(piece: Piece, kept: Mask, width: int) -> Piece:
    """The piece with what its kept pairs, [queries, keys], ask of the array and the softmax."""
    pairs = int(kept.sum())
    return replace(piece, scores=pairs, macs=2 * pairs * width)
