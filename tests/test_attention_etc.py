"""ETC: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.etc import MECHANISM, Etc, pattern, pieces, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "etc.npz"
small = st.integers(1, 4)
lowered = partial(one_layer, MECHANISM, batch=2)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of torch's scaled_dot_product_attention with mask and relative scores."""
    with np.load(FROZEN) as frozen:
        query, key, value, vectors, out = (
            frozen[part] for part in ("query", "key", "value", "vectors", "out")
        )
        own, separate = (frozen["own_key"], frozen["own_value"]), frozen["separate"]
    p = Etc(global_tokens=4, radius=3, relative_distance=2)
    np.testing.assert_allclose(reference(query, key, value, vectors, p), out, rtol=0, atol=1e-14)
    np.testing.assert_allclose(reference(query, key, value, vectors, p, own), separate, rtol=0, atol=1e-14)


@given(n=st.integers(2, 40), count=st.integers(1, 9), radius=st.integers(0, 9))
def test_the_pattern_is_the_definition(n: int, count: int, radius: int) -> None:
    """Global to all, all to global, long to long within the radius."""
    count = min(count, n - 1)
    i, j = np.mgrid[:n, :n]
    mask = (i < count) | (j < count) | (abs(i - j) <= radius)
    p = Etc(global_tokens=count, radius=radius)
    np.testing.assert_array_equal(pattern(n, p).dense(), mask)
    parts = pieces(n, p)
    np.testing.assert_array_equal(parts["global"].dense(), mask[:count])
    np.testing.assert_array_equal(parts["long"].dense(), mask[count:])


@given(
    n=st.integers(10, 40), g=small, radius=st.integers(0, 9), far=st.integers(0, 3), block=small,
    group=small, kv=small, e=small, shared=st.booleans(),
)  # fmt: skip
def test_costs_have_the_closed_form(
    n: int, g: int, radius: int, far: int, block: int, group: int, kv: int, e: int, shared: bool
) -> None:
    """Useful: g^2 + 2 n g + n (2 R + 1) - R (R + 1) pairs, and (n + g)(2 D + 3) d for the relations; worked:
    whole blocks, one relation gathered and one exponential for each of their elements. Keys and values of
    both sequences are worked out once if projections are shared, else for either sequence of queries."""
    heads, times = Heads(group * kv, kv, e), 1 if shared else 2
    d, tokens = heads.width, n + g
    p = Etc(global_tokens=g, radius=radius, relative_distance=far, block=block, shared_projections=shared)
    graph = lowered(p, heads, tokens)
    linear = 2 * tokens * d * d + 2 * times * tokens * d * heads.kv_width + tokens * (2 * far + 3) * d
    pairs = g * g + 2 * n * g + n * (2 * radius + 1) - radius * (radius + 1)
    assert graph.useful_macs == 2 * (linear + 2 * d * pairs)
    exps = sum(dict(op.primitives).get("exp", 0) for op in graph.operators)
    assert graph.macs == 2 * linear + 2 * exps * e
    gathered = [op for op in graph.operators if op.name.endswith("relative")]
    assert sum(dict(op.primitives)["move"] for op in gathered) == exps
    placed = [dict(op.primitives)["move"] for op in graph.operators if op.function == "place"]
    assert sum(placed) >= (0 if shared else 2 * g * (d + 4 * heads.kv_width))


@pytest.mark.parametrize(
    ("shared", "layers", "heads", "words", "million"),
    [(False, 12, 12, 30522, 166), (True, 12, 12, 30522, 109), (False, 24, 16, 50265, 558)],
)
def test_parameters_are_the_published_ones(
    shared: bool, layers: int, heads: int, words: int, million: int
) -> None:
    """Layers as BERT's that attend so have, with the words' embeddings and a pooler, the parameters of the
    paper's base model (166 M; 109 M if projections are shared) and large one (558 M, RoBERTa's words)."""
    d = 64 * heads
    layer = lowered(Etc(shared_projections=shared), Heads(heads, heads, 64), 512)
    attention = sum(t.elements for t in layer.tensors.values() if t.role == "weight")
    ffn_and_norms = 2 * d * 4 * d + 4 * d + d + 2 * 2 * d
    pooler = d * d + d
    assert round((words * d + layers * (attention + ffn_and_norms) + pooler) / 1e6) == million


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    assert len(lowered(Etc(), Heads(2, 2, 8), 1 << 20).operators) < 60


@pytest.mark.parametrize(
    ("causal", "tokens", "message"),
    [
        (True, 512, "attention `etc` can't be causal: its global tokens see all tokens"),
        (
            False,
            256,
            "attention `etc` has 256 global tokens, which leaves none of 256 for the long sequence: set "
            "`global_tokens` to less",
        ),
    ],
)
def test_impossible_combinations_say_why(causal: bool, tokens: int, message: str) -> None:
    """What can't be is refused, with the reason."""
    with pytest.raises(InputError) as error:
        lowered(Etc(), Heads(1, 1, 4), tokens, causal=causal)
    assert str(error.value) == message
