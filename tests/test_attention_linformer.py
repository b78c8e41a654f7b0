"""Linformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.linformer import MECHANISM, Linformer, Sharing, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import ALL_BIASES, Heads
from tilewright.workloads.operators import Tensor

FIXTURE = Path(__file__).parent / "data" / "oracles" / "linformer.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM)


def test_reference_equals_the_public_implementation() -> None:
    """The reference agrees with linformer 0.2.3 on its frozen inputs and outputs."""
    case = dict(np.load(FIXTURE))
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case), expected, rtol=0, atol=1e-14)


@given(
    k=small, more=small, heads=small, width=small, batch=small,
    sharing=st.sampled_from(["none", "headwise", "key_value", "layerwise"]),
)  # fmt: skip
def test_costs_have_the_closed_forms(
    k: int, more: int, heads: int, width: int, batch: int, sharing: Sharing
) -> None:
    """4 n d^2 + 4 n k d MACs, h n k exponentials, and E and F once per degree of sharing (section 4)."""
    n, d = k + more, heads * width
    graph = lowered(Linformer(k=k, sharing=sharing), Heads(heads, heads, width), n, d, batch=batch)
    assert graph.macs == graph.useful_macs == batch * (4 * n * d * d + 4 * n * k * d)
    exps = sum(dict(op.primitives).get("exp", 0) for op in graph.operators)
    assert exps == batch * heads * n * k
    copies = {"none": 2 * heads, "headwise": 2, "key_value": 1, "layerwise": 1}[sharing]
    assert graph.parameters == 4 * d * (d + 1) + copies * n * k


@given(k=small, more=small, group=small, kv=small, width=small)
def test_heads_may_share_keys(k: int, more: int, group: int, kv: int, width: int) -> None:
    """With g of h heads for keys, E and F work on g/h of the width: 2 n k g e MACs."""
    n, d, heads = k + more, 8, Heads(kv * group, kv, width)
    graph = lowered(Linformer(k=k), heads, n, d)
    projections = 2 * n * d * (heads.width + heads.kv_width)
    assert graph.macs == projections + 2 * n * k * heads.kv_width + 2 * n * k * heads.width


def test_layers_share_one_projection_if_told_to() -> None:
    """With `layerwise`, two layers have one E between them; with `key_value`, one each."""
    extra = {}
    degrees: tuple[Sharing, ...] = ("key_value", "layerwise")
    for sharing in degrees:
        b = GraphBuilder("t")
        x = b.input("x", (1, 6, 4))
        site = Site(Heads(2, 2, 2), ALL_BIASES, causal=False, context=6)
        p = Linformer(k=3, sharing=sharing)

        def layer(z: Tensor, b: GraphBuilder = b, site: Site = site, p: Linformer = p) -> Tensor:
            return MECHANISM.lower(b, z, site, p)

        y = b.repeat(2, "layers.{i}", x, layer)
        extra[sharing] = b.finish(y).parameters - 2 * 4 * 4 * 5
    assert extra == {"key_value": 2 * 6 * 3, "layerwise": 6 * 3}


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d = 1 << 20, 64
    graph = lowered(Linformer(), Heads(2, 2, 32), n, d)
    assert graph.macs == 4 * n * d * d + 4 * n * 256 * d
    assert len(graph.operators) < 20


def test_impossible_combinations_say_why() -> None:
    """A causal Linformer and one that lengthens the sequence are refused, with the reason."""
    heads = Heads(2, 2, 2)
    with pytest.raises(InputError) as causal:
        lowered(Linformer(k=2), heads, 4, 4, causal=True)
    assert str(causal.value) == (
        "attention `linformer` can't be causal: each projected key mixes all tokens, the later ones too"
    )
    with pytest.raises(InputError) as longer:
        lowered(Linformer(k=5), heads, 4, 4)
    assert str(longer.value) == (
        "attention `linformer` projects to k = 5 rows, more than the 4 tokens there are: set `k` to at most "
        "that"
    )
