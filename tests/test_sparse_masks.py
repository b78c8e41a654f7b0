"""Magnitude pruning: the masks of the public implementation, and what any mask must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.compression.sparse_masks import blocks, largest, n_of_m

FROZEN = Path(__file__).parent / "data" / "oracles" / "sparse_masks.npz"
small, seeds = st.integers(1, 4), st.integers(0, 99)


@pytest.mark.parametrize(("name", "n", "m"), [("n2_m4", 2, 4), ("n1_m4", 1, 4), ("n4_m8", 4, 8)])
def test_n_of_m_equals_the_public_implementation(name: str, n: int, m: int) -> None:
    """Frozen masks of WeightNormSparsifier in torch 2.13.0, whose matrices are transposed."""
    with np.load(FROZEN) as frozen:
        np.testing.assert_array_equal(n_of_m(frozen["weights"], n, m), frozen[name])


def test_blocks_and_single_weights_equal_the_public_implementation() -> None:
    """Frozen masks of WeightNormSparsifier and l1_unstructured in torch 2.13.0."""
    with np.load(FROZEN) as frozen:
        np.testing.assert_array_equal(blocks(frozen["weights"], 4, 12), frozen["blocks"])
        np.testing.assert_array_equal(largest(frozen["weights"], 24 * 16 - 300), frozen["unstructured"])


@given(groups=small, columns=small, m=st.integers(1, 6), seed=seeds, data=st.data())
def test_each_group_keeps_its_largest(
    groups: int, columns: int, m: int, seed: int, data: st.DataObject
) -> None:
    """n of each m along a column stay, ties included, and none that goes is larger than one that stays."""
    n = data.draw(st.integers(1, m))
    weights = np.random.default_rng(seed).integers(-3, 4, (groups * m, columns)).astype(float)
    mask = n_of_m(weights, n, m)
    for column in range(columns):
        for group in range(groups):
            part = np.abs(weights[group * m : (group + 1) * m, column])
            stays = mask[group * m : (group + 1) * m, column]
            assert stays.sum() == n
            assert part[stays].min() >= part[~stays].max(initial=0)


@given(rows=small, columns=small, block=small, seed=seeds, data=st.data())
def test_whole_blocks_stay(rows: int, columns: int, block: int, seed: int, data: st.DataObject) -> None:
    """A block stays or goes as a whole, as many stay as were asked for, and they have the largest norms."""
    kept = data.draw(st.integers(1, rows * columns))
    weights = np.random.default_rng(seed).standard_normal((rows * block, columns * block))
    mask = blocks(weights, block, kept)
    cut = mask.reshape(rows, block, columns, block)
    whole = cut.all(axis=(1, 3))
    assert whole.sum() == kept
    assert np.array_equal(whole, cut.any(axis=(1, 3)))
    norms = np.linalg.norm(weights.reshape(rows, block, columns, block), axis=(1, 3))
    assert norms[whole].min() >= norms[~whole].max(initial=0)
