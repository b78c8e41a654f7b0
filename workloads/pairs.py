"""Which pairs of queries and keys matter: where a unit that skips the others can look it up.

A scores matmul may carry a `Pairs`: masks, or the queries and keys that a predictor works on. It is a
description, small and hashable; the arrays are made when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tilewright.workloads.attention.base import Values
    from tilewright.workloads.attention.mask_file import MaskFile
    from tilewright.workloads.attention.scores import Scores
    from tilewright.workloads.layers import Heads

    Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Head:
    """One query head: queries [n, e] and keys [m, e] as they enter the product, and the pairs that it may
    see, [n, m]."""

    query: Values
    key: Values
    seen: Mask


@dataclass(frozen=True, slots=True)
class Pairs:
    """Of one sequence; every sequence of a batch is taken to be like it."""

    heads: Heads
    queries: int
    keys: int
    causal: bool = False
    scores: Scores | None = None
    """Where queries and keys come from; by default the stated model draws them."""
    masks: MaskFile | None = None
    """What may be seen, where a file says it."""

    def fewer(self, kept: int, total: int) -> Pairs:
        """The same for `kept` of `total` key heads and the query heads that share them."""
        old = self.heads
        heads = replace(old, heads=old.heads * kept // total, kv_heads=old.kv_heads * kept // total)
        return replace(self, heads=heads)

    def each(self) -> Iterator[Head]:
        """The query heads in order. Raises `InputError` if a file can't be read or holds other sizes."""
        from tilewright.workloads.attention.mask_file import load  # late: they need numpy
        from tilewright.workloads.attention.scores import Scores, each_head

        masks = load(self.masks, self.heads.heads, self.keys) if self.masks else [self._all()]
        number = 0
        for queries, key in each_head(self.scores or Scores(), self.heads, self.keys):
            for query in queries:
                seen = masks[number if len(masks) > 1 else 0]
                yield Head(query[-self.queries :], key, seen[-self.queries :])
                number += 1

    def _all(self) -> Mask:
        import numpy as np

        if not self.causal:
            return np.ones((self.queries, self.keys), dtype=bool)
        return np.tri(self.queries, self.keys, self.keys - self.queries, dtype=bool)
