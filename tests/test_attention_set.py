"""Set Transformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.set import MECHANISM, Set, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads
from tilewright.workloads.operators import Tensor

FIXTURE = Path(__file__).parent / "data" / "oracles" / "set.npz"
small = st.integers(1, 5)


def lowered(
    p: Set, heads: Heads, n: int, d: int, *, batch: int = 1, causal: bool = False, rope: bool = False
) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (batch, n, d))
    angles: Tensor | None = b.input("angles", (n, heads.head_dim)) if rope else None
    return b.finish(MECHANISM.lower(b, x, Site(heads, ALL_BIASES, causal, n, rope=angles), p))


def test_reference_equals_the_public_implementation() -> None:
    """The reference agrees with torch-geometric 2.8.1 on its frozen inputs and outputs."""
    case = dict(np.load(FIXTURE))
    inner, outer = (
        {name.removeprefix(f"{side}."): array for name, array in case.items() if name.startswith(side)}
        for side in ("inner", "outer")
    )
    actual = reference(case["x"], case["points"], inner, outer, heads=4)
    np.testing.assert_allclose(actual, case["expected"], rtol=0, atol=1e-13)


@given(n=st.integers(1, 40), m=small, heads=small, width=small, batch=small)
def test_costs_have_the_closed_forms(n: int, m: int, heads: int, width: int, batch: int) -> None:
    """4 n d^2 + 5 m d^2 + 4 n m d MACs (one MAB in full, one without its feed-forward network), 2 h n m
    exponentials, m d points copied to each sequence, and 9 d (d + 1) + 4 d + m d parameters."""
    d = heads * width
    graph = lowered(Set(inducing_points=m), Heads(heads, heads, width), n, d, batch=batch)
    assert graph.macs == batch * (4 * n * d * d + 5 * m * d * d + 4 * n * m * d)
    assert sum(dict(op.primitives).get("exp", 0) for op in graph.operators) == 2 * batch * heads * n * m
    moved = sum(dict(op.primitives).get("move", 0) for op in graph.operators)
    assert moved == batch * m * d
    assert graph.parameters == 9 * d * (d + 1) + 4 * d + m * d


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d, m = 1 << 20, 64, 32
    graph = lowered(Set(), Heads(2, 2, 32), n, d)
    assert graph.macs == 4 * n * d * d + 5 * m * d * d + 4 * n * m * d


def test_impossible_combinations_say_why() -> None:
    """A causal set and rotary positions are refused, with the reason."""
    with pytest.raises(InputError) as causal:
        lowered(Set(), Heads(2, 2, 4), 6, 8, causal=True)
    assert str(causal.value) == (
        "attention `set` can't be causal: a set has no order, and each inducing point sees all of it"
    )
    with pytest.raises(InputError) as rotary:
        lowered(Set(), Heads(2, 2, 4), 6, 8, rope=True)
    assert str(rotary.value) == "attention `set` can't have rotary positions: a set has no positions"
