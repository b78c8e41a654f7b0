"""Synthesizer: attention weights made up from each token alone, or from nothing, in place of Q K^T.

Tay, Bahri, Metzler, Juan, Zhao and Zheng, "Synthesizer: Rethinking Self-Attention for Transformer Models",
arXiv:2005.00743.

    Y = softmax(A) V, and per head
    dense              A_i = relu(x_i W1 + b1) W2 + b2,   W1 [d, e], W2 [e, n]
    random             A = R, a parameter [n, n]
    factorised_random  A = R1 R2^T, parameters [n, k]
    factorised_dense   A_i = tile(F_a(x_i)) * repeat(F_b(x_i)): F_a to a numbers, F_b to b, a b = n; element
                       j is F_a[j mod a] F_b[j div a] (one is tiled and the other repeated, so that all a b
                       products occur); F_a and F_b are linear

Per layer: 2 n d^2 + n^2 d MACs (values, their use, output) and h n^2 exponentials, and for A: n d^2 + n^2 d
(dense), nothing (random), h n^2 k (factorised_random), n d h (a + b) MACs and 2 h n^2 elements copied
(factorised_dense). Random weights are the same for all sequences of a batch, and worked out once for it.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import output, require_no_rope, require_own_heads
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


class Synthesizer(Parameters):
    """Synthetic attention."""

    kind: Literal["synthesizer"] = "synthesizer"
    variant: Literal["dense", "random", "factorised_dense", "factorised_random"] = "dense"
    """Where the attention weights come from."""
    k: Annotated[int, Field(gt=0)] = 8
    """Rank of `factorised_random`."""
    max_tokens: Annotated[int | None, Field(gt=0)] = None
    """Tokens that the weights are made for; by default those of the run."""


def dense_scores(x: Values, w1: Values, b1: Values, w2: Values, b2: Values) -> Values:
    """A [heads, n, n] from `x` [n, d], W1 [heads, d, e], b1 [heads, e], W2 [heads, e, n], b2 [heads, n]."""
    hidden = np.maximum(x @ w1 + b1[:, None], 0)
    return np.asarray(hidden @ w2 + b2[:, None])


def factorised_dense_scores(fa: Values, fb: Values) -> Values:
    """A [heads, n, a b] from F_a(x) [heads, n, a] and F_b(x) [heads, n, b]."""
    product = fb[..., :, None] * fa[..., None, :]
    return product.reshape(*fa.shape[:-1], -1)


def factorised_random_scores(r1: Values, r2: Values) -> Values:
    """A [heads, n, n] from R1 and R2 [heads, n, k]."""
    return np.asarray(r1 @ np.swapaxes(r2, -1, -2))


def reference(scores: Values, value: Values, causal: bool = False) -> Values:
    """softmax(A) V on [heads, n, n] and [heads, n, e]."""
    if causal:
        scores = np.where(np.tri(scores.shape[-1], dtype=bool), scores, -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True) @ value)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Synthesizer) -> Tensor:
    """The sublayer; raises `InputError` with rotary positions, with shared heads, or beyond `max_tokens`."""
    require_no_rope(site, p.kind, "it has no queries and keys to rotate")
    require_own_heads(site, p.kind, "each head has attention weights of its own")
    if p.max_tokens is not None and p.max_tokens < site.context:
        raise InputError(
            f"attention `synthesizer` is made for {p.max_tokens} tokens, not for {site.context}: raise "
            "`max_tokens`"
        )
    heads, (batch, tokens, _) = site.heads, x.shape
    value = b.linear("value", x, heads.kv_width, bias=site.bias.value)
    if site.causal or site.decode:
        shape = (batch * heads.heads, site.context, heads.head_dim)
        cache = b.append("value_cache", value, batch * tokens, shape)
        value = cache if site.decode else value
    shared = p.variant in ("random", "factorised_random")
    scores = _SCORES[p.variant](b, x, site, p)
    if site.causal and not site.decode:
        scores = b.elementwise("mask", "minus_infinity_mask", scores)
    weights = b.softmax("softmax", scores)
    # Where all sequences have the same weights, their values stand side by side.
    size = (
        MatmulShape(heads.heads, tokens, site.context, batch * heads.head_dim)
        if shared
        else MatmulShape(batch * heads.heads, tokens, site.context, heads.head_dim)
    )
    context = b.matmul("context", weights, value, size, (batch, tokens, heads.width))
    return output(b, context, x, site)


def _table(b: GraphBuilder, name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight whose size follows from the tokens; raises `InputError` where steps of a run differ in it."""
    try:
        return b.weight(name, shape)
    except ValueError as error:
        raise InputError(
            "attention `synthesizer` has weights for a number of tokens, and this run has steps of several: "
            "set `max_tokens`"
        ) from error


