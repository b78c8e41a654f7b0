"""ETC: a short global sequence beside the long one.

Ainslie et al., "ETC: Encoding Long and Structured Inputs in Transformers", arXiv:2004.08483. The first
`global_tokens` tokens are the global sequence, the others the long one; both have the same projections here.
Global tokens see everything; a long token sees all global ones and the long ones at most `radius` away, in
one softmax. A learned vector for the relation of query and key is added to the key (Shaw et al.,
arXiv:1803.02155): inside a sequence 2 D + 1 of them for the distance clipped to D = `relative_distance`,
between the sequences one for each direction. Every query meets every vector once, every pair gathers its one.

Per layer of g global and n long tokens, width d: 4 (n + g) d^2 MACs of projections; 2 d per pair of the core,
g^2 + 2 n g + n (2 R + 1) - R (R + 1) pairs for n > R; (n + g)(2 D + 3) d of the relations; an exponential for
each head and pair. The kernel computes whole blocks.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.patterns import (
    Blocked,
    Ints,
    Pattern,
    band_with_globals,
    pattern_attention,
)
from tilewright.workloads.attention.sublayer import output, project, require_both_ways, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import MatmulShape, Tensor


class Etc(Blocked):
    """Global-local attention."""

    kind: Literal["etc"] = "etc"
    global_tokens: Annotated[int, Field(gt=0)] = 256
    """Tokens of the global sequence, which come first."""
    radius: Annotated[int, Field(ge=0)] = 84
    """How far a long token sees, to each side."""
    relative_distance: Annotated[int, Field(ge=0)] = 12
    """Distance beyond which relative positions are all the same."""


def pattern(tokens: int, p: Etc) -> Pattern:
    """Which tokens of both sequences see which."""
    return band_with_globals(tokens, p.radius, p.radius, p.global_tokens)


def relations(tokens: int, p: Etc) -> Ints:
    """The number of the vector [tokens, tokens] that each pair has."""
    most, first = p.relative_distance, p.global_tokens
    i, j = np.mgrid[:tokens, :tokens]
    distance = np.clip(j - i, -most, most) + most
    across = np.where(i < first, 2 * most + 1, 2 * most + 2)
    return np.where((i < first) == (j < first), distance, across)


def reference(query: Values, key: Values, value: Values, vectors: Values, p: Etc) -> Values:
    """`query`, `key`, `value` [heads, n, e], global tokens first; `vectors` [heads, 2 D + 3, e]; returns
    [heads, n, e]."""
    tokens = query.shape[1]
    kind, mask = relations(tokens, p), pattern(tokens, p).dense()
    context = np.empty_like(query)
    for head, i in np.ndindex(query.shape[:2]):
        keys = key[head] + vectors[head, kind[i]]
        scores = keys[mask[i]] @ query[head, i] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        context[head, i] = weights / weights.sum() @ value[head, mask[i]]
    return context


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Etc) -> Tensor:
    """Both sequences at once. Raises `InputError` unless there is a long one."""
    require_both_ways(site, p.kind, "its global tokens see all tokens")
    require_no_rope(site, p.kind, "it has relative ones of its own")
    batch, tokens, _ = x.shape
    if p.global_tokens >= tokens:
        raise InputError(
            f"attention `etc` has {p.global_tokens} global tokens, which leaves none of {tokens} for the "
            "long sequence: set `global_tokens` to less"
        )
    query, key, value = project(b, x, site)
    heads, e, vectors = site.heads.heads, site.heads.head_dim, 2 * p.relative_distance + 3
    table = b.weight("relations.weight", (heads, vectors, e))
    size = MatmulShape(heads, batch * tokens, e, vectors)
    labels = b.matmul("relations", query, table, size, (batch * heads, tokens, vectors), transpose_b=True)
    made = [pattern(tokens, p)]
    context = pattern_attention(b, query, key, value, site.heads, made, p.block, labels)
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="etc",
        title="ETC",
        taxonomy=("fixed pattern", "memory"),
        complexity="O(N_g^2 + N N_g)",
        citation='Ainslie et al., "ETC: Encoding Long and Structured Inputs", arXiv:2004.08483',
        oracle="torch 2.13.0, scaled_dot_product_attention with mask and relative scores by brute force",
        parameters=Etc,
        lower=lower,
        causal=False,
    )
)
