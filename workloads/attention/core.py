"""The KV cache of a causal layer, and softmax attention on plain arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.attention.base import Site, Values
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


def cached(
    b: GraphBuilder, key: Tensor, value: Tensor, site: Site, tokens: int | None = None
) -> tuple[Tensor, Tensor]:
    """Write keys and values to caches of `tokens` (default: the context) that later steps read; returns what
    this step attends to: the caches in a decode step, else the fresh ones."""
    room = min(site.context, tokens or site.context)
    batch, fresh, _ = key.shape
    shape = (batch * site.heads.kv_heads, room, site.heads.head_dim)
    key_cache = b.append("key_cache", key, batch * min(fresh, room), shape)
    value_cache = b.append("value_cache", value, batch * min(fresh, room), shape)
    return (key_cache, value_cache) if site.decode else (key, value)


def attend(query: Values, key: Values, value: Values, mask: NDArray[np.bool_] | None = None) -> Values:
    """softmax(Q K^T / sqrt(e)) V on [..., tokens, e] arrays; a query sees the keys where `mask` is True."""
    scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ value)
