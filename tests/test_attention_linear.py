"""Linear Transformer: right numbers, and the costs of its closed forms, both ways, causal and decoding."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.linear import MECHANISM, Linear, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import ALL_BIASES, Heads
from tilewright.workloads.operators import RowsShape

FIXTURE = Path(__file__).parent / "data" / "oracles" / "linear.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("causal", [False, True])
def test_reference_equals_the_public_implementation(causal: bool) -> None:
    """The reference agrees with performer-pytorch's linear attention on elu + 1, on frozen arrays."""
    case = np.load(FIXTURE)
    actual = reference(case["query"], case["key"], case["value"], causal)
    np.testing.assert_allclose(actual, case["causal" if causal else "both_ways"], rtol=0, atol=1e-13)


@given(n=st.integers(1, 40), heads=small, width=small, batch=small)
def test_both_ways_has_the_closed_form(n: int, heads: int, width: int, batch: int) -> None:
    """4 n d^2 + 2 n d e + n d MACs and 2 n d exponentials: linear in n."""
    d = heads * width
    graph = lowered(Linear(), Heads(heads, heads, width), n, d, batch=batch)
    assert graph.macs == batch * (4 * n * d * d + 2 * n * d * width + n * d)
    assert exps(graph) == 2 * batch * n * d


@given(n=st.integers(1, 40), chunk=st.integers(1, 12), kv=small, group=small, width=small, batch=small)
def test_causal_has_the_closed_form(n: int, chunk: int, kv: int, group: int, width: int, batch: int) -> None:
    """Chunks of c: states, scores and two products, 2 n' e (g e + h c + h e) - here with g of h heads for
    keys -, of the scores only those at or before the query useful; a scan over n'/c states of g e (e + 1)."""
    heads, d = Heads(kv * group, kv, width), 6
    graph = lowered(Linear(chunk=chunk), heads, n, d, batch=batch, causal=True)
    c = min(chunk, n)
    whole = ceil(n / c) * c
    h, g, e = heads.heads, heads.kv_heads, width
    projections = 2 * whole * d * g * e + whole * d * h * e + n * d * h * e
    core = whole * (g * e * e + 2 * h * c * e + h * e * e + h * e)
    assert graph.macs == batch * (projections + core)
    wasted = whole * c - sum(i % c + 1 for i in range(n))
    assert graph.macs - graph.useful_macs == batch * h * 2 * e * wasted
    scans = [op.shape for op in graph.operators if op.kind == "scan"]
    assert sum(shape.rows * shape.cols for shape in scans if isinstance(shape, RowsShape)) == (
        batch * g * e * (e + 1) * whole // c
    )
    assert exps(graph) == batch * whole * (h + g) * e


@given(context=st.integers(1, 1 << 20), kv=small, group=small, width=small, batch=small)
def test_a_decode_step_costs_the_same_at_any_context(
    context: int, kv: int, group: int, width: int, batch: int
) -> None:
    """g e^2 + h e^2 + h e MACs, and a state of g e (e + 1) elements read and written back."""
    heads, d = Heads(kv * group, kv, width), 6
    graph = lowered(Linear(), heads, context, d, batch=batch, causal=True, decode=True)
    h, g, e = heads.heads, kv, width
    assert graph.macs == batch * (2 * d * (h + g) * e + g * e * e + h * e * e + h * e)
    caches = {op.inputs[1] for op in graph.operators if op.name in ("state", "key_sum")}
    assert sum(graph.tensors[name].elements for name in caches) == batch * g * e * (e + 1)
    assert all(graph.tensors[name].role == "kv_cache" for name in caches)
    written = [op.shape for op in graph.operators if op.function == "append"]
    assert sum(shape.rows * shape.cols for shape in written if isinstance(shape, RowsShape)) == (
        batch * g * e * (e + 1)
    )


def test_a_prefill_leaves_the_state_that_a_decode_step_reads() -> None:
    """The caches of a prefill and of a decode step bear the same names and have the same shapes."""
    heads = Heads(4, 2, 3)
    prefill = lowered(Linear(chunk=2), heads, 8, 12, causal=True)
    decode = lowered(Linear(chunk=2), heads, 9, 12, causal=True, decode=True)
    left = {t.name: t.shape for t in prefill.tensors.values() if t.role == "kv_cache"}
    read = {t.name: t.shape for t in decode.tensors.values() if t.role == "kv_cache"}
    assert left.items() <= read.items()
    assert left == {"state_cache": (2, 3, 3), "key_sum_cache": (2, 3)}


def test_padded_tokens_have_padded_rotary_angles() -> None:
    """A model with rotary positions and tokens that are no whole number of chunks is lowered all the same."""
    b = GraphBuilder("t")
    x, angles = b.input("x", (2, 7, 8)), b.input("angles", (7, 4))
    site = Site(Heads(2, 2, 4), ALL_BIASES, causal=True, context=7, rope=angles)
    graph = b.finish(MECHANISM.lower(b, x, site, Linear(chunk=4)))
    pads = [op.shape for op in graph.operators if op.function == "pad"]
    assert pads == [RowsShape(16, 8), RowsShape(8, 4)]


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d = 1 << 20, 64
    for causal in (False, True):
        graph = lowered(Linear(), Heads(2, 2, 32), n, d, causal=causal)
        assert graph.macs <= n * (4 * d * d + d * (2 * 32 + 1 + 2 * 128))
        assert len(graph.operators) < 30
