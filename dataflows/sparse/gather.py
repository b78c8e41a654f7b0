"""Gathering: the rows of K and V that a block of queries needs are brought together, then all is dense.

A piece is a block of queries. The keys of all its queries are gathered (their union: a key that one of them
needs is computed for all, and masked for the others), beside the array, while that works on the block before.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.array import ELEMENT_BITS, Array
from tilewright.arch.sparse_gather import Gather
from tilewright.dataflows.sparse.base import Mask, Piece, Selection
from tilewright.dataflows.sparse.lanes import dense_cycles
from tilewright.workloads.pairs import Head


def select(unit: Gather, head: Head, array: Array) -> Selection:
    """What each block's queries may see of the keys that are gathered for it."""
    kept = np.zeros_like(head.seen)
    pieces = []
    for start in range(0, len(head.seen), unit.rows):
        block = slice(start, start + unit.rows)
        keys = _chosen(unit, head, block)
        kept[block, keys] = head.seen[block, keys]
        pieces.append(_piece(unit, array, head, block, len(keys)))
    return Selection(kept, tuple(pieces), predicts=unit.keep is not None)


def _chosen(unit: Gather, head: Head, block: slice) -> NDArray[np.intp]:
    """Keys of a block, in order: the `keep` likeliest of those that may be seen, and for a query that these
    would leave with none its own likeliest."""
    seen: Mask = head.seen[block]
    some = np.flatnonzero(seen.any(axis=0))
    if unit.keep is None or len(some) <= unit.keep:
        return some
    ranks = head.key[some] @ head.query[block].mean(axis=0)
    best = some[np.argsort(-ranks, kind="stable")[: unit.keep]]
    chosen = np.zeros(seen.shape[1], dtype=bool)
    chosen[best] = True
    for query in np.flatnonzero(seen.any(axis=1) & ~(seen & chosen).any(axis=1)):
        mine = np.flatnonzero(seen[query])
        chosen[mine[np.argmax(head.key[mine] @ head.query[block][query])]] = True
    return np.flatnonzero(chosen)


def _piece(unit: Gather, array: Array, head: Head, block: slice, gathered: int) -> Piece:
    keys, width = head.key.shape
    rows = len(head.query[block])
    some = int(head.seen[block].any(axis=0).sum())
    ranked = some if unit.keep is not None and some > unit.keep else 0
    busy, streaming = dense_cycles(array, rows, gathered, width)
    loads = gathered if unit.from_dram else keys * (block.start == 0)
    adds = rows * width if ranked else 0
    return Piece(
        queries=rows,
        request_rows=1 if unit.from_dram else 0,
        loads_keys=_ranked_keys(unit, ranked, loads, keys, first=block.start == 0),
        loads_values=loads,
        predict_cycles=ceil(ranked * width / unit.predictor_macs)
        + ceil(ranked / unit.select_keys)
        + gather_cycles(array, unit.gather_bytes_per_cycle, 2 * gathered, width),
        array_cycles=busy,
        streaming_cycles=streaming,
        scores=rows * gathered,
        macs=2 * rows * gathered * width,
        predictor_macs=ranked * width,
        predictor_bits=16,
        predictor_primitives={"compare": ranked, "add": adds, "move": 2 * gathered * width},
    )


def _ranked_keys(unit: Gather, ranked: int, loads: int, keys: int, *, first: bool) -> int:
    """Rows of K to fetch: ranking needs all of them, once."""
    if unit.from_dram and ranked and first:
        return keys
    return loads


def gather_cycles(array: Array, bytes_per_cycle: float, rows: int, width: int) -> int:
    """Cycles to bring `rows` rows of `width` elements together from wherever they are."""
    return rows * ceil(width * ELEMENT_BITS[array.operand] / 8 / bytes_per_cycle)
