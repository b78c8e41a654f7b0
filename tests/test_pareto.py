"""Fronts: dominance, ranks, hypervolume, knees, against definitions written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.explore.sweep.pareto import hypervolume, knee, nearest, non_dominated, ranks, scaled

Points = list[list[float]]


@st.composite
def point_sets(draw: st.DrawFn, most: int = 30) -> np.ndarray:
    """Small integers, so that ties and copies are common; a few failures."""
    objectives = draw(st.integers(1, 4))
    cost = st.one_of(st.integers(0, 5).map(float), st.just(float("nan")))
    rows = draw(st.lists(st.lists(cost, min_size=objectives, max_size=objectives), min_size=1, max_size=most))
    return np.array(rows)


def _dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return bool((a <= b).all() and (a < b).any())


def _front_by_definition(costs: np.ndarray) -> list[bool]:
    valid = [bool(np.isfinite(row).all()) for row in costs]
    return [
        ok and not any(_dominates(other, row) for other, good in zip(costs, valid, strict=True) if good)
        for row, ok in zip(costs, valid, strict=True)
    ]


@given(point_sets())
def test_the_front_is_what_nothing_dominates(costs: np.ndarray) -> None:
    """For any number of objectives, with copies and failures among the points."""
    assert non_dominated(costs).tolist() == _front_by_definition(costs)


@given(point_sets())
def test_ranks_peel_fronts(costs: np.ndarray) -> None:
    """A rank is the number of times the front was taken away before the point was on it."""
    expected = np.full(len(costs), -1)
    left = np.isfinite(costs).all(axis=1)
    rank = 0
    while left.any():
        front = np.array(_front_by_definition(np.where(left[:, None], costs, np.nan)))
        expected[front] = rank
        left &= ~front
        rank += 1
    assert ranks(costs).tolist() == expected.tolist()


@given(point_sets(most=12))
def test_hypervolume_counts_the_cells_that_are_dominated(costs: np.ndarray) -> None:
    """With whole-number costs and a corner at 5, the volume is a number of unit cells: counted one by one."""
    side = range(5)
    cells = sum(
        any((row <= cell).all() for row in costs if np.isfinite(row).all())
        for cell in itertools.product(side, repeat=costs.shape[1])
    )
    assert hypervolume(costs, [5.0] * costs.shape[1]) == pytest.approx(cells)


def test_hypervolume_of_a_point_beyond_the_reference_is_nothing() -> None:
    """A point that is worse than the reference in one objective adds no volume, not a negative one."""
    assert hypervolume([[0.0, 6.0]], [5.0, 5.0]) == 0.0
    assert hypervolume([[1.0, 1.0], [0.0, 6.0]], [5.0, 5.0]) == 16.0


def test_a_reference_of_other_shape_is_refused() -> None:
    """Costs and reference have the same objectives."""
    with pytest.raises(ValueError, match=r"^reference has 3 objectives, the costs have 2$"):
        hypervolume([[0.0, 0.0]], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"^costs must have the shape \(points, objectives\), not \(2,\)$"):
        non_dominated([1.0, 2.0])


def test_the_knee_is_where_the_front_bends() -> None:
    """Of an L, the corner; dominated and failed points don't count; units don't matter."""
    costs = np.array([[0.0, 100.0], [1.0, 10.0], [2.0, 8.0], [10.0, 0.0], [1.5, 11.0], [np.nan, 0.0]])
    assert knee(costs) == 1
    assert knee(costs * [1e-9, 1e6]) == 1
    assert knee([[3.0, 3.0]]) == 0
    assert knee([[np.inf, 1.0]]) is None


def test_scaled_costs_span_zero_to_one() -> None:
    """Each objective by its own range; one that doesn't vary is 0 everywhere."""
    assert scaled([[1.0, 7.0], [3.0, 7.0], [2.0, 7.0]]).tolist() == [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]


def test_nearest_counts_ratios() -> None:
    """Half as much is nearer than three times as much; failed candidates are never near."""
    candidates = [[3.0, 1.0], [0.5, 1.0], [np.nan, 1.0], [1.1, 1.0]]
    assert nearest([1.0, 1.0], candidates, 3) == [3, 1, 0]


@pytest.mark.parametrize("objectives", [2, 3])
def test_many_points_agree_with_the_few_that_matter(objectives: int) -> None:
    """In 200,000 random points the front is found, and no point outside it is undominated by it."""
    costs = np.random.default_rng(1).random((200_000, objectives))
    mask = non_dominated(costs)
    front, others = costs[mask], costs[~mask]
    for row in front:
        assert not ((costs <= row).all(axis=1) & (costs < row).any(axis=1)).any()
    sample = others[:: max(1, len(others) // 2000)]
    assert all(any(_dominates(best, row) for best in front) for row in sample)
