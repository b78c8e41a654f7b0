"""Block top-k: each block of queries attends to the k blocks of keys that match best.

The dynamic block-sparse attention of Jiang et al., "MInference 1.0: Accelerating Pre-filling for Long-Context
LLMs via Dynamic Sparse Attention", arXiv:2407.02490: queries and keys are averaged over blocks of b tokens,
products of the averages score the blocks (with a causal model those of earlier blocks and the own one), and
each block of queries attends to the k best in one softmax. In a decode step the one query takes the place of
its block's average, as in Tang et al., "Quest", arXiv:2406.10774 (which has bounds in place of averages);
averages of the cached keys are kept beside them, and up to k blocks there is nothing to choose.

Per layer, for n tokens (filled up to whole blocks), n_B = n / b, width d, h heads: scores of blocks n_B^2 d
MACs, h n_B selections of k out of n_B, 2 n k d elements gathered, core 2 n k b d MACs and h n k b
exponentials. Which blocks they are depends on the data, how many does not, and so nothing here is drawn from
them. A block that can see fewer than k is filled up with masked ones, which are not useful work. One
token against m > k b: d m / b + 2 k b d MACs, 2 k b d elements gathered.
"""

from __future__ import annotations

from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.sublayer import output, padded, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import MatmulShape, Tensor


class BlockTopK(Parameters):
    """Attention to the best-matching blocks of keys."""

    kind: Literal["topk"] = "topk"
    block: Size = 64
    """Tokens of a block."""
    blocks: Size = 100
    """Blocks of keys that each block of queries sees; more than there are means all."""


def reference(query: Values, key: Values, value: Values, p: BlockTopK, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e], n a multiple of the block; returns
    [heads, n, e]."""
    share = len(query) // len(key)
    mask = chosen(query, key, p, causal=causal).repeat(p.block, axis=1).repeat(p.block, axis=2)
    if causal:
        mask &= np.tri(query.shape[1], dtype=bool)
    return attend(query, key.repeat(share, axis=0), value.repeat(share, axis=0), mask)


def chosen(query: Values, key: Values, p: BlockTopK, *, causal: bool) -> NDArray[np.bool_]:
    """Which blocks of queries see which blocks of keys, [heads, n / block, n / block]."""
    heads, tokens, width = query.shape
    blocks = tokens // p.block
    asks = query.reshape(heads, blocks, p.block, width).mean(axis=2)
    offers = key.reshape(len(key), blocks, p.block, width).mean(axis=2)
    scores = asks @ offers.repeat(heads // len(key), axis=0).swapaxes(1, 2)
    if causal:
        scores = np.where(np.tri(blocks, dtype=bool), scores, -np.inf)
    best = np.argsort(-scores, axis=-1, kind="stable")[:, :, : p.blocks]
    sees = np.zeros((heads, blocks, blocks), dtype=bool)
    np.put_along_axis(sees, best, True, axis=-1)
    return sees


def lower(b: GraphBuilder, x: Tensor, site: Site, p: BlockTopK) -> Tensor:
    """The sublayer; a sequence of no whole number of blocks is filled up before the projections."""
    if site.decode:
        return output(b, _token(b, *project(b, x, site), site, p), x, site)
    query, key, value = project(b, padded(b, x, p.block), site)
    if site.causal:
        cached(b, key, value, site)
    return output(b, _blocks(b, query, key, value, site, p), x, site)


def _blocks(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: BlockTopK) -> Tensor:
    blocks, matrices = query.shape[1] // p.block, query.shape[0] * site.heads.heads
    scores = block_scores(b, query, key, site, p.block)
    if site.causal:
        scores = b.elementwise("block_mask", "scale_mask", scores)
    seen = min(p.blocks, blocks)
    _, best = b.topk("best", scores, seen)
    visible = seen * (seen + 1) // 2 + (blocks - seen) * seen if site.causal else blocks * seen
    return _attend(b, (query, key, value), best, site, p, visible * matrices)


def block_scores(b: GraphBuilder, query: Tensor, key: Tensor, site: Site, block: int) -> Tensor:
    """Products of the blocks' averages, [batch * heads, n_B, n_B]; a causal layer keeps those of the keys."""
    heads, (batch, tokens, _) = site.heads, query.shape
    blocks, group, matrices = tokens // block, heads.heads // heads.kv_heads, batch * heads.heads
    asks = b.reduce("query_blocks", "mean", query, (matrices, blocks, heads.head_dim))
    offers = b.reduce("key_blocks", "mean", key, (batch * heads.kv_heads, blocks, heads.head_dim))
    if site.causal:
        b.append("block_cache", offers, offers.elements // heads.head_dim, offers.shape)
    shape = MatmulShape(batch * heads.kv_heads, group * blocks, heads.head_dim, blocks)
    return b.matmul("block_scores", asks, offers, shape, (matrices, blocks, blocks), transpose_b=True)


def _token(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: BlockTopK) -> Tensor:
    heads, batch = site.heads, query.shape[0]
    blocks, kv = ceil(site.context / p.block), batch * heads.kv_heads
    mean = b.elementwise("block_mean", "mean", key, b.cache("open_block", key.shape))
    offers = b.append("block_cache", mean, batch, (kv, blocks, heads.head_dim))
    key, value = cached(b, key, value, site)
    if blocks <= p.blocks:
        return attention_core(b, query, key, value, heads)
    shape = MatmulShape(kv, heads.heads // heads.kv_heads, heads.head_dim, blocks)
    out = (batch * heads.heads, 1, blocks)
    _, best = b.topk("best", b.matmul("block_scores", query, offers, shape, out, transpose_b=True), p.blocks)
    return _attend(b, (query, key, value), best, site, p, best.elements)


def _attend(
    b: GraphBuilder, sources: tuple[Tensor, ...], best: Tensor, site: Site, p: BlockTopK, visible: int
) -> Tensor:
    """Attention to the `best` blocks [batch * heads, blocks of queries, k], of which `visible` are."""
    query, key, value = sources
    matrices, head_dim = best.elements // best.shape[-1], site.heads.head_dim
    keys, rows = best.shape[-1] * p.block, query.elements // (matrices * head_dim)
    useful = visible * rows * p.block * head_dim
    key = b.gather("best_keys", "blocks", (key, best), (matrices, keys, head_dim))
    value = b.gather("best_values", "blocks", (value, best), (matrices, keys, head_dim))
    shape, out = MatmulShape(matrices, rows, head_dim, keys), (matrices, rows, keys)
    scores = b.matmul("scores", query, key, shape, out, transpose_b=True, useful_macs=useful)
    if site.causal and not site.decode:
        scores = b.elementwise("mask", "scale_position_mask", scores, best)
    else:
        scores = b.elementwise("scale", "scale", scores)
    weights, shape = b.softmax("softmax", scores), MatmulShape(matrices, rows, keys, head_dim)
    return b.matmul("context", weights, value, shape, query.shape, useful_macs=useful)


MECHANISM = register(
    Mechanism(
        kind="topk",
        title="Block top-k",
        taxonomy=("sparse",),
        complexity="O(N k b + (N / b)^2)",
        citation='Jiang et al., "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic '
        'Sparse Attention", arXiv:2407.02490',
        oracle="torch 2.13.0: avg_pool1d, topk, scaled_dot_product_attention with the mask that they make",
        parameters=BlockTopK,
        lower=lower,
        decode=True,
    )
)
