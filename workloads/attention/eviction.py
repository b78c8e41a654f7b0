"""KV caches that keep some of the tokens: what H2O, SnapKV and TOVA have in common.

All three are exact over the prompt, whose keys and values they thin out at its end, and then attend with one
token at a time to what is left. Rotary positions are those at which a token stood.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.attention.base import Site, Values
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import causal_pairs
from tilewright.workloads.operators import MatmulShape, Tensor

Slots = NDArray[np.intp]


def softmax(scores: Values) -> Values:
    """Over the last axis."""
    weights: Values = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def causal_weights(query: Values, key: Values) -> Values:
    """Weights [kv_heads, heads / kv_heads, n, n] of dense causal attention; `query` [heads, n, e], `key`
    [kv_heads, n, e]."""
    kv_heads, tokens, width = key.shape
    grouped = query.reshape(kv_heads, -1, tokens, width)
    scores = grouped @ key[:, None].swapaxes(-1, -2) / np.sqrt(width)
    return softmax(np.where(np.tri(tokens, dtype=bool), scores, -np.inf))


def attend_one(query: Values, key: Values, value: Values, slots: list[Slots]) -> tuple[Values, list[Values]]:
    """One token's `query` [heads, e] against the tokens in each KV head's `slots`.

    Returns [heads, e], and of each KV head the weights [heads / kv_heads, slots].
    """
    kv_heads, _, width = key.shape
    grouped = query.reshape(kv_heads, -1, width)
    weights = [softmax(grouped[g] @ key[g, slots[g]].T / np.sqrt(width)) for g in range(kv_heads)]
    out = np.concatenate([weights[g] @ value[g, slots[g]] for g in range(kv_heads)])
    return out, weights


def largest(score: Values, count: int) -> Slots:
    """Positions of the `count` largest, in ascending order; of equals, the earlier ones."""
    return np.sort(np.argsort(-score, kind="stable")[:count])


def prompt_attention(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site
) -> tuple[Tensor, Tensor]:
    """Dense causal attention; also its weights, [batch * kv_heads, heads / kv_heads * tokens, tokens]."""
    heads, (batch, tokens, _) = site.heads, query.shape
    matrices, rows = batch * heads.kv_heads, heads.heads // heads.kv_heads * tokens
    shape = MatmulShape(matrices, rows, heads.head_dim, tokens)
    useful = batch * heads.heads * causal_pairs(tokens, tokens) * heads.head_dim
    out = (matrices, rows, tokens)
    scores = b.matmul("scores", query, key, shape, out, transpose_b=True, useful_macs=useful)
    weights = b.softmax("softmax", b.elementwise("scale_mask", "scale_mask", scores))
    shape = MatmulShape(matrices, rows, tokens, heads.head_dim)
    made = b.matmul("context", weights, value, shape, (batch, tokens, heads.width), useful_macs=useful)
    return made, weights


def token_attention(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site
) -> tuple[Tensor, Tensor]:
    """One token against caches [batch * kv_heads, slots, head_dim]; also its weights, [batch * kv_heads,
    heads / kv_heads, slots]."""
    heads, (batch, _, _) = site.heads, query.shape
    matrices, slots, _ = key.shape
    group = heads.heads // heads.kv_heads
    shape = MatmulShape(matrices, group, heads.head_dim, slots)
    scores = b.matmul("scores", query, key, shape, (matrices, group, slots), transpose_b=True)
    weights = b.softmax("softmax", b.elementwise("scale", "scale", scores))
    shape = MatmulShape(matrices, group, slots, heads.head_dim)
    return b.matmul("context", weights, value, shape, (batch, 1, heads.width)), weights


def keep_all(b: GraphBuilder, key: Tensor, value: Tensor, site: Site, slots: int) -> None:
    """Write a prompt that fits to caches of `slots` tokens."""
    batch, tokens, _ = key.shape
    shape = (batch * site.heads.kv_heads, slots, site.heads.head_dim)
    b.append("key_cache", key, batch * tokens, shape)
    b.append("value_cache", value, batch * tokens, shape)


def keep(
    b: GraphBuilder, key: Tensor, value: Tensor, chosen: Tensor, kept: int, site: Site, slots: int
) -> None:
    """Gather `kept` tokens of each KV head, the `chosen` and the latest, into caches of `slots` tokens."""
    matrices, head_dim = key.shape[0] * site.heads.kv_heads, site.heads.head_dim
    for name, source in (("key", key), ("value", value)):
        rows = b.gather(f"kept_{name}s", "lookup", (source, chosen), (matrices, kept, head_dim))
        b.append(f"{name}_cache", rows, matrices * kept, (matrices, slots, head_dim))


def put(
    b: GraphBuilder, key: Tensor, value: Tensor, victim: Tensor | None, site: Site, slots: int
) -> tuple[Tensor, Tensor]:
    """Write one token's key and value to caches of `slots` tokens, over the `victim` if they are full."""
    batch = key.shape[0]
    shape = (batch * site.heads.kv_heads, slots, site.heads.head_dim)
    return (
        b.append("key_cache", key, batch, shape, at=victim),
        b.append("value_cache", value, batch, shape, at=victim),
    )


def state(b: GraphBuilder, name: str, rows: int, slots: int) -> Tensor:
    """What the last step stored for each of `slots` tokens, in `rows` rows.

    The number of slots stands in its name: until a cache is full, each step of a generation has more of them.
    """
    return b.cache(f"{name}_{slots}", (rows, slots))
