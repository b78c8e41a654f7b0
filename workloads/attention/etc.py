"""ETC: a short global sequence beside the long one.

Ainslie et al., "ETC: Encoding Long and Structured Inputs in Transformers", arXiv:2004.08483. The first
`global_tokens` tokens are the global sequence, the others the long one. Global tokens see everything; a long
token sees all global ones and the long ones at most `radius` away, in one softmax. A learned vector for the
relation of query and key is added to the key (Shaw et al., arXiv:1803.02155): inside a sequence 2 D + 1 of
them for the distance clipped to D = `relative_distance`, between the sequences one for each direction. Every
query meets every vector once, every pair gathers its one.

Each of the four pieces (global to global, global to long, ...) has key and value projections of its own, each
sequence its query and output projections and its vectors: 12 matrices (`FusedGlobalLocalAttention` of the
authors' google-research/etcmodel; so ETC base comes to 166 M parameters). With `shared_projections` both
sequences and all pieces have the same 4, as in BERT (109 M).

Per layer of g global and n long tokens, width d: 6 (n + g) d^2 MACs of projections, 4 (n + g) d^2 if they are
shared; 2 d per pair of the core, g^2 + 2 n g + n (2 R + 1) - R (R + 1) pairs for n > R; (n + g)(2 D + 3) d of
the relations; an exponential for each head and pair. The kernel computes whole blocks.
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
    full,
    joined,
    pattern_attention,
    runs,
)
from tilewright.workloads.attention.sublayer import output, project, require_both_ways, require_no_rope
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads
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
    shared_projections: bool = False
    """Whether both sequences and all four pieces of attention have the same projections."""


def pattern(tokens: int, p: Etc) -> Pattern:
    """Which tokens of both sequences see which."""
    return band_with_globals(tokens, p.radius, p.radius, p.global_tokens)


def pieces(tokens: int, p: Etc) -> dict[str, Pattern]:
    """Which tokens of both the tokens of each sequence see."""
    count, long = p.global_tokens, tokens - p.global_tokens
    near = runs(0, long, count - p.radius, count + p.radius + 1, steps=(1, 1), floor=count, ceiling=tokens)
    return {
        "long": Pattern(long, tokens, joined(runs(0, long, 0, count), near)),
        "global": full(count, tokens),
    }


def relations(tokens: int, p: Etc) -> Ints:
    """The number of the vector [tokens, tokens] that each pair has."""
    most, first = p.relative_distance, p.global_tokens
    i, j = np.mgrid[:tokens, :tokens]
    distance = np.clip(j - i, -most, most) + most
    across = np.where(i < first, 2 * most + 1, 2 * most + 2)
    return np.where((i < first) == (j < first), distance, across)


def reference(
    query: Values,
    key: Values,
    value: Values,
    vectors: Values,
    p: Etc,
    own: tuple[Values, Values] | None = None,
) -> Values:
    """`query`, `key`, `value` [heads, n, e], global tokens first; `vectors` [heads, 2 D + 3, e]; `own`: the
    keys and values that global tokens see, if others than long ones do; returns [heads, n, e]."""
    tokens = query.shape[1]
    kind, mask = relations(tokens, p), pattern(tokens, p).dense()
    context = np.empty_like(query)
    for head, i in np.ndindex(query.shape[:2]):
        keys, values = own if own is not None and i < p.global_tokens else (key, value)
        scores = (keys[head] + vectors[head, kind[i]])[mask[i]] @ query[head, i] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        context[head, i] = weights / weights.sum() @ values[head, mask[i]]
    return context


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Etc) -> Tensor:
    """Both sequences. Raises `InputError` unless there is a long one."""
    require_both_ways(site, p.kind, "its global tokens see all tokens")
    require_no_rope(site, p.kind, "it has relative ones of its own")
    tokens = x.shape[1]
    if p.global_tokens >= tokens:
        raise InputError(
            f"attention `etc` has {p.global_tokens} global tokens, which leaves none of {tokens} for the "
            "long sequence: set `global_tokens` to less"
        )
    if not p.shared_projections:
        return _by_pieces(b, x, site, p)
    query, key, value = project(b, x, site)
    labels = _labels(b, query, site.heads, p)
    made = [pattern(tokens, p)]
    context = pattern_attention(b, query, key, value, site.heads, made, p.block, labels)
    return output(b, context, x, site)


def _labels(b: GraphBuilder, query: Tensor, heads: Heads, p: Etc) -> Tensor:
    """Every query's product with every vector, [batch * heads, tokens, vectors]."""
    batch, tokens, _ = query.shape
    vectors = 2 * p.relative_distance + 3
    table = b.weight("relations.weight", (heads.heads, vectors, heads.head_dim))
    size = MatmulShape(heads.heads, batch * tokens, heads.head_dim, vectors)
    out = (batch * heads.heads, tokens, vectors)
    return b.matmul("relations", query, table, size, out, transpose_b=True)


def _by_pieces(b: GraphBuilder, x: Tensor, site: Site, p: Etc) -> Tensor:
    """Each sequence with its own projections and vectors, over its own keys and values of both."""
    count, made = p.global_tokens, []
    for name, seen in pieces(x.shape[1], p).items():
        with b.scope(name):
            query = _project(b, "query", x, seen.queries, site.heads.width, bias=site.bias.query)
            key = _both(b, "key", x, count, site.heads.kv_width, bias=site.bias.key)
            value = _both(b, "value", x, count, site.heads.kv_width, bias=site.bias.value)
            labels = _labels(b, query, site.heads, p)
            context = pattern_attention(b, query, key, value, site.heads, [seen], p.block, labels)
            made.append(b.linear("output", context, x.shape[-1], bias=site.bias.output))
    return b.place("placed", made[0], (made[1],), x.shape)


def _project(b: GraphBuilder, name: str, x: Tensor, rows: int, width: int, *, bias: bool) -> Tensor:
    """A dense layer on `rows` tokens of each sequence of x."""
    batch, _, k = x.shape
    weight = b.weight(f"{name}.weight", (k, width))
    offset = b.weight(f"{name}.bias", (width,)) if bias else None
    size, out = MatmulShape(1, batch * rows, k, width), (batch, rows, width)
    return b.matmul(name, x, weight, size, out, bias=offset, views=True)


def _both(b: GraphBuilder, name: str, x: Tensor, count: int, width: int, *, bias: bool) -> Tensor:
    """Keys or values of all tokens: those of the long sequence, and those of `count` global tokens, which are
    copied to their places before them."""
    batch, tokens, _ = x.shape
    long = _project(b, f"{name}_long", x, tokens - count, width, bias=bias)
    short = _project(b, f"{name}_global", x, count, width, bias=bias)
    return b.place(f"{name}s", long, (short,), (batch, tokens, width))


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
