"""SnapKV: what it keeps against frozen public scores and by brute force, its costs in closed form."""

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
from tilewright.workloads.attention.snapkv import MECHANISM, SnapKV, reference, votes
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "snapkv.npz"
lowered = partial(one_layer, MECHANISM, causal=True)


def test_votes_and_choice_are_the_public_ones() -> None:
    """SnapKVPress of kvpress 0.5.5 scores and chooses alike, and PyTorch attends alike."""
    with np.load(FROZEN) as frozen:
        query, key, value, score, attended = (
            frozen[name] for name in ("query", "key", "value", "score", "attended")
        )
    p = SnapKV(window=4, kernel=3, capacity=10)
    prompt = score.shape[1]
    out, kept = reference(query, key, value, prompt, p)
    np.testing.assert_allclose(out[:, :prompt], attended, rtol=0, atol=1e-14)
    causal = np.tri(prompt, dtype=bool)[None].repeat(len(key), axis=0)
    _, weights = masked(query[:, :prompt], key[:, :prompt], value[:, :prompt], causal)
    ours = votes(weights.reshape(len(key), -1, prompt, prompt), p)
    np.testing.assert_allclose(ours, score[:, : -p.window], rtol=0, atol=1e-14)
    for slots, scores in zip(kept, score, strict=True):
        assert set(slots) == set(np.argsort(-scores)[: p.capacity])


@given(case=arrays(), window=st.integers(1, 5), kernel=st.sampled_from([1, 3, 5]), more=st.integers(1, 8))
def test_later_tokens_see_what_was_kept_and_each_other(
    case: tuple[Values, Values, Values, int], window: int, kernel: int, more: int
) -> None:
    """The output is that of masked attention: causal, and after the prompt without what was dropped of it."""
    query, key, value, prompt = case
    p = SnapKV(window=window, kernel=kernel, capacity=window + more)
    out, kept = reference(query, key, value, prompt, p)
    tokens = key.shape[1]
    sees = np.tri(tokens, dtype=bool)[None].repeat(len(key), axis=0)
    for g, slots in enumerate(kept):
        assert len(slots) == min(prompt, p.capacity)
        assert set(range(max(prompt - window, 0), prompt)) <= set(slots)
        sees[g, prompt:, np.setdiff1d(np.arange(prompt), slots)] = False
    np.testing.assert_allclose(out, masked(query, key, value, sees)[0], atol=1e-12)


@given(
    batch=st.integers(1, 3), g=st.integers(1, 3), share=st.integers(1, 3), e=st.integers(1, 5),
    n=st.integers(12, 60), w=st.integers(1, 5), kernel=st.sampled_from([1, 3, 5]), more=st.integers(1, 6),
)  # fmt: skip
def test_costs_are_the_closed_forms(
    batch: int, g: int, share: int, e: int, n: int, w: int, kernel: int, more: int
) -> None:
    """A prompt is dense and voted on, selected and gathered; a token reads what was kept, and itself."""
    h, p = g * share, SnapKV(window=w, kernel=kernel, capacity=w + more)
    d, heads, older = h * e, Heads(h, g, e), n - w
    projections = 2 * d * d + 2 * d * g * e
    prompt = lowered(p, heads, n, batch=batch)
    assert prompt.macs == batch * (n * projections + 2 * n * n * d + w * n * d)
    assert work(prompt, "softmax")["exp"] == batch * h * n * (n + w)
    pool = g * older * (kernel - 1)
    reduced = {"add": g * older * (share * w - 1) + pool, "multiply": 2 * g * older}
    assert work(prompt, "reduce") == {name: batch * count for name, count in reduced.items() if count}
    assert work(prompt, "topk") == dict(primitives.topk(batch * g, older, more))
    assert work(prompt, "gather") == {"move": batch * (h * w * older + 2 * g * (w + more) * e)}
    assert work(prompt, "scatter") == {"move": batch * 2 * g * (w + more) * e}
    token = lowered(p, heads, n, batch=batch, decode=True)
    seen = min(n, w + more + 1)
    assert token.macs == batch * (projections + 2 * seen * d)
    assert work(token, "softmax")["exp"] == batch * h * seen
    assert work(token, "scatter") == {"move": batch * 2 * g * e}
    assert {op.kind for op in token.operators} == {"matmul", "softmax", "elementwise", "scatter"}


def test_a_prompt_that_fits_is_kept_whole() -> None:
    """Up to `capacity` tokens nobody votes."""
    graph = lowered(SnapKV(), Heads(2, 2, 4), 9)
    assert {op.kind for op in graph.operators} == {"matmul", "softmax", "elementwise", "scatter"}
    assert cached(graph) == {"key_cache": (2, 9, 4), "value_cache": (2, 9, 4)}


def test_sizes_that_make_no_sense_say_why() -> None:
    """A capacity must have room beside the window, and a kernel a middle."""
    with pytest.raises(ValidationError, match=r"must exceed `window` \(32\), which 32 does not"):
        SnapKV(capacity=32)
    with pytest.raises(ValidationError, match="must be odd, so that it has a middle; not 4"):
        SnapKV(kernel=4)
