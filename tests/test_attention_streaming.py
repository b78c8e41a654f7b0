"""StreamingLLM: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.streaming import MECHANISM, Streaming, pattern, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "streaming.npz"
small = st.integers(1, 4)
sizes = st.integers(1, 40)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and outputs of the cache of attention-sinks 0.4.0."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[part] for part in ("query", "key", "value", "out"))
    made = reference(query, key, value, Streaming(sinks=3, window=6))
    np.testing.assert_allclose(made, out, rtol=0, atol=1e-14)


def lowered(
    p: Streaming, heads: Heads, n: int, *, decode: bool = False, rope: bool = False, causal: bool = True
) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (2, 1 if decode else n, heads.width))
    table = b.weight("rope", (1 if decode else n, heads.head_dim)) if rope else None
    site = Site(heads, ALL_BIASES, causal=causal, context=n, decode=decode, rope=table)
    return b.finish(MECHANISM.lower(b, x, site, p))


def exps(graph: OperatorGraph) -> int:
    return sum(dict(op.primitives).get("exp", 0) for op in graph.operators)


@given(n=sizes, sinks=st.integers(0, 9), window=sizes)
def test_the_pattern_is_the_definition(n: int, sinks: int, window: int) -> None:
    """Query i sees j <= i if j is a sink or one of the last `window`: min(i + 1, sinks + window) keys."""
    i, j = np.mgrid[:n, :n]
    mask = (j <= i) & ((j < sinks) | (i - j < window))
    np.testing.assert_array_equal(pattern(n, Streaming(sinks=sinks, window=window)).dense(), mask)
    assert mask.sum(axis=1).tolist() == [min(row + 1, sinks + window) for row in range(n)]


@given(n=sizes, sinks=st.integers(0, 9), window=sizes, block=small, group=small, kv=small, e=small)
def test_costs_have_the_closed_form(
    n: int, sinks: int, window: int, block: int, group: int, kv: int, e: int
) -> None:
    """Useful: 2 d per pair; worked: whole blocks, MACs and exponentials alike."""
    heads = Heads(group * kv, kv, e)
    d = heads.width
    graph = lowered(Streaming(sinks=sinks, window=window, block=block), heads, n)
    pairs = sum(min(i + 1, sinks + window) for i in range(n))
    projections = 2 * n * d * d + 2 * n * d * heads.kv_width
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs)
    assert graph.macs == 2 * projections + 2 * exps(graph) * e


@given(context=sizes, sinks=st.integers(0, 9), window=sizes, kv=small, group=small)
def test_a_decode_step_reads_and_rotates_the_cache(
    context: int, sinks: int, window: int, kv: int, group: int
) -> None:
    """2 min(context, sinks + window) d MACs; positions move, so every key in the cache is rotated."""
    heads = Heads(group * kv, kv, 2)
    d, room = heads.width, min(context, sinks + window)
    graph = lowered(Streaming(sinks=sinks, window=window), heads, context, decode=True, rope=True)
    assert graph.macs == 2 * (2 * d * d + 2 * d * heads.kv_width + 2 * room * d)
    rotated = {op.name: dict(op.primitives)["add"] for op in graph.operators if op.function == "rope"}
    assert rotated == {"query_rope": 2 * d, "key_rope": 2 * room * heads.kv_width}


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    assert len(lowered(Streaming(), Heads(2, 2, 8), 1 << 20).operators) < 60


def test_an_encoder_is_refused() -> None:
    """It is for generation."""
    with pytest.raises(InputError) as error:
        lowered(Streaming(), Heads(1, 1, 4), 8, causal=False)
    assert str(error.value) == (
        "attention `streaming` can't look both ways: it drops earlier tokens as later ones come"
    )
