"""SpAtten's pruning of tokens, heads and values, its keys in two steps, and its top-k engine."""

from __future__ import annotations

from math import ceil, exp, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tests.units import lawful
from tilewright.arch.array import Array
from tilewright.arch.sparse_search import SpAtten
from tilewright.dataflows.sparse import spatten
from tilewright.dataflows.sparse.quality import quality
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=8, cols=4, dataflow="output_stationary")
"""Two stages of two keys of eight elements a cycle."""


def drawn(number: int, queries: int, keys: int, seed: int, *, causal: bool = False) -> list[Head]:
    rng = np.random.default_rng(seed)
    seen = (
        np.tri(queries, keys, keys - queries, dtype=bool) if causal else np.ones((queries, keys), dtype=bool)
    )
    return [
        Head(2 * rng.standard_normal((queries, 8)), rng.standard_normal((keys, 8)), seen)
        for _ in range(number)
    ]


def softmax(scores: list[float]) -> list[float]:
    total = sum(exp(x) for x in scores)
    return [exp(x) / total for x in scores]


def true_weights(head: Head) -> NDArray[np.float64]:
    weights = np.zeros(head.seen.shape)
    for q, row in enumerate(head.seen):
        visible = np.flatnonzero(row)
        weights[q, visible] = softmax([float(head.query[q] @ head.key[k]) / 8**0.5 for k in visible])
    return weights


