"""FlashAttention: dense attention in an order that never holds the matrix of scores.

Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", arXiv:2205.14135,
in the loop order of Dao, "FlashAttention-2", arXiv:2307.08691. Queries are taken a tile at a time; tile after
tile of keys, the scores' exponentials enter a running sum and a running result, both brought to the new
maximum wherever it rises (Milakov and Gimelshein, "Online normalizer calculation for softmax",
arXiv:1805.02867).

The same function as dense attention and the same MACs: 2 n^2 d of the core a layer. The order is part of the
workload, whatever `mapper.attention` says; the sizes of the tiles are the mapper's, from the buffers that
there are. What it costs more is charged where it is run (`dataflows.regions`): per row and tile the new
maximum and the sum, per output element and tile the product with exp(old - new). Scores stay on chip.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import cached
from tilewright.workloads.attention.sublayer import output, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import Tensor


class Flash(Parameters):
    """FlashAttention; the mapper chooses its tiles."""

    kind: Literal["flash"] = "flash"


def reference(query: Values, key: Values, value: Values, rows: int, cols: int, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; tiles of `rows` queries and `cols` keys;
    returns [heads, n, e]."""
    share, out = len(query) // len(key), np.empty_like(query)
    for head, own in enumerate(query):
        keys, values = key[head // share], value[head // share]
        for start in range(0, len(own), rows):
            tile = slice(start, start + rows)
            out[head, tile] = _tile(own[tile], start, keys, values, cols, causal=causal)
    return out


def _tile(query: Values, start: int, key: Values, value: Values, cols: int, *, causal: bool) -> Values:
    """A tile of queries, the first of which is number `start`, over all tiles of keys."""
    maximum = np.full((len(query), 1), -np.inf)
    total, out = np.zeros((len(query), 1)), np.zeros(query.shape)
    for first in range(0, len(key), cols):
        scores = query @ key[first : first + cols].T / np.sqrt(query.shape[1])
        if causal:
            scores = np.where(np.tri(len(query), scores.shape[1], start - first, dtype=bool), scores, -np.inf)
        risen = np.maximum(maximum, scores.max(axis=1, keepdims=True))
        old, weights = np.exp(maximum - risen), np.exp(scores - risen)
        total = total * old + weights.sum(axis=1, keepdims=True)
        out = out * old + weights @ value[first : first + cols]
        maximum = risen
    return np.asarray(out / total)


def lower(b: GraphBuilder, x: Tensor, site: Site, _: Flash) -> Tensor:
    """As dense attention, with the order said."""
    query, key, value = project(b, x, site)
    if site.causal or site.decode:
        key, value = cached(b, key, value, site)
    function = "scale_mask" if site.causal and not site.decode else "scale"
    context = attention_core(b, query, key, value, site.heads, function, order="flash")
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="flash",
        title="FlashAttention",
        taxonomy=("dense",),
        complexity="O(N^2)",
        citation='Dao et al., "FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness", '
        "arXiv:2205.14135",
        oracle="torch 2.13.0, scaled_dot_product_attention",
        parameters=Flash,
        lower=lower,
        decode=True,
    )
)
