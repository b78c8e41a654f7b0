"""What a study's page runs: shipped machines on the knee's work, the knee itself; each once, and told."""

import sqlite3
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.arch.load import load_accelerator
from tilewright.cli import ExitCode, execute
from tilewright.cli import report as report_command
from tilewright.explore.pages.dashboard import LiveStudy
from tilewright.explore.pages.study_report import study_html
from tilewright.explore.study import points as study_points
from tilewright.explore.study import presets as study_presets
from tilewright.explore.study.opened import open_view
from tilewright.explore.study.presets import find_presets, nearest_presets
from tilewright.explore.study.runs import kept_result
from tilewright.explore.study.view import POINT, StudyView
from tilewright.explore.sweep.store import FILE, NO_SPACE
from tilewright.sim.run import Options, simulate
from tilewright.workloads.load import load_workload

SPACE = """\
accelerator: gemmini-default
workloads: [{workload: gemm, overrides: [workload.k=32, workload.n=32]}]
parameters:
  workload.m: {values: [16, 48, 96]}
  arch.array.rows: {values: [8, 16]}
objectives: [{name: latency_s}, {name: workload.m, goal: maximize}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose points do different work: how large a matrix does a latency allow?"""
    place = tmp_path_factory.mktemp("lengths")
    (place / "lengths.yaml").write_text(SPACE)
    tw.sweep(place / "lengths.yaml", place / "study", jobs=1)
    return place / "study"


@pytest.fixture
def view(folder: Path) -> StudyView:
    """The study as the sweep left it: what a page had run is gone."""
    with sqlite3.connect(folder / FILE) as db:
        db.execute("DELETE FROM points WHERE space = ?", (NO_SPACE,))
        db.execute("DROP TABLE IF EXISTS runs")
    return open_view(folder)


def other_knee(view: StudyView) -> int:
    """The point of the front with the largest work, which is not the knee."""
    row = next(row for row in view.front_rows if view.values(row)["workload.m"] == 96)
    assert row != view.knee
    return row


def test_shipped_machines_run_the_knees_work(view: StudyView) -> None:
    """Where points do different work, a machine does the knee's, counts as having its parameters of the
    workload, and the page says so."""
    assert view.knee is not None
    m = view.values(view.knee)["workload.m"]
    found = find_presets(view, 2)
    assert list(found.figures) == nearest_presets(view)[:2]
    graph = load_workload(view.workloads[0].workload, [*view.workloads[0].overrides, f"workload.m={m}"])
    for name, figures in found.figures.items():
        assert figures["latency_s"] == simulate(graph, load_accelerator(name), Options("event")).latency_s
        assert figures["workload.m"] == m
    assert f"on the knee&#x27;s work (workload.m={m}; other points run other work)" in study_html(view)


def test_another_knee_is_other_work(view: StudyView) -> None:
    """What machines took on one knee's work is not taken for what they take on another's."""
    first = find_presets(view, 1)
    view.__dict__["knee"] = other_knee(view)
    assert find_presets(view, 1, run=False).missing
    second = find_presets(view, 1)
    assert second.work == "workload.m=96"
    assert second.figures["gemmini-default"]["latency_s"] > first.figures["gemmini-default"]["latency_s"]


def test_a_machine_runs_the_workload_that_the_knee_names(tmp_path: Path) -> None:
    """With the workload itself as a parameter, machines run the knee's."""
    (tmp_path / "nets.yaml").write_text(
        "accelerator: gemmini-default\n"
        "workloads: [{workload: gemm, overrides: [workload.m=32, workload.k=32]}]\n"
        "parameters:\n"
        "  workload: {values: [gemm]}\n"
        "  workload.n: {values: [32, 64]}\n"
        "objectives: [{name: latency_s}]\n"
    )
    tw.sweep(tmp_path / "nets.yaml", tmp_path / "study", jobs=1)
    found = find_presets(open_view(tmp_path / "study"), 1)
    assert found.work == "workload=gemm, workload.n=32"
    graph = load_workload("gemm", ["workload.m=32", "workload.k=32", "workload.n=32"])
    machine = load_accelerator("gemmini-default")
    assert found.figures["gemmini-default"]["latency_s"] == simulate(graph, machine).latency_s


def test_a_page_runs_nothing_twice(view: StudyView, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second page of a study is the first, byte for byte, and nothing is simulated for it."""
    first = study_html(view)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("simulated again")

    monkeypatch.setattr(study_presets, "evaluate_chunk", never)
    monkeypatch.setattr("tilewright.sim.run.simulate", never)
    with pytest.raises(AssertionError):
        study_points.point_result(view, 0, view.workloads[0])
    assert study_html(view) == first


def test_a_kept_run_is_of_its_point(view: StudyView) -> None:
    """Each point's own; what was kept reads as it was."""
    runs = {row: kept_result(view, row, view.workloads[0]) for row in (0, 5)}
    for row, run in runs.items():
        again = kept_result(view, row, view.workloads[0])
        assert again.latency_s == run.latency_s == view.number(row, "latency_s")
        assert again.to_dict() == run.to_dict()
    assert len(view.frame) == len(open_view(view.folder or "").frame)


def test_a_study_that_may_only_be_read_has_a_page(view: StudyView, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be kept is run each time."""
    assert view.folder is not None

    def refused(*_: object) -> None:
        raise tw.InputError("attempt to write a readonly database")

    with monkeypatch.context() as readonly:
        readonly.setattr("tilewright.explore.sweep.store.Store.put", refused)
        readonly.setattr("tilewright.explore.sweep.store.Store.keep_run", refused)
        page = study_html(view)
    assert page == study_html(view)


def test_a_report_tells_what_it_runs(
    view: StudyView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, each machine and the knee before it is run; the second report has nothing to tell
    but where it is."""
    knee = str(view.frame[POINT].iloc[view.knee or 0])
    page = tmp_path / "study.html"
    monkeypatch.setattr(report_command, "QUIET_S", 0.0)
    machines = [f"{name} ({place} of 5)" for place, name in enumerate(nearest_presets(view)[:5], 1)]
    assert execute(["report", str(view.folder), "-o", str(page)]) == ExitCode.OK
    assert capsys.readouterr().err.splitlines() == [
        *(f"running shipped machines beside the front: {each}" for each in machines),
        f"running point {knee} for its timeline",
        f"report written to {page}",
    ]
    assert execute(["report", str(view.folder), "-o", str(page)]) == ExitCode.OK
    assert capsys.readouterr().err == f"report written to {page}\n"


def test_a_dashboard_shows_machines_where_work_differs(view: StudyView) -> None:
    """Those of the knee's work, and when another point is the knee, those of its work."""
    live = LiveStudy(lambda: view, lambda: "", run_presets=False)
    assert live.presets().missing
    found = find_presets(view)
    assert live.presets() == found
    view.__dict__["knee"] = other_knee(view)
    assert live.presets().missing
    assert live.presets().work == "workload.m=96"
