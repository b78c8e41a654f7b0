"""The workload as a parameter: spaces, sweeps, studies and pages over several workloads; parameters as
objectives."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

import tilewright as tw
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import evaluate_chunk
from tilewright.explore.evaluation.points import model_version
from tilewright.explore.pages.study_report import study_html
from tilewright.explore.space.load import LoadedSpace, load_space
from tilewright.explore.study.data import parallel_data, tradeoff_data
from tilewright.explore.study.importance import importance_data
from tilewright.explore.study.opened import open_view
from tilewright.explore.study.points import point_command, point_result
from tilewright.explore.sweep.methods import points

SPACE = """\
accelerator: gemmini-default
parameters:
  workload: {values: [gemm, softmax, nets/small.yaml]}
  workload.m: {values: [24, 48], when: {workload: [nets/small.yaml]}}
  arch.array.rows: {values: [8, 16]}
  arch.clock_mhz: {values: [500, 1000]}
objectives: [{name: latency_s}, {name: energy_j.total}]
fidelity: analytic
"""
POINTS = 16
SMALL = "{name: small, family: gemm, m: 32, k: 40, n: 48}\n"
MISTAKES = yaml.safe_load((Path(__file__).parent / "data" / "space_workload_mistakes.yaml").read_text())


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """A space over two presets and a file beside it."""
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "small.yaml").write_text(SMALL)
    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


def changed(space: Path, *pairs: tuple[str, str]) -> Path:
    """The space with texts replaced."""
    text = space.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    space.write_text(text)
    return space


def alone(row: dict[str, object], fidelity: str = "analytic") -> tw.Result:
    """A row's point, run by itself."""
    machine = tw.load_accelerator(
        "gemmini-default", [f"{key}={row[f'arch.{key}']}" for key in ("array.rows", "clock_mhz")]
    )
    own = [] if np.isnan(row.get("workload.m", np.nan)) else [f"m={int(row['workload.m'])}"]  # type: ignore[call-overload]
    names = {"nets/small.yaml": ["m=32", "k=40", "n=48"]}
    name = str(row["workload"])
    graph = tw.load_workload("gemm" if name in names else name, [*names.get(name, []), *own])
    return tw.simulate(machine, graph, fidelity)  # type: ignore[arg-type]


@pytest.mark.parametrize("fidelity", ["analytic", "event"])
def test_each_point_runs_its_own_workload(space: Path, tmp_path: Path, fidelity: str) -> None:
    """Presets, files beside the space, and keys of some workloads only: rows are what single runs say,
    whether many are worked out at once or each is simulated."""
    changed(space, ("fidelity: analytic", f"fidelity: {fidelity}"))
    frame = tw.sweep(space, tmp_path / "study", jobs=1).to_frame()
    assert len(frame) == POINTS
    assert set(frame["status"]) == {"done"}
    assert set(frame[frame["workload.m"].notna()]["workload"]) == {"nets/small.yaml"}
    for row in frame.to_dict("records"):
        result = alone(row, fidelity)  # type: ignore[arg-type]
        assert row["cycles"] == result.cycles
        assert row["energy_j.total"] == pytest.approx(result.energy_j["total"])


def test_mixed_points_at_once_are_each_by_itself(space: Path) -> None:
    """In one chunk, in any order, and one by one: the same rows."""
    loaded = load_space(space)
    some = list(points(loaded))
    together = evaluate_chunk(loaded.base, some[::-1], "analytic", model_version())[::-1]
    single = [evaluate_chunk(loaded.base, [point], "analytic", model_version())[0] for point in some]
    assert [each.row for each in together] == [each.row for each in single]


def test_workloads_vary_slowest(space: Path) -> None:
    """With their own keys, so that a graph is made once."""
    changed(space, ("parameters:", "parameters:\n  arch.array.cols: {values: [8, 16]}"))
    graphs = [
        tuple((key, value) for key, value in point.values if key.startswith("workload"))
        for point in points(load_space(space))
    ]
    turns = sum(a != b for a, b in pairwise(graphs))
    assert turns == len(set(graphs)) - 1


