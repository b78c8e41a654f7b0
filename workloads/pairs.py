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
    see, [n, m]; its values [m, f] where they are known."""

    query: Values
    key: Values
    seen: Mask
    value: Values | None = None


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
    earlier: tuple[tuple[Pairs, int], ...] = ()
    """Those of the layers before it, the first first, equal ones in a row once with their number: for a unit
    whose choice in a layer depends on them."""
    window: int | None = None
    """Keys that a query sees: the last ones up to its own where causal, else half of them to each side."""
    layers: int = 1
    """Layers of the stack that `earlier` belongs to."""

    @property
    def layer(self) -> int:
        """The number of its layer, from 0."""
        return sum(count for _, count in self.earlier)

    @property
    def previous(self) -> Pairs | None:
        """Those of the layer before, which know what is before them."""
        if not self.earlier:
            return None
        *rest, (last, count) = self.earlier
        before = (*rest, (last, count - 1)) if count > 1 else tuple(rest)
        return replace(last, earlier=before, layers=self.layers)

    def fewer(self, kept: int, total: int) -> Pairs:
        """The same for `kept` of `total` key heads and the query heads that share them."""
        old = self.heads
        heads = replace(old, heads=old.heads * kept // total, kv_heads=old.kv_heads * kept // total)
        return replace(self, heads=heads)

    def each(self) -> Iterator[Head]:
        """The query heads in order. Raises `InputError` if a file can't be read or holds other sizes."""
        from tilewright.workloads.attention.mask_file import load  # late: they need numpy
        from tilewright.workloads.attention.scores import Scores, each_head, each_value

        masks = load(self.masks, self.heads.heads, self.keys) if self.masks else [self.seen()]
        scores, share = self.scores or Scores(), self.heads.heads // self.heads.kv_heads
        values, number = each_value(scores, self.heads, self.keys), 0
        for queries, key in each_head(scores, self.heads, self.keys):
            for query in queries:
                seen = masks[number if len(masks) > 1 else 0]
                value = None if values is None else values[number // share]
                yield Head(query[-self.queries :], key, seen[-self.queries :], value)
                number += 1

    @property
    def bounds(self) -> tuple[int, int]:
        """`low` and `high`: without a file, query i sees key j if i + low <= j < i + high. The last query
        stands at the last key."""
        own = self.keys - self.queries
        if self.causal:
            return (own - self.window + 1 if self.window else -self.queries), own + 1
        if self.window:
            return own - self.window // 2, own + self.window // 2 + 1
        return -self.queries, self.keys

    def count(self) -> int:
        """How many pairs `bounds` lets through, over all query heads."""
        low, high = self.bounds
        each = (min(self.keys, i + high) - max(0, i + low) for i in range(self.queries))
        return self.heads.heads * sum(max(0, keys) for keys in each)

    def seen(self) -> Mask:
        """Which query sees which key, [queries, keys], without a file."""
        import numpy as np

        low, high = self.bounds
        distance = np.arange(self.keys) - np.arange(self.queries)[:, None]
        return np.asarray((low <= distance) & (distance < high))
