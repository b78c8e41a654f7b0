"""Synthesizer: right numbers, and the costs of its closed forms, for each of its four variants."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import elements, exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention import synthesizer
from tilewright.workloads.attention.base import Site, Values
from tilewright.workloads.attention.synthesizer import MECHANISM, Synthesizer
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FIXTURE = Path(__file__).parent / "data" / "oracles" / "synthesizer.npz"
VARIANTS = ("dense", "random", "factorised_dense", "factorised_random")
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM)


def score_macs(variant: str, batch: int, rows: int, n: int, d: int, heads: int, k: int) -> int:
    """MACs that make the attention weights of `rows` tokens over n, up to the softmax."""
    a = synthesizer.factor(n)
    return {
        "dense": batch * (rows * d * d + rows * n * d),
        "random": 0,
        "factorised_dense": batch * rows * d * heads * (a + n // a),
        "factorised_random": heads * rows * n * k,
    }[variant]


def scores_of(variant: str, case: Mapping[str, Any]) -> Values:
    if variant == "dense":
        return synthesizer.dense_scores(*(case[name] for name in ("x", "w1", "b1", "w2", "b2")))
    if variant == "factorised_dense":
        return synthesizer.factorised_dense_scores(case["fa"], case["fb"])
    if variant == "factorised_random":
        return synthesizer.factorised_random_scores(case["r1"], case["r2"])
    return np.asarray(case["r"])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_equals_the_public_implementation(variant: str, causal: bool) -> None:
    """The reference agrees with torch's layers on frozen inputs and outputs."""
    case = np.load(FIXTURE)
    scores = scores_of(variant, case)
    expected = case[f"{variant}_causal" if causal else variant]
    actual = synthesizer.reference(scores, case["value"], causal)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("variant", VARIANTS)
@given(n=st.integers(1, 20), heads=small, width=small, batch=small, k=small, causal=st.booleans())
def test_costs_have_the_closed_forms(
    variant: str, n: int, heads: int, width: int, batch: int, k: int, causal: bool
) -> None:
    """Values, their use and the output 2 n d^2 + n^2 d MACs, and the scores' own; h n^2 exponentials, once
    for all sequences where they depend on none; 2 h n^2 elements tiled where the scores are factorised."""
    d = heads * width
    p = Synthesizer.model_validate({"variant": variant, "k": k})
    graph = lowered(p, Heads(heads, heads, width), n, d, batch=batch, causal=causal)
    macs = batch * (2 * n * d * d + n * n * d) + score_macs(variant, batch, n, n, d, heads, k)
    assert graph.macs == macs
    assert exps(graph) == heads * n * n * (1 if "random" in variant else batch)
    assert elements(graph, "gather") == (2 * batch * heads * n * n if variant == "factorised_dense" else 0)


@pytest.mark.parametrize("variant", VARIANTS)
@given(n=st.integers(1, 20), heads=small, width=small, batch=small, k=small)
def test_a_decode_step_has_the_closed_form(
    variant: str, n: int, heads: int, width: int, batch: int, k: int
) -> None:
    """One token against n: 2 d^2 + n d MACs and one row of scores."""
    d = heads * width
    p = Synthesizer.model_validate({"variant": variant, "k": k})
    graph = lowered(p, Heads(heads, heads, width), n, d, batch=batch, causal=True, decode=True)
    assert graph.macs == batch * (2 * d * d + n * d) + score_macs(variant, batch, 1, n, d, heads, k)
    assert exps(graph) == heads * n * (1 if "random" in variant else batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_for_more_tokens_serve_every_step(variant: str) -> None:
    """With `max_tokens`, a prefill and decode steps over different contexts share their weights; without, the
    error says to set it."""

    def run(p: Synthesizer) -> OperatorGraph:
        b = GraphBuilder("t")
        outputs = []
        for name, tokens, context in (("prefill", 6, 6), ("decode1", 1, 7), ("decode2", 1, 8)):
            x = b.input(name, (2, tokens, 12))
            with b.scope(name, weights=""):
                site = Site(Heads(3, 3, 4), ALL_BIASES, causal=True, context=context, decode=tokens == 1)
                outputs.append(MECHANISM.lower(b, x, site, p))
        return b.finish(*outputs)

    p = Synthesizer.model_validate({"variant": variant, "max_tokens": 12})
    own = {
        "dense": 12 * 12 + 12 + 12 * 12 + 3 * 12,
        "random": 3 * 12 * 12,
        "factorised_dense": 13 * 3 * (3 + 4),
        "factorised_random": 2 * 3 * 12 * 8,
    }
    assert run(p).parameters == 2 * 12 * 13 + own[variant]
    with pytest.raises(InputError) as problem:
        run(p.model_copy(update={"max_tokens": None}))
    assert str(problem.value) == (
        "attention `synthesizer` has weights for a number of tokens, and this run has steps of several: "
        "set `max_tokens`"
    )


def test_impossible_combinations_say_why() -> None:
    """Rotary positions, shared heads and too many tokens are refused, with the reason."""
    b = GraphBuilder("t")
    x, angles = b.input("x", (1, 6, 8)), b.input("angles", (6, 4))
    site = Site(Heads(2, 2, 4), ALL_BIASES, causal=True, context=6, rope=angles)
    with pytest.raises(InputError) as rotary:
        MECHANISM.lower(b, x, site, Synthesizer())
    assert str(rotary.value) == (
        "attention `synthesizer` can't have rotary positions: it has no queries and keys to rotate"
    )
    with pytest.raises(InputError) as shared:
        lowered(Synthesizer(), Heads(4, 2, 2), 6, 8)
    assert str(shared.value) == (
        "attention `synthesizer` needs as many key and value heads as query heads, not 2 for 4: each head "
        "has attention weights of its own"
    )
    with pytest.raises(InputError) as long:
        lowered(Synthesizer(max_tokens=5), Heads(2, 2, 4), 6, 8)
    assert str(long.value) == ("attention `synthesizer` is made for 5 tokens, not for 6: raise `max_tokens`")
