"""TOVA: a KV cache that drops the token that the last one attends to least.

Oren, Hassid, Yarden, Adi and Schwartz, "Transformers are Multi-State RNNs", arXiv:2401.06104.

After each token, if more than `slots` are left, the one goes to which this token's attention, averaged over
all heads, was smallest; all heads of a layer keep the same tokens. The prompt is treated at once: its last
token's attention chooses which of the others stay beside it.

Per layer, width d, h heads, g KV heads of width e. Prompt of n tokens: 2 n^2 d MACs and h n^2 exponentials as
dense, one selection of slots - 1 out of n - 1, 2 slots g e elements gathered. One token, s = slots + 1: 2 s d
MACs, h s exponentials, (h - 1) s adds and s multiplies for the mean, s compares for the victim. Which tokens
stay depends on the data, how many does not.
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
from tilewright.workloads.description import Size
from tilewright.workloads.operators import Tensor


class Tova(Parameters):
    """A KV cache of the tokens that the last one attends to most."""

    kind: Literal["tova"] = "tova"
    slots: Annotated[Size, Field(ge=2)] = 512
    """Tokens kept from one step to the next (paper: an eighth of a context of 4,096 comes close to all)."""


def reference(
    query: Values, key: Values, value: Values, prompt: int, slots: int
) -> tuple[Values, list[Slots]]:
    """`query` [heads, n, e], `key` and `value` [kv_heads, n, e]; the first `prompt` tokens come at once.

    Returns [heads, n, e], and the tokens kept after the prompt and after each token.
    """
    kv_heads, tokens, _ = key.shape
    out, weights = np.empty_like(query), causal_weights(query[:, :prompt], key[:, :prompt])
    out[:, :prompt] = (weights @ value[:, None, :prompt]).reshape(len(query), prompt, -1)
    kept = [np.arange(prompt)]
    if prompt > slots:
        score = weights[:, :, -1, :-1].mean(axis=(0, 1))
        kept = [np.append(largest(score, slots - 1), prompt - 1)]
    for token in range(prompt, tokens):
        now = np.append(kept[-1], token)
        out[:, token], rows = attend_one(query[:, token], key, value, [now] * kv_heads)
        victim = np.argmin(np.concatenate(rows).mean(axis=0))
        kept.append(np.delete(now, victim) if len(now) > slots else now)
    return out, kept


def lower(b: GraphBuilder, x: Tensor, site: Site, p: Tova) -> Tensor:
    """The sublayer on a prompt, or on one token against the cache."""
    query, key, value = project(b, x, site)
    work = _token if site.decode else _prompt
    return output(b, work(b, query, key, value, site, p), x, site)


def _prompt(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: Tova) -> Tensor:
    batch, tokens, _ = query.shape
    slots = min(site.context, p.slots + 1)
    context, weights = prompt_attention(b, query, key, value, site)
    if tokens <= p.slots:
        keep_all(b, key, value, site, slots)
        return context
    last = b.gather("last_weights", "select", (weights,), (batch, site.heads.heads, tokens - 1))
    attended = b.reduce("attended", "mean", last, (batch, tokens - 1))
    _, chosen = b.topk("most_attended", attended, p.slots - 1)
    keep(b, key, value, chosen, p.slots, site, slots)
    return context


def _token(b: GraphBuilder, query: Tensor, key: Tensor, value: Tensor, site: Site, p: Tova) -> Tensor:
    batch, slots = query.shape[0], min(site.context, p.slots + 1)
    victim = None
    if site.context > slots:
        # The smallest of the last step's weights goes now that its slot is needed.
        victim = b.argmax("victim", state(b, "attended", batch, slots))
    key, value = put(b, key, value, victim, site, slots)
    context, weights = token_attention(b, query, key, value, site)
    if slots > p.slots:  # full: one must go before the next
        attended = b.reduce("attended", "mean", weights, (batch, slots))
        b.append("attended_cache", attended, batch, (batch, slots))
    return context


MECHANISM = register(
    Mechanism(
        kind="tova",
        title="TOVA",
        taxonomy=("cache eviction",),
        complexity="O(N^2) prompt, O(k) a token",
        citation='Oren et al., "Transformers are Multi-State RNNs", arXiv:2401.06104',
        oracle="kvpress 0.5.5, TOVAPress (choice after the prompt); each eviction by brute force",
        parameters=Tova,
        lower=lower,
        encode=False,
        decode=True,
    )
)
