"""ELSA's hashes, the likeness that they tell, and what finding it costs."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, cos, pi, prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tests.units import lawful
from tilewright.arch.array import Array
from tilewright.arch.sparse_search import Elsa
from tilewright.dataflows.sparse import elsa
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=8, cols=4, dataflow="output_stationary")


@given(width=st.integers(1, 128), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_directions_are_orthogonal(width: int, seed: int) -> None:
    """The directions are an orthonormal base, for any width; its factors multiply to the width."""
    assert prod(elsa.factors(width)) == width
    directions = elsa.projection(width, seed)
    assert np.allclose(directions @ directions.T, np.eye(width))


def test_a_hash_of_64_takes_768_multiplications() -> None:
    """The paper's figure: three factors of 4 instead of 64 x 64."""
    assert elsa.factors(64) == (4, 4, 4)
    assert 64 * sum(elsa.factors(64)) == 768


def test_projecting_by_factors_is_projecting() -> None:
    """Three small products, axis by axis, are the product with the whole matrix: d (a + b + c)
    multiplications do."""
    rng = np.random.default_rng(3)
    small = [np.linalg.qr(rng.standard_normal((size, size)))[0] for size in (4, 3, 2)]
    x = np.random.default_rng(0).standard_normal(24)
    by_factors = np.einsum("ai,bj,ck,ijk->abc", *small, x.reshape(4, 3, 2)).ravel()
    assert np.allclose(elsa.projection(24, 3) @ x, by_factors)


def test_hashes_tell_the_angle(random_head: Callable[..., Head]) -> None:
    """Without correction the estimated angle is the true one on average, with the spread of random bits."""
    head = random_head(1, 200, 200, 64)
    unit = Elsa(kind="elsa", angle_correction=0)
    norms = np.linalg.norm(head.key, axis=1)
    estimated = np.arccos(np.clip(elsa.likeness_of(unit, head.query, head.key) / norms, -1, 1))
    cosines = head.query @ head.key.T / norms / np.linalg.norm(head.query, axis=1)[:, None]
    error = estimated - np.arccos(cosines)
    assert abs(error.mean()) < 0.01
    assert 0.1 < error.std() < 0.25  # pi / 2 / sqrt(64) = 0.196 for independent bits
    corrected = np.arccos(np.clip(elsa.likeness_of(Elsa(kind="elsa"), head.query, head.key) / norms, -1, 1))
    assert 0.7 < (corrected < np.arccos(cosines)).mean() < 0.9  # the paper corrects so that it is 80 %


