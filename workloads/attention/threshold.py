"""Threshold: each query sees the keys that an estimate gives at least a given weight.

Lu et al., "Sanger: A Co-Design Framework for Enabling Sparse Attention using Reconfigurable Architecture",
MICRO 2021 (doi:10.1145/3466752.3480125): queries and keys, rounded to 4 bits, give an estimate of the
softmax; pairs below the threshold are dropped, and what is left is computed in full precision. With
`of: blocks` the estimate is that of block averages (see `topk`), and blocks of pairs are kept or dropped as a
whole. Where nothing in a row reaches it, its largest is kept, of blocks always the own one as well.

What each query sees follows from the queries and keys: `scores` says where they come from. The core is that
of a blocked kernel: it computes every block that holds a pair, no matter how few; packing the rows of a mask
into full ones, as Sanger's array does, is not modelled; more than 32 different numbers of key blocks are
rounded up to 32nds of the largest. With `of: pairs` there can be 16,384 tokens.

Per layer, for n tokens, width d, h heads, N blocks of b x b pairs that hold one that is kept, over all heads:
`pairs`: n^2 d MACs of the estimate, h n^2 exponentials and compares, 4 n d vector operations for each
rounding; `blocks` (n filled up to whole blocks, n_B of them): n_B^2 d, h n_B^2. Core: 2 N b e elements
gathered, 2 N b^2 e MACs, N b^2 exponentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.counted import (
    Counted,
    counted_mask,
    note,
    pairs_of_blocks,
    stacked,
    whole_blocks,
)
from tilewright.workloads.attention.patterns import Blocked, pattern_attention
from tilewright.workloads.attention.scores import (
    MOST_PAIRED,
    Scores,
    block_weights,
    by_threshold,
    each_head,
    kept_mass,
    pair_weights,
    sampled,
)
from tilewright.workloads.attention.sublayer import output, padded, project
from tilewright.workloads.attention.topk import block_scores
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import MatmulShape, Tensor

Mask = NDArray[np.bool_]

_ROWS = 1024
"""Queries whose estimates are held at a time, about: whole blocks of them."""


class Threshold(Blocked):
    """Attention to what an estimate gives a weight of at least a threshold."""

    kind: Literal["threshold"] = "threshold"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.002
    """Least weight of the estimated softmax."""
    of: Literal["pairs", "blocks"] = "pairs"
    """Whether weights of pairs of tokens are compared, or of pairs of blocks."""
    bits: Literal[4, 8] = 4
    """Of the rounded queries and keys, for pairs."""
    scores: Scores = Scores()
    """Where queries and keys come from."""

    def of_layer(self, number: int) -> Threshold:
        """The same with the queries and keys of that layer."""
        return self.model_copy(update={"scores": self.scores.of_layer(number)})


def reference(query: Values, key: Values, value: Values, p: Threshold, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; returns [heads, n, e]."""
    share = len(query) // len(key)
    key, value = key.repeat(share, axis=0), value.repeat(share, axis=0)
    mask = np.stack([chosen(*head, p, causal=causal) for head in zip(query, key, strict=True)])
    return attend(query, key, value, mask)


def chosen(query: Values, key: Values, p: Threshold, *, causal: bool) -> Mask:
    """Which queries of a head see which keys, [n, n]; `query` and `key` [n, e]."""
    tokens = len(query)
    if p.of == "pairs":
        return np.concatenate(list(_pairs(query, key, p, causal=causal)))
    mask = chosen_blocks(query, key, p, causal=causal).repeat(p.block, axis=0).repeat(p.block, axis=1)
    return mask[:tokens, :tokens] & (np.tri(tokens, dtype=bool) | (not causal))


def _pairs(query: Values, key: Values, p: Threshold, *, causal: bool) -> Iterator[Mask]:
    """The mask of a head, some whole blocks of queries at a time."""
    step = max(_ROWS // p.block, 1) * p.block
    for start in range(0, len(query), step):
        rows = slice(start, start + step)
        weights = pair_weights(query, key, p.bits, rows, causal=causal)
        sees = by_threshold(weights, p.threshold)
        yield np.pad(sees, ((0, 0), (0, len(key) - sees.shape[1])))


def chosen_blocks(query: Values, key: Values, p: Threshold, *, causal: bool) -> Mask:
    """Which blocks of queries of a head see which blocks of keys, [n_B, n_B]; `query` and `key` [n, e]."""
    (weights,) = block_weights(query[None], key[None], p.block, causal=causal)
    sees = by_threshold(weights, p.threshold)
    np.fill_diagonal(sees, True)
    return sees


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Threshold) -> Tensor:
    """The sublayer; for blocks, a sequence of no whole number of them is filled up before the projections.

    Raises `InputError` if there are too many tokens for an estimate of pairs.
    """
    tokens = x.shape[1]
    if p.of == "pairs" and tokens > MOST_PAIRED:
        raise InputError(
            f"attention.of: an estimate for each of {tokens:,}^2 pairs is too large, the most is "
            f"{MOST_PAIRED:,} tokens; choose `of: blocks`, or fewer tokens"
        )
    query, key, value = project(b, x if p.of == "pairs" else padded(b, x, p.block), site)
    if site.causal:
        cached(b, key, value, site)
    patterns = _patterns(b, tokens, site, p)
    best = _select(b, query, key, site, p, patterns)
    return output(
        b, pattern_attention(b, query, key, value, site.heads, patterns, p.block, chosen=best), x, site
    )


