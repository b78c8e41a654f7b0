"""Nyströmformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.graphs import one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.nystrom import MECHANISM, Nystrom, pseudo_inverse, reference
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads

FIXTURE = Path(__file__).parent / "data" / "oracles" / "nystrom.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM)


def primitive(graph: OperatorGraph, name: str, function: str = "") -> int:
    work = [dict(op.primitives) for op in graph.operators if function in ("", op.function)]
    return sum(each.get(name, 0) for each in work)  # type: ignore[call-overload]


def test_reference_equals_the_public_implementation() -> None:
    """The reference agrees with transformers 4.57.6 on its frozen inputs and outputs."""
    case = dict(np.load(FIXTURE))
    expected = case.pop("expected")
    actual = reference(**case, landmarks=5, iterations=6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_the_iteration_finds_the_inverse() -> None:
    """With enough steps the pseudo-inverse is numpy's."""
    a = np.random.default_rng(1).random((2, 6, 6)) + 3 * np.eye(6)
    a /= a.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(pseudo_inverse(a, 20), np.linalg.pinv(a), rtol=0, atol=1e-9)


@given(
    m=small, more=st.integers(1, 30), iterations=small, taps=st.sampled_from([0, 1, 3, 5]), kv=small,
    group=small, width=small, batch=small,
)  # fmt: skip
def test_costs_have_the_closed_forms(
    m: int, more: int, iterations: int, taps: int, kv: int, group: int, width: int, batch: int
) -> None:
    """4 n d^2 + 4 n m d + m^2 d + h n m^2 + 4 i h m^3 MACs, h (2 n m + m^2) exponentials, n d taps products
    of the convolution; n is padded to a multiple of m, but for the output projection."""
    real, heads, d = m + more, kv * group, kv * group * width
    p = Nystrom(landmarks=m, iterations=iterations, taps=taps)
    graph = lowered(p, Heads(heads, kv, width), real, d, batch=batch)
    n = ceil(real / m) * m
    core = 4 * n * m * d + m * m * d + heads * n * m * m + 4 * iterations * heads * m**3
    assert graph.macs == batch * (n * d * (d + 2 * kv * width) + real * d * d + core)
    assert primitive(graph, "exp") == batch * heads * (2 * n * m + m * m)
    assert primitive(graph, "multiply", "depthwise") == batch * n * kv * width * taps
    assert primitive(graph, "move") == (batch * n * d if n > real else 0)
    assert graph.parameters == 2 * (d + 1) * (d + kv * width) + kv * taps


@given(m=small, kv=small, width=small)
def test_as_many_landmarks_as_tokens_is_dense(m: int, kv: int, width: int) -> None:
    """With m = n nothing is approximated: 4 n d^2 + 2 n^2 d MACs."""
    d = kv * width
    graph = lowered(Nystrom(landmarks=m, taps=0), Heads(kv, kv, width), m, d)
    assert graph.macs == 4 * m * d * d + 2 * m * m * d


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d, m = 1 << 20, 64, 64
    graph = lowered(Nystrom(), Heads(2, 2, 32), n, d)
    assert graph.macs == 4 * n * d * d + 4 * n * m * d + m * m * d + 2 * n * m * m + 4 * 6 * 2 * m**3
    assert len(graph.operators) < 80


def test_impossible_combinations_say_why() -> None:
    """Causal attention, more landmarks than tokens and even taps are refused, with the reason."""
    with pytest.raises(InputError) as causal:
        lowered(Nystrom(landmarks=2), Heads(2, 2, 4), 6, 8, causal=True)
    assert str(causal.value) == (
        "attention `nystrom` can't be causal: each landmark is a mean of tokens, later ones too"
    )
    with pytest.raises(InputError) as many:
        lowered(Nystrom(), Heads(2, 2, 4), 6, 8)
    assert str(many.value) == (
        "attention `nystrom` has 64 landmarks, more than the 6 tokens there are: set `landmarks` to at most "
        "that"
    )
    with pytest.raises(ValidationError, match="must be odd, or 0 for no convolution, not 4"):
        Nystrom(taps=4)
