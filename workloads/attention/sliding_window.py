"""Sliding-window attention: a token sees the `window` tokens that end with itself.

Beltagy, Peters and Cohan, arXiv:2004.05150, as Mistral 7B has it (Jiang et al., arXiv:2310.06825): causal,
query i sees i - window < j <= i, `window` keys including itself; the KV cache is a ring of as many tokens. In
an encoder, ModernBERT's form (Warner et al., arXiv:2412.13663): |i - j| <= window / 2. With T5's biases by
relative position it is the local attention of LongT5 (Guo et al., arXiv:2112.07916), all of whose blocks take
the same biases.

Per layer of n tokens and width d: 2 n d^2 + 2 n d (kv_heads e) MACs of projections; of the core 2 d nnz with
nnz = n w - w (w - 1) / 2 pairs causal, w = min(window, n), and h nnz exponentials. Those are useful; the
kernel computes whole blocks. A decode step: 2 min(window, context) d.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Site, Values, register
from tilewright.workloads.attention.core import attend, cached
from tilewright.workloads.attention.patterns import Blocked, Pattern, band, pattern_attention
from tilewright.workloads.attention.sublayer import output, project, score_bias
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import Tensor


class SlidingWindow(Blocked):
    """Attention in a window."""

    kind: Literal["sliding_window"] = "sliding_window"
    window: Annotated[int, Field(gt=0)] = 4096
    """Tokens that a causal token sees, itself included; looking both ways, half of it to each side."""


def pattern(tokens: int, p: SlidingWindow, *, causal: bool) -> Pattern:
    """Which tokens see which."""
    half = p.window // 2
    return band(tokens, p.window - 1, 0) if causal else band(tokens, half, half)


def reference(query: Values, key: Values, value: Values, p: SlidingWindow, *, causal: bool) -> Values:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; returns [heads, n, e]."""
    share = len(query) // len(key)
    mask = pattern(query.shape[1], p, causal=causal).dense()
    return attend(query, key.repeat(share, axis=0), value.repeat(share, axis=0), mask)


def lower(b: GraphBuilder, x: Tensor, site: Site, p: SlidingWindow) -> Tensor:
    """Projections, the blocks of the band; a decode step reads the whole ring."""
    query, key, value = project(b, x, site)
    if site.causal or site.decode:
        key, value = cached(b, key, value, site, p.window)
    if site.decode:
        bias = score_bias(b, site, 1, min(p.window, site.context))
        context = attention_core(b, query, key, value, site.heads, score_bias=bias)
    else:
        shape = pattern(x.shape[1], p, causal=site.causal)
        context = pattern_attention(
            b, query, key, value, site.heads, [shape], p.block, position_bias=site.position_bias
        )
    return output(b, context, x, site)


MECHANISM = register(
    Mechanism(
        kind="sliding_window",
        title="Sliding window",
        taxonomy=("fixed pattern",),
        complexity="O(N w)",
        citation='Jiang et al., "Mistral 7B", arXiv:2310.06825',
        oracle="transformers 4.57.6, Mistral (eager, sliding-window mask)",
        parameters=SlidingWindow,
        lower=lower,
        decode=True,
        position_bias=True,
    )
)
