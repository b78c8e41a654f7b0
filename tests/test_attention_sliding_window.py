"""Sliding windows: right numbers, and the costs of their closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.workloads.attention.sliding_window import MECHANISM, SlidingWindow, pattern, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "sliding_window.npz"
small = st.integers(1, 5)
sizes = st.integers(1, 40)
lowered = partial(one_layer, MECHANISM, batch=2)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of Mistral's attention in transformers 4.57.6 (its softmax is float32)."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[part] for part in ("query", "key", "value", "out"))
    made = reference(query, key, value, SlidingWindow(window=6), causal=True)
    np.testing.assert_allclose(made, out, rtol=0, atol=1e-6)


@given(n=sizes, window=sizes, causal=st.booleans())
def test_the_pattern_is_the_definition(n: int, window: int, causal: bool) -> None:
    """Causal: i - window < j <= i; both ways: |i - j| <= window / 2."""
    i, j = np.mgrid[:n, :n]
    mask = (i - window < j) & (j <= i) if causal else abs(i - j) <= window // 2
    p = SlidingWindow(window=window)
    np.testing.assert_array_equal(pattern(n, p, causal=causal).dense(), mask)


@given(n=sizes, window=sizes, block=st.integers(1, 8), group=small, kv=small, width=small)
def test_useful_work_has_the_closed_form(
    n: int, window: int, block: int, group: int, kv: int, width: int
) -> None:
    """Useful: 2 d (n w - w (w - 1) / 2) MACs of the core, w = min(window, n); the work is whole blocks, MACs
    and exponentials alike."""
    heads = Heads(group * kv, kv, width)
    d, w = heads.width, min(window, n)
    graph = lowered(SlidingWindow(window=window, block=block), heads, n, d, causal=True)
    projections = 2 * (2 * n * d * d + 2 * n * d * heads.kv_width)
    assert graph.useful_macs == projections + 2 * 2 * d * (n * w - w * (w - 1) // 2)
    assert graph.macs == projections + 2 * exps(graph) * width


@given(blocks=st.integers(1, 6), reach=st.integers(1, 4), block=st.integers(1, 6))
def test_blocks_of_a_band_are_counted_whole(blocks: int, reach: int, block: int) -> None:
    """With a window of `reach` blocks a row of blocks works on at most `reach` + 1 of them, the first rows on
    fewer; some padding may even out the rows."""
    n, heads = blocks * block, Heads(1, 1, 1)
    graph = lowered(SlidingWindow(window=reach * block + 1, block=block), heads, n, 1, causal=True)
    exact = sum(min(row, reach) + 1 for row in range(blocks)) * block * block
    assert 2 * exact <= exps(graph) <= 2 * exact * 7 / 6


@given(context=sizes, window=sizes, kv=small, group=small, width=small)
def test_a_decode_step_reads_the_ring(context: int, window: int, kv: int, group: int, width: int) -> None:
    """One token: 2 min(window, context) d MACs, and a cache of as many tokens, one of them written."""
    heads = Heads(group * kv, kv, width)
    d, room = heads.width, min(window, context)
    graph = lowered(SlidingWindow(window=window), heads, context, d, causal=True, decode=True)
    assert graph.macs == 2 * (2 * d * d + 2 * d * heads.kv_width + 2 * room * d)
    caches = [tensor for tensor in graph.tensors.values() if tensor.role == "kv_cache"]
    assert [cache.elements for cache in caches] == [2 * room * heads.kv_width] * 2
    written = [dict(op.primitives)["move"] for op in graph.operators if op.function == "append"]
    assert written == [2 * heads.kv_width] * 2


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n = 1 << 20
    graph = lowered(SlidingWindow(), Heads(8, 8, 8), n, 64, causal=True)
    assert len(graph.operators) < 100
    assert graph.useful_macs == 2 * (4 * n * 64 * 64 + 2 * 64 * (n * 4096 - 4096 * 4095 // 2))
