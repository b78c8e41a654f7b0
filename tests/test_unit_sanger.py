"""Sanger: the predicted set against plain loops, and packing against hand-made masks."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.arch.array import Array
from tilewright.arch.sparse_predictors import Sanger
from tilewright.dataflows.sparse.base import Mask
from tilewright.dataflows.sparse.sanger import packs, select
from tilewright.workloads.pairs import Head


def array(rows: int = 4, cols: int = 4, *, fold_overlap: bool = True) -> Array:
    return Array(rows=rows, cols=cols, dataflow="output_stationary", fold_overlap=fold_overlap)


def rounded(x: np.ndarray, bits: int, *, normalized: bool) -> tuple[list[list[int]], list[float], float]:
    """Integers, lengths and scale, element by element."""
    lengths = [float(np.linalg.norm(row)) if normalized else 1.0 for row in x]
    divided = [[value / length for value in row] for row, length in zip(x, lengths, strict=True)]
    scale = max(abs(v) for row in divided for v in row) / (2 ** (bits - 1) - 1)
    return [[round(v / scale) for v in row] for row in divided], lengths, scale


def expected(unit: Sanger, each: Head) -> Mask:
    """The definition in loops: rounded products, softmax, threshold, and the largest where none is left."""
    query, query_lengths, one = rounded(each.query, unit.bits, normalized=unit.normalized)
    key, key_lengths, other = rounded(each.key, unit.bits, normalized=unit.normalized)
    kept = np.zeros_like(each.seen)
    for i, row in enumerate(query):
        logits = {
            j: sum(a * b for a, b in zip(row, key[j], strict=True))
            * (one * other / sqrt(each.query.shape[1]))
            * query_lengths[i]
            * key_lengths[j]
            for j in range(len(key))
            if each.seen[i, j]
        }
        total = sum(np.exp(value - max(logits.values())) for value in logits.values())
        chosen = [j for j, v in logits.items() if np.exp(v - max(logits.values())) / total >= unit.threshold]
        kept[i, chosen or [max(logits, key=lambda j: logits[j])]] = True
    return kept


@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 9),
    extra=st.integers(0, 6),
    bits=st.sampled_from([4, 8]),
    normalized=st.booleans(),
    threshold=st.sampled_from([0.0213, 0.0907, 0.413]),
    causal=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_predicted_set_is_the_definitions(
    seed: int,
    queries: int,
    extra: int,
    bits: int,
    normalized: bool,
    threshold: float,
    causal: bool,
    random_head: Callable[..., Head],
) -> None:
    """The kept pairs are those that plain loops over the rounded queries and keys keep."""
    unit = Sanger.model_validate(
        {"kind": "sanger", "bits": bits, "normalized": normalized, "threshold": threshold, "rows": 3}
    )
    each = random_head(seed, queries, queries + extra, 5, causal=causal, scale=2)
    assert np.array_equal(select(unit, each, array()).kept, expected(unit, each))


def pieces_by_hand(kept: Mask, split: int, pe_rows: int, width: int) -> int:
    """Packs, counted by filling rows of PEs one score at a time."""
    count = 0
    for start in range(0, kept.shape[1], split):
        filled = 0
        for row in kept[:, start : start + split]:
            room = 0
            for bit in row:
                if bit and not room:
                    filled, room = filled + 1, width
                room -= bool(bit)
        count += ceil(filled / pe_rows)
    return count


@given(
    kept=st.lists(st.lists(st.booleans(), min_size=11, max_size=11), min_size=1, max_size=9),
    split=st.integers(1, 12),
    pe_rows=st.integers(1, 4),
    width=st.integers(1, 5),
)
def test_packs_are_those_of_filling_rows_one_by_one(
    kept: list[list[bool]], split: int, pe_rows: int, width: int
) -> None:
    """Splitting and packing counted in closed form equals filling rows of PEs score by score."""
    unit = Sanger(kind="sanger", split=split)
    mask = np.array(kept)
    assert packs(unit, array(pe_rows, width), mask) == pieces_by_hand(mask, split, pe_rows, width)


def test_a_dense_tile_takes_the_dense_time(random_head: Callable[..., Head]) -> None:
    """With everything kept, 64 x 64 scores of width 8 make 4 packs on 64 x 16 PEs, and the array is fully
    used: 2 x 64 x 64 x 8 MACs in 4 x 2 x 8 cycles."""
    unit = Sanger(kind="sanger", threshold=1e-9)
    selection = select(unit, random_head(0, 64, 64, 8, scale=2), array(64, 16))
    (piece,) = selection.pieces
    assert selection.kept.all()
    assert piece.array_cycles == piece.streaming_cycles == 4 * 2 * 8
    assert piece.macs == piece.array_cycles * 64 * 16


def test_one_score_too_many_costs_a_row_of_pes() -> None:
    """A query with 17 kept keys of 64 takes two of the rows of 16 PEs; a 65th row makes a second pack."""
    kept = np.zeros((64, 64), dtype=bool)
    kept[:, :16] = True
    assert packs(Sanger(kind="sanger"), array(64, 16), kept) == 1
    kept[0, 16] = True
    assert packs(Sanger(kind="sanger"), array(64, 16), kept) == 2


def test_where_folds_do_not_overlap_each_pack_pays_its_skew_twice(random_head: Callable[..., Head]) -> None:
    """Skew is rows + split - 2, for scores and again for values; streaming does not count it."""
    unit = Sanger(kind="sanger", threshold=1e-9, split=8)
    (piece,) = select(unit, random_head(0, 4, 8, 5, scale=2), array(4, 4, fold_overlap=False)).pieces
    assert piece.streaming_cycles == 2 * 2 * 5
    assert piece.array_cycles == 2 * 2 * (5 + 4 + 8 - 2)


def test_the_predictor_takes_products_then_a_cycle_a_key(random_head: Callable[..., Head]) -> None:
    """64 queries and 128 keys of width 64 on 4,096 MACs: two tiles of 64 + 64 cycles, and 64 to pack the
    first."""
    (piece,) = select(Sanger(kind="sanger"), random_head(0, 64, 128, 64, scale=2), array(64, 16)).pieces
    assert piece.predict_cycles == 2 * (64 + 64) + 64
    assert piece.predictor_macs == 64 * 128 * 64


def test_tiles_that_nobody_may_see_are_not_predicted(random_head: Callable[..., Head]) -> None:
    """Under a causal mask, the first 8 of 32 queries are predicted with the first 8 keys only."""
    unit = Sanger(kind="sanger", rows=8, split=8)
    pieces = select(unit, random_head(0, 32, 32, 4, causal=True, scale=2), array()).pieces
    assert [piece.predictor_macs for piece in pieces] == [8 * 8 * n * 4 for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("bits", [4, 8])
def test_a_lower_threshold_never_takes_less_time(bits: int, random_head: Callable[..., Head]) -> None:
    """More kept pairs, and never fewer cycles, as the threshold falls."""
    chosen = [
        select(
            Sanger(kind="sanger", bits=bits, threshold=t, rows=8, split=8),
            random_head(3, 32, 32, 8, scale=2),
            array(),
        )
        for t in (0.5, 0.1, 0.05, 0.01, 1e-6)
    ]
    kept = [int(selection.kept.sum()) for selection in chosen]
    cycles = [sum(piece.array_cycles for piece in selection.pieces) for selection in chosen]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1]
    assert cycles == sorted(cycles)
    assert cycles[0] < cycles[-1]