def _patterns(b: GraphBuilder, tokens: int, site: Site, p: Threshold) -> list[Counted]:
    """What each head sees, of queries and keys of the layer's sizes."""
    find = _each_head if p.scores.path is None else _each_head.__wrapped__  # a file may change
    made, kept = find(p, site.heads, tokens, site.causal)
    note(b, made, kept)
    return made


@lru_cache(maxsize=32)
def _each_head(p: Threshold, heads: Heads, tokens: int, causal: bool) -> tuple[list[Counted], list[float]]:
    """The counts of each head, and the share of its softmax that is kept."""
    found = [
        _counted(own, key, p, causal=causal)
        for query, key in each_head(p.scores, heads, tokens)
        for own in query
    ]
    return [pattern for pattern, _ in found], [mass for _, mass in found]


def _counted(query: Values, key: Values, p: Threshold, *, causal: bool) -> tuple[Counted, float]:
    """The counts of a head, and the share of its softmax that is kept."""
    tokens, rows = len(query), sampled(len(query))
    if p.of == "blocks":
        sees = chosen_blocks(query, key, p, causal=causal)
        pattern = whole_blocks(sees, tokens, p.block, causal=causal)
        shown = sees[rows // p.block].repeat(p.block, axis=1)[:, :tokens]
        return pattern, kept_mass(query, key, rows, shown, causal=causal)
    parts, samples, start = [], [], 0
    for mask in _pairs(query, key, p, causal=causal):
        parts.append(counted_mask(mask, p.block))
        samples.append(mask[rows[(rows >= start) & (rows < start + len(mask))] - start])
        start += len(mask)
    pattern = Counted(tokens, p.block, stacked(parts))
    return pattern, kept_mass(query, key, rows, np.concatenate(samples), causal=causal)


def _select(
    b: GraphBuilder, query: Tensor, key: Tensor, site: Site, p: Threshold, patterns: list[Counted]
) -> Tensor:
    """The estimate, and the list of what it chooses in each sequence: pairs of tokens or of blocks."""
    function = "scale_mask" if site.causal else "scale"
    if p.of == "pairs":
        scores, taken = _estimate(b, query, key, site, p), sum(each.nnz() for each in patterns)
    else:
        scores, taken = block_scores(b, query, key, site, p.block), pairs_of_blocks(patterns)
    weights = b.softmax("estimate_softmax", b.elementwise("estimate_scale", function, scores))
    needed = b.elementwise("needed", "compare", weights)
    return b.gather("chosen", "compact", (needed,), (query.shape[0] * taken,), "index")


def _estimate(b: GraphBuilder, query: Tensor, key: Tensor, site: Site, p: Threshold) -> Tensor:
    """The product of rounded queries and keys, for every pair."""
    heads, (batch, tokens, _) = site.heads, query.shape
    asks = b.rounded("rounded_query", query, f"int{p.bits}")
    offers = b.rounded("rounded_key", key, f"int{p.bits}")
    share, matrices = heads.heads // heads.kv_heads, batch * heads.kv_heads
    shape = MatmulShape(matrices, share * tokens, heads.head_dim, tokens)
    return b.matmul("estimate", asks, offers, shape, (matrices, share * tokens, tokens), transpose_b=True)


MECHANISM = register(
    Mechanism(
        kind="threshold",
        title="Threshold",
        taxonomy=("sparse",),
        complexity="O(N^2) estimates, O(nnz)",
        citation='Lu et al., "Sanger: A Co-Design Framework for Enabling Sparse Attention using '
        'Reconfigurable Architecture", MICRO 2021',
        oracle="torch 2.13.0: fake_quantize, softmax, scaled_dot_product_attention with the mask they make",
        parameters=Threshold,
        lower=lower,
    )
)
