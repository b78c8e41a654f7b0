"""Sinkhorn Transformer: its reference against frozen results, its costs in closed form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.sinkhorn import Sinkhorn, balance, lower, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "sinkhorn.npz"


def lowered(p: Sinkhorn, tokens: int, heads: Heads, *, batch: int = 1, causal: bool = False) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (batch, tokens, heads.width))
    return b.finish(lower(b, x, Site(heads, ALL_BIASES, causal, tokens), p))


def work(graph: OperatorGraph, *kinds: str) -> Counter[str]:
    """Primitives of all operators of some kinds."""
    total: Counter[str] = Counter()
    for op in graph.operators:
        if op.kind in kinds:
            total.update(dict(op.primitives))
    return total


@pytest.mark.parametrize("name", ["as_published", "mended"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """SinkhornAttention of sinkhorn-transformer 0.11.4 gives the same numbers: as published where values are
    keys, and for values of their own with its permutation of values mended."""
    with np.load(FROZEN) as frozen:
        case = {key.removeprefix(f"{name}_"): frozen[key] for key in frozen if key.startswith(name)}
    p = Sinkhorn(
        block=int(case["block"]), iterations=int(case["iterations"]), temperature=float(case["temperature"])
    )
    out = reference(case["query"], case["key"], case["value"], p, case["noise"])
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


def test_balancing_makes_a_matrix_doubly_stochastic() -> None:
    """Rows and columns of the sorting matrix add up to one in the end; columns do after each iteration."""
    logits = np.random.default_rng(0).normal(size=(2, 5, 5))
    np.testing.assert_allclose(balance(logits, 1).sum(axis=-2), 1)
    np.testing.assert_allclose(balance(logits, 200).sum(axis=-1), 1, atol=1e-12)


@given(
    batch=st.integers(1, 3),
    h=st.integers(1, 4),
    e=st.integers(1, 8),
    block=st.integers(2, 9),
    blocks=st.integers(2, 7),
    iterations=st.integers(1, 8),
)
def test_costs_are_the_closed_forms(
    batch: int, h: int, e: int, block: int, blocks: int, iterations: int
) -> None:
    """Block means, sorting scores, balancing, soft permutation, 2b keys a query: all counted."""
    n, d = block * blocks, h * e
    graph = lowered(Sinkhorn(block=block, iterations=iterations), n, Heads(h, h, e), batch=batch)
    square = h * blocks * blocks
    core = 4 * n * block * d
    assert graph.macs == batch * (4 * n * d * d + square * e + 2 * blocks * n * d + core)
    exps = work(graph, "softmax", "reduce", "elementwise")["exp"]
    balancing = 2 * iterations * h * blocks * (blocks + 1)
    assert exps == batch * (2 * block * h * n + balancing + 2 * square)
    assert work(graph, "gather") == {"move": batch * 4 * n * d}
    means = 2 * h * blocks * e
    lse = 2 * iterations * square
    assert work(graph, "reduce") == {
        "add": batch * (means * (block - 1) + 2 * lse),
        "multiply": batch * means,
        "compare": batch * lse,
        "exp": batch * balancing,
    }


def test_sequences_are_filled_up_to_whole_blocks() -> None:
    """13 tokens in blocks of 4 cost what 16 do, but for the output projection and the copy that fills up."""
    heads = Heads(2, 2, 4)
    short, full = lowered(Sinkhorn(block=4), 13, heads), lowered(Sinkhorn(block=4), 16, heads)
    assert full.macs - short.macs == 3 * 8 * 8
    assert work(short, "gather")["move"] - work(full, "gather")["move"] == 16 * 8


def test_impossible_combinations_say_why() -> None:
    """Neither a causal site nor grouped keys can be sorted this way."""
    with pytest.raises(
        InputError,
        match=r"^attention `sinkhorn` can't be causal: balancing the columns of the sorting matrix looks at "
        r"all blocks$",
    ):
        lowered(Sinkhorn(), 8, Heads(2, 2, 4), causal=True)
    with pytest.raises(
        InputError,
        match=r"^attention `sinkhorn` needs as many key and value heads as query heads, not 1 for 2: each "
        r"head sorts keys in an order of its own$",
    ):
        lowered(Sinkhorn(), 8, Heads(2, 1, 4))
