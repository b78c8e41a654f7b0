"""Transformer-XL: segments that see the segment before through a memory, with relative positions.

Dai, Yang, Yang, Carbonell, Le and Salakhutdinov, "Transformer-XL: Attentive Language Models Beyond a
Fixed-Length Context", arXiv:1901.02860.

A segment of L tokens attends to itself and to a memory of the M inputs of this layer before it:

    S_ij = e^-1/2 ((q_i + u) k_j + (q_i + v) r_{i-j}),  j <= i + M,   r_t = sinusoid(t) W_r

with q from the segment, k and v from [memory; segment], u and v [h, e] parameters. All products with r are
made, and moved into place by the distance i - j ("relative shift").

As in the authors' code the memory holds inputs, so that keys and values of M + L tokens are worked out for
each segment (`recompute`); without, they are kept in their place. A run of n tokens is s = ceil(n / L)
segments, worked on together in a layer; the first has a memory of zeros, no longer than the run fills.

Per layer: s (2 L d^2 + 2 (L + M) d^2 + 3 L (L + M) d) + (L + M) d^2 MACs (W_r once: it depends on no input),
h s L (L + M) exponentials and as many elements shifted; without `recompute` 4 d^2 per token in place of the
first two terms. One decoded token is a segment of one.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.segments import Segments, relative_scores, seen_pairs, windows
from tilewright.workloads.attention.sublayer import output, padded, require_causal, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


class TransformerXL(Parameters):
    """Attention with a memory of the segment before."""

    kind: Literal["transformer_xl"] = "transformer_xl"
    segment: Annotated[int, Field(gt=0)] = 384
    """Tokens L of a segment (large model on WikiText-103: 384)."""
    memory: Annotated[int, Field(ge=0)] = 384
    """Tokens M before a segment that it sees (the same model: 384 in training, 1,600 in evaluation)."""
    recompute: bool = True
    """Whether keys and values of the memory are worked out again for each segment, as the authors' code
    does."""


def reference(query: Values, key: Values, value: Values, r: Values, u: Values, v: Values) -> Values:
    """The core of one segment: `query` [heads, L, e], `key` and `value` [heads, M + L, e], u and v
    [heads, e], and `r` [heads, M + L, e], where r[:, t] is for distance t; returns [heads, L, e]."""
    length, total = query.shape[1], key.shape[1]
    distance = np.arange(length)[:, None] + (total - length) - np.arange(total)
    content = (query + u[:, None]) @ np.swapaxes(key, -1, -2)
    position = np.einsum("hie,hije->hij", query + v[:, None], r[:, np.maximum(distance, 0)])
    scores = np.where(distance >= 0, (content + position) / np.sqrt(query.shape[-1]), -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True) @ value)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: TransformerXL) -> Tensor:
    """The sublayer; raises `InputError` where not causal, or with rotary positions."""
    require_causal(site, p.kind, "its memory is what came before")
    require_no_rope(site, p.kind, "it has relative positions of its own")
    length = min(p.segment, x.shape[1])
    count = ceil(x.shape[1] / length)
    before = site.context - 1 if site.decode else (count - 1) * length
    cut = Segments(length, count, (min(p.memory, before),))
    whole = padded(b, x, length)
    query = b.linear("query", whole, site.heads.width, bias=site.bias.query)
    key, value = _keys_and_values(b, whole, site, p, cut)

    batch, heads = x.shape[0], site.heads
    table = b.input(f"distances.{cut.keys}x{x.shape[2]}", (cut.keys, x.shape[2]))
    r = b.linear("position", table, heads.width, bias=False)
    u = b.weight("content_bias", (heads.heads, heads.head_dim))
    v = b.weight("position_bias", (heads.heads, heads.head_dim))
    with_u = b.elementwise("query_content", "add", query, u)
    with_v = b.elementwise("query_position", "add", query, v)
    useful = batch * heads.heads * seen_pairs(x.shape[1], length, cut.past)
    weights = relative_scores(b, (with_u, with_v), key, r, heads, cut, useful)
    size = MatmulShape(
        batch * heads.kv_heads * count, heads.heads // heads.kv_heads * length, cut.keys, heads.head_dim
    )
    context = b.matmul(
        "context", weights, value, size, (batch, count * length, heads.width),
        useful_macs=useful * heads.head_dim, views=not p.recompute,
    )  # fmt: skip
    return output(b, context, x, site)


def _keys_and_values(
    b: GraphBuilder, x: Tensor, site: Site, p: TransformerXL, cut: Segments
) -> tuple[Tensor, Tensor]:
    """Of every window of M + L tokens, or, without `recompute`, of every token once; kept for later."""
    batch, tokens, width = x.shape
    heads, kept = site.heads, min(p.memory + 1 if site.decode else p.memory, site.context)
    seen = x
    if p.recompute and p.memory:
        memory = b.append("memory", x, batch * min(tokens, kept), (batch, kept, width))
        seen = memory if site.decode else windows(b, x, cut)
    key = b.linear("key", seen, heads.kv_width, bias=site.bias.key)
    value = b.linear("value", seen, heads.kv_width, bias=site.bias.value)
    if p.recompute:
        return key, value
    shape = (batch * heads.kv_heads, min(p.memory + 1, site.context), heads.head_dim)
    rows = batch * min(tokens, shape[1])
    key_cache, value_cache = (
        b.append("key_cache", key, rows, shape),
        b.append("value_cache", value, rows, shape),
    )
    return (key_cache, value_cache) if site.decode else (key, value)


MECHANISM = register(
    Mechanism(
        kind="transformer_xl",
        title="Transformer-XL",
        taxonomy=("recurrence",),
        complexity="O(n^2)",
        citation="Dai et al., Transformer-XL, arXiv:1901.02860",
        oracle="transformers 4.57.6, deprecated TransfoXL RelPartialLearnableMultiHeadAttn",
        parameters=TransformerXL,
        lower=lower,
        encode=False,
        decode=True,
        own_projections=True,
    )
)