@given(
    seed=st.integers(0, 2**32),
    threshold=st.one_of(st.none(), st.floats(-0.9, 0.9)),
    degree=st.sampled_from([0.5, 1.0, 2.0, 100.0]),
    causal=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_kept_are_the_keys_that_look_likely(
    seed: int, threshold: float | None, degree: float, causal: bool, random_head: Callable[..., Head]
) -> None:
    """Pair by pair, from the definitions: bits that differ, the angle, the key's length, the threshold that
    was learned or given."""
    head = random_head(seed, 5, 9, 8, causal=causal)
    unit = Elsa(kind="elsa", threshold=threshold, degree=degree)
    directions, largest = elsa.projection(8, 0), max(np.linalg.norm(k) for k in head.key)
    if threshold is None:
        least = []
        for q in range(5):
            visible = [k for k in range(9) if head.seen[q, k]]
            scores = np.array([head.query[q] @ head.key[k] for k in visible])
            weights = np.exp(scores / np.sqrt(8) - scores.max())
            weights = weights / weights.sum()
            relevant = (
                scores[weights > degree / len(visible)]
                if (weights > degree / len(visible)).any()
                else scores.max()
            )
            least.append(np.min(relevant) / np.linalg.norm(head.query[q]) / largest)
        threshold = float(np.mean(least))
        assert elsa.learned_threshold(unit, head) == pytest.approx(threshold)
    kept = elsa.select(unit, head, ARRAY).kept
    for q in range(5):
        likeness = {}
        for k in np.flatnonzero(head.seen[q]):
            differ = sum((d @ head.query[q] >= 0) != (d @ head.key[k] >= 0) for d in directions)
            angle = max(0.0, pi * differ / 8 - 0.127)
            likeness[k] = float(np.linalg.norm(head.key[k])) * cos(angle)
        sure = {k for k, x in likeness.items() if x > threshold * largest + 1e-9}
        maybe = {k for k, x in likeness.items() if x > threshold * largest - 1e-9}
        found = set(np.flatnonzero(kept[q]))
        assert sure <= found <= (maybe or {max(likeness, key=lambda k: likeness[k])})


@given(seed=st.integers(0, 2**32), queries=st.integers(1, 9), modules=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_pieces_do_what_was_chosen(
    seed: int, queries: int, modules: int, random_head: Callable[..., Head]
) -> None:
    """Queries, scores and MACs add up; a query takes as long as the module that has most of its keys."""
    head = random_head(seed, 9, 13, 8, causal=False)
    unit = Elsa(kind="elsa", queries=queries, modules=modules, dividers=1000)
    chosen = elsa.select(unit, head, ARRAY)
    assert sum(piece.queries for piece in chosen.pieces) == 9
    assert sum(piece.scores for piece in chosen.pieces) == chosen.kept.sum()
    assert sum(piece.macs for piece in chosen.pieces) == 2 * 8 * chosen.kept.sum()
    each = ceil(8 / (16 // modules)) if 16 // modules < 8 else 1
    at_once = max(1, 16 // modules // 8)
    slowest = sum(
        max(ceil(sum(row[m::modules]) / at_once) for m in range(modules)) for row in chosen.kept.tolist()
    )
    assert sum(piece.array_cycles for piece in chosen.pieces) == slowest * each
    assert all(piece.macs <= ARRAY.macs_per_cycle * piece.array_cycles for piece in chosen.pieces)


def test_cycles_of_the_predictor(random_head: Callable[..., Head]) -> None:
    """Keys are hashed first; then a query takes the longer of its hash and its comparisons."""
    head = random_head(0, 32, 512, 64)
    unit = Elsa(kind="elsa", modules=4, selectors=8, hash_macs=256, queries=16)
    first, second = elsa.select(unit, head, ARRAY).pieces
    assert second.predict_cycles == 16 * max(3, 512 // 32)
    assert first.predict_cycles == second.predict_cycles + 512 * 3
    assert second.predictor_macs == 16 * 768 + 16 * 512


def test_a_threshold_below_all_keeps_all(random_head: Callable[..., Head]) -> None:
    """At a likeness of -1 nothing is left out."""
    head = random_head(0, 16, 16, 8, causal=True)
    assert (elsa.select(Elsa(kind="elsa", threshold=-1), head, ARRAY).kept == head.seen).all()


def test_a_higher_degree_takes_less() -> None:
    """The more may be left out, the fewer pairs and cycles; the laws hold at each degree."""
    graph = tw.load_workload("attention", ["batch=1", "heads=2", "seq=128", "head_dim=64"])
    results = []
    for setting in ("threshold=-1", "degree=0.5", "degree=1", "degree=4"):
        machine = tw.load_accelerator("elsa", [f"attention_unit.{setting}"])
        results.append(lawful(machine, graph))
    kept = [result.sparse_attention["scores"]["kept"] for result in results]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] == 2 * 128 * 128
    assert results[0].cycles > results[2].cycles >= results[3].cycles
    assert results[2].sparse_attention["scores"]["recall"] > kept[2] / kept[0]  # better than chance


def test_a_likeness_beyond_one_is_refused() -> None:
    """Likeness lies between -1 and 1; the message says so and where."""
    with pytest.raises(InputError, match=r"attention_unit\.threshold: must be at most 1, not 2"):
        tw.load_accelerator("elsa", ["attention_unit.threshold=2"])
