"""Memory-compressed attention (T-DMCA): local layers, and layers whose keys and values are compressed.

Liu et al., "Generating Wikipedia by Summarizing Long Sequences", arXiv:1801.10198; the paper stacks them
L M L M L, so `layer` says which this is.

- `local`: blocks of `local_block` tokens, dense (causal: lower-triangular) inside.
- `compressed`: keys and values pass a convolution with kernel and stride `compression`, padded on the left
  with zeros to a whole number, and a learned null key and value stand before them, which every query sees.
  Causal: a compressed key is seen once the last position that it covers is.

Per layer of n tokens and width d, c = `compression`, m = ceil(n / c): 4 n d^2 MACs of projections;
2 c m d^2 / groups of the convolutions and 2 n (m + 1) d of the core, h n (m + 1) exponentials (causal: blocks
of them); or 2 n b d of the local core with blocks of b. `grouped`: the convolution keeps heads apart.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import (
    Blocked,
    Pattern,
    block_diagonal,
    pattern_attention,
    runs,
)
from tilewright.workloads.attention.sublayer import output, padded, project, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import MatmulShape, Tensor


class MemoryCompressed(Blocked):
    """Local or compressed attention."""

    kind: Literal["memory_compressed"] = "memory_compressed"
    layer: Literal["local", "compressed"] = "compressed"
    """Which of the paper's two layers."""
    local_block: Annotated[int, Field(gt=0)] = 256
    """Tokens of a local block."""
    compression: Annotated[int, Field(gt=0)] = 3
    """Tokens that become one."""
    grouped: bool = False
    """Whether the convolution works on each head alone."""


def compressed_pattern(tokens: int, p: MemoryCompressed) -> Pattern:
    """Causal queries against the null key and the compressed ones."""
    c = p.compression
    padding = -tokens % c
    keys = (tokens + padding) // c
    end = np.arange(keys + 1) * c - padding  # queries from here up to the next see that many compressed keys
    first = np.maximum(end - 1, 0)
    count = np.append(first[1:], tokens) - first
    return Pattern(tokens, keys + 1, runs(first, count, 0, np.arange(1, keys + 2)))


def compress(x: Values, kernel: Values, bias: Values, null: Values) -> Values:
    """x [n, d] to [ceil(n / c) + 1, d]: zeros on the left, `kernel` [d out, d in, c] every c positions,
    `null` [1, d] in front."""
    c = kernel.shape[-1]
    whole = np.pad(x, ((-len(x) % c, 0), (0, 0))).reshape(-1, c, x.shape[1])
    return np.concatenate((null, np.einsum("tki,oik->to", whole, kernel) + bias))


def reference(query: Values, key: Values, value: Values, p: MemoryCompressed, *, causal: bool) -> Values:
    """The core: `query` [heads, n, e]; `key` and `value` [heads, n, e] of a local layer, or as `compress`
    makes them, by head; returns [heads, n, e]."""
    tokens = query.shape[1]
    if p.layer == "local":
        return attend(query, key, value, block_diagonal(tokens, p.local_block, causal=causal).dense())
    return attend(query, key, value, compressed_pattern(tokens, p).dense() if causal else None)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: MemoryCompressed) -> Tensor:
    """The layer that `layer` names."""
    tokens = x.shape[1]
    if p.layer == "local":
        query, key, value = project(b, x, site)
        made = block_diagonal(tokens, p.local_block, causal=site.causal)
        context = pattern_attention(b, query, key, value, site.heads, [made], p.local_block)
        return output(b, context, x, site)
    require_no_rope(site, p.kind, "compressed keys stand for several positions")
    query, key, value = project(b, x, site)
    with b.scope("compressed_key"):
        key = _compressed(b, key, site, p)
    with b.scope("compressed_value"):
        value = _compressed(b, value, site, p)
    if site.causal:
        made = compressed_pattern(tokens, p)
        context = pattern_attention(b, query, key, value, site.heads, [made], p.block)
    else:
        context = attention_core(b, query, key, value, site.heads)
    return output(b, context, x, site)


def _compressed(b: GraphBuilder, x: Tensor, site: Site, p: MemoryCompressed) -> Tensor:
    """The convolution, whose windows lie in memory as rows of a matrix, and the null row put before it."""
    x = padded(b, x, p.compression)
    batch, tokens, width = x.shape
    rows, groups = tokens // p.compression, site.heads.kv_heads if p.grouped else 1
    part = width // groups
    kernel = b.weight("conv.weight", (groups, p.compression * part, part))
    bias = b.weight("conv.bias", (width,))
    shape = MatmulShape(groups, batch * rows, p.compression * part, part)
    made = b.matmul("conv", x, kernel, shape, (batch, rows, width), bias=bias)
    null = b.weight("null", (1, width))
    null = null if batch == 1 else b.gather("nulls", "repeat", (null,), (batch, 1, width))
    return b.place("with_null", made, (null,), (batch, rows + 1, width))


MECHANISM = register(
    Mechanism(
        kind="memory_compressed",
        title="Memory Compressed Transformer",
        taxonomy=("fixed pattern", "memory"),
        complexity="O(N c^2)",
        citation='Liu et al., "Generating Wikipedia by Summarizing Long Sequences", arXiv:1801.10198',
        oracle="memory-compressed-attention 0.0.7, MemoryCompressedAttention",
        parameters=MemoryCompressed,
        lower=lower,
    )
)
