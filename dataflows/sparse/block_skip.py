"""Block skipping: the array works on blocks of scores that hold a pair, and passes the others by.

What each head may see is known beforehand. A block of queries is a piece; each of its blocks of keys takes
the array's time for scores and context, or a cycle of the sequencer where it is empty.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse import BlockSkip
from tilewright.dataflows.sparse.base import Piece, Selection
from tilewright.dataflows.sparse.lanes import dense_cycles
from tilewright.workloads.pairs import Head


def select(unit: BlockSkip, head: Head, array: Array) -> Selection:
    """All pairs that may be seen; whole blocks are computed."""
    queries, keys = head.seen.shape
    pieces = []
    for start in range(0, queries, unit.rows):
        seen = head.seen[start : start + unit.rows]
        blocks = [
            seen[:, at : at + unit.cols].shape[1]
            for at in range(0, keys, unit.cols)
            if seen[:, at : at + unit.cols].any()
        ]
        pieces.append(_piece(unit, array, len(seen), blocks, head, first=start == 0))
    return Selection(head.seen, tuple(pieces), predicts=False)


def _piece(unit: BlockSkip, array: Array, rows: int, blocks: list[int], head: Head, *, first: bool) -> Piece:
    keys, width = head.key.shape
    skipped = ceil(keys / unit.cols) - len(blocks)
    busy = streaming = 0
    for cols in blocks:
        cycles, entering = dense_cycles(array, rows, cols, width)
        busy, streaming = busy + cycles, streaming + entering
    computed = int(np.sum(blocks))
    return Piece(
        queries=rows,
        loads_keys=keys if first else 0,
        loads_values=keys if first else 0,
        array_cycles=busy + unit.sequencer_cycles * (len(blocks) + skipped),
        streaming_cycles=streaming,
        scores=rows * computed,
        macs=2 * rows * computed * width,
    )
