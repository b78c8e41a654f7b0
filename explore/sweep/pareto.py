"""Fronts of several objectives: who is on them, how good they are, where they bend.

Everything takes `costs`, an array of shape (points, objectives) in which smaller is better; negate what is to
be maximised. A point with a cost that is not finite (NaN, infinity) has failed and is on no front.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import ArrayLike, NDArray

Costs = NDArray[np.float64]
_BLOCK = 4096
"""Points among which dominance is settled at once where there are four objectives or more."""


def non_dominated(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point dominates: is as good in every objective and better in one.

    Equal points are on the front together. n log n for up to three objectives (Kung, Luccio and Preparata,
    J. ACM 22(4), 1975).
    """
    table = _table(costs)
    mask = np.zeros(len(table), dtype=bool)
    valid = np.flatnonzero(np.isfinite(table).all(axis=1))
    if len(valid):
        mask[valid[_front(table[valid])]] = True
    return mask


def ranks(costs: ArrayLike) -> NDArray[np.int64]:
    """Each point's front: 0 for the front, 1 for the front of what is left without it, and so on; -1 for
    points that failed. n log n for two objectives (Jensen, IEEE TEC 7(5), 2003), front by front for more.
    """
    table = _table(costs)
    found = np.full(len(table), -1, dtype=np.int64)
    left = np.flatnonzero(np.isfinite(table).all(axis=1))
    if table.shape[1] == 2:
        found[left] = _ranks_of_two(table[left])
        return found
    rank = 0
    while len(left):
        on_front = np.zeros(len(left), dtype=bool)
        on_front[_front(table[left])] = True
        found[left[on_front]] = rank
        left, rank = left[~on_front], rank + 1
    return found


def hypervolume(costs: ArrayLike, reference: ArrayLike) -> float:
    """The volume that is dominated by the points and dominates `reference`, exact for any number of
    objectives; n log n for two, n times that for each further one (n: points on the front).

    Points that are not better than `reference` in every objective add nothing.
    """
    table, corner = _table(costs), np.asarray(reference, dtype=np.float64)
    if corner.shape != table.shape[1:]:
        raise ValueError(f"reference has {corner.size} objectives, the costs have {table.shape[1]}")
    inside = table[np.isfinite(table).all(axis=1) & (table < corner).all(axis=1)]
    return _volume(inside[_front(inside)], corner) if len(inside) else 0.0


def knee(costs: ArrayLike) -> int | None:
    """The index of the front's knee; None where no point is valid.

    Every objective is scaled to the front's own range, and the knee is the point farthest below the plane
    through the scaled extremes (Das, Structural Optimization 18, 1999): the smallest sum. Of equal ones the
    first; where the front is a single point, that.
    """
    table = _table(costs)
    front = np.flatnonzero(non_dominated(table))
    if not len(front):
        return None
    return int(front[scaled(table[front]).sum(axis=1).argmin()])


def scaled(costs: ArrayLike) -> Costs:
    """Each objective from 0 (the best of the points) to 1 (the worst); 0 where all are equal."""
    table = _table(costs)
    low, high = table.min(axis=0), table.max(axis=0)
    unit: Costs = (table - low) / np.where(high > low, high - low, 1.0)
    return unit


def nearest(point: ArrayLike, candidates: ArrayLike, number: int = 1) -> list[int]:
    """Indices of the `number` candidates nearest to `point`, nearest first, by the distance of logarithms:
    twice as much is as far as half as much. Coordinates are positive; failed candidates are left out.
    """
    table = _table(candidates)
    valid = np.flatnonzero((np.isfinite(table) & (table > 0)).all(axis=1))
    distances = np.linalg.norm(np.log(table[valid] / np.asarray(point, dtype=np.float64)), axis=1)
    return [int(index) for index in valid[np.argsort(distances, kind="stable")[:number]]]


def _table(costs: ArrayLike) -> Costs:
    table = np.asarray(costs, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] < 1:
        raise ValueError(f"costs must have the shape (points, objectives), not {table.shape}")
    return table


