"""TOVA: what it keeps against frozen public scores and by brute force, its costs in closed form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.eviction import arrays, cached, masked
from tests.graphs import one_layer, work
from tilewright.workloads import primitives
from tilewright.workloads.attention.base import Values
from tilewright.workloads.attention.tova import MECHANISM, Tova, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "tova.npz"
lowered = partial(one_layer, MECHANISM, causal=True)


def test_kept_of_a_prompt_follows_the_public_scores() -> None:
    """TOVAPress of kvpress 0.5.5 chooses the same tokens of the prompt, and PyTorch attends alike."""
    with np.load(FROZEN) as frozen:
        query, key, value, score, attended = (
            frozen[name] for name in ("query", "key", "value", "score", "attended")
        )
    prompt, slots = score.shape[1], 10
    out, kept = reference(query, key, value, prompt, slots)
    np.testing.assert_allclose(out[:, :prompt], attended, rtol=0, atol=1e-14)
    for scores in score:
        assert set(kept[0]) == set(np.argsort(-scores)[:slots])


@given(case=arrays(), slots=st.integers(2, 12))
def test_every_eviction_is_the_papers(case: tuple[Values, Values, Values, int], slots: int) -> None:
    """With the pattern that the evictions leave as a mask, each of them drops the smallest mean weight of its
    row, and the output is that of masked attention."""
    query, key, value, prompt = case
    out, kept = reference(query, key, value, prompt, slots)
    kv_heads, tokens, _ = key.shape
    sees = np.tri(tokens, dtype=bool)
    for token in range(prompt, tokens):
        sees[token] = np.isin(np.arange(tokens), [*kept[token - prompt], token])
    expected, weights = masked(query, key, value, sees[None].repeat(kv_heads, axis=0))
    np.testing.assert_allclose(out, expected, atol=1e-12)
    for token in range(prompt, tokens):
        before, after = {*kept[token - prompt], token}, set(kept[token - prompt + 1])
        if len(before) <= slots:
            assert after == before
            continue
        (victim,) = before - after
        row = weights[:, token].mean(axis=0)
        assert row[victim] == pytest.approx(min(row[sorted(before)]))


@given(
    batch=st.integers(1, 3), g=st.integers(1, 3), share=st.integers(1, 3), e=st.integers(1, 5),
    n=st.integers(12, 60), slots=st.integers(2, 10),
)  # fmt: skip
def test_costs_are_the_closed_forms(batch: int, g: int, share: int, e: int, n: int, slots: int) -> None:
    """A prompt is dense, its last row averaged, selected and gathered; a token reads what was kept, and one
    more."""
    h, p = g * share, Tova(slots=slots)
    d, heads = h * e, Heads(h, g, e)
    projections = 2 * d * d + 2 * d * g * e
    prompt = lowered(p, heads, n, batch=batch)
    assert prompt.macs == batch * (n * projections + 2 * n * n * d)
    assert work(prompt, "softmax")["exp"] == batch * h * n * n
    mean = {"add": batch * (n - 1) * (h - 1), "multiply": batch * (n - 1)}
    assert work(prompt, "reduce") == {name: count for name, count in mean.items() if count}
    assert work(prompt, "topk") == dict(primitives.topk(batch, n - 1, slots - 1))
    assert work(prompt, "gather") == {"move": batch * (h * (n - 1) + 2 * slots * g * e)}
    assert work(prompt, "scatter") == {"move": batch * 2 * slots * g * e}
    token = lowered(p, heads, n, batch=batch, decode=True)
    seen = slots + 1
    assert token.macs == batch * (projections + 2 * seen * d)
    assert work(token, "softmax")["exp"] == batch * h * seen
    assert work(token, "topk") == ({"compare": batch * seen} if n > seen else {})
    mean = {"add": batch * seen * (h - 1), "multiply": batch * seen}
    assert work(token, "reduce") == {name: count for name, count in mean.items() if count}
    assert work(token, "scatter") == {"move": batch * (2 * g * e + seen)}
    shapes = {"key_cache": (batch * g, seen, e), "value_cache": (batch * g, seen, e)}
    assert cached(prompt) == shapes
    assert cached(token) == {**shapes, "attended_cache": (batch, seen)}


def test_a_cache_with_room_evicts_nothing() -> None:
    """Up to `slots` tokens, prompt and token are dense."""
    p, heads = Tova(slots=16), Heads(2, 2, 4)
    for decode in (False, True):
        graph = lowered(p, heads, 9, decode=decode)
        assert {op.kind for op in graph.operators} == {"matmul", "softmax", "elementwise", "scatter"}
    assert cached(lowered(p, heads, 9))["key_cache"] == (2, 9, 4)


def test_a_cache_holds_two_tokens_at_least() -> None:
    """The last token of a prompt stays, beside another one."""
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        Tova(slots=1)
