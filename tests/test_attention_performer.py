"""Performer: right numbers, and the costs of its closed forms, both ways, causal and decoding."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import elements, exps, one_layer
from tilewright.workloads.attention.performer import MECHANISM, Performer, reference
from tilewright.workloads.layers import Heads

FIXTURE = Path(__file__).parent / "data" / "oracles" / "performer.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("kernel", ["softmax", "relu"])
@pytest.mark.parametrize("causal", [False, True])
def test_reference_equals_the_public_implementation(kernel: str, causal: bool) -> None:
    """The reference agrees with performer-pytorch 1.1.4 on its frozen inputs and outputs."""
    case = np.load(FIXTURE)
    actual = reference(case["query"], case["key"], case["value"], case["projection"], kernel, causal=causal)
    expected = case[f"{kernel}_{'causal' if causal else 'both_ways'}"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


@given(n=st.integers(1, 40), heads=small, width=small, m=small, batch=small)
def test_both_ways_has_the_closed_form(n: int, heads: int, width: int, m: int, batch: int) -> None:
    """4 n d^2 + 4 n m d + n m h MACs, 2 h n m exponentials; and as many compares, but one a head."""
    d = heads * width
    graph = lowered(Performer(features=m), Heads(heads, heads, width), n, d, batch=batch)
    assert graph.macs == batch * (4 * n * d * d + 4 * n * m * d + n * m * heads)
    assert exps(graph) == 2 * batch * heads * n * m
    no_exp = lowered(Performer(features=m, features_of="relu"), Heads(heads, heads, width), n, d, batch=batch)
    assert no_exp.macs == graph.macs
    assert exps(no_exp) == 0
    assert graph.parameters == 4 * d * (d + 1) + width * m


@given(
    n=st.integers(1, 40), chunk=st.integers(1, 12), kv=small, group=small, width=small, m=small, batch=small
)
def test_causal_has_the_closed_form(
    n: int, chunk: int, kv: int, group: int, width: int, m: int, batch: int
) -> None:
    """Chunks of c add h n' c (m + e) MACs, of which only the pairs that are seen are useful, and a scan over
    n'/c states of g m (e + 1), with g of h heads for keys; n' is a whole number of chunks."""
    heads, d = Heads(kv * group, kv, width), 6
    graph = lowered(Performer(features=m, chunk=chunk), heads, n, d, batch=batch, causal=True)
    c = min(chunk, n)
    whole = ceil(n / c) * c
    h, g, e = heads.heads, kv, width
    projections = 2 * whole * d * g * e + whole * d * h * e + n * d * h * e
    features = whole * e * m * (h + g)
    core = whole * (g * m * e + h * c * (m + e) + h * m * e + h * m)
    assert graph.macs == batch * (projections + features + core)
    wasted = whole * c - sum(i % c + 1 for i in range(n))
    assert graph.macs - graph.useful_macs == batch * h * (m + e) * wasted
    assert elements(graph, "scan") == batch * g * m * (e + 1) * whole // c
    assert exps(graph) == batch * whole * (h + g) * m


@given(context=st.integers(1, 1 << 20), kv=small, group=small, width=small, m=small, batch=small)
def test_a_decode_step_costs_the_same_at_any_context(
    context: int, kv: int, group: int, width: int, m: int, batch: int
) -> None:
    """(h + g) e m MACs for features, g m e to join the state, h m (e + 1) to read it; g m (e + 1) elements
    are written back."""
    heads, d = Heads(kv * group, kv, width), 6
    graph = lowered(Performer(features=m), heads, context, d, batch=batch, causal=True, decode=True)
    h, g, e = heads.heads, kv, width
    assert graph.macs == batch * (2 * d * (h + g) * e + (h + g) * e * m + g * m * e + h * m * (e + 1))
    assert elements(graph, "scatter") == batch * g * m * (e + 1)


def test_a_prefill_leaves_what_a_decode_step_reads() -> None:
    """State, sum of keys and largest product of a prefill are the caches that a decode step reads."""
    heads, p = Heads(4, 2, 3), Performer(features=5, chunk=2)
    left = lowered(p, heads, 8, 12, causal=True)
    step = lowered(p, heads, 9, 12, causal=True, decode=True)
    caches = {t.name: t.shape for t in left.tensors.values() if t.role == "kv_cache"}
    read = {name for op in step.operators for name in op.inputs if step.tensors[name].role == "kv_cache"}
    assert set(caches) == read
    assert all(step.tensors[name].shape == shape for name, shape in caches.items())


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d, m = 1 << 20, 64, 256
    for causal in (False, True):
        graph = lowered(Performer(features=m), Heads(2, 2, 32), n, d, causal=causal)
        assert graph.macs <= n * (4 * d * d + 4 * m * d + 2 * m + 2 * 128 * (m + 32))
        assert len(graph.operators) < 40
