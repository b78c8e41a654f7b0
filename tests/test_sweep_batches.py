"""What a sweep puts into one call: points that are one calculation, wherever they stand in the sequence."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tilewright.explore.evaluation.batch import structure
from tilewright.explore.evaluation.evaluate import Base, Fidelity, Outcome
from tilewright.explore.evaluation.points import Point
from tilewright.explore.space.load import LoadedSpace, load_space
from tilewright.explore.sweep import sweep as sweeping
from tilewright.explore.sweep.claims import Claims
from tilewright.explore.sweep.executors import Serial
from tilewright.explore.sweep.methods import points
from tilewright.explore.sweep.store import Store

SPACE = """\
accelerator: gemmini-default
workloads: [{workload: gemm}]
parameters:
  workload.m: {range: [1, 10]}
  arch.array.dataflow: {values: [weight_stationary, output_stationary]}
  arch.array.rows: {range: [1, 30]}
  arch.clock_mhz: {range: [100, 1000, 100]}
objectives: [{name: latency_s}]
fidelity: analytic
method: random
budget: 4000
"""
STRUCTURES = 20


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedSpace:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return load_space(path)


def calls(loaded: LoadedSpace, folder: Path, fidelity: Fidelity) -> tuple[list[list[Point]], int]:
    """The points of each call that a sweep makes, and how many at most it had drawn and not evaluated."""
    made: list[list[Point]] = []
    drawn = done = ahead = 0

    def counted() -> Iterator[tuple[int, Point]]:
        nonlocal drawn, ahead
        for drawn, point in enumerate(points(loaded), 1):
            ahead = max(ahead, drawn - done)
            yield drawn, point

    def evaluate(_base: Base, some: Sequence[Point], *_: object) -> list[Outcome]:
        nonlocal done
        done += len(some)
        made.append(list(some))
        return [Outcome("done", {"latency_s": 1.0}, "", 1e-3) for _ in some]

    with Store(folder, create=True) as store:
        number, _ = store.use(sweeping.record(loaded))
        claims = Claims(folder)
        engine = sweeping.Engine(loaded.base, "x", number, store, Serial(), claims, evaluate=evaluate)
        engine.run(counted(), fidelity)
        claims.close()
        kept = [row.values for row in store.rows(number)]
    assert kept == [dict(point.values) for point in points(loaded)]
    return made, ahead


def test_scattered_points_come_together(loaded: LoadedSpace, tmp_path: Path) -> None:
    """At `analytic` a random sequence is evaluated structure by structure, and numbered as it was drawn."""
    made, _ = calls(loaded, tmp_path / "study", "analytic")
    order = [structure(point) for call in made for point in call]
    assert len(order) == 4000
    assert sum(a != b for a, b in pairwise(order)) == STRUCTURES - 1
    assert len(made) > 4


def test_no_more_is_drawn_than_is_needed_or_bearable(
    loaded: LoadedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many points for each structure, but never more than a limit: memory does not grow."""
    for together, ahead, most in ((10, 1000, 10 * STRUCTURES), (10_000, 1000, 1000), (0, 1000, 0)):
        monkeypatch.setattr(sweeping, "CHUNK", 50)
        monkeypatch.setattr(sweeping, "TOGETHER", together)
        monkeypatch.setattr(sweeping, "AHEAD", ahead)
        _, found = calls(loaded, tmp_path / f"{together}", "analytic")
        assert most <= found <= most + 4 * 50


def test_simulations_come_as_they_are_drawn(loaded: LoadedSpace, tmp_path: Path) -> None:
    """An interrupted sweep of simulations is a random sample."""
    made, _ = calls(loaded, tmp_path / "study", "event")
    assert [point for call in made for point in call] == list(points(loaded))
