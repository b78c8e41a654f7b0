"""Sweeps: each point once, whatever happens in between."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tests.sweeps import POINTS, SPACE, rows, rows_so_far, space_text, start
from tilewright.cli import ExitCode, execute
from tilewright.explore.evaluation.evaluate import Base, Fidelity, Outcome, evaluate_chunk
from tilewright.explore.evaluation.points import Point
from tilewright.explore.space.load import load_space
from tilewright.explore.study.study import Study
from tilewright.explore.sweep import sweep as sweeping
from tilewright.explore.sweep.claims import Claims
from tilewright.explore.sweep.executors import Serial
from tilewright.explore.sweep.store import FILE, Store

FAILING = SPACE.replace(
    "arch.clock_mhz: {range: [500, 1000, 250]}",
    "arch.buffers.scratchpad.capacity_bytes: {values: [1, 262144]}",
)


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[Point]:
    """What is evaluated in this process from now on."""
    seen: list[Point] = []

    def counted(base: Base, points: Sequence[Point], fidelity: Fidelity, version: str) -> list[Outcome]:
        seen.extend(points)
        return evaluate_chunk(base, points, fidelity, version)

    monkeypatch.setattr(sweeping.Engine, "evaluate", staticmethod(counted))
    monkeypatch.setattr(sweeping.Engine.__init__, "__defaults__", (*_defaults(counted),))
    return seen


def _defaults(counted: object) -> list[object]:
    return [
        counted if each is evaluate_chunk else each for each in sweeping.Engine.__init__.__defaults__ or ()
    ]


def wait_for_rows(folder: Path, number: int, process: subprocess.Popen[str]) -> int:
    """Wait until so many rows are there; how many there are then."""
    while process.poll() is None:
        found = rows_so_far(folder)
        if found >= number:
            return found
        time.sleep(0.02)
    raise AssertionError(f"it ended early: {process.communicate()}")


def test_rows_are_what_simulate_says(space: Path, tmp_path: Path) -> None:
    """A point's figures are those of a run with its values as overrides, under the same keys."""
    frame = tw.sweep(space, tmp_path / "study", jobs=1).to_frame()
    assert len(frame) == POINTS
    for row in frame.to_dict("records")[::5]:
        keys = ("array.rows", "array.cols", "clock_mhz")
        machine = tw.load_accelerator("gemmini-default", [f"{key}={row[f'arch.{key}']}" for key in keys])
        result = tw.simulate(machine, tw.load_workload("gemm", ["m=64", "k=64", "n=64"]))
        assert row["cycles"] == result.cycles
        assert row["energy_j.total"] == result.energy_j["total"]
        assert row["energy_j.dram"] == result.energy_j["dram"]
        assert row["area_mm2.total"] == pytest.approx(result.area_mm2["total"], rel=1e-12)
        assert row["traffic_bytes.dram.read"] == result.traffic_bytes["dram"].read
        assert row["stalls.input_stall"] == result.stalls["input_stall"]
        assert row["edp_js"] == result.latency_s * result.energy_j["total"]


def test_the_front_is_what_nothing_dominates(space: Path, tmp_path: Path) -> None:
    """Held against every pair of points."""
    study = tw.sweep(space, tmp_path / "study", jobs=1)
    costs = study.to_frame()[["latency_s", "energy_j.total", "area_mm2.total"]].to_numpy()
    best = [not any((c <= each).all() and (c < each).any() for c in costs) for each in costs]
    assert sorted(study.front()["point"]) == sorted(study.to_frame()["point"][np.array(best)])
    assert len(study.front()) > 2
    assert study.front()["latency_s"].is_monotonic_increasing


def test_the_same_command_again_evaluates_nothing(
    space: Path, tmp_path: Path, evaluated: list[Point]
) -> None:
    """And prints the same front; a wider space evaluates what is new only."""
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "--jobs", "1"]
    assert execute(words) == ExitCode.OK
    assert len(evaluated) == POINTS
    assert execute(words) == ExitCode.OK
    assert len(evaluated) == POINTS
    assert execute([*words, "arch.array.rows=8,16,32,64"]) == ExitCode.OK
    assert len(evaluated) == POINTS + POINTS // 3