@given(
    seed=st.integers(0, 2**32),
    token_keep=st.sampled_from([0.1, 0.5, 0.8, 1.0]),
    head_keep=st.sampled_from([0.3, 0.7, 1.0]),
    self_attention=st.booleans(),
    causal=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_most_important_tokens_and_heads_stay(
    seed: int, token_keep: float, head_keep: float, self_attention: bool, causal: bool
) -> None:
    """Tokens rank by the attention that all heads give them, heads by the root of their summed squared
    weights; pruned tokens are gone as keys in every head, and as queries where these are the same tokens."""
    heads = drawn(3, 10 if self_attention else 4, 10, seed, causal=causal)
    weights = [true_weights(head) for head in heads]
    given = [sum(w[:, k].sum() for w in weights) for k in range(10)]
    tokens = set(sorted(range(10), key=lambda k: -given[k])[: ceil(token_keep * 10)])
    size = [sum(float(np.linalg.norm(row)) for row in w) for w in weights]
    stays = set(sorted(range(3), key=lambda h: -size[h])[: ceil(head_keep * 3)])
    unit = SpAtten(kind="spatten", token_keep=token_keep, head_keep=head_keep)
    for number, (head, chosen) in enumerate(
        zip(heads, spatten.select_together(unit, heads, ARRAY), strict=True)
    ):
        expected = head.seen.copy()
        for q in range(len(expected)):
            for k in range(10):
                gone = k not in tokens or (self_attention and q not in tokens)
                expected[q, k] &= number in stays and not gone
        assert (chosen.kept == expected).all()
        assert chosen.predicts == (number in stays)
        assert bool(chosen.pieces) == (number in stays)


@given(
    seed=st.integers(0, 2**32),
    bits=st.tuples(st.integers(2, 8), st.integers(0, 6)),
    below=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_lower_bits_are_read_where_weights_are_flat(seed: int, bits: tuple[int, int], below: float) -> None:
    """Weights are those of the keys' upper bits, rounded down; a query whose largest one is below the limit
    gets those of all bits."""
    (head,) = drawn(1, 4, 6, seed)
    msb, lsb = bits
    unit = SpAtten(kind="spatten", msb_bits=msb, lsb_bits=lsb, requantize_below=below)
    found = spatten.scored(unit, head, head.seen)
    most = 2 ** (msb + lsb - 1) - 1
    q_step, k_step = (float(np.abs(x).max()) / most for x in (head.query, head.key))
    for q in range(4):
        asks = [round(float(x) / q_step) for x in head.query[q]]
        fine = [[round(float(x) / k_step) for x in key] for key in head.key]
        rough = [[floor(x / 2**lsb) * 2**lsb for x in key] for key in fine]
        by_bits = [
            softmax(
                [
                    sum(a * b for a, b in zip(asks, key, strict=True)) * q_step * k_step / 8**0.5
                    for key in keys
                ]
            )
            for keys in (rough, fine)
        ]
        twice = lsb > 0 and max(by_bits[0]) < below
        assert found.twice[q] == twice
        assert np.allclose(found.weights[q], by_bits[twice])


@given(
    values=st.lists(st.integers(0, 9), min_size=1, max_size=40),
    target=st.integers(1, 45),
    comparators=st.integers(1, 16),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_quick_select_ends_at_the_target(values: list[int], target: int, comparators: int, seed: int) -> None:
    """Replaying the pivots and keeping intervals of values instead of lists, the last pivot is the target-th
    largest value, and the cycles are those of the passes."""
    rng = np.random.default_rng(seed)
    cycles, compared = spatten.quick_select(np.array(values), target, comparators, rng)
    if target >= len(values):
        assert (cycles, compared) == (0, 0)
        return
    rng, low, high, passes = np.random.default_rng(seed), -1, 10, []
    while True:
        left = [value for value in values if low < value < high]
        passes.append(len(left))
        pivot = left[rng.integers(len(left))]
        wanted = sorted(values)[-target]
        if pivot == wanted:
            break
        low, high = (low, pivot) if wanted < pivot else (pivot, high)
    assert cycles == sum(ceil(size / comparators) + 3 for size in passes)
    assert compared == 2 * sum(passes)


@given(
    seed=st.integers(0, 2**32),
    value_keep=st.sampled_from([0.2, 0.5, 1.0]),
    queries=st.integers(1, 12),
    causal=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_pieces_do_what_was_chosen(seed: int, value_keep: float, queries: int, causal: bool) -> None:
    """Each query keeps the largest weights, as many as asked; every scored pair and every kept value is
    multiplied once (scores twice where lower bits were read); each needed value is fetched once."""
    (head,) = drawn(1, 12, 12, seed, causal=causal)
    unit = SpAtten(
        kind="spatten", token_keep=0.7, value_keep=value_keep, requantize_below=0.4, queries=queries
    )
    chosen = spatten.select(unit, head, ARRAY)
    given = true_weights(head).sum(axis=0)
    tokens = spatten.largest(given, ceil(0.7 * 12), np.ones(12, dtype=bool))
    seen = head.seen & tokens & tokens[:, None]
    work = spatten.scored(unit, head, seen)
    for row, stays, weights in zip(seen, chosen.kept, work.weights, strict=True):
        assert stays.sum() == ceil(value_keep * row.sum())
        assert not (stays & ~row).any()
        if stays.any() and (row & ~stays).any():
            assert weights[stays].min() >= weights[row & ~stays].max()
    scored = int((seen.sum(axis=1) * (1 + work.twice)).sum())
    assert sum(piece.queries for piece in chosen.pieces) == tokens.sum()
    assert sum(piece.scores for piece in chosen.pieces) == scored
    assert sum(piece.macs for piece in chosen.pieces) == 8 * (scored + chosen.kept.sum())
    assert sum(piece.loads_values for piece in chosen.pieces) == chosen.kept.any(axis=0).sum()
    kept = int(tokens.sum())
    twice = work.twice[tokens]
    keys = [ceil(kept * 8 / 12), *[0] * (len(chosen.pieces) - 1)]
    if twice.any():
        at = int(twice.argmax()) // queries
        keys[at] = kept if at == 0 else ceil(kept * 4 / 12)
    assert [piece.loads_keys for piece in chosen.pieces] == keys
    assert all(piece.macs <= ARRAY.macs_per_cycle * piece.streaming_cycles for piece in chosen.pieces)
    assert all(piece.streaming_cycles <= piece.array_cycles for piece in chosen.pieces)


def test_cycles_by_stage() -> None:
    """Twelve keys at two a cycle; once more where lower bits are read; and a top-k engine of one comparator
    makes a query wait for it."""
    (head,) = drawn(1, 4, 12, 0)
    once = spatten.select(SpAtten(kind="spatten", requantize_below=0), head, ARRAY)
    twice = spatten.select(SpAtten(kind="spatten", requantize_below=1), head, ARRAY)
    slow = SpAtten(kind="spatten", requantize_below=0, value_keep=0.5, comparators=1)
    assert [piece.array_cycles for piece in once.pieces] == [4 * 6]
    assert [piece.array_cycles for piece in twice.pieces] == [4 * 12]
    assert [piece.loads_keys for piece in once.pieces] == [8]
    assert [piece.loads_keys for piece in twice.pieces] == [12]
    waiting = spatten.select(slow, head, ARRAY).pieces[0]
    assert waiting.array_cycles >= 4 * (12 + 3)
    assert waiting.streaming_cycles == 4 * 6


def test_a_query_of_its_own_stays() -> None:
    """When one query decodes against a cache its token is not asked for; all of the kept keys are seen."""
    heads = drawn(2, 1, 20, 0)
    for chosen in spatten.select_together(SpAtten(kind="spatten", token_keep=0.25), heads, ARRAY):
        assert chosen.kept.sum() == 5


def test_keeping_all_is_dense_attention() -> None:
    """With all shares at 1 nothing is pruned, nothing searched for, and recall and mass are 1."""
    heads = drawn(2, 9, 9, 0, causal=True)
    found = spatten.select_together(SpAtten(kind="spatten"), heads, ARRAY)
    assert all((chosen.kept == head.seen).all() for head, chosen in zip(heads, found, strict=True))
    assert all(piece.predict_cycles == 0 for chosen in found for piece in chosen.pieces)
    figures = quality(list(zip(heads, found, strict=True)))
    assert figures.recall == 1
    assert figures.kept_mass == pytest.approx(1)


def test_each_kind_of_pruning_saves() -> None:
    """Fewer tokens, heads or values: fewer MACs and bytes; the laws hold each time."""
    graph = tw.load_workload("attention", ["batch=1", "heads=4", "seq=128", "head_dim=64"])
    everything = ["token_keep=1", "head_keep=1", "value_keep=1", "requantize_below=0"]
    found = {}
    for setting in ("", "token_keep=0.5", "head_keep=0.5", "value_keep=0.5", "requantize_below=1"):
        overrides = [f"attention_unit.{each}" for each in (*everything, setting) if each]
        machine = tw.load_accelerator("spatten", overrides)
        found[setting] = lawful(machine, graph)
    dense = found[""]
    assert dense.macs == dense.useful_macs == 4 * 2 * 128 * 128 * 64
    assert found["head_keep=0.5"].macs == dense.macs // 2
    assert found["token_keep=0.5"].macs == dense.macs // 4
    assert found["value_keep=0.5"].macs == dense.macs * 3 // 4
    assert found["requantize_below=1"].macs == dense.macs * 3 // 2
    for setting in ("token_keep=0.5", "head_keep=0.5"):
        assert found[setting].cycles < dense.cycles
        assert found[setting].traffic_bytes["dram"].read < dense.traffic_bytes["dram"].read


def test_a_share_above_one_is_refused() -> None:
    """No more than all tokens can be kept; the message says so and where."""
    with pytest.raises(InputError, match=r"attention_unit\.token_keep: must be at most 1, not 1\.5"):
        tw.load_accelerator("spatten", ["attention_unit.token_keep=1.5"])
