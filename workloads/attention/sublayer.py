"""What the sublayers of most mechanisms begin and end with: projections, rotary positions, padding."""

from __future__ import annotations

from math import ceil

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


def require_both_ways(site: Site, kind: str, reason: str) -> None:
    """Raise `InputError` if the site is causal or a decode step."""
    if site.causal or site.decode:
        raise InputError(f"attention `{kind}` can't be causal: {reason}")


def require_causal(site: Site, kind: str, reason: str) -> None:
    """Raise `InputError` if the site looks both ways."""
    if not (site.causal or site.decode):
        raise InputError(f"attention `{kind}` can't look both ways: {reason}")


def require_no_rope(site: Site, kind: str, reason: str) -> None:
    """Raise `InputError` if the model has rotary positions."""
    if site.rope is not None:
        raise InputError(f"attention `{kind}` can't have rotary positions: {reason}")


def require_own_heads(site: Site, kind: str, reason: str) -> None:
    """Raise `InputError` if query heads share key and value heads."""
    heads = site.heads
    if heads.heads != heads.kv_heads:
        raise InputError(
            f"attention `{kind}` needs as many key and value heads as query heads, "
            f"not {heads.kv_heads} for {heads.heads}: {reason}"
        )


def project(b: GraphBuilder, x: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [batch, tokens, heads * head_dim], keys and values [batch, tokens, kv_heads * head_dim]."""
    query = b.linear("query", x, site.heads.width, bias=site.bias.query)
    key = b.linear("key", x, site.heads.kv_width, bias=site.bias.key)
    value = b.linear("value", x, site.heads.kv_width, bias=site.bias.value)
    if site.qk_norm:
        query = b.norm("query_norm", query, "rmsnorm", site.heads.head_dim)
        key = b.norm("key_norm", key, "rmsnorm", site.heads.head_dim)
    if site.rope is not None:
        tokens, rope = x.shape[1], site.rope
        if rope.shape[0] < tokens:
            rope = b.gather("padded_rope", "pad", (rope,), (tokens, rope.shape[1]))
        query = b.elementwise("query_rope", "rope", query, rope)
        key = b.elementwise("key_rope", "rope", key, rope)
    return query, key, value


def score_bias(b: GraphBuilder, site: Site, tokens: int, context: int) -> Tensor | None:
    """Biases [heads, tokens, context] of the scores by relative position, where the model has such; the mask
    is part of them."""
    if site.position_bias is None:
        return None
    shape = (site.heads.heads, tokens, context)
    return b.gather("score_bias_table", "lookup", (site.position_bias,), shape)


def padded(b: GraphBuilder, x: Tensor, multiple: int) -> Tensor:
    """`x` [batch, tokens, width] copied into a whole number of `multiple` tokens; `x` itself if it is one."""
    batch, tokens, width = x.shape
    whole = ceil(tokens / multiple) * multiple
    return x if whole == tokens else b.gather("padded", "pad", (x,), (batch, whole, width))


def output(b: GraphBuilder, context: Tensor, x: Tensor, site: Site) -> Tensor:
    """The output projection, in the shape of `x`; padding of `context` is left out."""
    batch, tokens, width = x.shape
    if context.shape[1] == tokens:
        return b.linear("output", context, width, bias=site.bias.output)
    k = context.shape[-1]
    weight = b.weight("output.weight", (k, width))
    bias = b.weight("output.bias", (width,)) if site.bias.output else None
    shape = MatmulShape(1, batch * tokens, k, width)
    return b.matmul("output", context, weight, shape, x.shape, bias=bias, views=True)