def test_a_changed_space_is_said(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was and what is; the study is then about the points of the new space only."""
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "--jobs", "1"]
    assert execute(words) == ExitCode.OK
    space.write_text(SPACE.replace("[8, 16, 32]", "[8, 64]").replace("latency_s", "cycles"))
    capsys.readouterr()
    assert execute([*words, "--dry-run"]) == ExitCode.OK
    out = capsys.readouterr().out
    changed = (
        'the space changed: parameters.arch.array.rows was {"values": [8, 16, 32]}, now {"values": [8, 64]}'
    )
    assert changed in out
    assert "12 points\n           6  are there already\n           6  would run: new\n" in out
    assert execute(words) == ExitCode.OK
    err = capsys.readouterr().err
    assert changed in err
    assert "12 points: 6 evaluated, 6 known already" in err
    assert set(Study(tmp_path / "study").to_frame()["arch.array.rows"]) == {8, 64}


def test_dry_run_writes_nothing(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It counts the points and says why they would run."""
    assert execute(["sweep", str(space), "-o", str(tmp_path / "study"), "--dry-run"]) == ExitCode.OK
    assert capsys.readouterr().out == "18 points\n          18  would run: new\n"
    assert not (tmp_path / "study").exists()


def test_a_failing_point_is_a_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], evaluated: list[Point]
) -> None:
    """With its error; the others are there, the exit code is 1, and only --retry-failed runs it again."""
    space = tmp_path / "failing.yaml"
    space.write_text(FAILING)
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "--jobs", "1"]
    assert execute(words) == ExitCode.FAILURES
    assert "6 points failed; the first, point " in capsys.readouterr().err
    frame = Study(tmp_path / "study").to_frame()
    failed = frame[frame["status"] == "failed"]
    assert set(failed["arch.buffers.scratchpad.capacity_bytes"]) == {1}
    assert failed["error"].str.contains("make a buffer larger").all()
    assert (frame["status"] == "done").sum() == 6
    assert execute(words) == ExitCode.FAILURES
    assert len(evaluated) == 12
    assert execute([*words, "--retry-failed"]) == ExitCode.FAILURES
    assert len(evaluated) == 18
    assert len(rows(tmp_path / "study")) == 12


