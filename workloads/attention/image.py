"""Image Transformer: blocks of queries that share a block of memory.

Parmar et al., "Image Transformer", arXiv:1802.05751, section 3.3. Pixels (each channel a position of its own)
are generated in raster order; a block of queries sees its memory, and its own block up to each query itself.

1-D: blocks of `query_block` = l_q positions; their memory is the `memory` = l_m positions before the block.

2-D: the image is cut into blocks of `block_rows` x `block_columns` (h_q x w_q) positions, generated block
after block in raster order, and in raster order inside each; tokens are numbered in that order. The memory is
what `memory_rows` (h_m) above and `memory_columns` (w_m) to both sides add to the block, as far as it was
generated earlier. The kernel is that of tensor2tensor, `masked_local_attention_2d`: the memory of each block
is gathered, all (h_q + h_m) (w_q + 2 w_m) positions of it, with zeros outside of the image, and masked.

Per layer of n positions and width d: 4 n d^2 MACs of projections; 2 n (l_q + l_m) d of the core (l_m in whole
blocks, less what falls before the first position), in 2-D 2 n (h_q + h_m) (w_q + 2 w_m) d, and as much
gathered for each block of queries; of which 2 d per pair are useful; an exponential for each head, query and
key.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.patterns import (
    Ints,
    Pattern,
    Runs,
    joined,
    pattern_attention,
    runs,
)
from tilewright.workloads.attention.sublayer import output, padded, project, require_causal
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads, attention_core
from tilewright.workloads.operators import MatmulShape, Tensor

_ONE_D = ("query_block", "memory")
_TWO_D = ("columns", "block_rows", "block_columns", "memory_rows", "memory_columns")


class Image(Parameters):
    """Local attention in one dimension or two."""

    kind: Literal["image"] = "image"
    form: Literal["1d", "2d"] = "1d"
    """Whether blocks are stretches of the raster, or rectangles."""
    query_block: Annotated[int, Field(gt=0)] = 256
    """1-D: queries of a block."""
    memory: Annotated[int, Field(ge=0)] = 256
    """1-D: positions before the block that it sees."""
    columns: Annotated[int, Field(gt=0)] | None = None
    """2-D: positions in a row of the image (pixels times channels), a multiple of `block_columns`; by default
    those of a square image, rounded up to whole blocks."""
    block_rows: Annotated[int, Field(gt=0)] = 8
    """2-D: rows of a block of queries (tensor2tensor: 8 x 16)."""
    block_columns: Annotated[int, Field(gt=0)] = 16
    """2-D: columns of a block of queries."""
    memory_rows: Annotated[int, Field(ge=0)] = 8
    """2-D: rows above the block that it sees (tensor2tensor: 8, and 16 to each side)."""
    memory_columns: Annotated[int, Field(ge=0)] = 16
    """2-D: columns to each side of the block that it sees."""

    @model_validator(mode="after")
    def _only_its_forms_sizes(self) -> Image:
        for name in _TWO_D if self.form == "1d" else _ONE_D:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is not for `form: {self.form}`")
        if self.columns is not None and self.columns % self.block_columns:
            raise ValueError(
                f"`columns` ({self.columns}) must be a multiple of `block_columns` ({self.block_columns})"
            )
        return self

    @property
    def block_size(self) -> int:
        """Queries of a block."""
        return self.query_block if self.form == "1d" else self.block_rows * self.block_columns

    @property
    def memory_area(self) -> int:
        """Positions of a 2-D block with its memory."""
        return (self.block_rows + self.memory_rows) * (self.block_columns + 2 * self.memory_columns)

    def width(self, tokens: int) -> int:
        """Positions in a row of an image that begins with so many tokens."""
        if self.columns is not None:
            return self.columns
        return -(-(isqrt(tokens - 1) + 1) // self.block_columns) * self.block_columns


def pattern(tokens: int, p: Image) -> Pattern:
    """Which positions see which, in the order of generation."""
    blocks = np.arange(-(-tokens // p.block_size))
    return Pattern(tokens, tokens, _of_blocks(blocks, tokens, p))


def _of_blocks(block: Ints, tokens: int, p: Image) -> Runs:
    """What some blocks of queries see."""
    first = block * p.block_size
    count = np.minimum(p.block_size, tokens - first)
    if p.form == "1d":
        return runs(first, count, first - p.memory, first + 1, steps=(0, 1))
    own = runs(first, count, first, first + 1, steps=(0, 1))
    return joined(own, *_memory(block, first, count, p, p.width(tokens) // p.block_columns))


def _memory(block: Ints, first: Ints, count: Ints, p: Image, across: int) -> Iterator[Runs]:
    """Each row of 2-D memory in each block that was generated earlier; `across` blocks make a row of them."""
    down, right = np.divmod(block, across)
    reach = -(-p.memory_columns // p.block_columns)
    for step in range(-reach, reach + 1):
        # columns of the block `right + step` in the memory, from that block's left edge
        low = max(-p.memory_columns - step * p.block_columns, 0)
        high = min((1 - step) * p.block_columns + p.memory_columns, p.block_columns)
        for row in range(-p.memory_rows, p.block_rows if step < 0 else 0):
            above, inside = divmod(row, p.block_rows)
            seen = (right + step >= 0) & (right + step < across) & (down + above >= 0)
            start = (block + above * across + step) * p.block_size + inside * p.block_columns
            yield runs(first[seen], count[seen], start[seen] + low, start[seen] + high)


def reference(query: Values, key: Values, value: Values, p: Image) -> Values:
    """`query`, `key`, `value` [heads, n, e] in the order of generation; returns [heads, n, e]."""
    return attend(query, key, value, pattern(query.shape[1], p).dense())


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Image) -> Tensor:
    """A batch of small matmuls, a block of queries by its memory at a time."""
    require_causal(site, p.kind, "its memory lies before the queries")
    if site.decode:
        return _decode(b, x, site, p)
    tokens = x.shape[1]
    whole = padded(b, x, p.block_size) if p.form == "2d" else x
    query, key, value = project(b, whole, site)
    cached(b, key, value, site, _kept(tokens, p))
    made = pattern(tokens, p)
    if p.form == "1d":
        context = pattern_attention(b, query, key, value, site.heads, [made], p.query_block)
    else:
        context = _in_rectangles(b, query, key, value, site.heads, p, made.nnz())
    return output(b, context, x, site)


def _in_rectangles(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, heads: Heads, p: Image, pairs: int
) -> Tensor:
    """Every block of queries with its gathered memory; `pairs` of a query and a key are seen in a head."""
    batch, tokens, _ = query.shape
    matrices, e = batch * heads.kv_heads * (tokens // p.block_size), heads.head_dim
    rows, keys = heads.heads // heads.kv_heads * p.block_size, p.memory_area
    if p.memory_rows or p.memory_columns:
        key = b.gather("memory_keys", "blocks", (key,), (matrices, keys, e))
        value = b.gather("memory_values", "blocks", (value,), (matrices, keys, e))
    useful = batch * heads.heads * pairs * e
    size, shape = MatmulShape(matrices, rows, e, keys), (matrices, rows, keys)
    scores = b.matmul("scores", query, key, size, shape, transpose_b=True, useful_macs=useful)
    weights = b.softmax("softmax", b.elementwise("scale_mask", "scale_mask", scores))
    size = MatmulShape(matrices, rows, keys, e)
    return b.matmul("context", weights, value, size, query.shape, useful_macs=useful)


def _kept(tokens: int, p: Image) -> int:
    """Positions, up to the newest, that a cache must hold for the next."""
    if p.form == "1d":
        return p.memory + p.query_block
    blocks = 1 + -(-p.memory_columns // p.block_columns)
    if p.memory_rows:
        blocks += -(-p.memory_rows // p.block_rows) * (p.width(tokens) // p.block_columns)
    return blocks * p.block_size


def _decode(b: GraphBuilder, x: Tensor, site: Site, p: Image) -> Tensor:
    """One position: its memory, gathered from the cache in 2-D, and its block so far."""
    if p.form == "2d" and p.columns is None:
        raise InputError(
            "attention `image` can't take one token at a time without the width of the image: set `columns`"
        )
    query, key, value = project(b, x, site)
    seen = _seen_by_last(site.context, p)
    if p.form == "1d":
        key, value = cached(b, key, value, site, seen)
    else:
        key, value = cached(b, key, value, site, _kept(site.context, p))
        if seen < key.shape[1]:
            shape = (key.shape[0], seen, key.shape[2])
            key = b.gather("memory_keys", "blocks", (key,), shape)
            value = b.gather("memory_values", "blocks", (value,), shape)
    return output(b, attention_core(b, query, key, value, site.heads), x, site)


def _seen_by_last(tokens: int, p: Image) -> int:
    """Positions that the last of `tokens` sees, itself included."""
    last = _of_blocks(np.array([(tokens - 1) // p.block_size]), tokens, p).cut(1)
    width = np.minimum(last.stop, last.ceiling) - np.maximum(last.start, last.floor)
    return int(width[last.row == tokens - 1].sum())


MECHANISM = register(
    Mechanism(
        kind="image",
        title="Image Transformer",
        taxonomy=("fixed pattern",),
        complexity="O(N m)",
        citation='Parmar et al., "Image Transformer", arXiv:1802.05751',
        oracle="torch 2.13.0, scaled_dot_product_attention with the mask by brute force",
        parameters=Image,
        lower=lower,
        encode=False,
        decode=True,
    )
)
