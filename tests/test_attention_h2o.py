"""H2O: what it keeps against frozen public scores and by brute force, its costs in closed form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.eviction import arrays, cached, masked
from tests.graphs import one_layer, work
from tilewright.workloads import primitives
from tilewright.workloads.attention.base import Values
from tilewright.workloads.attention.h2o import MECHANISM, HeavyHitters, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "h2o.npz"
lowered = partial(one_layer, MECHANISM, causal=True)


def test_kept_of_a_prompt_follows_the_public_scores() -> None:
    """ObservedAttentionPress of kvpress 0.5.5 scores the prompt alike, and PyTorch attends alike."""
    with np.load(FROZEN) as frozen:
        query, key, value, score, attended = (
            frozen[name] for name in ("query", "key", "value", "score", "attended")
        )
    prompt, heavy, recent = score.shape[1], 5, 5
    out, kept = reference(query, key, value, prompt, heavy, recent)
    np.testing.assert_allclose(out[:, :prompt], attended, rtol=0, atol=1e-14)
    # The package has the mean over the tokens that can see a token, the paper the sum.
    total = score * np.arange(prompt, 0, -1)
    for history, scores in zip(kept, total, strict=True):
        expected = set(np.argsort(-scores[:-recent])[:heavy]) | set(range(prompt - recent, prompt))
        assert set(history[0]) == expected


@given(case=arrays(), heavy=st.integers(1, 6), recent=st.integers(1, 6))
def test_every_eviction_is_the_papers(
    case: tuple[Values, Values, Values, int], heavy: int, recent: int
) -> None:
    """With the pattern that the evictions leave as a mask, each of them drops the smallest column sum so far,
    and the output is that of masked attention."""
    query, key, value, prompt = case
    out, kept = reference(query, key, value, prompt, heavy, recent)
    kv_heads, tokens, _ = key.shape
    sees = np.tri(tokens, dtype=bool)[None].repeat(kv_heads, axis=0)
    for g, history in enumerate(kept):
        for token in range(prompt, tokens):
            sees[g, token] = np.isin(np.arange(tokens), [*history[token - prompt], token])
    expected, weights = masked(query, key, value, sees)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    sums = weights.reshape(kv_heads, -1, tokens, tokens).sum(axis=1).cumsum(axis=1)
    for g, history in enumerate(kept):
        for token in range(prompt, tokens):
            before, after = set(history[token - prompt]) | {token}, set(history[token - prompt + 1])
            if len(before) <= heavy + recent:
                assert after == before
                continue
            (victim,) = before - after
            older = sorted(before)[:-recent]
            assert sums[g, token, victim] == pytest.approx(min(sums[g, token, older]))
            assert victim in older


@given(
    batch=st.integers(1, 3), g=st.integers(1, 3), share=st.integers(1, 3), e=st.integers(1, 5),
    n=st.integers(12, 60),
)  # fmt: skip
def test_costs_are_the_closed_forms(batch: int, g: int, share: int, e: int, n: int) -> None:
    """A prompt is dense and scored, selected and gathered; a token reads what was kept, and one more."""
    h, p = g * share, HeavyHitters(heavy=0.2, recent=0.3)
    heavy, recent = p.sizes(n)
    kept, d, heads = heavy + recent, h * e, Heads(h, g, e)
    projections = 2 * d * d + 2 * d * g * e
    prompt = lowered(p, heads, n, batch=batch)
    assert prompt.macs == batch * (n * projections + 2 * n * n * d)
    assert work(prompt, "softmax")["exp"] == batch * h * n * n
    assert work(prompt, "reduce") == {"add": batch * g * n * (share * n - 1)}
    assert work(prompt, "topk") == dict(primitives.topk(batch * g, n - recent, heavy))
    assert work(prompt, "gather") == {"move": batch * g * (n - recent + 2 * kept * e + kept)}
    assert work(prompt, "scatter") == {"move": batch * g * (2 * kept * e + kept)}
    slots = kept + 1
    token = lowered(p, heads, n, batch=batch, decode=True)
    assert token.macs == batch * (projections + 2 * slots * d)
    assert work(token, "softmax")["exp"] == batch * h * slots
    assert work(token, "topk") == {"compare": batch * g * slots}
    adds = work(token, "elementwise")["add"] + work(token, "reduce")["add"]
    assert adds == batch * h * slots
    assert work(token, "scatter") == {"move": batch * g * (2 * e + slots)}
    shapes = {"key_cache": (batch * g, slots, e), "value_cache": (batch * g, slots, e)}
    assert cached(token) == cached(prompt) == {**shapes, "score_cache": (batch * g, slots)}


def test_a_cache_with_room_evicts_nothing() -> None:
    """With shares that add up to more than all, prompt and token are dense, but for the scores."""
    p = HeavyHitters(heavy=1, recent=1)
    heads = Heads(2, 2, 4)
    for decode in (False, True):
        assert not work(lowered(p, heads, 9, decode=decode), "topk")
    assert cached(lowered(p, heads, 9))["key_cache"] == (2, 9, 4)
