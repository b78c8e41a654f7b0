"""Sequences cut into segments, each of which sees a window of what came before it."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import MatmulShape, Tensor


@dataclass(frozen=True, slots=True)
class Segments:
    """`count` segments of `length` tokens; each has memories of so many rows, the oldest first."""

    length: int
    count: int
    memories: tuple[int, ...]

    @property
    def past(self) -> int:
        """Rows of all memories."""
        return sum(self.memories)

    @property
    def keys(self) -> int:
        """Rows that a segment attends to: its memories and itself."""
        return self.past + self.length


def windows(b: GraphBuilder, x: Tensor, cut: Segments, *memories: Tensor) -> Tensor:
    """[memories; segment] of every segment, copied together: [batch, count * keys, width]. What is not in
    `memories` is rows of `x`, which is returned as it is where there are no memories."""
    batch, _, width = x.shape
    if not cut.past:
        return x
    return b.gather("windows", "concat", (*memories, x), (batch, cut.count * cut.keys, width))


def seen_pairs(tokens: int, length: int, past: int) -> int:
    """Pairs of a query and a key in its window at or before it, over `tokens` real tokens; a memory counts in
    full, zeros of a beginning included (they are attended to)."""
    full, rest = divmod(tokens, length)
    return tokens * past + full * length * (length + 1) // 2 + rest * (rest + 1) // 2


def relative_scores(
    b: GraphBuilder,
    queries: tuple[Tensor, Tensor],
    key: Tensor,
    positions: Tensor,
    heads: Heads,
    cut: Segments,
    useful: int,
) -> Tensor:
    """softmax(scale (Q1 K^T + shift(Q2 R^T))), masked: [batch * kv_heads * count, group * length, keys].

    `queries`: Q1 for content, Q2 for position, [batch, count * length, heads * e]. `positions`: R, a row per
    distance and head. `useful`: pairs of a query and a key, over all heads, that are not masked.
    """
    content, position = queries
    batch, e = content.shape[0], heads.head_dim
    matrices, rows = batch * heads.kv_heads * cut.count, heads.heads // heads.kv_heads * cut.length
    out = (matrices, rows, cut.keys)
    size = MatmulShape(heads.heads, batch * cut.count * cut.length, e, cut.keys)
    exact = positions.elements == heads.width * cut.keys
    by_distance = b.matmul(
        "position_scores", position, positions, size, out,
        transpose_b=True, useful_macs=useful * e, views=not exact,
    )  # fmt: skip
    if cut.length > 1:  # a single query has its distances in order
        by_distance = b.gather("shifted", "relative_shift", (by_distance,), out)
    exact = key.elements == matrices * cut.keys * e
    scores = b.matmul(
        "scores", content, key, MatmulShape(matrices, rows, e, cut.keys), out,
        transpose_b=True, useful_macs=useful * e, views=not exact,
    )  # fmt: skip
    scores = b.elementwise("scores_sum", "add", scores, by_distance)
    function = "scale_mask" if cut.length > 1 else "scale"
    scores = b.elementwise(function, function, scores)
    return b.softmax("softmax", scores)
