"""Loop nests of a matmul as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.workloads.operators import MatmulShape

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Nests:
    """One row per loop nest."""

    m: Ints
    k: Ints
    n: Ints
    """Tile sizes over all cores."""
    m_outer: Mask
    """Whether m is the outer loop."""
    outer_stays: Mask
    inner_stays: Mask
    """See `Tiling`."""

    def __getitem__(self, rows: Mask | Ints) -> Nests:
        """Some of them."""
        return Nests(*(getattr(self, each.name)[rows] for each in fields(self)))

    def counts(self, shape: MatmulShape) -> Counts:
        """How many tiles a product is cut into."""
        m, k, n = (
            ceil_div(np.asarray(extent), tile)
            for extent, tile in ((shape.m, self.m), (shape.k, self.k), (shape.n, self.n))
        )
        return Counts(m, k, n, np.where(self.m_outer, m, n), np.where(self.m_outer, n, m))

    def by_operand(self, outer: Mask, inner: Mask) -> tuple[Mask, Mask]:
        """What holds of the outer and of the inner loop's operand, of A and B."""
        return np.where(self.m_outer, outer, inner), np.where(self.m_outer, inner, outer)


@dataclass(frozen=True, slots=True)
class Counts:
    """Tiles along each dimension, and of the outer and the inner loop."""

    m: Ints
    k: Ints
    n: Ints
    outer: Ints
    inner: Ints


def together(one: Nests, other: Nests) -> Nests:
    """The rows of both."""
    return Nests(
        *(np.concatenate([getattr(one, each.name), getattr(other, each.name)]) for each in fields(Nests))
    )
