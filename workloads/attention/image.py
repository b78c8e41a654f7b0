"""Image Transformer: blocks of queries that share a block of memory.

Parmar et al., "Image Transformer", arXiv:1802.05751, 1-D local attention: pixels (each channel a position of
its own) in raster order; a block of `query_block` queries sees the `memory` positions before the block, and
its own block up to each query itself.

Per layer of n positions and width d, l_q = `query_block`, l_m = `memory`: 4 n d^2 MACs of projections and
2 n (l_q + l_m) d of the core (l_m in whole blocks, less what falls before the first position), of which 2 d
per pair are useful; an exponential for each head, query and key.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import Pattern, pattern_attention, runs
from tilewright.workloads.attention.sublayer import output, project, require_causal
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


class Image(Parameters):
    """1-D local attention."""

    kind: Literal["image"] = "image"
    query_block: Annotated[int, Field(gt=0)] = 256
    """Queries of a block."""
    memory: Annotated[int, Field(ge=0)] = 256
    """Positions before the block that it sees."""


def pattern(tokens: int, p: Image) -> Pattern:
    """Which positions see which."""
    first = np.arange(0, tokens, p.query_block)
    count = np.minimum(p.query_block, tokens - first)
    return Pattern(tokens, tokens, runs(first, count, first - p.memory, first + 1, steps=(0, 1)))


def reference(query: Values, key: Values, value: Values, p: Image) -> Values:
    """`query`, `key`, `value` [heads, n, e]; returns [heads, n, e]."""
    return attend(query, key, value, pattern(query.shape[1], p).dense())


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Image) -> Tensor:
    """A batch of small matmuls, `query_block` queries by as many keys at a time."""
    require_causal(site, p.kind, "its memory lies before the queries")
    query, key, value = project(b, x, site)
    made = [pattern(x.shape[1], p)]
    return output(b, pattern_attention(b, query, key, value, site.heads, made, p.query_block), x, site)


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
    )
)
