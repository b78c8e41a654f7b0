"""Axial attention: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.axial import MECHANISM, Axial, patterns, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "axial.npz"
small = st.integers(1, 4)
AXES: tuple[Literal["row"], Literal["column"]] = ("row", "column")
lowered = partial(one_layer, MECHANISM, batch=2)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of AxialAttention in axial-attention 0.6.1 (3 rows of 5 tokens)."""
    with np.load(FROZEN) as frozen:
        case = dict(frozen)
    total = np.zeros((15, 8))
    for axis in AXES:
        query, key, value = (case[f"{axis}_{name}"] for name in ("query", "key", "value"))
        context = reference(query, key, value, 5, axis, causal=False)
        total += context.swapaxes(0, 1).reshape(-1, 8) @ case[f"{axis}_weight"]
    np.testing.assert_allclose(total, case["out"], rtol=0, atol=1e-14)


@given(height=st.integers(1, 7), width=st.integers(1, 7), causal=st.booleans())
def test_the_patterns_are_the_definition(height: int, width: int, causal: bool) -> None:
    """The own row, and the own column; causal, what is earlier."""
    n = height * width
    i, j = np.mgrid[:n, :n]
    rows, columns = (made.dense() for made in patterns(n, width, causal=causal))
    np.testing.assert_array_equal(rows, (i // width == j // width) & ((j <= i) | (not causal)))
    np.testing.assert_array_equal(columns, (i % width == j % width) & ((j <= i) | (not causal)))


@given(height=small, width=small, group=small, kv=small, e=small, causal=st.booleans())
def test_costs_have_the_closed_form(
    height: int, width: int, group: int, kv: int, e: int, causal: bool
) -> None:
    """Twice the projections, 2 n (H + W) d MACs and h n (H + W) exponentials, all useful or, causal, the half
    and the diagonal."""
    n, heads = height * width, Heads(group * kv, kv, e)
    d = heads.width
    for compose in ("sum", "sequence"):
        p = Axial.model_validate({"width": width, "compose": compose})
        graph = lowered(p, heads, n, causal=causal)
        projections = 2 * (2 * n * d * d + 2 * n * d * heads.kv_width)
        assert graph.macs == 2 * (projections + 2 * n * (height + width) * d)
        exps = sum(dict(op.primitives).get("exp", 0) for op in graph.operators)
        assert exps == 2 * heads.heads * n * (height + width)
        pairs = n * (height + width + 2) // 2 if causal else n * (height + width)
        assert graph.useful_macs == 2 * (projections + 2 * d * pairs)
        assert not [op for op in graph.operators if op.kind in ("gather", "scatter")]


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    assert len(lowered(Axial(), Heads(2, 2, 8), 1 << 20).operators) < 30


@pytest.mark.parametrize(("width", "image"), [(None, "a square"), (5, "whole rows of 5 tokens")])
def test_what_is_no_image_is_refused(width: int | None, image: str) -> None:
    """Tokens must be whole rows, and a square if nobody says how long a row is."""
    with pytest.raises(InputError) as error:
        lowered(Axial(width=width), Heads(1, 1, 4), 12)
    assert str(error.value) == (
        f"attention `axial` needs an image: 12 tokens are not {image}; set `width` to a divisor"
    )
