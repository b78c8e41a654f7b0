"""Image Transformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.image import MECHANISM, Image, pattern, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "image.npz"
small = st.integers(1, 4)
sizes = st.integers(1, 40)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of torch's scaled_dot_product_attention with the paper's mask."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[part] for part in ("query", "key", "value", "out"))
    made = reference(query, key, value, Image(query_block=4, memory=6))
    np.testing.assert_allclose(made, out, rtol=0, atol=1e-14)


def lowered(p: Image, heads: Heads, n: int, *, causal: bool = True) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (2, n, heads.width))
    return b.finish(MECHANISM.lower(b, x, Site(heads, ALL_BIASES, causal=causal, context=n), p))


def exps(graph: OperatorGraph) -> int:
    return sum(dict(op.primitives).get("exp", 0) for op in graph.operators)


@given(n=sizes, length=sizes, memory=st.integers(0, 40))
def test_the_pattern_is_the_definition(n: int, length: int, memory: int) -> None:
    """j <= i, and j no more than `memory` before the block of i."""
    i, j = np.mgrid[:n, :n]
    mask = (j <= i) & (j >= i // length * length - memory)
    np.testing.assert_array_equal(pattern(n, Image(query_block=length, memory=memory)).dense(), mask)


@given(blocks=st.integers(33, 40), length=small, group=small, kv=small, e=small)
def test_costs_have_the_closed_form(blocks: int, length: int, group: int, kv: int, e: int) -> None:
    """Blocks of l queries by 2 l keys, the first padded to as many: 2 n (2 l) d MACs, h n 2 l exponentials;
    useful, of the own block the pairs up to the diagonal."""
    n, heads = blocks * length, Heads(group * kv, kv, e)
    d = heads.width
    graph = lowered(Image(query_block=length, memory=length), heads, n)
    projections = 2 * n * d * d + 2 * n * d * heads.kv_width
    assert graph.macs == 2 * (projections + 2 * n * 2 * length * d)
    assert exps(graph) == 2 * heads.heads * n * 2 * length
    pairs = (blocks - 1) * length * length + blocks * length * (length + 1) // 2
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs)


def test_a_million_positions_lower() -> None:
    """Nothing in the lowering grows with the square of the positions."""
    assert len(lowered(Image(), Heads(2, 2, 8), 1 << 20).operators) < 20


def test_an_encoder_is_refused() -> None:
    """The memory lies before."""
    with pytest.raises(InputError) as error:
        lowered(Image(), Heads(1, 1, 4), 8, causal=False)
    assert str(error.value) == ("attention `image` can't look both ways: its memory lies before the queries")
