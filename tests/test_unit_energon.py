"""Energon's multi-round filter against exact fractions, and what its rounds cost."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Energon
from tilewright.dataflows.sparse.base import Mask
from tilewright.dataflows.sparse.energon import select
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=4, cols=2, dataflow="output_stationary", operand="int16")


def unit(alphas: list[float], key_bits: list[int], **more: int) -> Energon:
    return Energon.model_validate({"kind": "energon", "alphas": alphas, "key_bits": key_bits, **more})


def expected(unit: Energon, each: Head) -> Mask:
    """The paper's rounds, key by key, in fractions."""
    scales = [float(np.abs(x).max()) / (2**15 - 1) for x in (each.query, each.key)]
    query = [[round(v / scales[0]) >> (16 - unit.query_bits) for v in row] for row in each.query]
    key = [[round(v / scales[1]) for v in row] for row in each.key]
    kept = np.zeros_like(each.seen)
    for i, row in enumerate(query):
        left = [j for j in range(len(key)) if each.seen[i, j]]
        for bits, alpha in zip(unit.key_bits, map(Fraction, unit.alphas), strict=True):
            scores = {j: sum(a * (b >> (16 - bits)) for a, b in zip(row, key[j], strict=True)) for j in left}
            mean = Fraction(sum(scores.values()), len(scores))
            if alpha >= 0:
                threshold = alpha * max(scores.values()) + (1 - alpha) * mean
            else:
                threshold = -alpha * min(scores.values()) + (1 + alpha) * mean
            left = [j for j in left if scores[j] >= threshold]
        kept[i, left] = True
    return kept


@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 8),
    extra=st.integers(0, 6),
    query_bits=st.sampled_from([2, 4, 8]),
    rounds=st.lists(
        st.tuples(st.integers(2, 8), st.sampled_from([-1, -0.5, -0.25, 0, 0.125, 0.5, 0.75])),
        min_size=1,
        max_size=3,
        unique_by=lambda each: each[0],
    ),
    causal=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_the_filtered_set_is_the_definitions(
    seed: int,
    queries: int,
    extra: int,
    query_bits: int,
    rounds: list[tuple[int, float]],
    causal: bool,
    random_head: Callable[..., Head],
) -> None:
    """The kept pairs are those that the paper's rounds, computed in fractions, leave."""
    bits, alphas = zip(*sorted(rounds), strict=True)
    filtering = unit(list(alphas), list(bits), query_bits=query_bits, rows=3)
    each = random_head(seed, queries, queries + extra, 5, causal=causal)
    assert np.array_equal(select(filtering, each, ARRAY).kept, expected(filtering, each))


def test_a_threshold_at_the_least_score_keeps_all(random_head: Callable[..., Head]) -> None:
    """alpha = -1 in each round filters nothing, and every round then looks at every key."""
    (piece,) = select(unit([-1, -1], [2, 4], rows=6), random_head(1, 6, 10, 4), ARRAY).pieces
    assert piece.scores == 60
    assert piece.predictor_macs == 2 * 60 * 4


def test_every_query_keeps_a_key(random_head: Callable[..., Head]) -> None:
    """However high the threshold, the largest score reaches it; the last query of a causal head of one key
    alone keeps that one."""
    kept = select(unit([0.99, 0.99], [2, 8]), random_head(2, 12, 12, 6, causal=True), ARRAY).kept
    assert kept.sum(axis=1).min() == 1
    assert kept[0].tolist() == [True] + [False] * 11


def test_a_higher_threshold_never_takes_more_time(random_head: Callable[..., Head]) -> None:
    """Fewer pairs, fewer cycles of filter and array, as the first round's threshold rises."""
    chosen = [
        select(unit([alpha, 0.0], [2, 4]), random_head(3, 24, 40, 8), ARRAY)
        for alpha in (-1, -0.5, 0, 0.3, 0.6)
    ]
    for cost in ("array_cycles", "predict_cycles"):
        cycles = [sum(getattr(piece, cost) for piece in selection.pieces) for selection in chosen]
        assert cycles == sorted(cycles, reverse=True)
        assert cycles[0] > cycles[-1]


def test_later_rounds_add_only_the_further_bits_of_the_keys_that_are_left(
    random_head: Callable[..., Head],
) -> None:
    """One query, 8 keys of width 4: the first round takes 8 x 4 products of 2 bits; the second, up to 8 bits,
    three more for each element of a key that is left."""
    each = random_head(4, 1, 8, 4)
    one = select(unit([0.0], [2], rows=1), each, ARRAY)
    two = select(unit([0.0, -1.0], [2, 8], rows=1), each, ARRAY)
    left = int(one.kept.sum())
    assert 0 < left < 8
    assert one.pieces[0].predictor_macs == 8 * 4
    assert two.pieces[0].predictor_macs == 8 * 4 + 3 * left * 4


def test_full_keys_and_values_are_fetched_once_and_only_when_kept(random_head: Callable[..., Head]) -> None:
    """Values: as many as keys that some query keeps. Keys: a quarter of all (4 of 16 bits), then the rest of
    those, rounded up in each piece."""
    selection = select(unit([0.5, 0.5], [2, 4], rows=4), random_head(5, 12, 64, 8), ARRAY)
    needed = int(selection.kept.any(axis=0).sum())
    values = [piece.loads_values for piece in selection.pieces]
    keys = [piece.loads_keys for piece in selection.pieces]
    assert needed < 64
    assert sum(values) == needed
    assert keys == [(16 if n == 0 else 0) + -(-3 * fresh // 4) for n, fresh in enumerate(values)]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alphas=[0.1]", "a round has one of `key_bits` and one of `alphas`; there are 2 and 1"),
        ("key_bits=[4, 2]", "`key_bits` must grow from round to round, not be [4, 2]"),
    ],
)
def test_rounds_that_do_not_agree_are_refused(override: str, message: str) -> None:
    """A round needs bits and a threshold, and more bits than the one before."""
    with pytest.raises(InputError) as error:
        tw.load_accelerator("energon", [f"attention_unit.{override}"])
    assert message in str(error.value)
