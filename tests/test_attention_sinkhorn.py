"""Sinkhorn Transformer: its reference against frozen results, its costs in closed form."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import one_layer, work
from tilewright.description.errors import InputError
from tilewright.workloads.attention.sinkhorn import MECHANISM, Sinkhorn, balance, causal_reference, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "sinkhorn.npz"
lowered = partial(one_layer, MECHANISM)


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


def test_sort_cut_is_attention_to_the_first_sorted_blocks() -> None:
    """The package's sorting operator and torch's attention give the same numbers."""
    with np.load(FROZEN) as frozen:
        query, key, value, out = (frozen[f"cut_{part}"] for part in ("query", "key", "value", "out"))
    p = Sinkhorn(block=4, iterations=6, sort_cut=2)
    np.testing.assert_allclose(reference(query, key, value, p), out, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["causal_one", "causal_two"])
def test_causal_reference_equals_the_public_implementation(name: str) -> None:
    """SinkhornCausalAttention of sinkhorn-transformer 0.11.4 gives the same numbers."""
    with np.load(FROZEN) as frozen:
        case = {key.removeprefix(f"{name}_"): frozen[key] for key in frozen if key.startswith(name)}
    p = Sinkhorn(
        block=int(case["block"]), top_blocks=int(case["top_blocks"]), temperature=float(case["temperature"])
    )
    null = case["null_key"], case["null_value"]
    out = causal_reference(case["query"], case["key"], case["value"], null, p)
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


@given(
    block=st.integers(1, 4), blocks=st.integers(1, 5), top=st.integers(1, 3), seed=st.integers(0, 99),
    data=st.data(),
)  # fmt: skip
def test_the_causal_form_never_looks_ahead(
    block: int, blocks: int, top: int, seed: int, data: st.DataObject
) -> None:
    """What comes after a token changes nothing up to it."""
    rng, tokens = np.random.default_rng(seed), block * blocks
    query, key, value, other = rng.normal(size=(4, 2, tokens, 3))
    null = rng.normal(size=(2, 1, 3)), rng.normal(size=(2, 1, 3))
    p, first = Sinkhorn(block=block, top_blocks=top), data.draw(st.integers(0, tokens - 1))
    before = causal_reference(query, key, value, null, p)[:, : first + 1]
    query, key, value = (np.where(np.arange(tokens)[:, None] > first, other, x) for x in (query, key, value))
    after = causal_reference(query, key, value, null, p)[:, : first + 1]
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-12)


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
    graph = lowered(Sinkhorn(block=block, iterations=iterations), Heads(h, h, e), n, batch=batch)
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


@given(
    h=st.integers(1, 4), e=st.integers(1, 8), block=st.integers(2, 9), blocks=st.integers(1, 7),
    data=st.data(),
)  # fmt: skip
def test_costs_of_a_sort_cut_are_the_closed_forms(
    h: int, e: int, block: int, blocks: int, data: st.DataObject
) -> None:
    """Only the first sorted blocks are made and attended to, and nothing is copied."""
    cut, n, d = data.draw(st.integers(1, blocks)), block * blocks, h * e
    graph = lowered(Sinkhorn(block=block, sort_cut=cut), Heads(h, h, e), n)
    core = 2 * n * cut * block * d
    assert graph.macs == 4 * n * d * d + h * blocks * blocks * e + 2 * cut * n * d + core
    assert work(graph, "softmax")["exp"] == h * n * cut * block
    assert not work(graph, "gather")


def seen_pairs(n: int, h: int, block: int, top: int) -> int:
    """Pairs of the causal definition, token by token: the sorted blocks and the own one up to the token."""
    total = 0
    for token in range(n):
        for head in range(h):
            place = token if head < h // 2 else token - (block - 1)
            total += token + 1 if place < 0 else top * block + place % block + 1
    return total


@given(
    batch=st.integers(1, 3), h=st.integers(1, 4), e=st.integers(1, 8), block=st.integers(2, 9),
    blocks=st.integers(1, 7), top=st.integers(1, 3), missing=st.integers(0, 1),
)  # fmt: skip
def test_causal_costs_are_the_closed_forms(
    batch: int, h: int, e: int, block: int, blocks: int, top: int, missing: int
) -> None:
    """Running sums, block scores, T rounds of softmax and maximum, weighted copies, (T + 1) b keys each."""
    n, d, top, p = block * blocks, h * e, min(top, blocks), Sinkhorn(block=block, top_blocks=top)
    real = n - missing
    graph = lowered(p, Heads(h, h, e), real, batch=batch, causal=True)
    ranks, core = h * blocks * (blocks + top), n * (top + 1) * block
    projections = 3 * n * d * d + real * d * d
    assert graph.macs == batch * (projections + ranks * e + 2 * core * d)
    earlier = h * blocks * (blocks - 1) // 2
    pairs = seen_pairs(real, h, block, top)
    assert graph.useful_macs == batch * (projections + earlier * e + 2 * pairs * e)
    assert work(graph, "softmax")["exp"] == batch * (top * ranks + h * core)
    assert work(graph, "scan") == {"add": batch * 2 * n * d}
    copies = 2 * top * n * d + 2 * (top + 1) * n * d + (2 * blocks + top) * d + missing * n * d
    assert work(graph, "gather") == {"move": batch * copies}


def test_sequences_are_filled_up_to_whole_blocks() -> None:
    """13 tokens in blocks of 4 cost what 16 do, but for the output projection and the copy that fills up."""
    heads = Heads(2, 2, 4)
    short, full = lowered(Sinkhorn(block=4), heads, 13), lowered(Sinkhorn(block=4), heads, 16)
    assert full.macs - short.macs == 3 * 8 * 8
    assert work(short, "gather")["move"] - work(full, "gather")["move"] == 16 * 8


@pytest.mark.parametrize("causal", [False, True])
def test_grouped_keys_are_refused(causal: bool) -> None:
    """Heads that share keys can't sort them each in an order of its own."""
    with pytest.raises(InputError) as error:
        lowered(Sinkhorn(), Heads(2, 1, 4), 8, causal=causal)
    assert str(error.value) == (
        "attention `sinkhorn` needs as many key and value heads as query heads, not 1 for 2: each head sorts "
        "keys in an order of its own"
    )


@pytest.mark.parametrize(
    ("p", "causal", "message"),
    [
        (
            Sinkhorn(top_blocks=2),
            False,
            "attention `sinkhorn` takes `top_blocks` above 1 only where it is causal",
        ),
        (
            Sinkhorn(sort_cut=2),
            True,
            "attention `sinkhorn` can't be causal with `sort_cut`: all queries see the same keys",
        ),
        (
            Sinkhorn(sort_cut=3, block=4),
            False,
            "attention `sinkhorn` can't cut 2 blocks to 3: set `sort_cut` to less",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(p: Sinkhorn, causal: bool, message: str) -> None:
    """Each form has its own parameters."""
    with pytest.raises(InputError) as error:
        lowered(p, Heads(2, 2, 4), 8, causal=causal)
    assert str(error.value) == message
