"""Sinkhorn Transformer: each block attends to itself and to a softly sorted block.

Tay, Bahri, Yang, Metzler and Juan, "Sparse Sinkhorn Attention", arXiv:2002.11296, section 3.

The sequence is cut in n_B = n / b blocks. Products of the blocks' mean queries and mean keys, made doubly
stochastic by N iterations that normalise rows and columns in turn, are a soft permutation S of the blocks.
Block u attends, in one softmax, to block u of the permuted keys and to its own: 2b keys. Of the variants this
one sorts by queries and keys, as the public code does by default; the paper's first sorting network is
two dense layers on block sums. Gumbel noise is for training and costs nothing here.

Per layer, for n tokens (filled up to whole blocks), width d, h heads of width e: block scores h n_B^2 e MACs,
sorting 2 n_B n d, core 4 n b d; exponentials and logarithms h (2 n_B^2 + 2 N n_B (n_B + 1) + 2 n b); 4 n d
elements copied, since sorted and own blocks must lie side by side. With `sort_cut` = c (the paper's SortCut,
section 3.4) all queries attend to the first c sorted blocks and to nothing else: sorting 2 c n d, core
2 n c b d, h n c b exponentials, nothing copied.

Balancing the columns needs the scores of all blocks, so the causal form is another, that of the public code
(sinkhorn-transformer 0.11.4, `SinkhornCausalAttention`): block u takes the `top_blocks` = T earlier blocks
that score highest, each weighted with its share in the softmax over those not yet taken. Its query is the
average of all queries up to the block's first, a block's key the sum over its tokens of the average of all
keys up to each; before the first block stand T blocks of a learned null key and value. The second half of the
heads works on the sequence rotated left by b - 1, so that blocks begin elsewhere; the b - 1 tokens that
this puts behind the last see each other only. Rotation is addressing.

Per layer: running sums of queries and keys, 2 n d additions; block scores h n_B (n_B + T) e MACs, core
2 n (T + 1) b d; exponentials h (T n_B (n_B + T) + n (T + 1) b); 2 T n d elements gathered, 2 (T + 1) n d
copied side by side. There is no decode step, as there is none in the public code.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.sublayer import output, padded, project, require_own_heads
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
    sort_cut: Size | None = None
    """Not causal: sorted blocks that all queries attend to in place of one each and their own."""
    top_blocks: Size = 1
    """Causal: earlier blocks that each block attends to."""


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
    sorted_keys, sorted_values = (np.einsum("huv,hvie->huie", order, x) for x in (key, value))
    if p.sort_cut is not None:
        keys, values = (x[:, : p.sort_cut].reshape(heads, -1, width) for x in (sorted_keys, sorted_values))
        return attend(query.reshape(heads, tokens, width), keys, values)
    keys, values = np.concatenate((sorted_keys, key), axis=2), np.concatenate((sorted_values, value), axis=2)
    scores = query @ keys.swapaxes(-1, -2) / np.sqrt(width)
    weights = np.exp(scores - np.logaddexp.reduce(scores, axis=-1)[..., None])
    context: Values = weights @ values
    return context.reshape(heads, tokens, width)


def causal_reference(
    query: Values, key: Values, value: Values, null: tuple[Values, Values], p: Sinkhorn
) -> Values:
    """Causal attention of arrays [heads, tokens, width]; `null`: a key and a value [heads, 1, width];
    tokens are a multiple of the block."""
    context, late = np.empty_like(query), len(query) // 2
    for head in range(len(query)):
        turn = p.block - 1 if head >= late else 0
        q, k, v = (np.roll(x[head], -turn, axis=0) for x in (query, key, value))
        made = _causal_head(q, k, v, (null[0][head], null[1][head]), p, late=head >= late)
        context[head] = np.roll(made, turn, axis=0)
    return context


def _causal_head(
    query: Values, key: Values, value: Values, null: tuple[Values, Values], p: Sinkhorn, *, late: bool
) -> Values:
    """One head, rotated if it is a `late` one."""
    tokens, width = query.shape
    size, blocks = p.block, tokens // p.block
    top, count = min(p.top_blocks, blocks), np.arange(1, tokens + 1)[:, None]
    asks = (query.cumsum(axis=0) / count)[::size]
    offers = (key.cumsum(axis=0) / count).reshape(blocks, size, width).sum(axis=1)
    earlier_keys = np.concatenate((np.tile(null[0], (top * size, 1)), key)).reshape(-1, size, width)
    earlier_values = np.concatenate((np.tile(null[1], (top * size, 1)), value)).reshape(-1, size, width)
    context = np.empty_like(query)
    for u in range(blocks):
        scores = np.concatenate((np.zeros(top), offers[:u] @ asks[u] / np.sqrt(width)))
        picks = _ranked(scores / p.temperature, top)
        rows = slice(u * size, (u + 1) * size)
        keys = np.concatenate((key[rows], *(share * earlier_keys[j] for j, share in picks)))
        values = np.concatenate((value[rows], *(share * earlier_values[j] for j, share in picks)))
        seen = np.hstack((np.tri(size, dtype=bool), np.ones((size, top * size), dtype=bool)))
        if late and u == blocks - 1:  # the last token, and behind it those that rotation put there
            seen[1:, 0] = seen[1:, size:] = False
        context[rows] = attend(query[rows], keys, values, seen)
    return context


def _ranked(scores: Values, top: int) -> list[tuple[int, float]]:
    """The `top` highest scores: which they are, and the share of each in the softmax of it and lower ones."""
    scores, picks = scores.copy(), []
    for _ in range(top):
        shares = np.exp(scores - scores.max())
        best = int(scores.argmax())
        picks.append((best, float(shares[best] / shares.sum())))
        scores[best] = -np.inf
    return picks


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
    _refuse_misfits(site, p, -(-x.shape[1] // p.block))
    query, key, value = project(b, padded(b, x, p.block), site)
    if site.causal:
        context = _causal(b, query, key, value, site, p, x.shape[1])
        return output(b, context, x, site)
    matrices = query.shape[0] * site.heads.heads
    order = _order(b, query, key, matrices, p)
    if p.sort_cut is not None:
        return output(b, _cut(b, order, query, key, value, site, p.sort_cut, p), x, site)
    keys = _beside(b, "key", order, key, site.heads.head_dim, p.block)
    values = _beside(b, "value", order, value, site.heads.head_dim, p.block)
    return output(b, _core(b, query, keys, values, site, p, "scale"), x, site)


def _refuse_misfits(site: Site, p: Sinkhorn, blocks: int) -> None:
    require_own_heads(site, "sinkhorn", "each head sorts keys in an order of its own")
    if p.top_blocks > 1 and not site.causal:
        raise InputError("attention `sinkhorn` takes `top_blocks` above 1 only where it is causal")
    if p.sort_cut is None:
        return
    if site.causal:
        raise InputError(
            "attention `sinkhorn` can't be causal with `sort_cut`: all queries see the same keys"
        )
    if p.sort_cut > blocks:
        raise InputError(
            f"attention `sinkhorn` can't cut {blocks} blocks to {p.sort_cut}: set `sort_cut` to less"
        )


def _cut(
    b: GraphBuilder,
    order: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    site: Site,
    cut: int,
    p: Sinkhorn,
) -> Tensor:
    """All queries over the first `cut` sorted blocks."""
    (matrices, blocks, _), e, tokens = order.shape, site.heads.head_dim, query.shape[1]
    size, shape = MatmulShape(matrices, cut, blocks, p.block * e), (matrices, cut * p.block, e)
    keys, values = (
        b.matmul(f"sorted_{name}s", order, x, size, shape, views=True)
        for name, x in (("key", key), ("value", value))
    )
    size, out = MatmulShape(matrices, tokens, e, shape[1]), (matrices, tokens, shape[1])
    scores = b.matmul("scores", query, keys, size, out, transpose_b=True)
    weights = b.softmax("softmax", b.elementwise("scale", "scale", scores))
    return b.matmul("context", weights, values, MatmulShape(matrices, tokens, shape[1], e), query.shape)


def _core(
    b: GraphBuilder,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    site: Site,
    p: Sinkhorn,
    function: str,
    pairs: int | None = None,
) -> Tensor:
    """Every block of queries over its own keys and values, of which `pairs` (default: all) are seen."""
    e, seen = site.heads.head_dim, keys.shape[-2]
    matrices = query.elements // (p.block * e)
    useful = None if pairs is None else pairs * e
    shape, out = MatmulShape(matrices, p.block, e, seen), (matrices, p.block, seen)
    scores = b.matmul("scores", query, keys, shape, out, transpose_b=True, useful_macs=useful)
    weights = b.softmax("softmax", b.elementwise(function, function, scores))
    shape = MatmulShape(matrices, p.block, seen, e)
    return b.matmul("context", weights, values, shape, query.shape, useful_macs=useful)


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


def _causal(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: Sinkhorn, real: int
) -> Tensor:
    """The causal form over tokens of which the first `real` are no padding."""
    batch, tokens, _ = query.shape
    heads, blocks = site.heads.heads, tokens // p.block
    top = min(p.top_blocks, blocks)
    with b.scope("rank", ""):
        picks = _rounds(b, _block_scores(b, query, key, batch * heads, blocks, top, p), top)
    shape = (batch * heads, blocks, p.block, site.heads.head_dim)
    keys = _beside_picked(b, "key", key, picks, shape)
    values = _beside_picked(b, "value", value, picks, shape)
    pairs = batch * _pairs(real, heads, top, p)
    return _core(b, query, keys, values, site, p, "scale_mask", pairs)


def _block_scores(
    b: GraphBuilder, query: Tensor, key: Tensor, matrices: int, blocks: int, top: int, p: Sinkhorn
) -> Tensor:
    """Of each block with the null blocks and the earlier ones, [batch * heads, blocks, top + blocks]."""
    tokens = blocks * p.block
    e = query.elements // (matrices * tokens)
    asks = b.gather("first_sums", "stride", (b.scan("query_sums", query, tokens),), (matrices, blocks, e))
    asks = b.elementwise("first_averages", "scale", asks)
    offers = b.elementwise("key_averages", "scale", b.scan("key_sums", key, tokens))
    offers = b.reduce("key_blocks", "sum", offers, (matrices, blocks, e))
    offers = b.gather("null_blocks", "pad", (offers,), (matrices, top + blocks, e))
    shape, out = MatmulShape(matrices, blocks, e, top + blocks), (matrices, blocks, top + blocks)
    earlier = matrices * e * blocks * (blocks - 1) // 2
    scores = b.matmul("scores", asks, offers, shape, out, transpose_b=True, useful_macs=earlier)
    return b.elementwise("scale_mask", "scale_mask", scores)


def _rounds(b: GraphBuilder, scores: Tensor, top: int) -> list[tuple[Tensor, Tensor]]:
    """The share and the index of the best block of each row, `top` times, without those taken before."""
    picks: list[tuple[Tensor, Tensor]] = []
    for number in range(top):
        if picks:
            scores = b.elementwise(f"left_{number}", "minus_infinity_mask", scores, picks[-1][1])
        picks.append(b.topk(f"best_{number}", b.softmax(f"softmax_{number}", scores), 1))
    return picks


def _beside_picked(
    b: GraphBuilder, name: str, x: Tensor, picks: list[tuple[Tensor, Tensor]], shape: tuple[int, ...]
) -> Tensor:
    """The picked blocks of x or of its null vector, each times its share, beside the own one; `shape`: that
    of x in blocks, [batch * heads, blocks, block, head_dim]."""
    matrices, blocks, size, e = shape
    null = b.weight(f"null_{name}.weight", (matrices // x.shape[0], e))
    picked = []
    for number, (share, index) in enumerate(picks):
        taken = b.gather(f"{name}s_{number}", "blocks", (x, null, index), shape)
        picked.append(b.elementwise(f"{name}s_{number}_weighted", "multiply", taken, share))
    together = (matrices, blocks, (1 + len(picks)) * size, e)
    return b.gather(f"{name}s_beside", "concat", (*picked, x), together)


def _pairs(real: int, heads: int, top: int, p: Sinkhorn) -> int:
    """Pairs of a query and a key that it sees in all heads, over the first `real` tokens."""
    token, turned = np.arange(real), heads - heads // 2
    plain = int((token % p.block + 1).sum()) + real * top * p.block
    place = token - (p.block - 1)
    rotated = np.where(place < 0, token + 1, place % p.block + 1 + top * p.block)
    return heads // 2 * plain + turned * int(rotated.sum())


MECHANISM = register(
    Mechanism(
        kind="sinkhorn",
        title="Sinkhorn Transformer",
        taxonomy=("learnable pattern",),
        complexity="O(B^2)",
        citation='Tay et al., "Sparse Sinkhorn Attention", arXiv:2002.11296',
        oracle="sinkhorn-transformer 0.11.4: sinkhorn_sorting_operator, and SinkhornAttention with values "
        "equal to keys, or with its permutation of values mended; SinkhornCausalAttention",
        parameters=Sinkhorn,
        lower=lower,
    )
)
