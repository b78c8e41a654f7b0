"""Sparse Transformer: two sparse patterns that together reach every token in two steps.

Child, Gray, Radford and Sutskever, "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509;
causal, with stride l near the root of n.

- `fixed`: query i sees its own block of l tokens up to itself, and the last `summary` tokens of every earlier
  block, in one softmax (the paper's merged heads). Summaries are gathered once, in front of the keys.
- `strided`: half of the heads are local (i - l <= j <= i), half take every l-th token (i - j divisible by l);
  `part` gives all heads one of the two, for models that alternate them by layer.

Per layer of n tokens and width d: 4 n d^2 MACs of projections, 2 d per pair of the core, h exponentials per n
pairs. Pairs of a query i: fixed (i mod l) + 1 + c floor(i / l); local min(i, l) + 1; strided
floor(i / l) + 1. The kernel computes whole blocks.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend
from tilewright.workloads.attention.patterns import (
    Blocked,
    Pattern,
    band,
    joined,
    pattern_attention,
    runs,
    strided,
)
from tilewright.workloads.attention.sublayer import output, project, require_causal
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor


class Sparse(Blocked):
    """Factorised causal attention."""

    kind: Literal["sparse"] = "sparse"
    layout: Literal["fixed", "strided"] = "fixed"
    """Which pair of patterns."""
    stride: Annotated[int, Field(gt=0)] = 128
    """Tokens of a block (fixed), or distance of the tokens that are seen (strided)."""
    summary: Annotated[int, Field(gt=0)] = 32
    """Tokens at the end of a block that all later ones see; `fixed` only."""
    part: Literal["both", "local", "strided"] = "both"
    """Which of the strided patterns the heads have: half of them each, or all one; `strided` only."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Sparse:
        if self.summary > self.stride:
            raise ValueError(f"`summary` ({self.summary}) can't exceed `stride` ({self.stride})")
        if self.layout == "fixed" and self.part != "both":
            raise ValueError("`part` is for `layout: strided`; heads of `fixed` have both parts in one")
        return self


def masks(tokens: int, heads: int, p: Sparse) -> NDArray[np.bool_]:
    """The definition, [heads, tokens, tokens]."""
    i, j = np.mgrid[:tokens, :tokens]
    if p.layout == "fixed":
        seen = (i // p.stride == j // p.stride) | (j % p.stride >= p.stride - p.summary)
        return np.broadcast_to(seen & (j <= i), (heads, tokens, tokens))
    local, far = (i - j <= p.stride) & (j <= i), ((i - j) % p.stride == 0) & (j <= i)
    return np.stack([local if head < _local_heads(heads, p) else far for head in range(heads)])


def _local_heads(heads: int, p: Sparse) -> int:
    return {"both": (heads + 1) // 2, "local": heads, "strided": 0}[p.part]


def reference(query: Values, key: Values, value: Values, p: Sparse) -> Values:
    """`query`, `key`, `value` [heads, n, e]; returns [heads, n, e]."""
    return attend(query, key, value, masks(query.shape[1], len(query), p))


def fixed_pattern(tokens: int, p: Sparse) -> Pattern:
    """Queries against the summaries of all whole blocks, followed by the tokens themselves."""
    first = np.arange(0, tokens, p.stride)
    count, known = np.minimum(p.stride, tokens - first), tokens // p.stride * p.summary
    own = runs(first, count, known + first, known + first + 1, steps=(0, 1))
    earlier = runs(first, count, 0, first // p.stride * p.summary)
    return Pattern(tokens, known + tokens, joined(earlier, own))


def strided_patterns(tokens: int, heads: int, p: Sparse) -> list[Pattern]:
    """One for all heads, or one for each."""
    local, far = band(tokens, p.stride, 0), strided(tokens, p.stride, tokens, 0)
    number = _local_heads(heads, p)
    if number in (0, heads):
        return [local if number else far]
    return [local] * number + [far] * (heads - number)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Sparse) -> Tensor:
    """Projections, then the blocks of whatever the heads see."""
    require_causal(site, p.kind, "its patterns are those of a generator")
    query, key, value = project(b, x, site)
    tokens = x.shape[1]
    if p.layout == "fixed":
        key, value = (_with_summaries(b, name, y, p) for name, y in (("key", key), ("value", value)))
        made = [fixed_pattern(tokens, p)]
    else:
        made = strided_patterns(tokens, site.heads.heads, p)
    return output(b, pattern_attention(b, query, key, value, site.heads, made, p.block), x, site)


def _with_summaries(b: GraphBuilder, name: str, x: Tensor, p: Sparse) -> Tensor:
    """The last `summary` tokens of each whole block, copied in front of all tokens."""
    batch, tokens, width = x.shape
    count = tokens // p.stride * p.summary
    if not count:
        return x
    summaries = b.gather(f"{name}_summaries", "slice", (x,), (batch, count, width))
    return b.place(f"{name}_with_summaries", x, (summaries,), (batch, count + tokens, width))


MECHANISM = register(
    Mechanism(
        kind="sparse",
        title="Sparse Transformer",
        taxonomy=("fixed pattern",),
        complexity="O(N sqrt N)",
        citation='Child et al., "Generating Long Sequences with Sparse Transformers", arXiv:1904.10509',
        oracle="deepspeed 0.12.6, FixedSparsityConfig, and torch 2.13.0, scaled_dot_product_attention",
        parameters=Sparse,
        lower=lower,
        encode=False,
    )
)
