"""Set Transformer: tokens attend to m inducing points, which have attended to them.

Lee, Lee, Kim, Kosiorek, Choi and Teh, "Set Transformer: A Framework for Attention-based Permutation-Invariant
Neural Networks", arXiv:1810.00825.

    MAB(X, Y) = LN(H + rFF(H)),  H = LN(X + Multihead(X, Y, Y))
    ISAB_m(X) = MAB(X, MAB(I, X)),  I [m, d] parameters;  rFF(H) = relu(H W + b)

As the attention of an encoder block: an encoder layer after Vaswani et al. is itself an MAB, so this sublayer
is MAB(I, X) in full and Multihead(X, MAB(I, X)); the residual, the norms and the feed-forward network of the
outer MAB are the block's own. (The authors' code departs from their text: it adds projected queries, scales
by the whole width and has no output projection.)

Per layer: 4 n d^2 + 5 m d^2 + 4 n m d MACs, 2 h n m exponentials, 9 d^2 + m d parameters (and biases and
norms); nothing grows with n^2. No positions and no order: never causal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import require_both_ways, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import Tensor


class Set(Parameters):
    """Attention through inducing points."""

    kind: Literal["set"] = "set"
    inducing_points: Annotated[int, Field(gt=0)] = 32
    """Inducing points m (the paper's experiments: 16 to 64)."""


def multihead(x: Values, y: Values, w: Mapping[str, Values], heads: int) -> Values:
    """Multi-head attention of `x` [n, d] to `y` [m, d]; `w` has `query`, `key`, `value`, `output` [d, d] and
    their biases `query_bias`, … [d]."""
    q, k, v = (
        (z @ w[name] + w[f"{name}_bias"]).reshape(len(z), heads, -1).swapaxes(0, 1)
        for z, name in ((x, "query"), (y, "key"), (y, "value"))
    )
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = powers / powers.sum(axis=-1, keepdims=True) @ v
    return np.asarray(context.swapaxes(0, 1).reshape(x.shape) @ w["output"] + w["output_bias"])


def mab(x: Values, y: Values, w: Mapping[str, Values], heads: int) -> Values:
    """MAB(X, Y) with the weights of `multihead`, `ff` [d, d], `ff_bias`, and norms of unit scale."""
    h = _layernorm(x + multihead(x, y, w, heads))
    return _layernorm(h + np.maximum(h @ w["ff"] + w["ff_bias"], 0))


def reference(
    x: Values, points: Values, inner: Mapping[str, Values], outer: Mapping[str, Values], heads: int
) -> Values:
    """ISAB_m(X), whole: `x` [n, d], `points` [m, d]."""
    return mab(x, mab(points, x, inner, heads), outer, heads)


def _layernorm(x: Values) -> Values:
    centred = x - x.mean(axis=-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5))


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Set) -> Tensor:
    """The sublayer; raises `InputError` where causal, or with rotary positions."""
    require_both_ways(site, p.kind, "a set has no order, and each inducing point sees all of it")
    require_no_rope(site, p.kind, "a set has no positions")
    batch, _, width = x.shape
    points = b.weight("inducing_points", (p.inducing_points, width))
    points = b.gather("points", "repeat", (points,), (batch, p.inducing_points, width))
    with b.scope("induce"):
        h = b.elementwise("attention_residual", "add", _multihead(b, points, x, site), points)
        h = b.norm("attention_norm", h)
        ff = b.elementwise("ff_act", "relu", b.linear("ff", h, width))
        h = b.norm("ff_norm", b.elementwise("ff_residual", "add", ff, h))
    return _multihead(b, x, h, site)


def _multihead(b: GraphBuilder, x: Tensor, y: Tensor, site: Site) -> Tensor:
    """Attention of `x` to `y`, with its projections."""
    query = b.linear("query", x, site.heads.width, bias=site.bias.query)
    key = b.linear("key", y, site.heads.kv_width, bias=site.bias.key)
    value = b.linear("value", y, site.heads.kv_width, bias=site.bias.value)
    context = attention_core(b, query, key, value, site.heads)
    return b.linear("output", context, x.shape[-1], bias=site.bias.output)


MECHANISM = register(
    Mechanism(
        kind="set",
        title="Set Transformer",
        taxonomy=("memory",),
        complexity="O(n m)",
        citation="Lee et al., Set Transformer, arXiv:1810.00825",
        oracle="torch-geometric 2.8.1, nn.aggr.utils.InducedSetAttentionBlock",
        parameters=Set,
        lower=lower,
        causal=False,
        own_projections=True,
    )
)
