"""Longformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.longformer import MECHANISM, Longformer, pattern, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "longformer.npz"
small = st.integers(1, 4)
GLOBALS = [("none", 0), ("one", 1), ("three", 3)]
lowered = partial(one_layer, MECHANISM, batch=2)


@pytest.mark.parametrize(("name", "count"), GLOBALS)
def test_reference_equals_the_public_implementation(name: str, count: int) -> None:
    """Frozen inputs and outputs of LongformerSelfAttention in transformers 4.57.6 (float32 softmax)."""
    parts = "query", "key", "value", "own_query", "own_key", "own_value", "out"
    with np.load(FROZEN) as frozen:
        query, key, value, *own, out = (frozen[f"{name}_{part}"] for part in parts)
    made = reference(query, key, value, tuple(own), Longformer(window=8, global_tokens=count))
    np.testing.assert_allclose(made, out, rtol=0, atol=1e-6)


@given(n=st.integers(1, 40), half=small, count=st.integers(0, 5), causal=st.booleans())
def test_the_pattern_is_the_definition(n: int, half: int, count: int, causal: bool) -> None:
    """Band, columns and rows of global tokens; causal, the left half of the band alone."""
    i, j = np.mgrid[:n, :n]
    count = 0 if causal else min(count, n)
    mask = (abs(i - j) <= half) & ((j <= i) | (not causal)) | (i < count) | (j < count)
    p = Longformer(window=2 * half, global_tokens=count)
    np.testing.assert_array_equal(pattern(n, p, causal=causal).dense(), mask)


@given(n=st.integers(1, 40), half=small, dilation=small, causal=st.booleans())
def test_a_dilated_window_skips(n: int, half: int, dilation: int, causal: bool) -> None:
    """Query i sees i + t dilation, |t| <= window / 2."""
    i, j = np.mgrid[:n, :n]
    mask = ((i - j) % dilation == 0) & (abs(i - j) <= half * dilation) & ((j <= i) | (not causal))
    made = pattern(n, Longformer(window=2 * half, dilation=dilation, global_tokens=0), causal=causal)
    np.testing.assert_array_equal(made.dense(), mask)


@given(windows=small, half=small, count=st.integers(0, 2), h=small, e=small, block=st.integers(1, 5))
def test_the_blocked_kernel_is_useful_by_the_pair(
    windows: int, half: int, count: int, h: int, e: int, block: int
) -> None:
    """4 n d^2 (and 2 n d^2 + g d^2 for global tokens) MACs of projections, 2 d per pair of band and columns,
    2 g n d for the global rows; MACs and exponentials of the work itself are whole blocks."""
    n, d = windows * 2 * half, h * e
    p = Longformer(window=2 * half, global_tokens=count, block=block)
    graph = lowered(p, Heads(h, h, e), n)
    i, j = np.mgrid[:n, :n]
    pairs = int(((abs(i - j) <= half) | (j < count)).sum())
    projections = 4 * n * d * d + (2 * n * d * d + count * d * d if count else 0)
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs + 2 * count * n * d)
    assert graph.macs == 2 * projections + 2 * exps(graph) * e


@given(windows=small, half=small, count=st.integers(0, 2), h=small, e=small)
def test_the_chunked_kernel_has_the_closed_form(windows: int, half: int, count: int, h: int, e: int) -> None:
    """Scores (2 w n - w^2) d, context 3/2 w n d, global columns 2 n g d, global rows 2 g n d;
    h n (w + 1 + g) + h g n exponentials; the band, and with global tokens the joined scores, are copied."""
    w, d = 2 * half, h * e
    n = windows * w
    graph = lowered(Longformer(window=w, global_tokens=count, kernel="chunks"), Heads(h, h, e), n)
    projections = 4 * n * d * d + (2 * n * d * d + count * d * d if count else 0)
    core = (2 * w * n - w * w) * d + 3 * half * n * d + 4 * count * n * d
    assert graph.macs == 2 * (projections + core)
    assert exps(graph) == 2 * h * (n * (w + 1 + count) + count * n)
    copied = sum(dict(op.primitives)["move"] for op in graph.operators if op.kind == "gather")
    assert copied == 2 * h * n * (w + 1 + (count + w + 1 if count else 0))
    placed = sum(dict(op.primitives)["move"] for op in graph.operators if op.function == "place")
    assert placed == 2 * count * d


def test_tokens_are_padded_to_whole_windows() -> None:
    """Ten tokens and a window of eight: projections of queries, keys and values work on sixteen."""
    d = 4
    graph = lowered(Longformer(window=8, global_tokens=0), Heads(1, 1, d), 10)
    assert {op.name: op.macs for op in graph.operators if op.kind == "matmul"}["query"] == 2 * 16 * d * d
    assert graph.operators[-1].macs == 2 * 10 * d * d


@given(context=st.integers(1, 40), half=small, dilation=small)
def test_a_decode_step_reads_what_the_window_reaches(context: int, half: int, dilation: int) -> None:
    """A ring of window / 2 * dilation + 1 tokens, every dilation-th of which is read."""
    d = 6
    p = Longformer(window=2 * half, dilation=dilation)
    graph = lowered(p, Heads(2, 2, 3), context, causal=True, decode=True)
    room = min(context, half * dilation + 1)
    assert graph.macs == 2 * (4 * d * d + 2 * -(-room // dilation) * d)


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    for kernel in ("blocks", "chunks"):
        graph = lowered(Longformer.model_validate({"kernel": kernel}), Heads(2, 2, 8), 1 << 20)
        assert len(graph.operators) < 40


@pytest.mark.parametrize(
    ("values", "causal", "message"),
    [
        (
            {"global_tokens": 2},
            True,
            "attention `longformer` can't have global tokens where it is causal, they see later tokens: set "
            "`global_tokens` to 0",
        ),
        (
            {"kernel": "chunks"},
            True,
            "attention `longformer` can't be causal with `kernel: chunks`; choose `blocks`",
        ),
        (
            {"global_tokens": 9},
            False,
            "attention `longformer` has 9 global tokens, more than the 8 tokens there are",
        ),
    ],
)
def test_impossible_combinations_say_why(values: dict[str, object], causal: bool, message: str) -> None:
    """What can't be is refused, with the reason."""
    with pytest.raises(InputError) as error:
        lowered(Longformer.model_validate(values), Heads(1, 1, 4), 8, causal=causal)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dilation": 2, "global_tokens": 1}, "`global_tokens` must be 0 where `dilation` is above 1"),
        ({"dilation": 2, "kernel": "chunks"}, "`kernel: chunks` can't dilate; choose `blocks`"),
        ({"window": 7}, "multiple of 2"),
    ],
)
def test_impossible_parameters_say_why(values: dict[str, object], message: str) -> None:
    """So are parameters that contradict each other."""
    with pytest.raises(ValueError, match=re.escape(message)):
        Longformer.model_validate(values)
