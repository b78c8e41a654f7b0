"""H2O: a KV cache of the tokens that received most attention, and of the latest.

Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
arXiv:2306.14048, algorithm 1.

A token's score is the sum of the attention weights that it has received, per KV head (summed over the query
heads that share it). After each token, if more than `heavy + recent` are left, the one with the smallest
score goes, the latest `recent` ones apart. The prompt is treated at once: its tokens' scores are the column
sums of its attention weights.

Per layer, width d, h heads, g KV heads of width e. Prompt of n tokens: 2 n^2 d MACs and h n^2 exponentials as
dense, about h n^2 adds for the scores, g selections of `heavy` out of n - recent, 2 (heavy + recent) g e
elements gathered. One token, s = heavy + recent + 1 slots: 2 s d MACs, h s exponentials, h s adds for the
scores, g s compares for the victim. A decode step's context counts as prompt where shares are taken of it.
The data say which tokens stay, the sizes how many: the cost does not depend on the data.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from tilewright.workloads.attention.base import Mechanism, Parameters, Site, Values, register
from tilewright.workloads.attention.eviction import (
    Slots,
    attend_one,
    causal_weights,
    keep,
    keep_all,
    largest,
    prompt_attention,
    put,
    state,
    token_attention,
)
from tilewright.workloads.attention.sublayer import output, project
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.operators import Tensor

Share = Annotated[float, Field(gt=0, le=1)]


class HeavyHitters(Parameters):
    """A KV cache of heavy hitters and recent tokens."""

    kind: Literal["h2o"] = "h2o"
    heavy: Share = 0.1
    """Share of the context kept for the attention that it received."""
    recent: Share = 0.1
    """Share of the context kept because it is the latest."""

    def sizes(self, context: int) -> tuple[int, int]:
        """Tokens of either sort, at least one of each."""
        return max(1, int(self.heavy * context)), max(1, int(self.recent * context))


def reference(
    query: Values, key: Values, value: Values, prompt: int, heavy: int, recent: int
) -> tuple[Values, list[list[Slots]]]:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; the first `prompt` tokens come at once.

    Returns [heads, n, e], and for each KV head the tokens kept after the prompt and after each token.
    """
    kv_heads, tokens, _ = key.shape
    out, weights = np.empty_like(query), causal_weights(query[:, :prompt], key[:, :prompt])
    out[:, :prompt] = (weights @ value[:, None, :prompt]).reshape(len(query), prompt, -1)
    score = np.zeros((kv_heads, tokens))
    score[:, :prompt] = weights.sum(axis=(1, 2))
    kept = [[_keep(score[g], np.arange(prompt), heavy, recent)] for g in range(kv_heads)]
    for token in range(prompt, tokens):
        slots = [np.append(history[-1], token) for history in kept]
        out[:, token], rows = attend_one(query[:, token], key, value, slots)
        for g in range(kv_heads):
            score[g, slots[g]] += rows[g].sum(axis=0)
            kept[g].append(_keep(score[g], slots[g], heavy, recent))
    return out, kept


def _keep(score: Values, slots: Slots, heavy: int, recent: int) -> Slots:
    if len(slots) <= heavy + recent:
        return slots
    older, latest = slots[:-recent], slots[-recent:]
    return np.concatenate([older[largest(score[older], heavy)], latest])


def lower(b: GraphBuilder, x: Tensor, site: Site, p: HeavyHitters) -> Tensor:
    """The sublayer on a prompt, or on one token against the cache."""
    query, key, value = project(b, x, site)
    work = _token if site.decode else _prompt
    return output(b, work(b, query, key, value, site, p), x, site)


def _prompt(
    b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: HeavyHitters
) -> Tensor:
    batch, tokens, _ = query.shape
    matrices, (heavy, recent) = batch * site.heads.kv_heads, p.sizes(site.context)
    slots = min(site.context, heavy + recent + 1)
    context, weights = prompt_attention(b, query, key, value, site)
    received = b.reduce("received", "sum", weights, (matrices, tokens))
    if tokens <= heavy + recent:
        keep_all(b, key, value, site, slots)
    else:
        older = b.gather("older", "slice", (received,), (matrices, tokens - recent))
        _, chosen = b.topk("heavy", older, heavy)
        keep(b, key, value, chosen, heavy + recent, site, slots)
        received = b.gather("kept_scores", "lookup", (received, chosen), (matrices, heavy + recent))
    b.append("score_cache", received, matrices, (matrices, slots))
    return context


def _token(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: HeavyHitters) -> Tensor:
    matrices, slots = query.shape[0] * site.heads.kv_heads, min(site.context, sum(p.sizes(site.context)) + 1)
    scores = state(b, "scores", matrices, slots)
    # The smallest of the last step's scores goes now that its slot is needed.
    victim = b.argmax("victim", scores) if site.context > slots else None
    key, value = put(b, key, value, victim, site, slots)
    context, received = token_attention(b, query, key, value, site)
    if site.heads.heads > site.heads.kv_heads:
        received = b.reduce("received", "sum", received, (matrices, slots))
    b.append("score_cache", b.elementwise("accumulate", "add", received, scores), matrices, (matrices, slots))
    return context


MECHANISM = register(
    Mechanism(
        kind="h2o",
        title="H2O",
        taxonomy=("cache eviction",),
        complexity="O(N^2) prompt, O(k) a token",
        citation='Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large '
        'Language Models", arXiv:2306.14048',
        oracle="kvpress 0.5.5, ObservedAttentionPress (scores of the prompt); each eviction by brute force",
        parameters=HeavyHitters,
        lower=lower,
        encode=False,
        decode=True,
    )
)
