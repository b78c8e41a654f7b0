"""The ladder finds the front of an exhaustive search, and simulates nothing that it could have ruled out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tilewright.arch.load import preset_names
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import machine_figures
from tilewright.explore.evaluation.expressions import condition
from tilewright.explore.sweep.implied import STATIC, implied
from tilewright.explore.sweep.ladder import confirm, dominated
from tilewright.explore.sweep.pareto import non_dominated


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
def test_no_exact_search_simulates_less(space: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    """Simulated are the points whose bound the final front does not dominate, and no other: each of these
    might be on the front for all that is known without it."""
    bounds, costs = space
    found = confirm(bounds, np.ones(len(costs), dtype=np.bool_), lambda chosen: costs[chosen])
    assert np.array_equal(found.simulated, ~dominated(bounds, costs[found.front]))


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


@given(
    st.floats(0.001, 10), st.floats(0, 1), st.floats(0.001, 10), st.floats(1, 3), st.floats(1, 3),
    st.floats(0.01, 20),
)  # fmt: skip
def test_a_power_limit_implies_time(
    work: float, static_w: float, time: float, more: float, longer: float, limit_w: float
) -> None:
    """Whatever a run's energy and time are above their bounds: if it draws less than the limit, it undercuts
    none of the bounds that the limit implies."""
    least = work + static_w * time
    row = {
        "bound:latency_s": time, "bound:energy_j.total": least, "bound:edp_js": time * least,
        "bound:cycles": 1e9 * time, "bound:tokens_per_s": 7 / time, STATIC[0]: static_w,
    }  # fmt: skip
    true_time = time * longer
    energy = work * more + static_w * true_time
    assume(energy / true_time < limit_w)
    figures = implied({}, row, [condition(f"average_power_w < {limit_w!r}")])
    assert figures is not None
    true = {
        "latency_s": true_time, "energy_j.total": energy, "edp_js": energy * true_time,
        "cycles": 1e9 * true_time,
    }  # fmt: skip
    for key, value in true.items():
        bound = figures[f"bound:{key}"]
        assert isinstance(bound, float)
        assert bound <= value * (1 + 1e-12)
    fastest = figures["bound:tokens_per_s"]
    assert isinstance(fastest, float)
    assert fastest >= 7 / true_time * (1 - 1e-12)


def test_implied_bounds_by_hand() -> None:
    """3 J of work and 1 W of static power: below 2 W it takes 3 s at least, and 6 J; below 1 W, for ever."""
    row = {"bound:latency_s": 1.0, "bound:energy_j.total": 4.0, "bound:cycles": 1e9, STATIC[0]: 1.0}
    figures = implied({}, row, [condition("average_power_w < 2")])
    assert figures is not None
    assert figures["bound:latency_s"] == pytest.approx(3)
    assert figures["bound:energy_j.total"] == pytest.approx(6)
    assert figures["bound:cycles"] == pytest.approx(3e9)
    assert implied({}, row, [condition("average_power_w <= 0.99")]) is None
    assert implied({}, row, [condition("average_power_w < 4.5")]) == row
    assert implied({}, row, [condition("latency_s < 2.5 and 2 > average_power_w")]) is None
    assert implied({}, row, [condition("latency_s < 0.9 or energy_j.total < 9")]) == row
    assert implied({"arch.clock_mhz": 500}, row, [condition("cycles < 1000 * arch.clock_mhz")]) is None
    assert implied({}, {"bound:tokens_per_s": 5.0}, [condition("tokens_per_s >= 6")]) is None


def test_static_power_is_drawn_all_the_time() -> None:
    """What the implied bounds stand on: of every shipped machine, leakage, idle clock and the DRAM's
    background take static power times time."""
    tried = 0
    for name in preset_names():
        machine = tw.load_accelerator(name)
        try:
            result = tw.simulate(machine, tw.load_workload("gemm", ["m=32", "k=32", "n=32"]))
        except InputError:
            continue
        figures = machine_figures(machine)
        for key in STATIC:
            power = figures[key]
            assert isinstance(power, float)
            energy = result.energy_j[key.removeprefix("peak_power_w.")]
            assert energy == pytest.approx(power * result.latency_s, rel=1e-9, abs=1e-18)
        tried += 1
    assert tried >= 10
