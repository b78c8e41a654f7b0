"""Locality-sensitive hashing: queries attend to keys that hash alike, chunk by chunk of both sorted lists.

In each round a random rotation hashes every query and every key: the nearest of the rotated axes and their
opposites is its bucket (Reformer, section 2; keys and queries scaled to unit norm, so that near means a small
angle). Both are sorted by bucket, in order of position within one, and cut into chunks. A chunk of queries
attends to all chunks of keys that hold a key of one of its buckets: that is where uneven buckets cost time.
All pairs of a chunk of queries and one of keys count, if they may be seen. A query that no round brings to a
key it may see attends to the last that it may see. Rounds are weighted by the sums of exponentials behind
them and added up.

Hardware: a head's first piece rotates the keys, then the queries, on the array; a comparator at its foot
finds the bucket and counts it. The sorter (counting sort) works on the keys while queries are rotated, then
on the queries, and the array waits for that. The other pieces are chunks of queries, round by round; their
rows are gathered beside the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.array import Array
from tilewright.arch.sparse_gather import Lsh
from tilewright.dataflows.sparse.base import Piece, Selection, Values
from tilewright.dataflows.sparse.gather import gather_cycles
from tilewright.dataflows.sparse.lanes import dense_cycles
from tilewright.dataflows.systolic import tile_cycles
from tilewright.workloads.pairs import Head

Indices = NDArray[np.intp]


def select(unit: Lsh, head: Head, array: Array) -> Selection:
    """The pairs that any round brings together."""
    kept = np.zeros_like(head.seen)
    pieces = [_hashing(unit, array, head)]
    for done, (asks, offers) in enumerate(buckets(unit, head.query, head.key), start=1):
        for queries, keys in attended(asks, offers, unit.chunk):
            kept[np.ix_(queries, keys)] = head.seen[np.ix_(queries, keys)]
            last_round = done == unit.rounds
            pieces.append(_chunk(unit, array, head, len(queries), len(keys), stores=last_round))
    alone = np.flatnonzero(head.seen.any(axis=1) & ~kept.any(axis=1))
    latest = head.seen.shape[1] - 1 - np.argmax(head.seen[alone, ::-1], axis=1)
    kept[alone, latest] = True
    return Selection(kept, (*pieces, *_left_over(array, head, len(alone))))


def buckets(unit: Lsh, query: Values, key: Values) -> Iterator[tuple[Indices, Indices]]:
    """Of each round, the buckets of queries and of keys. More rounds begin with those of fewer."""
    rng = np.random.default_rng(unit.seed)
    for _ in range(unit.rounds):
        rotation = rng.standard_normal((query.shape[1], unit.buckets // 2))
        yield _nearest(query @ rotation), _nearest(key @ rotation)


def _nearest(rotated: Values) -> Indices:
    return np.asarray(np.argmax(np.concatenate([rotated, -rotated], axis=1), axis=1))


def attended(asks: Indices, offers: Indices, chunk: int) -> Iterator[tuple[Indices, Indices]]:
    """Each chunk of sorted queries, with the keys that it attends to; none where its buckets hold no key."""
    queries, keys = np.argsort(asks, kind="stable"), np.argsort(offers, kind="stable")
    in_order = offers[keys]
    for start in range(0, len(queries), chunk):
        mine = queries[start : start + chunk]
        wanted = np.isin(in_order, asks[mine])
        chunks = np.flatnonzero(np.logical_or.reduceat(wanted, np.arange(0, len(keys), chunk)))
        yield mine, np.concatenate([keys[c * chunk : (c + 1) * chunk] for c in chunks] or [keys[:0]])


def _hashing(unit: Lsh, array: Array, head: Head) -> Piece:
    """Rotations of a head's keys and queries, and sorting."""
    (queries, width), keys = head.query.shape, len(head.key)
    columns = unit.rounds * unit.buckets // 2
    asks, offers = (tile_cycles(array, tokens, width, columns) for tokens in (queries, keys))
    sorts = [sort_cycles(unit, tokens) for tokens in (queries, keys)]
    tokens = queries + keys
    return Piece(
        queries=0,
        loads_queries=queries,
        loads_keys=keys,
        loads_values=keys,
        array_cycles=offers.total + max(asks.total, sorts[1]) + sorts[0],
        streaming_cycles=offers.streaming + asks.streaming,
        macs=tokens * width * columns,
        predictor_primitives={
            "compare": tokens * unit.rounds * unit.buckets,
            "add": tokens * unit.rounds + 2 * unit.rounds * unit.buckets,
            "move": tokens * unit.rounds,
        },
    )


def sort_cycles(unit: Lsh, tokens: int) -> int:
    """Cycles to sort so many tokens by bucket, in all rounds; they were counted as they came."""
    return unit.rounds * (unit.switch_cycles * unit.buckets + ceil(tokens / unit.sort_tokens))


def _chunk(unit: Lsh, array: Array, head: Head, rows: int, keys: int, *, stores: bool) -> Piece:
    """Scores and context of a chunk of queries in a round; the sums of all rounds stay on chip."""
    width = head.key.shape[1]
    busy, streaming = dense_cycles(array, rows, keys, width)
    moved = 2 * rows + 2 * keys  # queries and results, keys and values
    joining = 0 if unit.rounds == 1 else rows * (2 * width + 3)
    return Piece(
        queries=rows,
        loads_queries=0,
        stores=rows if stores else 0,
        predict_cycles=gather_cycles(array, unit.gather_bytes_per_cycle, moved, width),
        array_cycles=busy,
        streaming_cycles=streaming,
        scores=rows * keys,
        vector_lane_cycles=joining,
        macs=2 * rows * keys * width,
        predictor_primitives={"move": moved * width},
    )


def _left_over(array: Array, head: Head, queries: int) -> tuple[Piece, ...]:
    """Queries that attend to one key of their own."""
    if not queries:
        return ()
    width = head.key.shape[1]
    cycles, _ = dense_cycles(array, queries, 1, width)
    macs = 2 * queries * width
    return (Piece(queries, loads_queries=0, stores=0, array_cycles=cycles, scores=queries, macs=macs),)
