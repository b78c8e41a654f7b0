"""Which points must be simulated to know the front for certain.

Every point has a lower bound on each of its costs. A point whose bound is dominated by what a simulated point
really costs cannot be on the front, so it need not be simulated. The points of the bounds' own front are
simulated first, what they dominate is left out, and so on until nothing is left.

No exact search simulates fewer. A point must be simulated if no point of the final front dominates its bound,
as it might be on the front itself. And only those are: if f of the final front dominates the bound of p, the
bound of f dominates it as well, so that p is not on the bounds' front while f is open; f is simulated first,
as nothing can rule it out, and then p is left out.

Costs are oriented so that less is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tilewright.explore.sweep.pareto import non_dominated

Costs = NDArray[np.float64]
"""A row per point, a column per objective."""
SLACK = 1e-9
"""Relative: bounds and costs are floating-point sums of many parts, taken in different orders."""


@dataclass(frozen=True)
class Confirmed:
    """How the front was found."""

    costs: Costs
    """Of the points simulated, the others' are NaN."""
    simulated: NDArray[np.bool_]
    front: NDArray[np.bool_]
    rounds: int

    @property
    def pruned(self) -> int:
        """Points whose bound was enough."""
        return int((~self.simulated).sum())


def confirm(
    bounds: Costs, possible: NDArray[np.bool_], simulate: Callable[[NDArray[np.int64]], Costs]
) -> Confirmed:
    """The front of all points, by simulating as few as the bounds allow.

    `possible`: points that no exact constraint rules out. `simulate` gives the costs of some points, NaN for
    those that fail or violate a constraint, which then dominate nothing. Where a bound is not finite, no tile
    fits: such points are left out.
    """
    costs = np.full(bounds.shape, np.nan)
    simulated = np.zeros(len(bounds), dtype=np.bool_)
    open_points, rounds = possible & np.isfinite(bounds).all(axis=1), 0
    while open_points.any():
        candidates = np.flatnonzero(open_points)
        chosen = candidates[non_dominated(bounds[candidates])]
        costs[chosen] = simulate(chosen)
        simulated[chosen] = True
        open_points[chosen] = False
        rest = np.flatnonzero(open_points)
        open_points[rest[dominated(bounds[rest], costs[chosen])]] = False
        rounds += 1
    known = np.flatnonzero(simulated & ~np.isnan(costs).any(axis=1))
    front = np.zeros(len(bounds), dtype=np.bool_)
    front[known[non_dominated(costs[known])]] = True
    return Confirmed(costs, simulated, front, rounds)


def dominated(bounds: Costs, costs: Costs) -> NDArray[np.bool_]:
    """Whether what some point costs is nowhere above a bound, and somewhere below it, both by more than
    rounding."""
    found = np.zeros(len(bounds), dtype=np.bool_)
    known = costs[~np.isnan(costs).any(axis=1)]
    for cost in known[non_dominated(known)]:
        left = np.flatnonzero(~found)
        rounding = SLACK * np.abs(bounds[left])
        nowhere_above = (cost <= bounds[left] + rounding).all(axis=1)
        found[left] = nowhere_above & (cost < bounds[left] - rounding).any(axis=1)
    return found