def _front(table: Costs) -> NDArray[np.int64]:
    """Indices of the non-dominated among valid points."""
    if table.shape[1] == 1:
        return np.flatnonzero(table[:, 0] == table[:, 0].min())
    if table.shape[1] == 2:
        return _front_of_two(table)
    if table.shape[1] == 3:
        return _front_of_three(table)
    # Blocks first: most points are dominated by a neighbour in their own block.
    kept = np.arange(len(table))
    while len(kept) > _BLOCK:
        blocks = [kept[i : i + _BLOCK] for i in range(0, len(kept), _BLOCK)]
        fewer = np.concatenate([block[_filtered(table[block])] for block in blocks])
        if len(fewer) > 0.9 * len(kept):
            kept = fewer
            break
        kept = fewer
    return kept[_filtered(table[kept])]


def _front_of_two(table: Costs) -> NDArray[np.int64]:
    """By the first cost, then the second: on the front is what has a second cost below all before it."""
    order = np.lexsort((table[:, 1], table[:, 0]))
    first, second = table[order, 0], table[order, 1]
    best_before = np.concatenate(([np.inf], np.minimum.accumulate(second)[:-1]))
    fresh = second < best_before
    # A copy of a point on the front is not below it, but equals the last fresh one.
    last = np.maximum.accumulate(np.where(fresh, np.arange(len(order)), 0))
    found: NDArray[np.int64] = order[(first == first[last]) & (second == second[last])]
    return found


def _front_of_three(table: Costs) -> NDArray[np.int64]:
    """By the first cost, against a staircase of the other two that rises to the left: what it holds has
    a first cost that is no higher."""
    order = np.lexsort((table[:, 2], table[:, 1], table[:, 0]))
    kept: list[int] = []
    seconds: list[float] = []
    thirds: list[float] = []
    previous: tuple[float, ...] = ()
    for index, *point in zip(order.tolist(), *table[order].T.tolist(), strict=True):
        _, second, third = current = tuple(point)
        if current == previous:  # a copy of a point on the front
            kept.append(index)
            continue
        below = bisect_right(seconds, second)
        if below and thirds[below - 1] <= third:
            continue
        start = end = bisect_left(seconds, second)
        while end < len(seconds) and thirds[end] >= third:
            end += 1
        seconds[start:end], thirds[start:end] = [second], [third]
        kept.append(index)
        previous = current
    return np.array(kept, dtype=np.int64)


def _filtered(table: Costs) -> NDArray[np.int64]:
    """The non-dominated, each point in turn against those that are left; cheap sums come first, as they
    dominate most."""
    left = np.argsort(table.sum(axis=1), kind="stable")
    position = 0
    while position < len(left):
        point = table[left[position]]
        rest = table[left]
        stays = (rest < point).any(axis=1) | (rest == point).all(axis=1)
        position = int(stays[: position + 1].sum())
        left = left[stays]
    return left


def _ranks_of_two(table: Costs) -> NDArray[np.int64]:
    """Patience sorting: a point joins the first front whose last second cost is above its own."""
    order = np.lexsort((table[:, 1], table[:, 0]))
    found = np.empty(len(table), dtype=np.int64)
    lowest: list[float] = []
    previous: tuple[float, float] | None = None
    rank = 0
    for index, first, second in zip(order.tolist(), *table[order].T.tolist(), strict=True):
        if (first, second) != previous:
            rank = bisect_right(lowest, second)
            lowest[rank : rank + 1] = [second]
            previous = (first, second)
        found[index] = rank
    return found


def _volume(front: Costs, corner: Costs) -> float:
    if front.shape[1] == 1:
        return float(corner[0] - front[:, 0].min())
    if front.shape[1] == 2:
        order = np.lexsort((front[:, 1], front[:, 0]))
        first, second = front[order].T
        tops = np.concatenate(([corner[1]], np.minimum.accumulate(second)[:-1]))
        return float(((corner[0] - first) * np.maximum(tops - second, 0.0)).sum())
    # Slabs along the last objective: above a point's cost, it and all cheaper ones count.
    front = front[np.argsort(front[:, -1], kind="stable")]
    heights = np.diff(np.append(front[:, -1], corner[-1]))
    total = 0.0
    for number, height in enumerate(heights.tolist(), start=1):
        if height > 0:
            below = front[:number, :-1]
            total += height * _volume(below[_front(below)], corner[:-1])
    return total