@pytest.mark.parametrize("objective", ["energy_j.total", "workload.m, goal: maximize"])
def test_ladder_front_equals_the_exhaustive_one(space: Path, tmp_path: Path, objective: str) -> None:
    """Over workloads, and with a parameter as an objective."""
    changed(space, ("{name: energy_j.total}", f"{{name: {objective}}}"))
    fronts = []
    for fidelity in ("event", "ladder"):
        changed(space, (space.read_text().splitlines()[-1], f"fidelity: {fidelity}"))
        front = tw.sweep(space, tmp_path / fidelity, jobs=1).front()
        fronts.append(front[["workload", "arch.array.rows", "arch.clock_mhz", "latency_s"]])
    assert len(fronts[0]) > 0
    assert fronts[0].to_dict("records") == fronts[1].to_dict("records")


def test_a_parameter_as_an_objective_needs_no_figure(space: Path, tmp_path: Path) -> None:
    """The most rows, the least time: the front holds both ends, its values are the points' own; a point
    without the key is on no front."""
    changed(space, ("{name: energy_j.total}", "{name: workload.m, goal: maximize}"))
    study = tw.sweep(space, tmp_path / "study", jobs=1)
    front = study.front()
    assert list(front["workload.m"]) == [24, 48]
    assert study.best("workload.m")["workload.m"] == 48
    assert "workload.m" in study_html(open_view(tmp_path / "study"))


@pytest.mark.parametrize("method", ["nsga2", "tpe", "sobol", "random"])
def test_methods_choose_workloads(space: Path, tmp_path: Path, method: str) -> None:
    """All of them find points of every workload."""
    text = space.read_text()
    space.write_text(f"{text}method: {method}\nbudget: 12\n")
    frame = tw.sweep(space, tmp_path / "study", jobs=1).to_frame()
    assert set(frame["workload"]) == {"gemm", "softmax", "nets/small.yaml"}


def test_one_workload_lends_its_overrides(space: Path, tmp_path: Path) -> None:
    """`workload=…` on the command line takes the place of the file's only workload, not of its overrides and
    its weight."""
    head = "workloads: [{workload: gemm, overrides: [workload.k=16], weight: 3}]"
    body = "  arch.array.rows: {values: [8]}\nobjectives: [{name: latency_s}]\n"
    space.write_text(f"accelerator: gemmini-default\n{head}\nparameters:\n{body}fidelity: analytic\n")
    row = tw.sweep(space, tmp_path / "study", ["workload=nets/small.yaml"], jobs=1).to_frame().iloc[0]
    machine = tw.load_accelerator("gemmini-default", ["array.rows=8"])
    graph = tw.load_workload("gemm", ["m=32", "k=16", "n=48"])
    assert row["cycles"] == 3 * tw.simulate(machine, graph, "analytic").cycles


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["reason"])
def test_mistakes_have_their_place(space: Path, mistake: dict[str, str]) -> None:
    """Line and column, the offending value, what to do."""
    space.write_text("accelerator: gemmini-default\n" + mistake["text"])
    with pytest.raises(InputError) as caught:
        load_space(space)
    told = [str(each).splitlines()[0].rpartition("/")[2] for each in caught.value.problems]
    assert told == [mistake["reason"]]


def test_fewer_workloads_on_the_command_line_leave_conditions_alone(space: Path, tmp_path: Path) -> None:
    """What `when` names is then never chosen; the study opens again."""
    study = tw.sweep(space, tmp_path / "study", ["workload=gemm"], jobs=1)
    assert len(tw.Study(study.folder).to_frame()) == 4


def digest(space: Path) -> str:
    loaded: LoadedSpace = load_space(space)
    return loaded.digest


def test_the_study_knows_the_files_that_values_name(space: Path, tmp_path: Path) -> None:
    """A workload's file, a mask, a technology table: their content is part of what points are changes of; a
    preset more in the list is not."""
    before = digest(space)
    (tmp_path / "nets" / "small.yaml").write_text(SMALL.replace("32", "33"))
    assert digest(space) != before
    (tmp_path / "nets" / "small.yaml").write_text(SMALL)
    assert digest(changed(space, ("[gemm,", "[gemm, layernorm,"))) == before
    mask = tmp_path / "mask.npy"
    np.save(mask, np.tri(16, dtype=bool))
    changed(
        space,
        ("[gemm, layernorm, softmax, nets/small.yaml]", "[attention]"),
        (
            "workload.m: {values: [24, 48], when: {workload: [nets/small.yaml]}}",
            f"workload.attention: {{values: [{{kind: mask_file, path: {mask}}}]}}",
        ),
    )
    space.write_text(space.read_text().replace("[attention]", "[encoder_block]"))
    with_mask = digest(space)
    assert digest(space) == with_mask
    np.save(mask, np.ones((16, 16), dtype=bool))
    assert digest(space) != with_mask


