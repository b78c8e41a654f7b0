"""Routing Transformer: attention inside clusters of queries and keys.

Roy, Saffar, Vaswani and Grangier, "Efficient Content-Based Sparse Attention with Routing Transformers",
arXiv:2003.05997, section 4.

Queries and keys of unit length are compared with k centroids per head. Each centroid takes the w queries and
the w keys nearest to it (so that clusters are equally large; a token may be in several of them or in none),
which attend to each other as they were before normalisation, causally by their positions in the sequence. A
token's result is the mean over its clusters, and zero without any. Causal attention shares queries and keys,
of unit length as keys, and a token sees itself only if there is nothing else. The choice of the w nearest
looks at the whole sequence: this is the paper's attention, and strictly causal it is not. Here all heads
route; the paper gives half of the heads, or of the layers, to local attention.

Per layer, for n tokens, width d, h heads: distances 2 n k d MACs (n k d shared), 2 h k selections of w out of
n (h k shared), gathers of 3 k w d elements and a scatter of k w d, core 2 k w^2 d MACs and h k w^2
exponentials. Centroids follow the data in training only, and count as parameters. Clusters are equally large
whatever the data, and so is their cost.
"""

from __future__ import annotations

from math import ceil, isqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.sublayer import output, project, require_own_heads
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.operators import MatmulShape, Tensor

_SELF, _FUTURE = -5e4, -1.7e308
_EPSILON = 1e-5


class Routing(Parameters):
    """Attention inside clusters that centroids draw from queries and keys."""

    kind: Literal["routing"] = "routing"
    clusters: Size | None = None
    """Centroids of each head; by default the square root of the number of tokens."""
    window: Size | None = None
    """Tokens of a cluster; by default tokens / clusters, rounded up. More than there are means all."""

    def sizes(self, tokens: int) -> tuple[int, int]:
        """Clusters, and tokens of each."""
        clusters = self.clusters or isqrt(tokens)
        return clusters, min(self.window or ceil(tokens / clusters), tokens)


def reference(
    query: Values, key: Values, value: Values, centroids: Values, window: int, causal: bool = False
) -> Values:
    """Attention [heads, tokens, width] of arrays of that shape; `centroids` [heads, clusters, width].

    `causal` expects the same array as `query` and `key`. Means are taken over count + 1e-5, as in the public
    implementation.
    """
    heads, tokens, width = query.shape
    total, count = np.zeros_like(value), np.zeros((heads, tokens, 1))
    for head in range(heads):
        asking = _nearest(query[head], centroids[head], window)
        offering = _nearest(key[head], centroids[head], window)
        keys = _unit(key[head]) if causal else key[head]
        for asks, offers in zip(asking, offering, strict=True):
            scores = query[head, asks] @ keys[offers].T / np.sqrt(width)
            if causal:
                scores = np.where(offers > asks[:, None], _FUTURE, scores)
                scores = np.where(offers == asks[:, None], _SELF, scores)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            weights /= weights.sum(axis=-1, keepdims=True)
            total[head, asks] += weights @ value[head, offers]
            count[head, asks] += 1
    return total / (count + _EPSILON)


def _unit(x: Values) -> Values:
    length: Values = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / length


def _nearest(x: Values, centroids: Values, window: int) -> NDArray[np.intp]:
    """The `window` rows of x [tokens, width] nearest to each centroid, [clusters, window]."""
    return np.argsort(-(centroids @ _unit(x).T), axis=-1, kind="stable")[:, :window]


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Routing) -> Tensor:
    """The sublayer; causal: queries and keys are one projection."""
    require_own_heads(site, "routing", "each head routes by centroids of its own")
    heads, head_dim, (batch, tokens, _) = site.heads.heads, site.heads.head_dim, x.shape
    clusters, window = p.sizes(tokens)
    query, key, value = _shared(b, x, site) if site.causal else project(b, x, site)
    unit, asks = _route(b, "query", query, site, clusters, window)
    offers = asks
    if site.causal:
        key = unit
    else:
        _, offers = _route(b, "key", key, site, clusters, window)
    members = (batch * heads, clusters * window, head_dim)
    query = b.gather("cluster_queries", "lookup", (query, asks), members)
    key = b.gather("cluster_keys", "lookup", (key, offers), members)
    value = b.gather("cluster_values", "lookup", (value, offers), members)
    matrices = batch * heads * clusters
    shape = MatmulShape(matrices, window, head_dim, window)
    scores = b.matmul("scores", query, key, shape, (matrices, window, window), transpose_b=True)
    if site.causal:
        scores = b.elementwise("mask", "scale_causal_self_mask", scores, asks)
    else:
        scores = b.elementwise("scale", "scale", scores)
    shape = MatmulShape(matrices, window, window, head_dim)
    sums = b.matmul("context", b.softmax("softmax", scores), value, shape, members)
    total = b.scatter("collect", sums, asks, (batch, tokens, heads * head_dim), add=True)
    count = b.scatter("count", asks, asks, (batch, tokens, heads), add=True)
    return output(b, b.divide("mean", total, count), x, site)


def _shared(b: GraphBuilder, x: Tensor, site: Site) -> tuple[Tensor, Tensor, Tensor]:
    query_key = b.linear("query_key", x, site.heads.width, bias=site.bias.query)
    value = b.linear("value", x, site.heads.width, bias=site.bias.value)
    if site.rope is not None:
        query_key = b.elementwise("query_key_rope", "rope", query_key, site.rope)
    return query_key, query_key, value


def _route(
    b: GraphBuilder, name: str, x: Tensor, site: Site, clusters: int, window: int
) -> tuple[Tensor, Tensor]:
    """`x` at unit length, and the tokens nearest to each centroid, [batch * heads, clusters, window]."""
    heads, head_dim, (batch, tokens, _) = site.heads.heads, site.heads.head_dim, x.shape
    unit = b.norm(f"unit_{name}", x, "unit_norm", head_dim)
    centroids = b.weight("centroids", (heads, clusters, head_dim))
    shape = MatmulShape(heads, clusters, head_dim, batch * tokens)
    out = (batch * heads, clusters, tokens)
    distances = b.matmul(f"{name}_distances", centroids, unit, shape, out, transpose_b=True)
    return unit, b.topk(f"{name}_clusters", distances, window)[1]


MECHANISM = register(
    Mechanism(
        kind="routing",
        title="Routing Transformer",
        taxonomy=("learnable pattern",),
        complexity="O(N sqrt N)",
        citation='Roy et al., "Efficient Content-Based Sparse Attention with Routing Transformers", '
        "arXiv:2003.05997",
        oracle="routing-transformer 1.6.1, KmeansAttention",
        parameters=Routing,
        lower=lower,
        own_projections=True,
    )
)
