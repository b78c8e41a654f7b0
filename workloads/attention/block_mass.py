"""Blocks by mass: as many blocks of keys as it takes to keep a given share of the attention.

The query-aware patterns of Lai et al., "FlexPrefill: A Context-Aware Sparse Attention Mechanism for
Efficient Long-Sequence Inference", arXiv:2502.20766, algorithm 4 (its other kind of head, vertical and
slanted lines, is not modelled): the softmax of the products of the blocks' averages estimates the attention;
over a whole head (`over: head`, the paper's) or for each block of queries by itself (`over: row`), the fewest
blocks are kept whose estimates add up to `mass` of all; the first block of keys and the own one always are. A
decode step is dense, as in the authors' code (https://github.com/bytedance/FlexPrefill).

How many blocks each block of queries sees follows from the queries and keys: `scores` says where they come
from. Every block of queries is charged its own number, in matmuls that long; where more than 32 numbers
differ, rounded up to 32nds of the largest.

Per layer, for n tokens (filled up to whole blocks), n_B = n / b, width d, h heads, and N pairs of blocks kept
over all heads: scores of blocks n_B^2 d MACs, h n_B^2 exponentials, h sorts and running sums of n_B^2
(`over: row`: h n_B of n_B), 2 N b e elements gathered, core 2 N b^2 e MACs and N b^2 exponentials.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.counted import Counted, note, pairs_of_blocks, whole_blocks
from tilewright.workloads.attention.patterns import pattern_attention
from tilewright.workloads.attention.scores import (
    Scores,
    block_weights,
    by_mass,
    each_head,
    kept_mass,
    sampled,
)
from tilewright.workloads.attention.sublayer import output, padded, project
from tilewright.workloads.attention.topk import block_scores
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.layers import Heads, attention_core
from tilewright.workloads.operators import Tensor

MOST_BLOCKS = 4096
"""Blocks of a sequence up to which they are chosen from pair by pair."""


class BlockMass(Parameters):
    """Attention to the fewest blocks of keys that hold a share of it."""

    kind: Literal["block_mass"] = "block_mass"
    block: Size = 128
    """Tokens of a block."""
    mass: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the estimated attention that is kept."""
    over: Literal["head", "row"] = "head"
    """Whether it is kept of a head as a whole, or for each block of queries."""
    scores: Scores = Scores()
    """Where queries and keys come from."""

    def of_layer(self, number: int) -> BlockMass:
        """The same with the queries and keys of that layer."""
        return self.model_copy(update={"scores": self.scores.of_layer(number)})


def reference(query: Values, key: Values, value: Values, p: BlockMass, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; returns [heads, n, e]."""
    share, tokens = len(query) // len(key), query.shape[1]
    mask = chosen(query, key, p, causal=causal).repeat(p.block, axis=1).repeat(p.block, axis=2)
    mask = mask[:, :tokens, :tokens]
    if causal:
        mask &= np.tri(tokens, dtype=bool)
    return attend(query, key.repeat(share, axis=0), value.repeat(share, axis=0), mask)


def chosen(query: Values, key: Values, p: BlockMass, *, causal: bool) -> NDArray[np.bool_]:
    """Which blocks of queries see which blocks of keys, [heads, n_B, n_B]; arguments as for `reference`."""
    weights = block_weights(query, key, p.block, causal=causal)
    heads, blocks, _ = weights.shape
    if p.over == "row":
        sees = by_mass(weights, p.mass)
    else:
        sees = by_mass(weights.reshape(heads, -1), p.mass * blocks).reshape(weights.shape)
    sees[:, :, 0] = True
    sees[:, range(blocks), range(blocks)] = True
    return sees


def lower(b: GraphBuilder, x: Tensor, site: Site, p: BlockMass) -> Tensor:
    """The sublayer; a sequence of no whole number of blocks is filled up before the projections.

    Raises `InputError` if there are too many blocks to choose from.
    """
    if -(-x.shape[1] // p.block) > MOST_BLOCKS:
        raise InputError(
            f"attention.block: {x.shape[1]:,} tokens make more than the {MOST_BLOCKS:,} blocks of {p.block} "
            "that can be chosen from, pair by pair; use larger blocks, or fewer tokens"
        )
    if site.decode:
        query, key, value = project(b, x, site)
        key, value = cached(b, key, value, site)
        return output(b, attention_core(b, query, key, value, site.heads), x, site)
    query, key, value = project(b, padded(b, x, p.block), site)
    if site.causal:
        cached(b, key, value, site)
    patterns = _patterns(b, x.shape[1], site, p)
    best = _select(b, query, key, site, p, pairs_of_blocks(patterns))
    context = pattern_attention(b, query, key, value, site.heads, patterns, p.block, chosen=best)
    return output(b, context, x, site)


def _patterns(b: GraphBuilder, tokens: int, site: Site, p: BlockMass) -> list[Counted]:
    """What each head sees, of queries and keys of the layer's sizes."""
    find = _each_head if p.scores.path is None else _each_head.__wrapped__  # a file may change
    made, kept = find(p, site.heads, tokens, site.causal)
    note(b, made, kept)
    return made


@lru_cache(maxsize=32)
def _each_head(p: BlockMass, heads: Heads, tokens: int, causal: bool) -> tuple[list[Counted], list[float]]:
    """The counts of each head, and the share of its softmax that is kept."""
    made, kept, rows = [], [], sampled(tokens)
    for query, key in each_head(p.scores, heads, tokens):
        for own, sees in zip(query, chosen(query, key[None], p, causal=causal), strict=True):
            made.append(whole_blocks(sees, tokens, p.block, causal=causal))
            shown = sees[rows // p.block].repeat(p.block, axis=1)[:, :tokens]
            kept.append(kept_mass(own, key, rows, shown, causal=causal))
    return made, kept


def _select(b: GraphBuilder, query: Tensor, key: Tensor, site: Site, p: BlockMass, pairs: int) -> Tensor:
    """The estimate, and the list of the `pairs` of blocks that it chooses in each sequence."""
    scores = block_scores(b, query, key, site, p.block)
    function = "scale_mask" if site.causal else "scale"
    weights = b.softmax("block_softmax", b.elementwise("block_scale", function, scores))
    length = weights.shape[-1] ** (2 if p.over == "head" else 1)
    order = b.argsort("order", weights, length=length)
    ranked = b.gather("ranked", "lookup", (weights, order), weights.shape)
    needed = b.elementwise("needed", "compare", b.scan("running", ranked, length))
    return b.gather("chosen", "compact", (order, needed), (query.shape[0] * pairs,), "index")


MECHANISM = register(
    Mechanism(
        kind="block_mass",
        title="Blocks by mass",
        taxonomy=("sparse",),
        complexity="O(N k b + (N / b)^2), k from the data",
        citation='Lai et al., "FlexPrefill: A Context-Aware Sparse Attention Mechanism for Efficient '
        'Long-Sequence Inference", arXiv:2502.20766',
        oracle="torch 2.13.0: avg_pool1d, sort, cumsum, scaled_dot_product_attention with the mask they make",
        parameters=BlockMass,
        lower=lower,
        decode=True,
    )
)
