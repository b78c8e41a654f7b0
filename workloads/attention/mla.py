"""Multi-head latent attention: keys and values are made from one short latent per token, which is the cache.

DeepSeek-AI, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts Language Model",
arXiv:2405.04434, section 2.1; the sizes are DeepSeek-V3's, arXiv:2412.19437.

    c = norm(x W_dkv) [l],  k^R = rope(x W_kr) [r], shared by all heads
    q = norm(x W_dq) W_uq, split per head into q^N [d_n] and q^R [r], which is rotated
    s_ij = (q^N_i W_uk c_j + q^R_i k^R_j) (d_n + r)^-1/2,   y = softmax(s) (c W_uv)

Two forms of the same: `expanded` makes keys [h, d_n + r] and values [h, d_v] of every token that is seen;
`absorbed` takes W_uk into the query and W_uv behind the sum, so that all heads share the cached latent as
their key and value. Of the model's heads only their number means something here, not their width, nor which
of them share keys.

Core, for n queries and m keys: expanded h (d_n + d_v) l m + h n m (d_n + r + d_v) MACs and h m (d_n + r)
elements of keys put together; absorbed h n l (d_n + d_v) + h n m (2 l + r). h n m exponentials. The cache has
l + r elements per token.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import causal_pairs
from tilewright.workloads.operators import MatmulShape, Tensor

Size = Annotated[int, Field(gt=0)]


class MultiHeadLatent(Parameters):
    """Multi-head latent attention."""

    kind: Literal["mla"] = "mla"
    q_lora_rank: Size | None = 1536
    """Width of the queries' latent; null: queries come from the tokens themselves."""
    kv_lora_rank: Size = 512
    """Width l of the latent of keys and values."""
    qk_nope_head_dim: Size = 128
    """Width d_n of a head's query and key without positions."""
    qk_rope_head_dim: Size = 64
    """Width r of the rotated part, whose key all heads share; even."""
    v_head_dim: Size = 128
    """Width d_v of a head's value."""
    form: Literal["auto", "expanded", "absorbed"] = "auto"
    """`auto`: absorbed in a decode step, else expanded."""

    @field_validator("qk_rope_head_dim")
    @classmethod
    def _rotates_pairs(cls, width: int) -> int:
        if width % 2:
            raise ValueError(f"rotary positions need an even width, not {width}")
        return width


