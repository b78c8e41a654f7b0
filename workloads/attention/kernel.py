"""Attention with a kernel in place of the softmax: what the linear mechanisms have in common.

With features phi(q), phi(k) [n, m] the result is

    y_i = phi(q_i) S / (phi(q_i) z),   S = sum phi(k_j) v_j^T [m, e],   z = sum phi(k_j) [m]

over all j, or over j <= i where causal.

Causal attention over n tokens works in chunks of c (Hua et al., "Transformer Quality in Linear Time",
arXiv:2202.10447, section 3.2): inside a chunk scores are masked products, and what came before is a state per
chunk, found by a prefix sum over the n/c states. Decoding adds one token to the state: nothing grows.
"""

from __future__ import annotations

from tilewright.workloads.attention.base import Values
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import MatmulShape, Tensor


def kernel_reference(query: Values, key: Values, value: Values, *, causal: bool) -> Values:
    """The sums themselves: features [heads, n, m], values [heads, n, e]; one state after the other."""
    states = key[..., :, None] * value[..., None, :]
    sums = key
    if causal:
        states, sums = states.cumsum(axis=-3), sums.cumsum(axis=-2)
    else:
        states, sums = states.sum(axis=-3, keepdims=True), sums.sum(axis=-2, keepdims=True)
    above: Values = (query[..., :, None] * states).sum(axis=-2)
    below: Values = (query * sums).sum(axis=-1, keepdims=True)
    return above / below


def both_ways(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    """Every token sees all: `query` [batch, tokens, heads * m], `key` [batch, tokens, kv_heads * m]."""
    batch, tokens, _ = query.shape
    m, matrices = key.shape[-1] // heads.kv_heads, batch * heads.kv_heads
    shape = MatmulShape(matrices, m, tokens, heads.head_dim)
    state = b.matmul("state", key, value, shape, (matrices, m, heads.head_dim))
    key_sum = b.reduce("key_sum", "sum", key, (matrices, m))
    return _read(b, query, state, key_sum, heads)


def in_chunks(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, heads: Heads, chunk: int, real: int
) -> Tensor:
    """Every token sees itself and earlier ones; the tokens, of which `real` are no padding, are a whole
    number of chunks. Leaves the last state in the caches that `one_token` reads."""
    batch, tokens, _ = query.shape
    m, e, group = key.shape[-1] // heads.kv_heads, heads.head_dim, heads.heads // heads.kv_heads
    chunks = tokens // chunk
    matrices, rows = batch * heads.kv_heads * chunks, group * chunk
    states = b.matmul("chunk_states", key, value, MatmulShape(matrices, m, chunk, e), (matrices, m, e))
    states = b.scan("states", states, chunks)
    key_sums = b.scan("key_sums", b.reduce("chunk_key_sums", "sum", key, (matrices, m)), chunks)
    one = batch * heads.kv_heads
    b.append("state_cache", states, one * m, (one, m, e), in_scope=False)
    b.append("key_sum_cache", key_sums, one, (one, m), in_scope=False)

    pairs = real // chunk * chunk * (chunk + 1) // 2 + real % chunk * (real % chunk + 1) // 2
    size, useful = MatmulShape(matrices, rows, m, chunk), batch * heads.heads * pairs
    out = (batch, tokens, heads.width)
    scores = b.matmul(
        "scores", query, key, size, (matrices, rows, chunk), transpose_b=True, useful_macs=useful * m
    )
    scores = b.elementwise("mask", "mask", scores)
    inside_sum = b.reduce("score_sum", "sum", scores, (batch, tokens, heads.heads))
    size = MatmulShape(matrices, rows, chunk, e)
    inside = b.matmul("inside", scores, value, size, out, useful_macs=useful * e)
    size = MatmulShape(matrices, rows, m, 1)
    weight = b.matmul("normalizer", query, key_sums, size, inside_sum.shape)
    weight = b.elementwise("normalizer_sum", "add", weight, inside_sum)
    context = b.matmul("before", query, states, MatmulShape(matrices, rows, m, e), out)
    context = b.elementwise("context", "add", context, inside)
    return b.divide("normalized", context, weight)


def one_token(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, heads: Heads) -> Tensor:
    """A new token: it joins the state, which its query then reads. How many came before does not matter."""
    batch = query.shape[0]
    m, e, matrices = key.shape[-1] // heads.kv_heads, heads.head_dim, batch * heads.kv_heads
    state, key_sum = b.cache("state_cache", (matrices, m, e)), b.cache("key_sum_cache", (matrices, m))
    outer = b.matmul("outer", key, value, MatmulShape(matrices, m, 1, e), (matrices, m, e))
    state = b.elementwise("state", "add", outer, state)
    key_sum = b.elementwise("key_sum", "add", key, key_sum)
    b.append("new_state", state, matrices * m, (matrices, m, e))
    b.append("new_key_sum", key_sum, batch, (matrices, m))
    return _read(b, query, state, key_sum, heads)


def _read(b: GraphBuilder, query: Tensor, state: Tensor, key_sum: Tensor, heads: Heads) -> Tensor:
    """phi(Q) S / (phi(Q) z)."""
    batch, tokens, _ = query.shape
    matrices, m, e = state.shape
    rows = heads.heads // heads.kv_heads * tokens
    weight = b.matmul(
        "normalizer", query, key_sum, MatmulShape(matrices, rows, m, 1), (batch, tokens, heads.heads)
    )
    shape = MatmulShape(matrices, rows, m, e)
    context = b.matmul("context", query, state, shape, (batch, tokens, heads.width))
    return b.divide("normalized", context, weight)
