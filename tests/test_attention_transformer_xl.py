"""Transformer-XL: right numbers, and the costs of its closed forms, over segments and decoding."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import elements, exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.transformer_xl import MECHANISM, TransformerXL, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import ALL_BIASES, Heads
from tilewright.workloads.operators import RowsShape

FIXTURE = Path(__file__).parent / "data" / "oracles" / "transformer_xl.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM, causal=True)


def test_reference_equals_the_public_implementation() -> None:
    """The reference agrees with transformers 4.57.6 on frozen arrays, up to the float32 that it works in."""
    case = dict(np.load(FIXTURE))
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case), expected, rtol=0, atol=2e-6)


@given(
    n=st.integers(1, 40), segment=st.integers(1, 12), memory=st.integers(0, 20), kv=small, group=small,
    width=small, batch=small, recompute=st.booleans(),
)  # fmt: skip
def test_costs_have_the_closed_forms(
    n: int, segment: int, memory: int, kv: int, group: int, width: int, batch: int, recompute: bool
) -> None:
    """Each of s segments: queries L d q, keys and values 2 (L + M) d k, three products L (L + M) q; W_r once;
    the output. h s L (L + M) exponentials and as many elements shifted."""
    heads, d = Heads(kv * group, kv, width), 6
    graph = lowered(
        TransformerXL(segment=segment, memory=memory, recompute=recompute), heads, n, d, batch=batch
    )
    length = min(segment, n)
    s = ceil(n / length)
    m = min(memory, (s - 1) * length)
    keyed = s * (length + m) if recompute else s * length
    pairs = s * length * (length + m)
    projections = s * length * d * heads.width + 2 * keyed * d * heads.kv_width + n * d * heads.width
    assert graph.macs == batch * (projections + 3 * pairs * heads.width) + (length + m) * d * heads.width
    seen = sum(m + i % length + 1 for i in range(n))
    assert graph.macs - graph.useful_macs == batch * 3 * (pairs - seen) * heads.width
    assert exps(graph) == batch * heads.heads * pairs
    assert elements(graph, "gather", "relative_shift") == (batch * heads.heads * pairs if length > 1 else 0)
    copied = batch * s * (length + m) * d if recompute and m else 0
    assert elements(graph, "gather", "concat") == copied


@given(
    context=st.integers(1, 50), memory=st.integers(0, 20), kv=small, group=small, width=small, batch=small,
    recompute=st.booleans(),
)  # fmt: skip
def test_a_decode_step_is_a_segment_of_one(
    context: int, memory: int, kv: int, group: int, width: int, batch: int, recompute: bool
) -> None:
    """t = min(M, context - 1) + 1 keys: 2 d q + 2 t d k (2 d k without `recompute`) + 3 t q + t d q MACs."""
    heads, d = Heads(kv * group, kv, width), 6
    p = TransformerXL(memory=memory, recompute=recompute)
    graph = lowered(p, heads, context, d, batch=batch, decode=True)
    t = min(memory, context - 1) + 1
    keys = 2 * (t if recompute else 1) * d * heads.kv_width
    assert graph.macs == batch * (2 * d * heads.width + keys + 3 * t * heads.width) + t * d * heads.width
    assert exps(graph) == batch * heads.heads * t
    written = [op.shape for op in graph.operators if op.function == "append"]
    rows = sum(shape.elements for shape in written if isinstance(shape, RowsShape))
    assert rows == batch * ((d if memory else 0) if recompute else 2 * heads.kv_width)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_has_a_prefill_and_decode_steps(recompute: bool) -> None:
    """A prefill and steps over growing contexts stand in one graph and have one set of weights."""
    p, heads = TransformerXL(segment=4, memory=7, recompute=recompute), Heads(3, 3, 4)
    b, outputs = GraphBuilder("t"), []
    for name, tokens, context in (("prefill", 6, 6), ("decode1", 1, 7), ("decode2", 1, 8), ("decode3", 1, 9)):
        x = b.input(name, (2, tokens, 12))
        with b.scope(name, weights=""):
            site = Site(heads, ALL_BIASES, causal=True, context=context, decode=tokens == 1)
            outputs.append(MECHANISM.lower(b, x, site, p))
    assert b.finish(*outputs).parameters == 4 * 12 * 13 + 12 * 12 + 2 * 12


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d = 1 << 20, 64
    graph = lowered(TransformerXL(segment=512, memory=512), Heads(2, 2, 32), n, d)
    assert graph.macs == n // 512 * (2 * 512 * d * d + 2 * 1024 * d * d + 3 * 512 * 1024 * d) + 1024 * d * d
    assert len(graph.operators) < 30


def test_impossible_combinations_say_why() -> None:
    """Looking both ways and rotary positions are refused, with the reason."""
    with pytest.raises(InputError) as both:
        lowered(TransformerXL(), Heads(2, 2, 4), 6, 8, causal=False)
    assert str(both.value) == (
        "attention `transformer_xl` can't look both ways: its memory is what came before"
    )
    b = GraphBuilder("t")
    x, angles = b.input("x", (1, 6, 8)), b.input("angles", (6, 4))
    with pytest.raises(InputError) as rotary:
        MECHANISM.lower(b, x, Site(Heads(2, 2, 4), ALL_BIASES, True, 6, rope=angles), TransformerXL())
    assert str(rotary.value) == (
        "attention `transformer_xl` can't have rotary positions: it has relative positions of its own"
    )