@pytest.mark.slow
def test_interrupted_sweep_resumes(space: Path, tmp_path: Path) -> None:
    """After Ctrl-C everything that had finished is there, and the printed command does the rest."""
    folder = tmp_path / "study"
    slow = space.with_name("slow.yaml")
    slow.write_text(space_text(160))
    process = start(slow, folder)
    before = wait_for_rows(folder, 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED
    assert f"To go on:\n  tilewright sweep {slow} -o {folder} --jobs 1\n" in err
    left = rows(folder)
    assert before <= len(left) < POINTS
    again = start(slow, folder)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0
    assert f"{POINTS - len(left)} evaluated, {len(left)} known already" in err
    assert len(set(rows(folder))) == len(rows(folder)) == POINTS


@pytest.mark.slow
def test_killed_sweep_resumes(space: Path, tmp_path: Path) -> None:
    """kill -9 leaves a store that can be read, with all rows that were there."""
    folder = tmp_path / "study"
    slow = space.with_name("slow.yaml")
    slow.write_text(space_text(160))
    process = start(slow, folder)
    before = wait_for_rows(folder, 3, process)
    process.kill()
    process.communicate(timeout=60)
    assert before <= len(rows(folder)) < POINTS
    again = start(slow, folder)
    assert again.communicate(timeout=120)[1].count("known already") == 1
    assert again.returncode == 0
    assert len(set(rows(folder))) == len(rows(folder)) == POINTS


def test_two_sweeps_on_one_folder(space: Path, tmp_path: Path) -> None:
    """Started together: each point once, both succeed, the file is sound."""
    folder = tmp_path / "study"
    both = [start(space, folder), start(space, folder)]
    assert [(process.communicate(timeout=120), process.returncode)[1] for process in both] == [0, 0]
    assert len(rows(folder)) == POINTS
    with sqlite3.connect(folder / FILE) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_full_disk(space: Path, tmp_path: Path) -> None:
    """A clear reason and exit code 2; what was stored stays readable, and with room the sweep goes on."""
    folder = tmp_path / "study"
    process = start(space, folder, limit=90_000)
    _, err = process.communicate(timeout=120)
    assert process.returncode == ExitCode.BAD_INPUT, err
    assert f"{folder / FILE}: " in err
    assert "what was stored before is kept, and the same command resumes" in err
    assert len(rows(folder)) < POINTS
    again = start(space, folder)
    again.communicate(timeout=120)
    assert again.returncode == 0
    assert len(rows(folder)) == POINTS


class Mortal(Serial):
    """Dies of one point, and once of another."""

    def __init__(self) -> None:
        self.deaths = 0

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:
        future: Future[Any] = Future()
        assert isinstance(arguments[1], list)
        points = [dict(point.values) for point in arguments[1]]
        deadly = any(each["arch.array.rows"] == 8 and each["arch.array.cols"] == 8 for each in points)
        if deadly or (self.deaths == 0 and any(each["arch.array.rows"] == 32 for each in points)):
            self.deaths += 1
            future.set_exception(ChildProcessError("dead"))
            return future
        return super().submit(function, *arguments)

    def is_lost(self, error: BaseException) -> bool:
        return isinstance(error, ChildProcessError)


def test_a_point_that_kills_workers_is_a_failure(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The points that were under way with it are not."""
    monkeypatch.setattr(sweeping, "executor", lambda *_: Mortal())
    frame = tw.sweep(space, tmp_path / "study").to_frame()
    failed = frame[frame["status"] == "failed"]
    assert len(frame) == POINTS
    assert set(zip(failed["arch.array.rows"], failed["arch.array.cols"], strict=True)) == {(8, 8)}
    assert failed["error"].str.startswith("the process that worked on it died, twice").all()


@pytest.mark.parametrize("method", ["nsga2", "tpe", "sobol", "random"])
def test_a_seed_means_the_same_points(method: str, tmp_path: Path, evaluated: list[Point]) -> None:
    """Whichever folder; another seed, other points. Started again, nothing is evaluated."""
    text = space_text(clock_mhz="[500.5, 1000.5]")
    found = []
    for number, seed in enumerate((1, 1, 2)):
        space = tmp_path / f"{number}.yaml"
        space.write_text(f"{text}method: {method}\nbudget: 24\nseed: {seed}\n")
        tw.sweep(space, tmp_path / f"study{number}", jobs=1)
        found.append([point for point, _ in rows(tmp_path / f"study{number}")])
        count = len(evaluated)
        tw.sweep(space, tmp_path / f"study{number}", jobs=1)
        assert len(evaluated) == count
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 24
    assert all(500.5 <= json.loads(point)["arch.clock_mhz"] <= 1000.5 for point in found[0])


def test_a_search_finds_the_front(tmp_path: Path) -> None:
    """NSGA-II, with as many looks as there are points, finds the best latency of the whole grid."""
    space = tmp_path / "space.yaml"
    space.write_text(SPACE)
    best = tw.sweep(space, tmp_path / "grid", jobs=1).best()["latency_s"]
    space.write_text(f"{SPACE}method: nsga2\nbudget: 60\n")
    assert tw.sweep(space, tmp_path / "search", jobs=1).best()["latency_s"] == best


def test_ladder_front_equals_the_exhaustive_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With fewer simulations, also where a constraint rules points out after they were simulated."""
    text = f"{SPACE}constraints: [average_power_w < 1.35]\n"
    space = tmp_path / "space.yaml"
    space.write_text(text)
    whole = tw.sweep(space, tmp_path / "whole", jobs=1)
    assert 0 < whole.to_frame()["feasible"].sum() < POINTS
    space.write_text(f"{text}fidelity: ladder\n")
    assert execute(["sweep", str(space), "-o", str(tmp_path / "ladder"), "-j", "1"]) == ExitCode.OK
    assert "18 points: 18 evaluated, 0 known already; study in " in capsys.readouterr().err
    ladder = Study(tmp_path / "ladder")
    keys = ["latency_s", "energy_j.total", *ladder.parameters]
    assert ladder.front()[keys].to_dict("records") == whole.front()[keys].to_dict("records")
    assert len(ladder.to_frame()) < 2 * POINTS


def test_constraints_on_the_machine_spare_the_simulation(tmp_path: Path) -> None:
    """Points that the area rules out are kept as such; those that keys rule out are not in the space."""
    space = tmp_path / "space.yaml"
    space.write_text(
        f"{SPACE}constraints: [area_mm2.array < 0.012, arch.array.rows * arch.array.cols < 512]\n"
    )
    frame = tw.sweep(space, tmp_path / "study", jobs=1).to_frame()
    assert len(frame) == POINTS - 3
    pruned = frame[frame["status"] == "pruned"]
    assert set(pruned["error"]) == {"area_mm2.array < 0.012"}
    assert 0 < len(pruned) < len(frame)
    assert (frame[frame["status"] == "done"]["area_mm2.array"] < 0.012).all()


def test_several_workloads_are_weighted(tmp_path: Path) -> None:
    """Latency and energy are the sums over workloads by weight; each one's own stand beside them."""
    space = tmp_path / "space.yaml"
    extra = "  - {workload: softmax, weight: 3, name: soft}\n"
    space.write_text(SPACE.replace("parameters:", f"{extra}parameters:"))
    row = tw.sweep(space, tmp_path / "study", jobs=1).to_frame().iloc[0]
    for key in ("latency_s", "energy_j.total", "cycles"):
        assert row[key] == pytest.approx(row[f"gemm:{key}"] + 3 * row[f"soft:{key}"], rel=1e-12)


def test_a_point_is_an_accelerator(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`STUDY@BEST` and the others run as the point did, and show its YAML; overrides come on top."""
    folder = tmp_path / "study"
    study = tw.sweep(space, folder, jobs=1)
    best = study.best("energy_j.total")
    gemm = ["gemm", *(f"workload.{key}=64" for key in "mkn")]
    assert execute(["run", f"{folder}@BEST:energy_j.total", *gemm, "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["energy_j"]["total"] == best["energy_j.total"]
    assert execute(["show", f"{folder}@{best['point']}"]) == ExitCode.OK
    assert f"  rows: {best['arch.array.rows']}\n" in capsys.readouterr().out
    second = tw.load_accelerator(f"{folder}@front:2", ["array.rows=4"])
    assert (second.array.rows, second.clock_mhz) == (4, study.front()["arch.clock_mhz"][1])
    for which, reason in (
        ("front:99", "there is no 'front:99'"),
        ("99", "there is no point 99"),
        ("best", "after the `@` stands BEST, BEST:OBJECTIVE, front:PLACE or a point's number"),
        ("BEST:cycle", "the study has no objective 'cycle'"),
    ):
        assert execute(["show", f"{folder}@{which}"]) == ExitCode.BAD_INPUT
        assert reason in capsys.readouterr().err


def test_export(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV and Parquet hold what `to_frame` does; another ending is refused."""
    import pandas as pd

    frame = tw.sweep(space, tmp_path / "study", jobs=1).to_frame()
    for name, read in (("points.csv", pd.read_csv), ("points.parquet", pd.read_parquet)):
        assert execute(["export", str(tmp_path / "study"), "-o", str(tmp_path / name)]) == ExitCode.OK
        found = read(tmp_path / name)
        assert list(found.columns) == list(frame.columns)
        assert list(found["energy_j.total"]) == list(frame["energy_j.total"])
    assert (
        execute(["export", str(tmp_path / "study"), "-o", str(tmp_path / "points.xls")]) == ExitCode.BAD_INPUT
    )
    assert "name a file that ends in .csv or .parquet" in capsys.readouterr().err


def test_points_are_streamed(space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more points are drawn ahead than a chunk holds: memory does not grow with their number."""
    drawn = kept = ahead = 0
    monkeypatch.setattr(sweeping, "CHUNK", 50)

    def many() -> Iterator[tuple[int, Point]]:
        nonlocal drawn, ahead
        for number in range(2000):
            drawn += 1
            ahead = max(ahead, drawn - kept)
            yield number + 1, Point((("arch.clock_mhz", number),))

    def instant(_base: Base, points: Sequence[Point], *_: object) -> list[Outcome]:
        nonlocal kept
        kept += len(points)
        return [Outcome("done", {"latency_s": 1.0}, "", 1e-6) for _ in points]

    loaded = load_space(space)
    with Store(tmp_path / "study", create=True) as store:
        number, _ = store.use(sweeping.record(loaded))
        claims = Claims(tmp_path / "study")
        engine = sweeping.Engine(loaded.base, "x", number, store, Serial(), claims, evaluate=instant)
        engine.run(many(), "event")
        claims.close()
        assert sum(1 for _ in store.rows(number)) == 2000
    assert ahead <= 100


def test_another_installation_is_refused(space: Path) -> None:
    """A worker with other models would give other figures under the same key."""
    loaded = load_space(space)
    with pytest.raises(RuntimeError, match="a worker runs another version of tilewright"):
        evaluate_chunk(loaded.base, [], "event", "other")


def test_local_processes_do_the_same(space: Path, tmp_path: Path) -> None:
    """Two processes find the rows that one does, under the same numbers and in the same order."""
    one = tw.sweep(space, tmp_path / "one", jobs=1).to_frame()
    two = tw.sweep(space, tmp_path / "two", jobs=2).to_frame()
    left, right = (frame.drop(columns=["seconds"]).to_csv(index=False) for frame in (one, two))
    assert left == right
