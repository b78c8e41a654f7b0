"""Sparse Transformer: right numbers, and the costs of its closed forms."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.sparse import (
    MECHANISM,
    Sparse,
    fixed_pattern,
    masks,
    reference,
    strided_patterns,
)
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "sparse.npz"
small = st.integers(1, 4)
sizes = st.integers(1, 40)
lowered = partial(one_layer, MECHANISM, batch=2, causal=True)


@pytest.mark.parametrize("layout", ["fixed", "strided"])
def test_reference_equals_the_public_implementation(layout: str) -> None:
    """Frozen inputs and outputs of torch's attention with deepspeed's layout, or the paper's masks."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[f"{layout}_{part}"] for part in ("query", "key", "value", "out"))
    p = Sparse.model_validate({"layout": layout, "stride": 4, "summary": 1})
    np.testing.assert_allclose(reference(query, key, value, p), out, rtol=0, atol=1e-14)


@given(n=sizes, stride=st.integers(1, 9), data=st.data())
def test_the_fixed_pattern_is_the_definition(n: int, stride: int, data: st.DataObject) -> None:
    """Summaries in front and tokens behind, put back where they come from, are the mask, each pair once."""
    c = data.draw(st.integers(1, stride))
    p = Sparse(stride=stride, summary=c)
    made = fixed_pattern(n, p).dense()
    known = n // stride * c
    position = np.arange(known) // c * stride + stride - c + np.arange(known) % c
    mask = made[:, known:].astype(int)
    mask[:, position] += made[:, :known]
    np.testing.assert_array_equal(mask, masks(n, 1, p)[0])


@given(n=sizes, stride=st.integers(1, 9), heads=small, part=st.sampled_from(["both", "local", "strided"]))
def test_strided_patterns_are_the_definition(n: int, stride: int, heads: int, part: str) -> None:
    """Local and strided heads see what the masks say."""
    p = Sparse.model_validate({"layout": "strided", "stride": stride, "summary": 1, "part": part})
    made = [pattern.dense() for pattern in strided_patterns(n, heads, p)]
    np.testing.assert_array_equal(np.broadcast_to(made, (heads, n, n)), masks(n, heads, p))


@given(n=sizes, stride=st.integers(1, 9), block=st.integers(1, 6), group=small, kv=small, e=small)
def test_fixed_costs_have_the_closed_form(
    n: int, stride: int, block: int, group: int, kv: int, e: int
) -> None:
    """Useful pairs of query i: (i mod l) + 1 + c floor(i / l); c tokens of every whole block are copied
    twice, for keys and for values."""
    heads, c = Heads(group * kv, kv, e), max(1, stride // 2)
    d = heads.width
    graph = lowered(Sparse(stride=stride, summary=c, block=block), heads, n)
    pairs = sum(i % stride + 1 + c * (i // stride) for i in range(n))
    projections = 2 * n * d * d + 2 * n * d * heads.kv_width
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs)
    assert graph.macs == 2 * projections + 2 * exps(graph) * e
    copied = 2 * 2 * (n // stride * c) * heads.kv_width
    assert sum(dict(op.primitives)["move"] for op in graph.operators if op.kind == "gather") == copied
    summaries = [op for op in graph.operators if op.name.endswith("with_summaries")]
    assert sum(dict(op.primitives)["move"] for op in summaries) == copied


@given(
    n=sizes, stride=st.integers(1, 9), h=small, e=small, part=st.sampled_from(["both", "local", "strided"])
)
def test_strided_costs_have_the_closed_form(n: int, stride: int, h: int, e: int, part: str) -> None:
    """Useful pairs of query i: min(i, l) + 1 in a local head, floor(i / l) + 1 in a strided one."""
    heads = Heads(h, h, e)
    values = {"layout": "strided", "stride": stride, "summary": 1, "part": part, "block": 4}
    graph = lowered(Sparse.model_validate(values), heads, n)
    local = {"both": (h + 1) // 2, "local": h, "strided": 0}[part]
    pairs = sum(local * (min(i, stride) + 1) + (h - local) * (i // stride + 1) for i in range(n))
    assert graph.useful_macs == 2 * (4 * n * (h * e) ** 2 + 2 * e * pairs)
    assert graph.macs == 2 * 4 * n * (h * e) ** 2 + 2 * exps(graph) * e


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n = 1 << 20
    for layout in ("fixed", "strided"):
        p = Sparse.model_validate({"layout": layout, "stride": 1024})
        assert len(lowered(p, Heads(2, 2, 8), n).operators) < 400


def test_what_cannot_be_says_why() -> None:
    """Encoders, and parameters that contradict each other, are refused."""
    with pytest.raises(InputError) as error:
        lowered(Sparse(), Heads(1, 1, 4), 8, causal=False)
    assert str(error.value) == (
        "attention `sparse` can't look both ways: its patterns are those of a generator"
    )
    with pytest.raises(ValueError, match=re.escape("`summary` (9) can't exceed `stride` (8)")):
        Sparse(stride=8, summary=9)
    with pytest.raises(ValueError, match="`part` is for `layout: strided`"):
        Sparse(part="local")
