"""What units that search share: true scores, a key for queries left empty, two stages of multipliers."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.dataflows.sparse.base import Counts, Mask, Values


def logits(query: Values, key: Values) -> Values:
    """Scores as they enter the softmax: products of queries [n, e] and keys [m, e] over the root of e."""
    return np.asarray(query @ key.T / np.sqrt(query.shape[1]))


def stage_lanes(array: Array) -> int:
    """Multipliers of one of two equal stages (scores, context), which work side by side."""
    return max(1, array.macs_per_cycle // 2)


def row_cycles(rows: Counts, width: int, lanes: int) -> Counts:
    """Cycles of so many multiplications of a vector by `width` elements on `lanes` multipliers: several
    vectors in a cycle where they fit, else several cycles a vector. A cycle holds whole vectors only."""
    if lanes >= width:
        return np.asarray(-(-rows // (lanes // width)))
    return np.asarray(rows * ceil(width / lanes))


def with_one(chosen: Mask, estimate: Values, seen: Mask) -> Mask:
    """The chosen pairs that may be seen, and the one of the highest estimate in a row where none is left."""
    chosen = chosen & seen
    best = np.where(seen, estimate, -np.inf).argmax(axis=1)
    empty = ~chosen.any(axis=1) & seen.any(axis=1)
    chosen[empty, best[empty]] = True
    return chosen


def stretches(length: int, size: int) -> Iterator[slice]:
    """`size` at a time, in order."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