def _dense(b: GraphBuilder, x: Tensor, site: Site, p: Synthesizer) -> Tensor:
    batch, tokens, _ = x.shape
    heads, most = site.heads, p.max_tokens or site.context
    hidden = b.elementwise("hidden_act", "relu", b.linear("hidden", x, heads.width))
    weight = _table(b, "scores.weight", (heads.heads, heads.head_dim, most))
    size = MatmulShape(heads.heads, batch * tokens, heads.head_dim, site.context)
    out = (batch * heads.heads, tokens, site.context)
    offset = _table(b, "scores.bias", (heads.heads, most))
    if most == site.context:
        return b.matmul("scores", hidden, weight, size, out, bias=offset)
    weight = b.gather("scores_weight", "slice", (weight,), (heads.heads, heads.head_dim, site.context))
    offset = b.gather("scores_bias", "slice", (offset,), (heads.heads, site.context))
    return b.elementwise("scores_sum", "add", b.matmul("scores", hidden, weight, size, out), offset)


def _random(b: GraphBuilder, x: Tensor, site: Site, p: Synthesizer) -> Tensor:
    heads, most = site.heads.heads, p.max_tokens or site.context
    table, wanted = _table(b, "scores.table", (heads, most, most)), (heads, x.shape[1], site.context)
    return table if table.shape == wanted else b.gather("scores", "slice", (table,), wanted)


def _factorised_random(b: GraphBuilder, x: Tensor, site: Site, p: Synthesizer) -> Tensor:
    heads, most, tokens = site.heads.heads, p.max_tokens or site.context, x.shape[1]
    left, right = _table(b, "scores.left", (heads, most, p.k)), _table(b, "scores.right", (heads, most, p.k))
    size = MatmulShape(heads, tokens, p.k, site.context)
    views = most > min(tokens, site.context)
    return b.matmul("scores", left, right, size, (heads, tokens, site.context), transpose_b=True, views=views)


def _factorised_dense(b: GraphBuilder, x: Tensor, site: Site, p: Synthesizer) -> Tensor:
    batch, tokens, _ = x.shape
    heads, most = site.heads.heads, p.max_tokens or site.context
    a = factor(most)
    out = (batch * heads, tokens, site.context)
    for name, width in (("factor_a", a), ("factor_b", most // a)):
        _table(b, f"{name}.weight", (x.shape[-1], heads * width))
    tiled = b.gather("tiled", "tile", (b.linear("factor_a", x, heads * a),), out)
    repeated = b.gather("repeated", "repeat", (b.linear("factor_b", x, heads * (most // a)),), out)
    return b.elementwise("scores", "multiply", tiled, repeated)


def factor(tokens: int) -> int:
    """The largest divisor of `tokens` that is at most its square root: a, where a b = n."""
    return next(a for a in range(isqrt(tokens), 0, -1) if tokens % a == 0)


_SCORES = {
    "dense": _dense,
    "random": _random,
    "factorised_dense": _factorised_dense,
    "factorised_random": _factorised_random,
}

MECHANISM = register(
    Mechanism(
        kind="synthesizer",
        title="Synthesizer",
        taxonomy=("low rank", "learnable pattern"),
        complexity="O(n^2)",
        citation="Tay et al., Synthesizer: Rethinking Self-Attention, arXiv:2005.00743",
        oracle="torch 2.13.0, its linear layers and softmax (there is no package)",
        parameters=Synthesizer,
        lower=lower,
        decode=True,
        own_projections=True,
    )
)
