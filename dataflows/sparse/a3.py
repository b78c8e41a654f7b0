"""A3: search for candidate keys in the sorted columns of K, then drop what scores too low.

Ham et al., "A3: Accelerating Attention Mechanisms in Neural Networks with Approximation", HPCA 2020,
arXiv:2002.10941. The columns of K are sorted beforehand. Each column then has a pointer to its largest and
one to its smallest product with the query's element; an iteration adds the largest product of all columns to
the greedy score of the key that it belongs to, if it is positive, then the smallest one, if it is negative,
and moves these pointers on. While the sum of all that was added is negative the smallest is left alone. Keys
whose greedy score ends positive are candidates. Of these, the ones survive whose weight would be at least
`threshold` times that of the best.

An iteration takes a cycle. Scores and context are two stages side by side, each with half of the array's
multipliers, so that a query takes as long as its candidates.

Simplified: a query without candidates keeps the key of the highest greedy score (guess). The search does not
know of a mask; candidates that may not be seen are dropped after it. Sorting is left to others by the paper;
here `sorters` merge sorters do it, before the head's first query.
"""

from __future__ import annotations

from math import ceil, log, log2

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_search import A3
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.scoring import logits, row_cycles, stage_lanes, stretches, with_one
from tilewright.workloads.pairs import Head

_AT_A_TIME = 64
"""Queries whose products are held in memory."""


def select(unit: A3, head: Head, array: Array) -> Selection:
    """The candidates that survive post-scoring, and a piece for each `queries` queries."""
    iterations = _iterations(unit, len(head.key))
    found = head.seen if iterations is None else candidates(head.query, head.key, head.seen, iterations)
    left = survivors(head.query, head.key, found, unit.threshold)
    pieces = [_piece(unit, array, head, found, left, rows) for rows in stretches(len(left), unit.queries)]
    return Selection(left, tuple(pieces))


def candidates(query: Values, key: Values, seen: Mask, iterations: int) -> Mask:
    """Keys with a positive greedy score after so many iterations, [queries, keys]."""
    greedy = [_greedy_scores(query[rows], key, iterations) for rows in stretches(len(query), _AT_A_TIME)]
    scores = np.concatenate(greedy)
    return with_one(scores > 0, scores, seen)


def _greedy_scores(query: Values, key: Values, iterations: int) -> Values:
    queries, keys = len(query), len(key)
    steps = min(iterations, key.size)
    largest, high = _walk(query, key, steps)
    smallest, low = _walk(-query, key, steps)
    gains, losses = np.maximum(high, 0), -np.maximum(low, 0)
    losses[np.arange(steps) >= _losses_taken(gains, losses)[:, None]] = 0
    at = np.arange(queries)[:, None] * keys
    where = np.concatenate([(at + largest).ravel(), (at + smallest).ravel()])
    amounts = np.concatenate([gains.ravel(), losses.ravel()])
    sums = np.bincount(where, amounts, queries * keys)
    return np.asarray(sums, dtype=np.float64).reshape(queries, keys)


def _walk(query: Values, key: Values, steps: int) -> tuple[Counts, Values]:
    """The `steps` largest products of each query's elements with those of keys, in order: keys and values.

    Pointers that walk down sorted columns, the largest product at any pointer next, meet them in this order.
    Most of them lie near the ends of the columns; the `steps`-th largest of these bounds the rest from below.
    """
    queries, (keys, width) = len(query), key.shape
    near = min(keys, ceil(steps / width) + 8)
    ends = np.sort(key, axis=0)
    best = np.where(query[:, None, :] > 0, ends[::-1][:near], ends[:near]) * query[:, None, :]
    bound = np.partition(best.reshape(queries, -1), near * width - steps, axis=1)[:, [near * width - steps]]
    products = (query[:, None, :] * key).reshape(queries, -1)
    row, place = np.nonzero(products >= bound)
    count = np.bincount(row, minlength=queries)
    column = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    found, at = np.full((queries, count.max()), -np.inf), np.zeros((queries, count.max()), dtype=np.int64)
    found[row, column], at[row, column] = products[row, place], place // width
    order = np.argsort(-found, axis=1, kind="stable")[:, :steps]
    return np.take_along_axis(at, order, axis=1), np.take_along_axis(found, order, axis=1)


def _losses_taken(gains: Values, losses: Values) -> Counts:
    """How many of the smallest products each query takes: none while its sum is negative."""
    queries, steps = gains.shape
    sums, taken, rows = np.zeros(queries), np.zeros(queries, dtype=np.int64), np.arange(queries)
    for step in range(steps):
        sums += gains[:, step]
        takes = sums >= 0
        sums += np.where(takes, losses[rows, taken], 0)
        taken += takes
    return taken


def survivors(query: Values, key: Values, found: Mask, threshold: float) -> Mask:
    """Candidates whose score is at most log(1 / threshold) below the best one's; all if it is 0."""
    if threshold == 0:
        return found
    scores = np.where(found, logits(query, key), -np.inf)
    top = scores.max(axis=1, keepdims=True)
    return np.asarray(found & (scores >= top + log(threshold)))


def _iterations(unit: A3, keys: int) -> int | None:
    return None if unit.iterations is None else max(1, ceil(unit.iterations * keys))


def _piece(unit: A3, array: Array, head: Head, candidate: Mask, kept: Mask, rows: slice) -> Piece:
    (keys, width), first = head.key.shape, rows.start == 0
    found, left = candidate[rows].sum(axis=1), kept[rows].sum(axis=1)
    iterations = _iterations(unit, keys)
    sort = search = 0
    primitives = {"compare": int(found.sum())}
    if iterations is not None:
        # Each iteration: two products, two trees of comparators over the columns, two sums.
        search = iterations * len(found)
        primitives["compare"] += 2 * (width - 1) * search
        primitives["add"] = 2 * search
        if first:
            passes = keys * ceil(log2(max(2, keys)))
            sort = passes * ceil(width / unit.sorters)
            primitives["compare"] += passes * width
            primitives["move"] = passes * width
    return Piece(
        queries=len(found),
        loads_keys=keys if first else 0,
        loads_values=keys if first else 0,
        predict_cycles=sort + search,
        array_cycles=int(row_cycles(found, width, stage_lanes(array)).sum()),
        scores=int(left.sum()),
        macs=int(found.sum() + left.sum()) * width,
        predictor_macs=2 * search,
        predictor_bits=8,
        predictor_primitives=primitives,
    )
