"""StreamingLLM: the first few tokens, which draw attention whatever they say, and a window of recent ones.

Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453. The cache holds the
first `sinks` tokens and the last `window`, the new one included; older ones in between are dropped. Positions
are those inside the cache, so that keys are cached as they are and rotated anew at every step.

Per layer of n tokens and width d: 4 n d^2 MACs of projections (with as many KV heads as heads), 2 d pairs of
the core, sum over queries i of min(i + 1, sinks + window) pairs; h exponentials per pair. A decode step:
2 min(context, sinks + window) d.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.patterns import Blocked, Pattern, joined, pattern_attention, runs
from tilewright.workloads.attention.sublayer import output, project, require_causal
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import Tensor


class Streaming(Blocked):
    """Sinks and a window."""

    kind: Literal["streaming"] = "streaming"
    sinks: Annotated[int, Field(ge=0)] = 4
    """Tokens at the beginning that stay."""
    window: Annotated[int, Field(gt=0)] = 1020
    """Most recent tokens, the new one included (the paper's cache of 1,024 less its sinks)."""


def pattern(tokens: int, p: Streaming) -> Pattern:
    """Which tokens see which while a whole sequence is worked on."""
    first = min(p.sinks, tokens)
    rest = tokens - first
    made = joined(
        runs(0, first, 0, 1, steps=(0, 1)),
        runs(first, rest, 0, first),
        runs(first, rest, first - p.window + 1, first + 1, steps=(1, 1), floor=first),
    )
    return Pattern(tokens, tokens, made)


def reference(query: Values, key: Values, value: Values, p: Streaming) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e], rotated if they are to be; returns
    [heads, n, e]."""
    share = len(query) // len(key)
    mask = pattern(query.shape[1], p).dense()
    return attend(query, key.repeat(share, axis=0), value.repeat(share, axis=0), mask)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Streaming) -> Tensor:
    """Keys go to the cache unrotated; a decode step rotates all that it reads."""
    require_causal(site, p.kind, "it drops earlier tokens as later ones come")
    query, key, value = project(b, x, replace(site, rope=None))
    key, value = cached(b, key, value, site, p.sinks + p.window)
    if site.rope is not None:
        query = b.elementwise("query_rope", "rope", query, site.rope)
        key = b.elementwise("key_rope", "rope", key, site.rope)
    if site.decode:
        context = attention_core(b, query, key, value, site.heads)
    else:
        made = [pattern(x.shape[1], p)]
        context = pattern_attention(b, query, key, value, site.heads, made, p.block)
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="streaming",
        title="StreamingLLM",
        taxonomy=("cache eviction",),
        complexity="O(N w)",
        citation=(
            'Xiao et al., "Efficient Streaming Language Models with Attention Sinks", arXiv:2309.17453'
        ),
        oracle="attention-sinks 0.4.0, AttentionSinkKVCache",
        parameters=Streaming,
        lower=lower,
        encode=False,
        decode=True,
    )
)
