"""Dense attention: right numbers, and the graph that it always was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.dense import MECHANISM, Dense, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads, decoder_attention, encoder_attention
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step

FROZEN = Path(__file__).parent / "data" / "oracles" / "dense.npz"
small = st.integers(1, 5)


@pytest.mark.parametrize(("name", "causal"), [("both", False), ("causal", True), ("grouped", True)])
def test_reference_equals_the_public_implementation(name: str, causal: bool) -> None:
    """Frozen inputs and outputs of torch's scaled_dot_product_attention."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[f"{name}_{part}"] for part in ("query", "key", "value", "out"))
    np.testing.assert_allclose(reference(query, key, value, causal=causal), out, rtol=0, atol=1e-14)


def lowered(heads: Heads, n: int, d: int, batch: int = 1, causal: bool = False) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (batch, n, d))
    site = Site(heads, ALL_BIASES, causal=causal, context=n)
    with b.scope("attention"):
        return b.finish(MECHANISM.lower(b, x, site, Dense()))


@given(n=small, batch=small, group=small, kv=small, width=small, causal=st.booleans())
def test_costs_have_the_closed_forms(
    n: int, batch: int, group: int, kv: int, width: int, causal: bool
) -> None:
    """2 n d^2 + 2 n d (kv_heads e) + 2 n^2 d MACs and h n^2 exponentials, masked or not."""
    heads = Heads(group * kv, kv, width)
    d = heads.width
    graph = lowered(heads, n, d, batch, causal)
    assert graph.macs == batch * (2 * n * d * d + 2 * n * d * heads.kv_width + 2 * n * n * d)
    exps = sum(dict(op.primitives).get("exp", 0) for op in graph.operators)
    assert exps == batch * heads.heads * n * n


def test_it_is_the_encoders_attention() -> None:
    """Looking both ways, the graph is the one that encoder layers have."""
    b = GraphBuilder("t")
    heads = Heads(4, 2, 8)
    expected = b.finish(encoder_attention(b, b.input("x", (2, 7, 32)), heads))
    assert lowered(heads, 7, 32, 2) == expected


@pytest.mark.parametrize("decode", [False, True])
def test_it_is_the_decoders_attention(decode: bool) -> None:
    """Causal, the graph is the one that decoder layers have, caches and rotary positions included."""
    heads = Heads(4, 2, 8)
    step = Step("", 1 if decode else 7, 7, decode=decode, last_only=False)

    def graph(use_mechanism: bool) -> OperatorGraph:
        b = GraphBuilder("t")
        x: Tensor = b.input("x", (2, step.tokens, 32))
        rope = b.weight("rope", (step.tokens, 8))
        if not use_mechanism:
            return b.finish(decoder_attention(b, x, heads, step, rope=rope))
        with b.scope("attention"):
            site = Site(heads, ALL_BIASES, causal=True, context=7, decode=decode, rope=rope)
            return b.finish(MECHANISM.lower(b, x, site, Dense()))

    assert graph(True) == graph(False)
