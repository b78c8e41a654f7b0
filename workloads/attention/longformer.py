"""Longformer: a window around every token, and some tokens that see all and that all see.

Beltagy, Peters and Cohan, "Longformer: The Long-Document Transformer", arXiv:2004.05150. Query i sees the
keys i + t dilation with |t| <= window / 2 and the first `global_tokens` keys, in one softmax. The queries of
the global tokens see everything, through projections of their own (query, key and value). Causal (the paper's
character models): the left half of the window only, and no global tokens.

Two kernels. `blocks` computes the blocks of the band that hold a pair (the paper's own kernel is a banded
matrix product, the only one that can dilate or be causal). `chunks` is that of Hugging Face: chunks of
`window` queries and keys that overlap by half give the scores, twice the band, which is then copied out of
them; the global columns are another product, joined by a copy; the context sums over window * 3/2 keys.

Per layer of n tokens (rounded up to whole windows), width d, w = window, g global tokens: 4 n d^2 MACs of
projections, and 2 n d^2 + g d^2 of the global ones; 2 d per pair. `chunks`: (2 w n - w^2) d for the scores,
3/2 w n d for the context, 2 n g d for the global columns, 2 g n d for the global rows;
h n (w + 1 + g) + h g n exponentials.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.patterns import (
    Blocked,
    Pattern,
    band_with_globals,
    pattern_attention,
    strided,
)
from tilewright.workloads.attention.sublayer import output, padded, project, require_own_heads
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import MatmulShape, Tensor


class Longformer(Blocked):
    """Window and global attention."""

    kind: Literal["longformer"] = "longformer"
    window: Annotated[int, Field(ge=2, multiple_of=2)] = 512
    """Tokens of the window, half of them to each side (the token itself comes on top)."""
    dilation: Annotated[int, Field(gt=0)] = 1
    """Distance of neighbouring keys in the window."""
    global_tokens: Annotated[int, Field(ge=0)] | None = None
    """How many tokens at the beginning are global; by default 1 (a [CLS]), or none if causal or dilated."""
    kernel: Literal["blocks", "chunks"] = "blocks"
    """How the band is computed."""

    @model_validator(mode="after")
    def _dilated_windows_stand_alone(self) -> Longformer:
        if self.dilation > 1 and self.global_tokens:
            raise ValueError("`global_tokens` must be 0 where `dilation` is above 1")
        if self.dilation > 1 and self.kernel == "chunks":
            raise ValueError("`kernel: chunks` can't dilate; choose `blocks`")
        return self


def globals_of(p: Longformer, *, causal: bool) -> int:
    """Global tokens. Raises `InputError` if a causal layer is to have some."""
    if causal and p.global_tokens:
        raise InputError(
            "attention `longformer` can't have global tokens where it is causal, they see later tokens: set "
            "`global_tokens` to 0"
        )
    if p.global_tokens is None:
        return 0 if causal or p.dilation > 1 else 1
    return p.global_tokens


def pattern(tokens: int, p: Longformer, *, causal: bool) -> Pattern:
    """Which tokens see which, the global ones included."""
    back, ahead = p.window // 2, 0 if causal else p.window // 2
    first = min(globals_of(p, causal=causal), tokens)
    if p.dilation > 1 or not first:
        return strided(tokens, p.dilation, back, ahead)
    return band_with_globals(tokens, back, ahead, first)


def reference(
    query: Values,
    key: Values,
    value: Values,
    own: tuple[Values, Values, Values] | None,
    p: Longformer,
    *,
    causal: bool = False,
) -> Values:
    """`query`, `key`, `value` [heads, n, e]; `own`: the same through the global projections, which only the
    rows of global tokens use; returns [heads, n, e]."""
    context = attend(query, key, value, pattern(query.shape[1], p, causal=causal).dense())
    count = globals_of(p, causal=causal)
    if own is None or not count:
        return context
    rows = attend(own[0][:, :count], own[1], own[2])
    return np.concatenate((rows, context[:, count:]), axis=1)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Longformer) -> Tensor:
    """The band, then the rows of the global tokens, put in their places."""
    require_own_heads(site, p.kind, "the published kernels know no shared ones")
    count = globals_of(p, causal=site.causal)
    if count > x.shape[1]:
        raise InputError(
            f"attention `longformer` has {count} global tokens, more than the {x.shape[1]} tokens there are"
        )
    if p.kernel == "chunks" and site.causal:
        raise InputError("attention `longformer` can't be causal with `kernel: chunks`; choose `blocks`")
    if site.decode:
        return _decode(b, x, site, p)
    whole = padded(b, x, p.window)
    query, key, value = project(b, whole, site)
    if site.causal:
        cached(b, key, value, site, p.window // 2 * p.dilation + 1)
    if p.kernel == "chunks":
        context = _chunks(b, query, key, value, site, p, count)
    else:
        shape = _local(whole.shape[1], p, count, causal=site.causal)
        context = pattern_attention(b, query, key, value, site.heads, [shape], p.block)
    if count:
        rows = _global_rows(b, whole, site, count)
        context = b.place("placed", context, (rows,), context.shape)
    return output(b, context, x, site)


def _decode(b: GraphBuilder, x: Tensor, site: Site, p: Longformer) -> Tensor:
    """One token against a ring of the keys that its window reaches, every `dilation`-th of which it reads."""
    query, key, value = project(b, x, site)
    key, value = cached(b, key, value, site, p.window // 2 * p.dilation + 1)
    if p.dilation > 1:
        batch, room, e = key.shape
        shape = (batch, -(-room // p.dilation), e)
        key = b.gather("dilated_keys", "stride", (key,), shape)
        value = b.gather("dilated_values", "stride", (value,), shape)
    return output(b, attention_core(b, query, key, value, site.heads), x, site)


def _local(tokens: int, p: Longformer, count: int, *, causal: bool) -> Pattern:
    """What the ordinary projections compute: global columns, and a band in all rows, which the rows of global
    tokens are later put in place of."""
    if not count:
        return pattern(tokens, p, causal=causal)
    return band_with_globals(tokens, p.window // 2, p.window // 2, count, rows=False)


def _chunks(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: Longformer, count: int
) -> Tensor:
    """The band as Hugging Face computes it (transformers, `LongformerSelfAttention`)."""
    batch, tokens, _ = query.shape
    matrices, e, w = batch * site.heads.heads, site.heads.head_dim, p.window
    band = matrices * e * (_local(tokens, p, count, causal=False).nnz() - tokens * count)
    chunks = matrices * (2 * tokens // w - 1)
    size, shape = MatmulShape(chunks, w, e, w), (chunks, w, w)
    scores = b.matmul(
        "scores", query, key, size, shape, transpose_b=True, useful_macs=min(band, size.macs), views=True
    )
    scores = b.gather("band", "diagonals", (scores,), (matrices, tokens, w + 1))
    if count:
        size = MatmulShape(matrices, tokens, e, count)
        columns = b.matmul(
            "global_scores", query, key, size, (matrices, tokens, count), transpose_b=True, views=True
        )
        scores = b.gather("joined", "concat", (columns, scores), (matrices, tokens, count + w + 1))
    weights = b.softmax("softmax", b.elementwise("scale_mask", "scale_mask", scores))
    blocks = matrices * (2 * tokens // w)
    size = MatmulShape(blocks, w // 2, 3 * w // 2, e)
    context = b.matmul(
        "context", weights, value, size, query.shape, useful_macs=min(band, size.macs), views=True
    )
    if not count:
        return context
    size = MatmulShape(matrices, tokens, count, e)
    columns = b.matmul("global_context", weights, value, size, query.shape, views=True)
    return b.elementwise("sum", "add", context, columns)


def _global_rows(b: GraphBuilder, x: Tensor, site: Site, count: int) -> Tensor:
    """The context [batch, count, width] of the global tokens' own queries, over all tokens."""
    batch, tokens, width = x.shape
    heads, e = site.heads.heads, site.heads.head_dim
    weight = b.weight("query_global.weight", (width, site.heads.width))
    bias = b.weight("query_global.bias", (site.heads.width,)) if site.bias.query else None
    size = MatmulShape(1, batch * count, width, site.heads.width)
    query = b.matmul("query_global", x, weight, size, (batch, count, site.heads.width), bias=bias, views=True)
    key = b.linear("key_global", x, site.heads.width, bias=site.bias.key)
    value = b.linear("value_global", x, site.heads.width, bias=site.bias.value)
    with b.scope("global"):
        size, shape = MatmulShape(batch * heads, count, e, tokens), (batch * heads, count, tokens)
        scores = b.matmul("scores", query, key, size, shape, transpose_b=True)
        weights = b.softmax("softmax", b.elementwise("scale", "scale", scores))
        size = MatmulShape(batch * heads, count, tokens, e)
        return b.matmul("context", weights, value, size, (batch, count, site.heads.width))


MECHANISM = register(
    Mechanism(
        kind="longformer",
        title="Longformer",
        taxonomy=("fixed pattern", "memory"),
        complexity="O(n (k + m))",
        citation='Beltagy et al., "Longformer: The Long-Document Transformer", arXiv:2004.05150',
        oracle="transformers 4.57.6, LongformerSelfAttention",
        parameters=Longformer,
        lower=lower,
        decode=True,
    )
)
