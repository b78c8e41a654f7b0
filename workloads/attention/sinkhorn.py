"""Sinkhorn Transformer: each block attends to itself and to a softly sorted block.

Tay, Bahri, Yang, Metzler and Juan, "Sparse Sinkhorn Attention", arXiv:2002.11296, section 3.

The sequence is cut in n_B = n / b blocks. Products of the blocks' mean queries and mean keys, made doubly
stochastic by N iterations that normalise rows and columns in turn, are a soft permutation S of the blocks.
Block u attends, in one softmax, to block u of the permuted keys and to its own: 2b keys. Of the variants this
one sorts by queries and keys, as the public code does by default; the paper's first sorting network is
two dense layers on block sums. Gumbel noise is for training and costs nothing here. Balancing the columns
needs the scores of all blocks, so that this form is not causal.

Per layer, for n tokens (filled up to whole blocks), width d, h heads of width e: block scores h n_B^2 e MACs,
sorting 2 n_B n d, core 4 n b d; exponentials and logarithms h (2 n_B^2 + 2 N n_B (n_B + 1) + 2 n b); 4 n d
elements copied, since sorted and own blocks must lie side by side.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import (
    output,
    padded,
    project,
    require_both_ways,
    require_own_heads,
)
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.operators import MatmulShape, Tensor

_EPSILON = 1e-6


class Sinkhorn(Parameters):
    """Attention to the own block and to one of a learned, soft order of the blocks."""

    kind: Literal["sinkhorn"] = "sinkhorn"
    block: Size = 64
    """Tokens of a block."""
    iterations: Annotated[Size, Field(le=100)] = 5
    """Times that rows and columns of the sorting matrix are normalised (paper: 5 to 10)."""
    temperature: Annotated[float, Field(gt=0)] = 0.75
    """Divides the logarithms before they are balanced; the lower, the harder the sorting."""


def reference(query: Values, key: Values, value: Values, p: Sinkhorn, noise: Values | None = None) -> Values:
    """Attention [heads, tokens, width] of arrays of that shape; tokens are a multiple of the block.

    `noise`: Gumbel noise [heads, blocks, blocks], as added in training.
    """
    heads, tokens, width = query.shape
    blocks = (heads, tokens // p.block, p.block, width)
    query, key, value = (x.reshape(blocks) for x in (query, key, value))
    scores = query.mean(axis=2) @ key.mean(axis=2).swapaxes(1, 2) / np.sqrt(width)
    logits = np.log(np.maximum(scores, 0) + _EPSILON) + (0 if noise is None else noise)
    order = balance(logits / p.temperature, p.iterations)
    keys = np.concatenate([np.einsum("huv,hvie->huie", order, key), key], axis=2)
    values = np.concatenate([np.einsum("huv,hvie->huie", order, value), value], axis=2)
    scores = query @ keys.swapaxes(-1, -2) / np.sqrt(width)
    weights = np.exp(scores - np.logaddexp.reduce(scores, axis=-1)[..., None])
    context: Values = weights @ values
    return context.reshape(heads, tokens, width)


def balance(logits: Values, iterations: int) -> Values:
    """The Sinkhorn operator: rows, then columns of exp(logits) normalised, `iterations` times.

    After Sinkhorn, "A relationship between arbitrary positive matrices and doubly stochastic matrices", Ann.
    Math. Statist. 35 (1964).
    """
    for _ in range(iterations):
        logits = logits - np.logaddexp.reduce(logits, axis=-1)[..., None]
        logits = logits - np.logaddexp.reduce(logits, axis=-2)[..., None, :]
    return np.exp(logits)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Sinkhorn) -> Tensor:
    """The sublayer; a sequence of no whole number of blocks is filled up before the projections."""
    require_both_ways(site, "sinkhorn", "balancing the columns of the sorting matrix looks at all blocks")
    require_own_heads(site, "sinkhorn", "each head sorts keys in an order of its own")
    query, key, value = project(b, padded(b, x, p.block), site)
    batch, tokens, width = query.shape
    matrices, head_dim, blocks = batch * site.heads.heads, site.heads.head_dim, tokens // p.block
    order = _order(b, query, key, matrices, p)
    keys = _beside(b, "key", order, key, head_dim, p.block)
    values = _beside(b, "value", order, value, head_dim, p.block)
    shape = MatmulShape(matrices * blocks, p.block, head_dim, 2 * p.block)
    out = (matrices * blocks, p.block, 2 * p.block)
    scores = b.elementwise("scale", "scale", b.matmul("scores", query, keys, shape, out, transpose_b=True))
    shape = MatmulShape(matrices * blocks, p.block, 2 * p.block, head_dim)
    context = b.matmul("context", b.softmax("softmax", scores), values, shape, (batch, tokens, width))
    return output(b, context, x, site)


def _order(b: GraphBuilder, query: Tensor, key: Tensor, matrices: int, p: Sinkhorn) -> Tensor:
    """The soft permutation, [batch * heads, blocks, blocks]."""
    blocks = query.shape[1] // p.block
    width = query.elements // (matrices * blocks * p.block)
    means = [
        b.reduce(f"{name}_blocks", "mean", x, (matrices, blocks, width))
        for name, x in (("query", query), ("key", key))
    ]
    square = (matrices, blocks, blocks)
    shape = MatmulShape(matrices, blocks, width, blocks)
    scores = b.matmul("block_scores", means[0], means[1], shape, square, transpose_b=True)
    logits = b.elementwise("block_logits", "sinkhorn_logits", scores)
    with b.scope("balance"):
        for step in range(p.iterations):
            for axis in ("rows", "columns"):
                lse = b.reduce(f"{axis}_{step}", "lse", logits, (matrices, blocks))
                logits = b.elementwise(f"{axis}_{step}_normalized", "add", logits, lse)
    return b.elementwise("order", "exp", logits)


def _beside(b: GraphBuilder, name: str, order: Tensor, x: Tensor, head_dim: int, block: int) -> Tensor:
    """Each block of the softly permuted x, then its own, [batch * heads, blocks, 2 block, head_dim]."""
    matrices, blocks, _ = order.shape
    shape = MatmulShape(matrices, blocks, blocks, block * head_dim)
    permuted = b.matmul(f"sorted_{name}s", order, x, shape, (matrices, blocks, block, head_dim))
    return b.gather(f"{name}s_beside", "concat", (permuted, x), (matrices, blocks, 2 * block, head_dim))


MECHANISM = register(
    Mechanism(
        kind="sinkhorn",
        title="Sinkhorn Transformer",
        taxonomy=("learnable pattern",),
        complexity="O(B^2)",
        citation='Tay et al., "Sparse Sinkhorn Attention", arXiv:2002.11296',
        oracle="sinkhorn-transformer 0.11.4: sinkhorn_sorting_operator, and SinkhornAttention with values "
        "equal to keys, or with its permutation of values mended",
        parameters=Sinkhorn,
        lower=lower,
        causal=False,
    )
)