def reference(
    query: Values, rotated: Values, latent: Values, shared_key: Values, up_key: Values, up_value: Values,
    *, causal: bool = True, absorbed: bool = False,
) -> Values:  # fmt: skip
    """The core: `query` [heads, n, d_n], `rotated` [heads, n, r], `latent` [n, l], `shared_key` [n, r],
    `up_key` [heads, l, d_n] and `up_value` [heads, l, d_v]; returns [heads, n, d_v]."""
    if absorbed:
        content = (query @ np.swapaxes(up_key, -1, -2)) @ latent.T
    else:
        content = query @ np.swapaxes(latent @ up_key, -1, -2)
    scores = (content + rotated @ shared_key.T) / np.sqrt(query.shape[-1] + rotated.shape[-1])
    if causal:
        scores = np.where(np.tri(len(latent), dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights = powers / powers.sum(axis=-1, keepdims=True)
    return np.asarray((weights @ latent) @ up_value if absorbed else weights @ (latent @ up_value))


def lower(b: GraphBuilder, x: Tensor, site: Site, p: MultiHeadLatent) -> Tensor:
    """The sublayer."""
    _, tokens, width = x.shape
    heads = site.heads.heads
    angles = _angles(b, site, tokens, p.qk_rope_head_dim)
    source = x
    if p.q_lora_rank is not None:
        source = b.norm(
            "query_norm", b.linear("query_down", x, p.q_lora_rank, bias=site.bias.query), "rmsnorm"
        )
    query = b.linear("query_nope", source, heads * p.qk_nope_head_dim, bias=False)
    rotated = b.linear("query_rope", source, heads * p.qk_rope_head_dim, bias=False)
    rotated = b.elementwise("query_rotated", "rope", rotated, angles)
    latent = b.linear("latent_down", x, p.kv_lora_rank, bias=site.bias.key)
    latent = b.norm("latent_norm", latent, "rmsnorm")
    shared = b.linear("key_rope", x, p.qk_rope_head_dim, bias=site.bias.key)
    shared = b.elementwise("key_rotated", "rope", shared, angles)
    if site.causal or site.decode:
        latent, shared = _cached(b, latent, shared, site)
    attend = _absorbed if p.form == "absorbed" or (p.form == "auto" and site.decode) else _expanded
    context = attend(b, query, rotated, latent, shared, site, p)
    return b.linear("output", context, width, bias=site.bias.output)


def _angles(b: GraphBuilder, site: Site, tokens: int, width: int) -> Tensor:
    """The table of angles [tokens, r]: what the rotated part needs of the model's, or one of its own."""
    if site.rope is None:
        return b.input(f"angles.{tokens}x{width}", (tokens, width))
    if site.rope.shape == (tokens, width):
        return site.rope
    return b.gather("rotated_angles", "slice", (site.rope,), (tokens, width))


def _cached(b: GraphBuilder, latent: Tensor, shared: Tensor, site: Site) -> tuple[Tensor, Tensor]:
    """Write both to caches [batch, context, width]; what this step attends to, as for keys and values."""
    batch, tokens, _ = latent.shape
    caches = tuple(
        b.append(name, part, batch * tokens, (batch, site.context, part.shape[-1]))
        for name, part in (("latent_cache", latent), ("key_rope_cache", shared))
    )
    return (caches[0], caches[1]) if site.decode else (latent, shared)


def _expanded(
    b: GraphBuilder,
    query: Tensor,
    rotated: Tensor,
    latent: Tensor,
    shared: Tensor,
    site: Site,
    p: MultiHeadLatent,
) -> Tensor:
    """Each head has keys and values of its own."""
    batch, tokens, _ = query.shape
    heads, seen, nope, v = site.heads.heads, latent.shape[1], p.qk_nope_head_dim, p.v_head_dim
    whole, matrices = nope + p.qk_rope_head_dim, batch * heads
    up_key = b.weight("up_key", (heads, p.kv_lora_rank, nope))
    up_value = b.weight("up_value", (heads, p.kv_lora_rank, v))
    size = MatmulShape(1, batch * seen, p.kv_lora_rank, heads * nope)
    key = b.matmul("key", latent, up_key, size, (batch, seen, heads * nope))
    size = MatmulShape(1, batch * seen, p.kv_lora_rank, heads * v)
    value = b.matmul("value", latent, up_value, size, (batch, seen, heads * v))
    key = b.gather("whole_key", "concat", (key, shared), (batch, seen, heads * whole))
    query = b.gather("whole_query", "concat", (query, rotated), (batch, tokens, heads * whole))
    size = MatmulShape(matrices, tokens, whole, seen)
    pairs = matrices * _pairs(site, tokens, seen)
    out = (matrices, tokens, seen)
    scores = b.matmul("scores", query, key, size, out, transpose_b=True, useful_macs=pairs * whole)
    weights = _softmax(b, scores, site)
    size = MatmulShape(matrices, tokens, seen, v)
    return b.matmul("context", weights, value, size, (batch, tokens, heads * v), useful_macs=pairs * v)


def _absorbed(
    b: GraphBuilder,
    query: Tensor,
    rotated: Tensor,
    latent: Tensor,
    shared: Tensor,
    site: Site,
    p: MultiHeadLatent,
) -> Tensor:
    """All heads of a sequence have the latent as key and value, so that they stand below each other."""
    batch, tokens, _ = query.shape
    heads, seen, rank, r = site.heads.heads, latent.shape[1], p.kv_lora_rank, p.qk_rope_head_dim
    up_key = b.weight("up_key", (heads, rank, p.qk_nope_head_dim))
    up_value = b.weight("up_value", (heads, rank, p.v_head_dim))
    size = MatmulShape(heads, batch * tokens, p.qk_nope_head_dim, rank)
    query = b.matmul("query_latent", query, up_key, size, (batch, tokens, heads * rank), transpose_b=True)
    rows, out = heads * tokens, (batch, heads * tokens, seen)
    pairs, size = batch * heads * _pairs(site, tokens, seen), MatmulShape(batch, rows, r, seen)
    position = b.matmul(
        "position_scores", rotated, shared, size, out, transpose_b=True, useful_macs=pairs * r
    )
    size = MatmulShape(batch, rows, rank, seen)
    scores = b.matmul("scores", query, latent, size, out, transpose_b=True, useful_macs=pairs * rank)
    weights = _softmax(b, b.elementwise("scores_sum", "add", scores, position), site)
    size = MatmulShape(batch, rows, seen, rank)
    out = (batch, tokens, heads * rank)
    context = b.matmul("latent_context", weights, latent, size, out, useful_macs=pairs * rank)
    size = MatmulShape(heads, batch * tokens, rank, p.v_head_dim)
    return b.matmul("context", context, up_value, size, (batch, tokens, heads * p.v_head_dim))


def _pairs(site: Site, tokens: int, seen: int) -> int:
    """Pairs of a head that may be seen."""
    return causal_pairs(tokens, seen) if site.causal else tokens * seen


def _softmax(b: GraphBuilder, scores: Tensor, site: Site) -> Tensor:
    function = "scale_mask" if site.causal and not site.decode else "scale"
    return b.softmax("softmax", b.elementwise(function, function, scores))


MECHANISM = register(
    Mechanism(
        kind="mla",
        title="Multi-head latent attention",
        taxonomy=("low rank",),
        complexity="O(n^2)",
        citation="DeepSeek-AI, DeepSeek-V2, arXiv:2405.04434",
        oracle="transformers 4.57.6, DeepseekV3Attention",
        parameters=MultiHeadLatent,
        lower=lower,
        decode=True,
        own_projections=True,
    )
)