def test_resumes_and_says_what_changed(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same space again evaluates nothing; a further preset only its own points; a changed file all."""
    command = ["sweep", str(space), "-o", str(tmp_path / "study"), "--jobs", "1"]
    for told in ("16 points: 16 evaluated, 0 known", "16 points: 0 evaluated, 16 known"):
        assert execute(command) == ExitCode.OK
        assert told in capsys.readouterr().err
    changed(space, ("[gemm,", "[layernorm, gemm,"))
    assert execute(command) == ExitCode.OK
    assert "20 points: 4 evaluated, 16 known" in capsys.readouterr().err
    (tmp_path / "nets" / "small.yaml").write_text(SMALL.replace("32", "33"))
    assert execute(command) == ExitCode.OK
    told = capsys.readouterr().err
    assert "the accelerator or a workload changed: no point can be taken over" in told
    assert "20 points: 20 evaluated" in told


def test_a_point_is_a_workload(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`STUDY@POINT` in a workload's place is what the point ran, with its keys; of several workloads none."""
    folder = tmp_path / "study"
    study = tw.sweep(space, folder, jobs=1)
    for row in study.to_frame().to_dict("records")[::5]:
        name = f"{folder}@{row['point']}"
        found = tw.simulate(tw.load_accelerator(name), tw.load_workload(name), "analytic")
        assert found.cycles == row["cycles"]
    last = f"{folder}@{POINTS}"
    assert execute(["run", last, last, "workload.n=8", "--print-config"]) == ExitCode.OK
    assert "m: 48\nk: 40\nn: 8\n" in capsys.readouterr().out
    two = "accelerator: gemmini-default\nworkloads: [{workload: gemm}, {workload: softmax}]\n"
    space.write_text(two + "parameters: {arch.array.rows: {values: [8]}}\nobjectives: [{name: latency_s}]\n")
    tw.sweep(space, tmp_path / "two", jobs=1)
    with pytest.raises(InputError, match=r"runs several workloads \(gemm, softmax\): name one of them"):
        tw.load_workload(f"{tmp_path / 'two'}@BEST")


def test_pages_show_each_point_with_its_workload(space: Path, tmp_path: Path) -> None:
    """The command and the run of a point are its own workload's; the workload is an axis of names and
    explains most; trade-offs hold each point against the best of its workload."""
    tw.sweep(space, tmp_path / "study", jobs=1)
    view = open_view(tmp_path / "study")
    for row, name in enumerate(view.frame["workload"]):
        assert point_result(view, row, view.workloads[0]).cycles == view.number(row, "cycles")
        words = point_command(view, row, view.workloads[0]).split()
        assert Path(words[3]).name == Path(name).name
    axes = parallel_data(view).axes
    assert axes[0].title == "workload"
    assert axes[0].labels == ("gemm", "nets/small.yaml", "softmax")
    assert importance_data(view).parameters[0] == "workload"
    data = tradeoff_data(view)
    assert data.workloads == ("gemm", "softmax", "nets/small.yaml")
    for name, times in zip(data.workloads, data.times_best, strict=True):
        ran = [view.frame["workload"].iloc[row] == name for row in view.front_rows]
        assert [not np.isnan(each) for each in times] == ran
        assert all(each >= 1 for each in times if not np.isnan(each))
    page = study_html(view)
    assert "gemm or softmax or nets/small.yaml on changes of gemmini-default" in page


def test_a_conditional_column_is_only_where_it_is(tmp_path: Path) -> None:
    """At `analytic`, keys that could be columns but are conditional: points without one keep the
    accelerator's own value."""
    path = tmp_path / "space.yaml"
    path.write_text(
        "accelerator: gemmini-default\nworkloads: [{workload: gemm}]\nparameters:\n"
        "  arch.array.rows: {values: [8, 16]}\n"
        "  arch.clock_mhz: {values: [250], when: {arch.array.rows: 16}}\n"
        "objectives: [{name: latency_s}]\nfidelity: analytic\n"
    )
    frame = tw.sweep(path, tmp_path / "study", jobs=1).to_frame()
    usual = tw.load_accelerator("gemmini-default").clock_mhz
    assert dict(zip(frame["arch.array.rows"], frame["clock_mhz"], strict=True)) == {8: usual, 16: 250}
