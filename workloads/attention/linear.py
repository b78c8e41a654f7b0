"""Linear Transformer: the softmax replaced by the kernel phi(q) phi(k) with phi = elu + 1.

Katharopoulos, Vyas, Pappas and Fleuret, "Transformers are RNNs: Fast Autoregressive Transformers with Linear
Attention", arXiv:2006.16236.

    y_i = phi(q_i) S / (phi(q_i) z),   S = sum_j phi(k_j) v_j^T [e, e],   z = sum_j phi(k_j) [e]

Over all j: 4 n d^2 (projections) + 2 n d e + n d MACs, 2 n d exponentials. Causal, in chunks of c (see
`kernel`): n d c more for the scores inside chunks and n d c for their products with values, and a prefix scan
over n/c states of h e (e + 1) elements. Decoding: 2 d e + d MACs on a state of h e (e + 1) elements,
whatever the context.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.kernel import both_ways, in_chunks, kernel_reference, one_token
from tilewright.workloads.attention.sublayer import output, padded, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


class Linear(Parameters):
    """Kernel attention with elu + 1."""

    kind: Literal["linear"] = "linear"
    chunk: Annotated[int, Field(gt=0)] = 128
    """Tokens of a chunk of causal attention; changes the cost and not the result."""


def reference(query: Values, key: Values, value: Values, causal: bool = False) -> Values:
    """The core on [heads, n, head_dim]."""
    return kernel_reference(_phi(query), _phi(key), value, causal=causal)


def _phi(x: Values) -> Values:
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Linear) -> Tensor:
    """The sublayer, both ways, causal in chunks (padded to whole ones), or one token."""
    chunk = min(p.chunk, x.shape[1])
    whole = padded(b, x, chunk) if site.causal and not site.decode else x
    query, key, value = project(b, whole, site)
    query = b.elementwise("query_features", "elu_plus_one", query)
    key = b.elementwise("key_features", "elu_plus_one", key)
    if site.decode:
        context = one_token(b, query, key, value, site.heads)
    elif site.causal:
        context = in_chunks(b, query, key, value, site.heads, chunk, x.shape[1])
    else:
        context = both_ways(b, query, key, value, site.heads)
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="linear",
        title="Linear Transformer",
        taxonomy=("kernel",),
        complexity="O(n)",
        citation="Katharopoulos et al., Transformers are RNNs, arXiv:2006.16236",
        oracle="performer-pytorch 1.1.4, linear_attention and its causal form, on elu + 1; explicit n x n",
        parameters=Linear,
        lower=lower,
        decode=True,
    )
)
