"""The LSH unit: buckets, sorting and chunks against brute force, and what they cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.array import Array
from tilewright.arch.sparse_gather import Lsh
from tilewright.dataflows.sparse.lsh import buckets, select, sort_cycles
from tilewright.dataflows.sparse.quality import quality
from tilewright.dataflows.systolic import tile_cycles
from tilewright.description.errors import InputError
from tilewright.workloads.attention.scores import Scores
from tilewright.workloads.layers import Heads
from tilewright.workloads.pairs import Head, Pairs

ARRAY = Array.model_validate({"rows": 8, "cols": 8, "dataflow": "weight_stationary"})


def unit(**parameters: int) -> Lsh:
    return Lsh.model_validate({"kind": "lsh", **parameters})


sizes = st.integers(1, 24)
units = st.builds(
    unit,
    rounds=st.integers(1, 3),
    buckets=st.sampled_from([2, 4, 8]),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 5),
)


@given(lsh=units, seed=st.integers(0, 99), tokens=sizes)
def test_buckets_are_the_nearest_of_axes_and_opposites(
    lsh: Lsh, seed: int, tokens: int, random_head: Callable[..., Head]
) -> None:
    """As angles say: of all rotated axes and their opposites the one with the largest cosine; and equal
    vectors hash alike, whatever their length."""
    one = random_head(seed, tokens, tokens, 6)
    random = np.random.default_rng(lsh.seed)
    for asks, offers in buckets(lsh, one.query, one.key):
        axes = random.standard_normal((6, lsh.buckets // 2)).T
        every = [*axes, *-axes]
        for vectors, found in ((one.query, asks), (one.key, offers)):
            for vector, bucket in zip(vectors, found, strict=True):
                assert bucket == max(range(len(every)), key=lambda i: float(every[i] @ vector))
    scaled = [pair[0] for pair in buckets(lsh, 3.0 * one.query, one.key)]
    assert all((a == b[0]).all() for a, b in zip(scaled, buckets(lsh, one.query, one.key), strict=True))


@given(lsh=units, seed=st.integers(0, 99), queries=sizes, keys=sizes, causal=st.booleans())
def test_chunks_attend_to_chunks_with_their_buckets(
    lsh: Lsh, seed: int, queries: int, keys: int, causal: bool, random_head: Callable[..., Head]
) -> None:
    """Pair by pair: a pair is kept if it may be seen and in some round the chunk of the key, by its place in
    the sorted list, holds a key of a bucket that the chunk of the query holds; or, for a query without any,
    if the key is the last that it may see."""
    one = random_head(seed, max(1, min(queries, keys)) if causal else queries, keys, 6, causal=causal)
    queries = len(one.query)
    kept = set()
    for asks, offers in buckets(lsh, one.query, one.key):
        place_q = {q: i for i, q in enumerate(sorted(range(queries), key=lambda q: (asks[q], q)))}
        place_k = {k: i for i, k in enumerate(sorted(range(keys), key=lambda k: (offers[k], k)))}
        for q in range(queries):
            mine = {asks[p] for p in range(queries) if place_q[p] // lsh.chunk == place_q[q] // lsh.chunk}
            chunks = {place_k[k] // lsh.chunk for k in range(keys) if offers[k] in mine}
            kept |= {(q, k) for k in range(keys) if place_k[k] // lsh.chunk in chunks and one.seen[q, k]}
    for q in {*range(queries)} - {q for q, _ in kept}:
        kept.add((q, max(k for k in range(keys) if one.seen[q, k])))
    chosen = select(lsh, one, ARRAY)
    assert {(int(q), int(k)) for q, k in np.argwhere(chosen.kept)} == kept
    assert sum(piece.scores for piece in chosen.pieces) >= len(kept)
    assert sum(piece.result_rows for piece in chosen.pieces) == queries
    assert sum(piece.query_rows for piece in chosen.pieces) == queries


@given(seed=st.integers(0, 99), tokens=sizes)
def test_one_chunk_is_dense_attention(seed: int, tokens: int, random_head: Callable[..., Head]) -> None:
    """Where a chunk holds all keys, a query whose chunk shares a bucket with any of them keeps all."""
    one = random_head(seed, tokens, tokens, 6)
    same = Head(one.key, one.key, one.seen)
    assert select(unit(chunk=tokens, buckets=4, rounds=1), same, ARRAY).kept.all()


@given(seed=st.integers(0, 20), rounds=st.integers(1, 4))
def test_more_rounds_keep_more(seed: int, rounds: int, random_head: Callable[..., Head]) -> None:
    """A further round adds pairs and takes none away, and takes array time."""
    one = random_head(seed, 24, 24, 6)
    few, more = (select(unit(rounds=r, buckets=8, chunk=4), one, ARRAY) for r in (rounds, rounds + 1))
    assert quality([(one, more)]).kept >= quality([(one, few)]).kept
    alone = [piece.queries for piece in more.pieces].count(0)
    assert alone == 1  # hashing
    assert sum(p.array_cycles for p in more.pieces) > sum(p.array_cycles for p in few.pieces)


def test_hashing_beats_chance_where_scores_are_sharp() -> None:
    """On the stated model of queries and keys, the true top k of a query are kept more often than keys at
    large are, and most of the softmax's mass."""
    pairs = Pairs(Heads(2, 2, 32), 256, 256, scores=Scores(sharpness=8, longest=16))
    heads = [(one, select(unit(rounds=2, buckets=32, chunk=16), one, ARRAY)) for one in pairs.each()]
    found = quality(heads)
    assert found.kept < 0.6 * found.pairs
    assert found.recall > 1.3 * found.kept / found.pairs
    assert found.kept_mass > 0.6


def test_hashing_and_sorting_take_their_time_before_the_first_chunk(random_head: Callable[..., Head]) -> None:
    """Keys are rotated, then queries while keys are sorted, then queries are sorted: 2 rounds of 8 buckets on
    a width of 6, 40 queries and 24 keys, 2 tokens placed in a cycle."""
    lsh = unit(rounds=2, buckets=8, sort_tokens=2, chunk=8)
    first = select(lsh, random_head(0, 40, 24, 6), ARRAY).pieces[0]
    asks, offers = (tile_cycles(ARRAY, tokens, 6, 8).total for tokens in (40, 24))
    assert sort_cycles(lsh, 24) == 2 * (8 + 12)
    assert first.array_cycles == offers + max(asks, 40) + 2 * (8 + 20)
    assert first.macs == (40 + 24) * 6 * 8
    assert (first.loads_keys, first.loads_values, first.query_rows, first.scores) == (24, 24, 40, 0)


@pytest.mark.parametrize("more", ["", ", rounds: 1, chunk: 16", ", buckets: 4, gather_bytes_per_cycle: 1"])
def test_the_bound_stays_below(more: str) -> None:
    """The analytic answer never exceeds the simulated one, and the array's cycles add up."""
    machine = tw.load_accelerator("edge-npu-small", [f"attention_unit={{kind: lsh{more}}}"])
    workload = tw.load_workload("attention", ["heads=3", "seq=96", "head_dim=16", "mask=causal"])
    event, analytic = tw.simulate(machine, workload), tw.simulate(machine, workload, "analytic")
    assert analytic.cycles <= event.cycles
    assert sum(event.units["array"].values()) == event.cycles


def test_an_odd_number_of_buckets_is_refused() -> None:
    """With the reason."""
    with pytest.raises(
        InputError, match="must be even, since an axis and its opposite are two buckets; not 7"
    ):
        tw.load_accelerator("edge-npu-small", ["attention_unit={kind: lsh, buckets: 7}"])
