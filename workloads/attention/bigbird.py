"""BigBird: a window of blocks, global blocks at both ends, and random blocks.

Zaheer et al., "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062, the form with global tokens
inside the sequence (ITC). In blocks of `block` tokens: the first and the last block see all and are seen by
all; every other sees its two neighbours, itself and `random_blocks` more, drawn once for every head.
Sequences of at most 5 + 2 random_blocks blocks get dense attention (as in Hugging Face's BigBird).

Per layer of n tokens (rounded up to whole blocks of b), width d, r random blocks: 4 n d^2 MACs of projections
and 2 d pairs of the core, pairs = (n - 4b)(5 + r)b + 2b(4 + r)b + 2bn, h pairs exponentials. The two rows of
blocks with 4 + r are padded to 5 + r. Keys and values of the middle rows are gathered: h (n - 2b)(5 + r) e
elements each.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import (
    Blocked,
    Ints,
    Pattern,
    from_blocks,
    full,
    pattern_attention,
)
from tilewright.workloads.attention.sublayer import output, padded, project, require_both_ways
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


class BigBird(Blocked):
    """Window, global and random blocks."""

    kind: Literal["bigbird"] = "bigbird"
    random_blocks: Annotated[int, Field(ge=0)] = 3
    """Random blocks of keys for each block of queries."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the draw of the random blocks."""


def draw(blocks: int, p: BigBird) -> Ints:
    """Random key blocks [blocks - 2, random_blocks] of the query blocks between the first and the last: each
    different, none global, none in the window. `blocks` is above 5 + 2 random_blocks."""
    random = np.random.default_rng(p.seed)
    rows = np.arange(1, blocks - 1)
    forbidden = np.minimum(np.maximum(rows[:, None] + np.arange(-1, 2), 1), blocks - 2)
    chosen = np.empty((len(rows), p.random_blocks), dtype=np.int64)
    for column in range(p.random_blocks):
        clash = np.ones(len(rows), dtype=bool)
        while clash.any():
            chosen[clash, column] = random.integers(1, blocks - 1, int(clash.sum()))
            fresh = chosen[:, column, None]
            clash = (fresh == forbidden).any(axis=1) | (fresh == chosen[:, :column]).any(axis=1)
    return chosen


def pattern(tokens: int, p: BigBird, chosen: Ints | None = None) -> Pattern:
    """Which of `tokens` (whole blocks) see which, for one head; `chosen` as from `draw`, by default drawn."""
    blocks = tokens // p.block
    if blocks <= 5 + 2 * p.random_blocks:
        return full(tokens, tokens)
    chosen = draw(blocks, p) if chosen is None else chosen
    rows, every = np.arange(1, blocks - 1), np.arange(blocks)
    near = np.stack([rows * 0, rows - 1, rows, rows + 1, rows * 0 + blocks - 1], axis=1)
    fresh = np.ones(near.shape, dtype=bool)
    fresh[0, 1] = fresh[-1, 3] = False  # a neighbour that is a global block
    keys = np.concatenate([every, near[fresh], chosen.ravel(), every])
    owners = np.broadcast_to(rows[:, None], near.shape)[fresh]
    queries = np.concatenate(
        [every * 0, owners, np.repeat(rows, chosen.shape[1]), every * 0 + blocks - 1],
    )
    order = np.lexsort((keys, queries))
    return from_blocks(tokens, p.block, queries[order], keys[order])


def reference(query: Values, key: Values, value: Values, chosen: Ints, p: BigBird) -> Values:
    """`query`, `key`, `value` [heads, n, e], n in whole blocks; `chosen` [heads, blocks - 2, random_blocks];
    returns [heads, n, e]."""
    masks = np.stack([pattern(query.shape[1], p, each).dense() for each in chosen])
    return attend(query, key, value, masks)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: BigBird) -> Tensor:
    """Whole blocks; the draw differs from head to head, the work does not."""
    require_both_ways(site, p.kind, "the first and the last block see all tokens")
    whole = padded(b, x, p.block)
    query, key, value = project(b, whole, site)
    made = pattern(whole.shape[1], p)
    return output(b, pattern_attention(b, query, key, value, site.heads, [made], p.block), x, site)


MECHANISM = register(
    Mechanism(
        kind="bigbird",
        title="BigBird",
        taxonomy=("fixed pattern", "memory"),
        complexity="O(N)",
        citation='Zaheer et al., "Big Bird: Transformers for Longer Sequences", arXiv:2007.14062',
        oracle="transformers 4.57.6, BigBirdBlockSparseAttention in train() mode",
        parameters=BigBird,
        lower=lower,
        causal=False,
    )
)
