"""Dense attention: every token sees every token, or with a causal model itself and all earlier ones.

Vaswani et al., "Attention Is All You Need", arXiv:1706.03762. softmax(Q K^T / sqrt(e)) V over h heads of
width e; with fewer KV heads (GQA, arXiv:2305.13245; MQA, arXiv:1911.02150) query head a uses KV head
a // (heads / kv_heads). Masked scores are computed as well.

Per layer of n tokens and width d: 2 n d^2 + 2 n d (kv_heads e) MACs of projections, 2 n^2 d of the core (of
which a causal model uses n (n + 1) d), h n^2 exponentials. A decode step against m tokens: 2 m d.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.scores import Scores
from tilewright.workloads.attention.sublayer import output, project, score_bias
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import Tensor
from tilewright.workloads.pairs import Pairs


class Dense(Parameters):
    """Dense attention."""

    kind: Literal["dense"] = "dense"
    scores: Scores | None = None
    """Where queries and keys come from, for a machine that predicts which scores matter; by default the
    stated model draws them. Means nothing to other machines."""

    def of_layer(self, number: int) -> Dense:
        """The same with the queries and keys of that layer."""
        return self if self.scores is None else Dense(scores=self.scores.of_layer(number))


def reference(query: Values, key: Values, value: Values, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; returns [heads, n, e]."""
    share = len(query) // len(key)
    mask = np.tri(query.shape[1], dtype=bool) if causal else None
    return attend(query, key.repeat(share, axis=0), value.repeat(share, axis=0), mask)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Dense) -> Tensor:
    """Projections, scores, softmax, context; a causal model keeps its keys and values."""
    query, key, value = project(b, x, site)
    if site.causal or site.decode:
        key, value = cached(b, key, value, site)
    function = "scale_mask" if site.causal and not site.decode else "scale"
    bias = score_bias(b, site, x.shape[1], site.context)
    causal = site.causal and not site.decode
    pairs = Pairs(site.heads, x.shape[1], site.context, causal=causal, scores=p.scores)
    context = attention_core(b, query, key, value, site.heads, function, bias, pairs=pairs)
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="dense",
        title="Dense attention",
        taxonomy=("dense",),
        complexity="O(N^2)",
        citation='Vaswani et al., "Attention Is All You Need", arXiv:1706.03762',
        oracle="torch 2.13.0, scaled_dot_product_attention",
        parameters=Dense,
        lower=lower,
        decode=True,
        position_bias=True,
    )
)
