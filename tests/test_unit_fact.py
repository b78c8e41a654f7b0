"""FACT's add-only prediction against plain loops, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Fact
from tilewright.dataflows.sparse.base import Mask, Selection
from tilewright.dataflows.sparse.estimate import leading_ones, strongest
from tilewright.dataflows.sparse.fact import select
from tilewright.dataflows.sparse.quality import quality
from tilewright.workloads.attention.scores import ScoreModel, draw
from tilewright.workloads.pairs import Head

ARRAY = Array(rows=4, cols=8, dataflow="output_stationary")


def expected(unit: Fact, each: Head) -> Mask:
    """Bit lengths, shifts and additions of Python's integers."""

    def integers(x: np.ndarray) -> list[list[int]]:
        scale = float(np.abs(x).max()) / (2 ** (unit.bits - 1) - 1)
        return [[round(v / scale) for v in row] for row in x]

    def term(a: int, b: int) -> int:
        if not a or not b:
            return 0
        power = 1 << (abs(a).bit_length() - 1 + abs(b).bit_length() - 1)
        return power if (a > 0) == (b > 0) else -power

    query, key = integers(each.query), integers(each.key)
    kept = np.zeros_like(each.seen)
    for i, row in enumerate(query):
        seen = [j for j in range(len(key)) if each.seen[i, j]]
        sums = {j: sum(term(a, b) for a, b in zip(row, key[j], strict=True)) for j in seen}
        ranked = sorted(seen, key=lambda j: (-sums[j], j))
        kept[i, ranked[: ceil(unit.keep * len(seen))]] = True
    return kept


@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 9),
    extra=st.integers(0, 6),
    bits=st.sampled_from([4, 8]),
    keep=st.sampled_from([0.125, 0.5, 1.0]),
    causal=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_the_predicted_set_is_the_definitions(
    seed: int,
    queries: int,
    extra: int,
    bits: int,
    keep: float,
    causal: bool,
    random_head: Callable[..., Head],
) -> None:
    """The kept pairs are those of the largest sums of powers of two, computed with shifts."""
    unit = Fact.model_validate({"kind": "fact", "bits": bits, "keep": keep, "rows": 4})
    each = random_head(seed, queries, queries + extra, 5, causal=causal)
    assert np.array_equal(select(unit, each, ARRAY).kept, expected(unit, each))


@given(st.integers(-(2**15), 2**15))
def test_a_leading_one_is_at_most_the_number_and_more_than_half_of_it(x: int) -> None:
    """With the number's sign; 0 stays 0."""
    one = float(leading_ones(np.array([float(x)]))[0])
    assert one == 0 if x == 0 else (one > 0) == (x > 0) and abs(x) / 2 < abs(one) <= abs(x)


def test_nothing_is_multiplied_in_the_prediction(random_head: Callable[..., Head]) -> None:
    """Additions and comparisons only: two additions for each element of a pair (exponents, sum)."""
    (piece,) = select(Fact(kind="fact", rows=6), random_head(1, 6, 10, 4), ARRAY).pieces
    assert piece.predictor_macs == 0
    assert set(piece.predictor_primitives) == {"add", "compare"}
    assert piece.predictor_primitives["add"] == 2 * 6 * 10 * 4


def test_values_are_fetched_for_kept_keys_only(random_head: Callable[..., Head]) -> None:
    """All keys once, for the prediction; of the values as many as keys that some query keeps."""
    selection = select(Fact(kind="fact", keep=0.05, rows=4), random_head(2, 8, 64, 8), ARRAY)
    assert sum(piece.loads_keys for piece in selection.pieces) == 64
    assert sum(piece.loads_values for piece in selection.pieces) == int(selection.kept.any(axis=0).sum()) < 64


def test_time_follows_what_is_kept(random_head: Callable[..., Head]) -> None:
    """One query at a time: a kept share of the keys takes that share of the dense time."""
    cycles = [
        select(Fact(kind="fact", keep=keep), random_head(3, 32, 64, 8), ARRAY).pieces[0].array_cycles
        for keep in (0.125, 0.25, 0.5, 1.0)
    ]
    assert cycles[3] == 16 * 64 * 8 * 2 // 32
    assert [4 * cycles[1], 2 * cycles[2], 8 * cycles[0]] == [cycles[3]] * 3


def test_the_prediction_finds_most_of_what_matters() -> None:
    """On the score model, the fifth that is kept is mostly the true strongest fifth, and holds nearly as much
    of the softmax as that does."""
    query, key = draw(ScoreModel(), 1, 1, 256, 64)
    each = Head(query[0], key[0], np.tri(256, dtype=bool))
    truly = strongest(each.query @ each.key.T, 0.2, each.seen)
    found = quality([(each, select(Fact(kind="fact"), each, ARRAY))])
    best = quality([(each, Selection(truly, ()))])
    assert best.recall == 1
    assert found.recall > 0.85
    assert 0.97 * best.kept_mass < found.kept_mass <= best.kept_mass
