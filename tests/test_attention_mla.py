"""Multi-head latent attention: right numbers, and the costs of its closed forms in both forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.graphs import elements, one_layer
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.mla import MECHANISM, MultiHeadLatent, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import NO_BIAS, Heads
from tilewright.workloads.operators import RowsShape

FIXTURE = Path(__file__).parent / "data" / "oracles" / "mla.npz"
small = st.integers(1, 5)
parameters = st.builds(
    MultiHeadLatent,
    q_lora_rank=st.none() | small,
    kv_lora_rank=small,
    qk_nope_head_dim=small,
    qk_rope_head_dim=st.sampled_from([2, 4]),
    v_head_dim=small,
    form=st.sampled_from(["auto", "expanded", "absorbed"]),
)
lowered = partial(one_layer, MECHANISM, causal=True, bias=NO_BIAS)


def weights(p: MultiHeadLatent, h: int, d: int) -> int:
    """Parameters of the projections, the norms aside."""
    query = h * (p.qk_nope_head_dim + p.qk_rope_head_dim)
    queries = d * query if p.q_lora_rank is None else p.q_lora_rank * (d + query)
    keys = d * (p.kv_lora_rank + p.qk_rope_head_dim)
    return queries + keys + p.kv_lora_rank * h * (p.qk_nope_head_dim + p.v_head_dim) + h * p.v_head_dim * d


@pytest.mark.parametrize("absorbed", [False, True])
def test_reference_equals_the_public_implementation(absorbed: bool) -> None:
    """Both forms agree with transformers 4.57.6 on frozen arrays, up to the float32 of its softmax."""
    case = dict(np.load(FIXTURE))
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case, absorbed=absorbed), expected, rtol=0, atol=1e-6)


def test_both_forms_are_the_same() -> None:
    """Absorbing the projections changes nothing but rounding."""
    case = dict(np.load(FIXTURE))
    del case["expected"]
    np.testing.assert_allclose(reference(**case, absorbed=True), reference(**case), rtol=0, atol=1e-13)


@given(
    p=parameters,
    n=st.integers(1, 20),
    h=small,
    d=small,
    batch=small,
    causal=st.booleans(),
    decode=st.booleans(),
)
def test_costs_have_the_closed_forms(
    p: MultiHeadLatent, n: int, h: int, d: int, batch: int, causal: bool, decode: bool
) -> None:
    """Projections use each weight once per token; the core of t queries and n keys does, expanded,
    h l (d_n + d_v) n + h t n (d_n + r + d_v) MACs, absorbed h t l (d_n + d_v) + h t n (2 l + r)."""
    graph = lowered(p, Heads(h, 1, 3), n, d, batch=batch, causal=causal or decode, decode=decode)
    t, rank, nope, rope, v = (
        1 if decode else n,
        p.kv_lora_rank,
        p.qk_nope_head_dim,
        p.qk_rope_head_dim,
        p.v_head_dim,
    )
    norms = rank + (p.q_lora_rank or 0)
    assert graph.parameters == weights(p, h, d) + norms
    up = rank * h * (nope + v)
    absorbed = p.form == "absorbed" or (p.form == "auto" and decode)
    core = t * up + h * t * n * (2 * rank + rope) if absorbed else n * up + h * t * n * (nope + rope + v)
    assert graph.macs == batch * (t * (weights(p, h, d) - up) + core)
    assert sum(dict(op.primitives).get("exp", 0) for op in graph.operators) == batch * h * t * n
    assert elements(graph, "gather") == (0 if absorbed else batch * h * (n + t) * (nope + rope))
    assert elements(graph, "scatter") == (batch * t * (rank + rope) if causal or decode else 0)


def test_the_cache_has_576_elements_per_token() -> None:
    """DeepSeek-V2 and V3 cache l + r = 576 elements per token and layer (arXiv:2405.04434, table 1)."""
    graph = lowered(MultiHeadLatent(), Heads(128, 128, 128), 1000, 7168, decode=True)
    caches = [tensor for tensor in graph.tensors.values() if tensor.role == "kv_cache"]
    assert sum(cache.elements for cache in caches) == 1000 * 576
    assert graph.parameters == 187_107_328


def test_the_models_rotary_table_is_used() -> None:
    """Where a model has a table of angles, the rotated part takes what it needs of it."""
    b = GraphBuilder("t")
    x, angles = b.input("x", (1, 6, 8)), b.input("angles", (6, 4))
    site = Site(Heads(2, 2, 4), NO_BIAS, causal=True, context=6, rope=angles)
    graph = b.finish(MECHANISM.lower(b, x, site, MultiHeadLatent(qk_rope_head_dim=2)))
    assert graph.inputs == ("x", "angles")
    assert [op.shape for op in graph.operators if op.function == "slice"] == [RowsShape(6, 2)]


def test_odd_rotated_widths_are_refused() -> None:
    """What is rotated is pairs."""
    with pytest.raises(ValidationError, match="rotary positions need an even width, not 3"):
        MultiHeadLatent(qk_rope_head_dim=3)
