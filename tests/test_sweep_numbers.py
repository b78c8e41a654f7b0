"""The numbers of a study's points, and how sweeps count them."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

import tilewright as tw
from tests.sweeps import POINTS, SPACE, space_text
from tilewright.cli import ExitCode, execute
from tilewright.explore.evaluation.evaluate import Base, Fidelity, Outcome, evaluate_chunk
from tilewright.explore.evaluation.points import Point
from tilewright.explore.space.load import load_space
from tilewright.explore.study.study import Study
from tilewright.explore.sweep import sweep as sweeping
from tilewright.explore.sweep.methods import points
from tilewright.explore.sweep.store import FILE


def numbered(study: Study, fidelity: str = "") -> dict[int, tuple[object, ...]]:
    """Values of each point by its number."""
    found = [row for row in study.rows() if not fidelity or row["fidelity"] == fidelity]
    assert len({row["point"] for row in found}) == len(found)
    return {int(str(row["point"])): tuple(row[key] for key in study.parameters) for row in found}


def order_of(space: Path, *overrides: str) -> dict[int, tuple[object, ...]]:
    """The same as the space itself says."""
    listed = enumerate(points(load_space(space, overrides)), 1)
    return {number: tuple(value for _, value in point.values) for number, point in listed}


def test_a_points_number_is_its_place_in_the_space(space: Path, tmp_path: Path) -> None:
    """Whatever was there before, and at every fidelity: `STUDY@N` is the same machine on every machine."""
    folder = tmp_path / "study"
    assert numbered(tw.sweep(space, folder, ["arch.clock_mhz=750"], jobs=1)) == order_of(
        space, "arch.clock_mhz=750"
    )
    assert numbered(tw.sweep(space, folder, jobs=1)) == order_of(space)
    space.write_text(f"{SPACE}fidelity: ladder\n")
    ladder = tw.sweep(space, folder, jobs=2)
    assert numbered(ladder, "analytic") == order_of(space)
    simulated = numbered(ladder, "event")
    assert simulated.items() <= order_of(space).items()
    assert set(ladder.front()["point"]) <= simulated.keys()
    assert all(ladder.row(number)["fidelity"] == "event" for number in simulated)
    first = ladder.front_rows()[0]
    machine = tw.load_accelerator(f"{folder}@{first['point']}")
    assert (machine.array.rows, machine.clock_mhz) == (first["arch.array.rows"], first["arch.clock_mhz"])


def test_a_search_that_takes_another_course_numbers_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points that fail at first and are tried again: the study is then that of a search without failures."""
    space = tmp_path / "space.yaml"
    space.write_text(f"{space_text(clock_mhz='[500.5, 1000.5]')}method: tpe\nbudget: 30\n")
    whole = numbered(tw.sweep(space, tmp_path / "whole", jobs=1))
    assert sorted(whole) == list(range(1, 31))

    def failing(base: Base, points: Sequence[Point], fidelity: Fidelity, version: str) -> list[Outcome]:
        found = evaluate_chunk(base, points, fidelity, version)
        bad = Outcome("failed", None, "out of memory", 0.0)
        return [
            bad if dict(p.values)["arch.array.rows"] == 32 else o for p, o in zip(points, found, strict=True)
        ]

    with monkeypatch.context() as patch:
        defaults = sweeping.Engine.__init__.__defaults__ or ()
        patched = tuple(failing if each is evaluate_chunk else each for each in defaults)
        patch.setattr(sweeping.Engine.__init__, "__defaults__", patched)
        first = numbered(tw.sweep(space, tmp_path / "study", jobs=1))
    assert sorted(first) == list(range(1, 31))
    assert first != whole
    assert numbered(tw.sweep(space, tmp_path / "study", jobs=1, retry_failed=True)) == whole
    with sqlite3.connect(tmp_path / "study" / FILE) as db:
        assert db.execute("SELECT count(*) FROM points").fetchone()[0] > 30


def test_the_last_line_counts_points_once(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulations after bounds are told apart; a search's repetitions are no points."""
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "--jobs", "1"]
    space.write_text(f"{SPACE}fidelity: ladder\n")
    for told in ("18 points: 18 evaluated, 0 known already", "18 points: 0 evaluated, 18 known already"):
        assert execute(words) == ExitCode.OK
        err = capsys.readouterr().err
        assert f"{told}; study in " in err
        simulated = (Study(tmp_path / "study").to_frame()["fidelity"] == "event").sum()
        assert f"ladder: 18 bounded, {simulated} simulated, {18 - simulated} can't be on the front\n" in err
    space.write_text(f"{SPACE}method: nsga2\nbudget: 60\n")
    assert execute([*words[:3], str(tmp_path / "search"), "-j", "1"]) == ExitCode.OK
    count = len(Study(tmp_path / "search").to_frame())
    assert count <= POINTS
    assert f"{count} points: {count} evaluated, 0 known already" in capsys.readouterr().err


def test_a_single_point_is_one_point(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In words."""
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "-j", "1", "arch.clock_mhz=500"]
    words += ["arch.array.rows=8", "arch.array.cols=8"]
    assert execute([*words, "--dry-run"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("1 point\n")
    assert execute(words) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out.startswith("front: 1 point\n")
    assert captured.err.startswith("1 point: 1 evaluated, 0 known already; study in ")
