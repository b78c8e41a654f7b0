"""Compressive Transformer: what leaves Transformer-XL's memory is compressed, not forgotten.

Rae, Potapenko, Jayakumar and Lillicrap, "Compressive Transformers for Long-Range Sequence Modelling",
arXiv:1911.05507.

A segment of L tokens attends to [compressed memory; memory; segment], lengths C, M and L, all of them inputs
of this layer:

    S_ij = e^-1/2 (q_i k_j + q_i p_{i-j}),  j <= i + M + C

After each segment the oldest L rows of the memory leave it; every `rate` of them become one row of the
compressed memory, by a convolution with kernel = stride = rate (or by their mean or maximum). Both are
queues. The variant is that of the public code: learned positions p, one per head and distance, for all
layers; keys and values of the memories are worked out again for each segment.

A run of n tokens is s = ceil(n / L) segments, worked on together in a layer; the memories are no longer than
the run fills, and zeros at its beginning. Per layer, with T = C + M + L: s (2 L d^2 + 2 T d^2 + 3 L T d) MACs
and max(0, n - M) d^2 for the compression, h s L T exponentials, and as many elements shifted. One decoded
token is a segment of one, and compresses every `rate`-th time.
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.segments import Segments, relative_scores, seen_pairs, windows
from tilewright.workloads.attention.sublayer import output, padded, require_causal, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


class Compressive(Parameters):
    """Attention with a memory and a compressed memory."""

    kind: Literal["compressive"] = "compressive"
    segment: Annotated[int, Field(gt=0)] = 768
    """Tokens L of a segment (enwik8: 768; PG-19: 512)."""
    memory: Annotated[int, Field(gt=0)] = 768
    """Tokens M before it that it sees as they were (enwik8: 768; PG-19: 512)."""
    compressed: Annotated[int, Field(ge=0)] = 1152
    """Rows C of the compressed memory (enwik8: 1,152; PG-19: 512)."""
    rate: Annotated[int, Field(gt=0)] = 3
    """Tokens that become one row (enwik8: 3; PG-19: 2)."""
    compression: Literal["conv", "mean", "max"] = "conv"
    """How they do."""

    @model_validator(mode="after")
    def _whole_rows_leave_the_memory(self) -> Compressive:
        if self.segment % self.rate:
            raise ValueError(
                f"`segment` ({self.segment}) must be a multiple of `rate` ({self.rate}): that many tokens "
                "leave the memory at a time"
            )
        return self


def reference(query: Values, key: Values, value: Values, positions: Values) -> Values:
    """The core of one segment: `query` [heads, L, e], `key` and `value` [heads, T, e], and `positions`
    [heads, T, e], where positions[:, t] is for distance t; returns [heads, L, e]."""
    length, total = query.shape[1], key.shape[1]
    distance = np.arange(length)[:, None] + (total - length) - np.arange(total)
    content = query @ np.swapaxes(key, -1, -2)
    position = np.einsum("hie,hije->hij", query, positions[:, np.maximum(distance, 0)])
    scores = np.where(distance >= 0, (content + position) / np.sqrt(query.shape[-1]), -np.inf)
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True) @ value)


def remember(
    memory: Values, compressed: Values, segment: Values, weight: Values, bias: Values
) -> tuple[Values, Values]:
    """The memories [M, d] and [C, d] after `segment` [L, d], both kept at their lengths. `weight` is
    [rate, d, d]: for each place of a tap, from inputs to outputs."""
    queue = np.concatenate([memory, segment])
    leaving, kept = queue[: len(segment)], queue[len(segment) :]
    groups = leaving.reshape(-1, len(weight), leaving.shape[-1])
    rows = np.concatenate([compressed, np.einsum("gti,tio->go", groups, weight) + bias])
    return kept, rows[len(rows) - len(compressed) :]


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Compressive) -> Tensor:
    """The sublayer; raises `InputError` where not causal, or with rotary positions."""
    require_causal(site, p.kind, "its memories are what came before")
    require_no_rope(site, p.kind, "it has relative positions of its own")
    length = min(p.segment, x.shape[1])
    count = ceil(x.shape[1] / length)
    before = site.context - 1 if site.decode else (count - 1) * length
    memory = min(p.memory, before)
    cut = Segments(length, count, (min(p.compressed, (before - memory) // p.rate), memory))
    whole = padded(b, x, length)
    seen = _seen_by_one(b, x, site, p, cut) if site.decode else _seen_by_segments(b, x, whole, p, cut)

    heads, batch = site.heads, x.shape[0]
    query = b.linear("query", whole, heads.width, bias=site.bias.query)
    key = b.linear("key", seen, heads.kv_width, bias=site.bias.key)
    value = b.linear("value", seen, heads.kv_width, bias=site.bias.value)
    table = (heads.heads, p.segment + p.memory + p.compressed, heads.head_dim)
    positions = b.weight("compressive.positions", table, shared=True)
    useful = batch * heads.heads * seen_pairs(x.shape[1], length, cut.past)
    weights = relative_scores(b, (query, query), key, positions, heads, cut, useful)
    size = MatmulShape(
        batch * heads.kv_heads * count, heads.heads // heads.kv_heads * length, cut.keys, heads.head_dim
    )
    context = b.matmul(
        "context", weights, value, size, (batch, count * length, heads.width),
        useful_macs=useful * heads.head_dim,
    )  # fmt: skip
    return output(b, context, x, site)


def _seen_by_segments(b: GraphBuilder, x: Tensor, whole: Tensor, p: Compressive, cut: Segments) -> Tensor:
    """[compressed memory; memory; segment] of every segment; leaves the last memories in caches."""
    batch, tokens, width = x.shape
    kept = min(p.memory, tokens)
    b.append("memory", x, batch * kept, (batch, kept, width))
    rows = max(0, tokens - p.memory) // p.rate
    if not rows or not p.compressed:
        return windows(b, whole, cut)
    made, kept = _compress(b, x, rows, p), min(rows, p.compressed)
    b.append("compressed_memory", made, batch * kept, (batch, kept, width))
    return windows(b, whole, cut, made) if cut.memories[0] else windows(b, whole, cut)


def _seen_by_one(b: GraphBuilder, x: Tensor, site: Site, p: Compressive, cut: Segments) -> Tensor:
    """[compressed memory; memory; token], from the caches; every `rate`-th time a row is compressed."""
    batch, _, width = x.shape
    memory = b.append("memory", x, batch, (batch, cut.memories[1] + 1, width))
    older, leaving = cut.memories[0], site.context - p.memory
    if p.compressed and leaving > 0 and leaving % p.rate == 0:
        made = _compress(b, memory, 1, p)
        b.append("compressed_memory", made, batch, (batch, min(p.compressed, older + 1), width))
    if not older:
        return memory
    compressed = b.cache(f"compressed_memory_of_{older}", (batch, older, width))
    return b.gather("windows", "concat", (compressed, memory), (batch, cut.keys, width))


def _compress(b: GraphBuilder, x: Tensor, rows: int, p: Compressive) -> Tensor:
    """The oldest rows of `x`, `rate` of them to one: [batch, rows, width]."""
    batch, _, width = x.shape
    leaving = b.gather("leaving", "slice", (x,), (batch, rows * p.rate, width))
    if p.compression != "conv":
        return b.reduce("compress", p.compression, leaving, (batch, rows, width))
    weight = b.weight("compress.weight", (p.rate * width, width))
    bias = b.weight("compress.bias", (width,))
    shape = MatmulShape(1, batch * rows, p.rate * width, width)
    return b.matmul("compress", leaving, weight, shape, (batch, rows, width), bias=bias)


MECHANISM = register(
    Mechanism(
        kind="compressive",
        title="Compressive Transformer",
        taxonomy=("recurrence",),
        complexity="O(n^2)",
        citation="Rae et al., Compressive Transformers for Long-Range Sequence Modelling, arXiv:1911.05507",
        oracle="compressive-transformer-pytorch 0.4.0, SelfAttention",
        parameters=Compressive,
        lower=lower,
        encode=False,
        decode=True,
        own_projections=True,
    )
)
