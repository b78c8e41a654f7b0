"""The ladder finds the front of an exhaustive search, and simulates nothing that it could have ruled out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.explore.ladder import confirm
from tilewright.explore.pareto import non_dominated


@st.composite
def spaces(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Costs of points, some of which fail, and lower bounds on them, some of which are exact."""
    points, objectives = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    whole = st.lists(st.integers(1, 8), min_size=points * objectives, max_size=points * objectives)
    costs = np.array(draw(whole), dtype=np.float64).reshape(points, objectives)
    tightness = np.array(draw(whole), dtype=np.float64).reshape(points, objectives) / 8
    bounds = costs * tightness
    failing = draw(st.lists(st.booleans(), min_size=points, max_size=points))
    costs[np.array(failing) & (np.arange(points) > 0)] = np.nan
    return bounds, costs


@given(spaces())
def test_front_is_that_of_simulating_everything(
    space: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Ties included; points that fail are on no front and rule nothing out."""
    bounds, costs = space
    asked: list[int] = []

    def simulate(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.extend(chosen.tolist())
        return costs[chosen]

    found = confirm(bounds, np.ones(len(costs), dtype=np.bool_), simulate)
    works = np.flatnonzero(~np.isnan(costs).any(axis=1))
    expected = set(works[non_dominated(costs[works])].tolist())
    assert set(np.flatnonzero(found.front).tolist()) == expected
    assert len(asked) == len(set(asked))
    assert found.pruned == len(costs) - len(asked)


@given(spaces())
def test_exact_bounds_prune_all_but_the_front(
    space: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Where a bound is what a point costs, only the front is simulated, in one round."""
    costs = np.nan_to_num(space[1], nan=9.0)
    found = confirm(costs, np.ones(len(costs), dtype=np.bool_), lambda chosen: costs[chosen])
    assert np.array_equal(found.simulated, found.front)
    assert found.rounds == 1


def test_impossible_points_are_never_simulated() -> None:
    """Points that an exact constraint rules out take no simulation, whatever their bounds."""
    bounds = np.array([[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]])
    possible = np.array([False, True, True])
    found = confirm(bounds, possible, lambda chosen: bounds[chosen])
    assert found.simulated.tolist() == [False, True, True]
    assert found.front.tolist() == [False, True, True]
