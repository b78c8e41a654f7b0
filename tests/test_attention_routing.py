"""Routing Transformer: its reference against frozen results, its costs in closed form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer, work
from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.attention.routing import MECHANISM, Routing, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "routing.npz"
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("name", ["encoder", "overlapping", "causal"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """KmeansAttention of routing-transformer 1.6.1 gives the same numbers, in float64."""
    with np.load(FROZEN) as frozen:
        case = {key: frozen[f"{name}_{key}"] for key in ("query", "key", "value", "centroids", "out")}
        window, causal = int(frozen[f"{name}_window"]), bool(frozen[f"{name}_causal"])
    out = reference(case["query"], case["key"], case["value"], case["centroids"], window, causal)
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)
    some_left_out = (out == 0).all(axis=-1).any()
    assert some_left_out == (case["out"] == 0).all(axis=-1).any()


@given(
    batch=st.integers(1, 3),
    h=st.integers(1, 4),
    e=st.integers(1, 8),
    n=st.integers(1, 60),
    k=st.integers(1, 9),
    w=st.integers(1, 60),
    causal=st.booleans(),
)
def test_costs_are_the_closed_forms(batch: int, h: int, e: int, n: int, k: int, w: int, causal: bool) -> None:
    """Distances, selections, gathers, clusters of w by w, the mean: all counted."""
    d, each = h * e, 1 if causal else 2
    graph = lowered(Routing(clusters=k, window=w), Heads(h, h, e), n, batch=batch, causal=causal)
    w = min(w, n)
    assert graph.macs == batch * ((2 + each) * n * d * d + each * n * k * d + 2 * k * w * w * d)
    assert work(graph, "softmax")["exp"] == batch * h * k * w * w
    assert work(graph, "topk") == dict(primitives.topk(each * batch * h * k, n, w))
    assert work(graph, "gather") == {"move": batch * 3 * k * w * d}
    assert work(graph, "scatter") == {"add": batch * (k * w * d + h * k * w)}
    unit = each * batch * n * h
    assert work(graph, "norm") == {
        "add": unit * (e + 1),
        "multiply": 2 * unit * e,
        "sqrt": unit,
        "divide": unit,
    }
    pairs = batch * h * k * w * w
    mask = {"compare": 2 * pairs, "add": pairs} if causal else {}
    mean = {"divide": batch * n * h, "multiply": batch * n * d + pairs}
    assert work(graph, "elementwise") == {**mask, **mean}
    biases = d * (2 + each)
    assert graph.parameters == (2 + each) * d * d + biases + h * k * e


def test_a_selection_costs_at_most_a_sort() -> None:
    """Taking w of n by w scans is not charged where sorting the row takes fewer operations."""
    scans, sorting = dict(primitives.topk(1, 1024, 20)), dict(primitives.topk(1, 1024, 21))
    assert scans == {"compare": 1024 * 20}
    assert sorting == {"compare": 1024 * 10, "move": 1024 * 10}


def test_clusters_are_the_square_root_by_default() -> None:
    """k = sqrt(n) and w = n / k, so that costs grow as n sqrt(n)."""
    assert Routing().sizes(4096) == (64, 64)
    assert Routing().sizes(1000) == (31, 33)
    assert Routing(clusters=16, window=512).sizes(8192) == (16, 512)  # PG-19
    small, large = (lowered(Routing(), Heads(1, 1, 4), n).macs - 4 * n * 16 for n in (4096, 65536))
    assert large == 64 * small


def test_routing_needs_keys_of_its_own() -> None:
    """Grouped keys would need centroids that several heads share."""
    with pytest.raises(
        InputError,
        match=r"^attention `routing` needs as many key and value heads as query heads, not 1 for 2: each "
        r"head routes by centroids of its own$",
    ):
        lowered(Routing(), Heads(2, 1, 4), 8)
