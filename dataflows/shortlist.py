"""A matmul's tilings in the order of their bounds, which are sharpened for those that come into question."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np

from tilewright.dataflows.arith import Ints
from tilewright.dataflows.bounds import Candidates
from tilewright.dataflows.tiling import Tiling

_FIRST_BLOCK = 64
"""Bounds that are sharpened together at first; then as many as were before. Most are never needed."""


class Ranked(NamedTuple):
    """One tiling, to be compared by its cycles (a bound, or exact), then by its DRAM traffic; of equals, the
    one of larger tiles comes first."""

    cycles: int
    traffic: float
    minus_row: int

    @property
    def row(self) -> int:
        """Of all candidates, in which tiles grow."""
        return -self.minus_row


class Shortlist:
    """Candidates of all ways to share a matmul among the cores."""

    def __init__(self, found: list[Candidates]) -> None:
        self._found = found
        self._starts = np.cumsum([0] + [each.bound.size for each in found])
        self.bound: Ints = np.concatenate([each.bound for each in found])
        """Lower bounds on cycles, as sharp as they are known."""
        self.traffic = np.concatenate([each.traffic for each in found])
        """Bytes from and to DRAM."""
        self._order = np.lexsort((self.traffic, self.bound))
        self._blunt = self.bound[self._order]
        self._sharp = 0
        """How many in this order are sharpened."""

    def least(self) -> int:
        """A lower bound on the cycles of all tilings."""
        return int(self._blunt[0])

    def ranked(self) -> Iterator[Ranked]:
        """All tilings in the order of their sharpened bounds."""
        heap: list[Ranked] = []
        taken = 0
        while True:
            while taken < self._order.size and not (heap and heap[0].cycles < self._blunt[taken]):
                rows = self._order[taken : taken + max(_FIRST_BLOCK, taken)]
                if taken >= self._sharp:
                    self._sharpen(rows)
                columns = self.bound[rows].tolist(), self.traffic[rows].tolist(), (-rows).tolist()
                for each in zip(*columns, strict=True):
                    heappush(heap, Ranked(*each))
                taken += rows.size
            if not heap:
                return
            yield heappop(heap)

    def _sharpen(self, rows: Ints) -> None:
        owners = np.searchsorted(self._starts, rows, side="right") - 1
        for owner in np.unique(owners).tolist():
            own = rows[owners == owner]
            self.bound[own] = self._found[owner].sharpened(own - self._starts[owner])
        self._sharp += rows.size

    def tiling(self, row: int) -> Tiling:
        """One of them."""
        owner = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._found[owner].tiling(row - int(self._starts[owner]))
