"""Performer: the softmax's kernel approximated by positive random features (FAVOR+).

Choromanski, Likhosherstov, Dohan, Song, Gane, Sarlos, Hawkins, Davis, Mohiuddin, Kaiser, Belanger, Colwell
and Weller, "Rethinking Attention with Performers", arXiv:2009.14794.

    phi(x) = m^-1/2 (exp(W x' - |x'|^2 / 2 - max) + eps),   x' = x e^-1/4,   W [m, e] random and fixed

with the maximum over the features for a query, and over features and positions for a key (so that later
tokens have a say in what stabilises earlier ones; it cancels but for eps). The variant `relu` has
phi(x) = max(W x', 0) + 1e-3 (generalised attention). Then as `kernel`: y_i = phi(q_i) S / (phi(q_i) z).

Over all j: 4 n d^2 (projections) + 2 n m d (features) + 2 n m d (S and its reading) + n m h MACs, 2 h n m
exponentials. Causal, in chunks of c: h n c (m + e) more MACs, and a prefix scan over n/c states of
h m (e + 1) elements, which is also what decoding reads and writes, whatever the context.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.kernel import both_ways, in_chunks, kernel_reference, one_token
from tilewright.workloads.attention.sublayer import output, padded, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor

SOFTMAX_EPS, RELU_EPS = 1e-4, 1e-3


class Performer(Parameters):
    """Kernel attention with random features."""

    kind: Literal["performer"] = "performer"
    features: Annotated[int, Field(gt=0)] = 256
    """Random features m of each head (256 in the authors' code)."""
    features_of: Literal["softmax", "relu"] = "softmax"
    """What they approximate: the softmax, or a kernel of ReLUs (no exponentials)."""
    chunk: Annotated[int, Field(gt=0)] = 128
    """Tokens of a chunk of causal attention; changes the cost and not the result."""


def reference(
    query: Values,
    key: Values,
    value: Values,
    projection: Values,
    features_of: str = "softmax",
    causal: bool = False,
) -> Values:
    """The core on [heads, n, head_dim]; `projection` is W [m, head_dim], the same for all heads."""
    if features_of == "relu":
        q, k = (np.maximum(_scaled(x) @ projection.T, 0) + RELU_EPS for x in (query, key))
    else:
        q = _positive(query, projection, axes=(-1,))
        k = _positive(key, projection, axes=(-1, -2))
    return kernel_reference(q, k, value, causal=causal)


def _scaled(x: Values) -> Values:
    return np.asarray(x * x.shape[-1] ** -0.25)


def _positive(x: Values, projection: Values, axes: tuple[int, ...]) -> Values:
    products = _scaled(x) @ projection.T
    squares = (_scaled(x) ** 2).sum(axis=-1, keepdims=True) / 2
    powers = np.exp(products - squares - products.max(axis=axes, keepdims=True))
    return np.asarray((powers + SOFTMAX_EPS) / np.sqrt(len(projection)))


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Performer) -> Tensor:
    """The sublayer, both ways, causal in chunks (padded to whole ones), or one token."""
    chunk = min(p.chunk, x.shape[1])
    whole = padded(b, x, chunk) if site.causal and not site.decode else x
    query, key, value = project(b, whole, site)
    query = _features(b, "query", query, site.heads.heads, site, p)
    key = _features(b, "key", key, site.heads.kv_heads, site, p)
    if site.decode:
        context = one_token(b, query, key, value, site.heads)
    elif site.causal:
        context = in_chunks(b, query, key, value, site.heads, chunk, x.shape[1])
    else:
        context = both_ways(b, query, key, value, site.heads)
    return output(b, context, x, site)


def _features(b: GraphBuilder, name: str, x: Tensor, heads: int, site: Site, p: Performer) -> Tensor:
    """phi of each head of `x` [batch, tokens, heads * e]: [batch, tokens, heads * m]."""
    batch, tokens, width = x.shape
    e, m = width // heads, p.features
    weight = b.weight("features", (e, m))
    x = b.elementwise(f"{name}_scaled", "scale", x)
    shape = MatmulShape(1, batch * tokens * heads, e, m)
    products = b.matmul(f"{name}_products", x, weight, shape, (batch, tokens, heads * m))
    if p.features_of == "relu":
        return b.elementwise(f"{name}_features", "relu_offset", products)
    squares = b.reduce(f"{name}_squares", "square", x, (batch, tokens, heads))
    if name == "key" and site.decode:
        largest = b.cache("key_max_cache", (batch, heads))  # any constant does, and this one is there
    else:
        largest = b.reduce(f"{name}_max", "max", products, (batch, tokens, heads))
    if name == "key" and not site.decode:
        largest = b.reduce("key_max_of_all", "max", largest, (batch, heads))
        if site.causal:
            b.append("key_max_cache", largest, batch, (batch, heads), in_scope=False)
    return b.elementwise(f"{name}_features", "positive_feature", products, squares, largest)


MECHANISM = register(
    Mechanism(
        kind="performer",
        title="Performer",
        taxonomy=("kernel",),
        complexity="O(n)",
        citation="Choromanski et al., Rethinking Attention with Performers, arXiv:2009.14794",
        oracle="performer-pytorch 1.1.4, FastAttention",
        parameters=Performer,
        lower=lower,
        decode=True,
    )
)
