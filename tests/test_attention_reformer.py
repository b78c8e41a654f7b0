"""Reformer: its reference against frozen results of the public implementation, its costs in closed form."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.graphs import one_layer, work
from tilewright.description.errors import InputError
from tilewright.workloads.attention.reformer import MECHANISM, Reformer, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "reformer.npz"
SMALL = Heads(2, 2, 4)
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("name", ["encoder", "causal", "digits", "dense"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """LSHSelfAttention of Transformers 4.57.6 gives the same numbers, in float64."""
    with np.load(FROZEN) as frozen:
        query_key, value, rotations, digits, chunk, causal, out = (
            frozen[f"{name}_{key}"]
            for key in ("query_key", "value", "rotations", "digits", "chunk", "causal", "out")
        )
    ours = reference(query_key, value, rotations, tuple(digits), int(chunk), bool(causal))
    np.testing.assert_allclose(ours, out, rtol=0, atol=1e-14)


@given(
    batch=st.integers(1, 3),
    h=st.integers(1, 4),
    e=st.integers(1, 8),
    c=st.integers(1, 9),
    chunks=st.integers(2, 7),
    rounds=st.integers(2, 5),
    digits=st.lists(st.sampled_from([2, 4, 6]), min_size=1, max_size=3),
    causal=st.booleans(),
)
def test_costs_are_the_closed_forms(
    batch: int, h: int, e: int, c: int, chunks: int, rounds: int, digits: list[int], causal: bool
) -> None:
    """Hashing, sorting, gathers, chunks of 2c keys, rounds: all counted, for sequences that fill chunks."""
    n, d = c * chunks, h * e
    p = Reformer(chunk=c, rounds=rounds, buckets=tuple(digits))
    graph = lowered(p, Heads(h, h, e), n, batch=batch, causal=causal)
    hashing = n * d * rounds * sum(digits) // 2
    assert graph.macs == batch * (3 * n * d * d + hashing + 4 * rounds * n * c * d)
    pairs, rows = h * rounds * n * 2 * c, h * rounds * n
    assert work(graph, "softmax")["exp"] == batch * (pairs + rows + rows)  # scores, logarithms, rounds
    passes = (n - 1).bit_length()
    assert work(graph, "sort") == {"compare": batch * rows * passes, "move": batch * rows * passes}
    assert work(graph, "topk") == {"compare": batch * rows * sum(digits)}
    assert work(graph, "gather") == {"move": batch * 3 * rounds * n * d}
    rounded = batch * rounds * n * d
    assert work(graph, "scatter") == {"move": rounded + batch * rows, "add": rounded, "multiply": rounded}
    unit = batch * n * h
    compares = 2 if causal else 1
    assert work(graph, "elementwise") == {"compare": batch * compares * pairs, "add": batch * pairs}
    assert work(graph, "norm") == {
        "add": unit * (e + 1),
        "multiply": 2 * unit * e,
        "sqrt": unit,
        "divide": unit,
    }


def test_one_round_needs_no_weights() -> None:
    """With a single hash there is nothing to add up: no logarithms, no second softmax, one scatter."""
    graph = lowered(Reformer(chunk=4, rounds=1, buckets=(4,)), SMALL, 16)
    assert work(graph, "softmax")["exp"] == 2 * 16 * 8
    assert work(graph, "scatter") == {"move": 16 * 8}


def test_sequences_are_filled_up_to_whole_chunks() -> None:
    """13 tokens in chunks of 4 cost what 16 do, but for the output projection and the copy that fills up."""
    p = Reformer(chunk=4, rounds=2, buckets=(4,))
    short, full = lowered(p, SMALL, 13), lowered(p, SMALL, 16)
    assert full.macs - short.macs == 3 * 8 * 8
    assert work(short, "gather")["move"] - work(full, "gather")["move"] == 16 * 8
    assert work(short, "sort") == work(full, "sort")


@pytest.mark.parametrize("causal", [False, True])
def test_a_single_chunk_is_dense(causal: bool) -> None:
    """Up to `chunk` tokens nothing is hashed or sorted: 3 n d^2 + 2 n^2 d."""
    graph = lowered(Reformer(chunk=8), SMALL, 7, causal=causal)
    assert graph.macs == 3 * 7 * 64 + 2 * 49 * 8
    assert {op.kind for op in graph.operators} == {"matmul", "norm", "elementwise", "softmax"}


def test_buckets_follow_the_length() -> None:
    """The default number of buckets is Transformers' `_set_num_buckets`, in two digits where it is large."""
    p = Reformer(chunk=64)
    assert [p.digits(n) for n in (128, 1024, 4096, 65536)] == [(4,), (32,), (128,), (32, 64)]
    assert Reformer(buckets=(6, 8)).digits(1024) == (6, 8)


def test_a_million_tokens_lower() -> None:
    """Costs grow as n log n: nothing is held per pair of tokens."""
    n = 2**20
    graph = lowered(Reformer(chunk=128, rounds=1), SMALL, n)
    assert graph.macs == 3 * n * 64 + n * 8 * (128 + 128) // 2 + 4 * n * 128 * 8
    assert work(graph, "sort")["compare"] == 2 * n * 20


def test_impossible_combinations_say_why() -> None:
    """Shared queries and keys leave no room for grouped keys, and a bucket needs its opposite."""
    with pytest.raises(
        InputError,
        match=r"^attention `reformer` needs as many key and value heads as query heads, not 1 for 2: "
        r"queries and keys are one projection$",
    ):
        lowered(Reformer(), Heads(2, 1, 4), 8)
    message = "must be even, since a rotation and its opposite share a row; not 5"
    with pytest.raises(ValidationError, match=re.escape(message)):
        Reformer(buckets=(5,))
    assert not MECHANISM.decode
