"""SnapKV: a KV cache of the prompt's tokens that its last ones attend to.

Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv:2404.14469.

At the end of the prompt, the last `window` tokens vote: their attention weights, averaged over them (and over
the query heads of a KV head), then over `kernel` neighbours, choose the tokens that stay beside the window.
What is generated afterwards is all kept.

Per layer, width d, h heads, g KV heads of width e. Prompt of n tokens: 2 n^2 d MACs and h n^2 exponentials as
dense; the votes, worked out again as in the public code, w n d MACs and h w n exponentials, about h w n adds,
and g selections of capacity - w out of n - w; 2 capacity g e elements gathered. One token against s cached
ones: 2 s d MACs and h s exponentials. Which tokens stay depends on the data, how many does not.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, ValidationInfo, field_validator

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.eviction import (
    Slots,
    attend_one,
    causal_weights,
    keep,
    keep_all,
    largest,
    put,
    token_attention,
)
from tilewright.workloads.attention.sublayer import output, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.layers import attention_core
from tilewright.workloads.operators import MatmulShape, Tensor


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"must be odd, so that it has a middle; not {kernel}")
    return kernel


class SnapKV(Parameters):
    """A KV cache of what the end of the prompt attends to."""

    kind: Literal["snapkv"] = "snapkv"
    window: Size = 32
    """Tokens at the end of the prompt that vote, and stay."""
    kernel: Annotated[Size, AfterValidator(_odd)] = 5
    """Neighbours over which votes are averaged."""
    capacity: Size = 2048
    """Tokens of the prompt that are kept, those of the window included."""

    @field_validator("capacity")
    @classmethod
    def _holds_the_window(cls, capacity: int, info: ValidationInfo) -> int:
        window = info.data.get("window")
        if window is not None and capacity <= window:
            raise ValueError(f"must exceed `window` ({window}), which {capacity} does not")
        return capacity


def reference(
    query: Values, key: Values, value: Values, prompt: int, p: SnapKV
) -> tuple[Values, list[Slots]]:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; the first `prompt` tokens come at once.

    Returns [heads, n, e], and for each KV head the tokens kept after the prompt.
    """
    kv_heads, tokens, _ = key.shape
    out, weights = np.empty_like(query), causal_weights(query[:, :prompt], key[:, :prompt])
    out[:, :prompt] = (weights @ value[:, None, :prompt]).reshape(len(query), prompt, -1)
    kept = [np.arange(prompt) for _ in range(kv_heads)]
    if prompt > p.capacity:
        older = prompt - p.window
        chosen = [largest(vote, p.capacity - p.window) for vote in votes(weights, p)]
        kept = [np.append(slots, np.arange(older, prompt)) for slots in chosen]
    for token in range(prompt, tokens):
        slots = [np.append(each, np.arange(prompt, token + 1)) for each in kept]
        out[:, token], _ = attend_one(query[:, token], key, value, slots)
    return out, kept


def votes(weights: Values, p: SnapKV) -> Values:
    """Votes [kv_heads, n - window] from attention weights [kv_heads, heads / kv_heads, n, n]; beyond both
    ends the votes to be averaged are zero."""
    raw = weights[:, :, -p.window :, : -p.window].mean(axis=(1, 2))
    padded = np.pad(raw, ((0, 0), (p.kernel // 2, p.kernel // 2)))
    pooled: Values = np.lib.stride_tricks.sliding_window_view(padded, p.kernel, axis=1).mean(axis=-1)
    return pooled


def lower(b: GraphBuilder, x: Tensor, site: Site, p: SnapKV) -> Tensor:
    """The sublayer on a prompt, or on one token against a cache of a prompt's tokens.

    In a decode step the context counts as prompt, but for the token itself: of what was generated since,
    nothing is known.
    """
    query, key, value = project(b, x, site)
    work = _token if site.decode else _prompt
    return output(b, work(b, query, key, value, site, p), x, site)


def _prompt(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: SnapKV) -> Tensor:
    heads, (batch, tokens, _) = site.heads, query.shape
    context = attention_core(b, query, key, value, heads, "scale_mask")
    if tokens <= p.capacity:
        keep_all(b, key, value, site, tokens)
        return context
    matrices, rows = batch * heads.kv_heads, heads.heads // heads.kv_heads * p.window
    shape = MatmulShape(matrices, rows, heads.head_dim, tokens)
    with b.scope("votes"):
        scores = b.matmul("scores", query, key, shape, (matrices, rows, tokens), transpose_b=True, views=True)
        weights = b.softmax("softmax", b.elementwise("scale_mask", "scale_mask", scores))
        older = tokens - p.window
        weights = b.gather("older", "slice", (weights,), (matrices, rows, older))
        pooled = b.pool("pool", b.reduce("mean", "mean", weights, (matrices, older)), p.kernel)
        _, chosen = b.topk("chosen", pooled, p.capacity - p.window)
    keep(b, key, value, chosen, p.capacity, site, p.capacity)
    return context


def _token(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: SnapKV) -> Tensor:
    key, value = put(b, key, value, None, site, min(site.context, p.capacity + 1))
    return token_attention(b, query, key, value, site)[0]


MECHANISM = register(
    Mechanism(
        kind="snapkv",
        title="SnapKV",
        taxonomy=("cache eviction",),
        complexity="O(N^2) prompt, O(k) a token",
        citation='Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", '
        "arXiv:2404.14469",
        oracle="kvpress 0.5.5, SnapKVPress (votes and choice after the prompt)",
        parameters=SnapKV,
        lower=lower,
        encode=False,
        decode=True,
    )
)
