"""Validation suites: reading them, running them, what they say, and the shipped ones."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.area import area_mm2
from tilewright.arch.load import load_accelerator
from tilewright.arch.technology_published import published
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.explore.validation.load import load_suite, suite_names
from tilewright.explore.validation.metrics import metric_value
from tilewright.explore.validation.suite import suite_schema
from tilewright.explore.validation.text import EXPLAINED, markdown, plain_text
from tilewright.sim.run import Options, simulate
from tilewright.workloads.graph import OperatorGraph

ROOT = Path(__file__).resolve().parent.parent
BARE = """\
name: mine
accelerator: bare-array
workload: gemm
overrides: [arch.array.rows=4, arch.array.cols=4, workload.k=1, workload.n=1]
metric: cycles
cases:
  - {overrides: [workload.m=1], measured: 11}
  - {overrides: [workload.m=11], measured: 20}
"""
"""Weight stationary on 4x4: M + 2R + C - 2 = M + 10 cycles, so predicted are 11 (exact) and 21 (5 % more)."""


def write(folder: Path, text: str, name: str = "suite.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        tw.validate(path)
    return str(caught.value).replace(str(path.parent) + "/", "")


@pytest.fixture(scope="module")
def shipped() -> tw.Validation:
    return tw.validate()


# --- what comes out


def test_frame_has_a_row_per_case_with_its_error(tmp_path: Path) -> None:
    """Error is predicted over measured, less one; MAPE the mean of its absolute values."""
    validation = tw.validate(write(tmp_path, BARE))
    frame = validation.to_frame()
    assert list(frame["predicted"]) == [11, 21]
    assert list(frame["measured"]) == [11, 20]
    assert list(frame["error"]) == pytest.approx([0, 0.05])
    assert list(frame["case"]) == [f"gemm array.rows=4, array.cols=4, k=1, n=1, m={m}" for m in (1, 11)]
    assert validation.mape == pytest.approx({"mine": 0.025})


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("", ExitCode.OK, ""),
        ("tolerance: null\n", ExitCode.OK, ""),
        ("tolerance: 0.03\n", ExitCode.OK, ""),
        (
            "tolerance: 0.02\n",
            ExitCode.FAILURES,
            "mine: MAPE 2.50 % exceeds the tolerance of 2 %\n",
        ),
    ],
)
def test_a_suite_beyond_its_tolerance_ends_with_1(
    line: str, code: ExitCode, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The suite's tolerance is on its MAPE; without one the error is only reported. The table comes too."""
    path = write(tmp_path, line + BARE)
    assert execute(["validate", str(path)]) == code
    out, err = capsys.readouterr()
    assert err == said
    verdict = "exceeded" if said else "within" if "0.03" in line else "reported only"
    assert re.search(rf"^mine +2 +not stated +2\.50 % +\+5\.00 %.* {verdict}$", out, re.MULTILINE)


def test_a_case_beyond_its_own_tolerance_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case's tolerance holds besides the suite's mean."""
    text = "tolerance: 0.03\n" + BARE.replace("measured: 20}", "measured: 20, name: second, tolerance: 0.04}")
    assert execute(["validate", str(write(tmp_path, text))]) == ExitCode.FAILURES
    assert capsys.readouterr().err == "mine: second: error +5.00 % exceeds the tolerance of 4 %\n"
    within = write(tmp_path, text.replace("tolerance: 0.04", "tolerance: 0.06"))
    assert execute(["validate", str(within)]) == ExitCode.OK


def test_formats_hold_the_same_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON is one object, CSV a row per case, Markdown and the table show each case."""
    name = str(write(tmp_path, BARE))
    printed = {}
    for output_format in ("table", "json", "csv", "md"):
        assert execute(["validate", name, "--format", output_format]) == ExitCode.OK
        printed[output_format] = capsys.readouterr().out
    (suite,) = json.loads(printed["json"])["suites"]
    rows = list(csv.DictReader(io.StringIO(printed["csv"])))
    assert [case["predicted"] for case in suite["cases"]] == [11, 21]
    assert [float(row["error"]) for row in rows] == [case["error"] for case in suite["cases"]]
    assert suite["mape"] == pytest.approx(0.025)
    assert "m=11 | cycles | 20 | 21 | +5.00 % |" in printed["md"]
    assert re.search(r"m=11 +cycles +20 +21 +\+5\.00 %", printed["table"])


def test_processes_share_the_runs_and_agree(tmp_path: Path) -> None:
    """`jobs=2` gives what one process gives, in the same order."""
    path = write(tmp_path, BARE)
    assert tw.validate(path, jobs=2) == tw.validate(path)


def test_equal_simulations_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases that ask different figures of one run share it."""
    ran: list[OperatorGraph] = []

    def counted(graph: OperatorGraph, accelerator: Accelerator, options: Options) -> tw.Result:
        ran.append(graph)
        return simulate(graph, accelerator, options)

    monkeypatch.setattr("tilewright.explore.validation.runs.simulate", counted)
    more = "  - {overrides: [workload.m=11], metric: macs, measured: 11}\n"
    frame = tw.validate(write(tmp_path, BARE + more)).to_frame()
    assert list(frame["predicted"]) == [11, 21, 11]
    assert len(ran) == 2


def test_a_case_can_be_relative_to_another_run(tmp_path: Path) -> None:
    """With a baseline the predicted figure is a ratio: the baseline over the case itself. The case's workload
    is taken over with its overrides, its machine's overrides are not."""
    case = "{overrides: [workload.m=1], measured: 2, baseline: {overrides: %s}}"
    tall = case % "[workload.m=12, arch.array.rows=4, arch.array.cols=4]"
    path = write(tmp_path, BARE.partition("cases:")[0] + f"cases:\n  - {tall}\n")

    (row,) = tw.validate(path).to_frame().to_dict("records")

    assert row["predicted"] == 22 / 11
    assert row["error"] == 0
    assert "against m=12, array.rows=4, array.cols=4" in str(row["case"])


def test_a_baselines_mistakes_are_reported(tmp_path: Path) -> None:
    """An unknown accelerator of a baseline is bad input, and placed there."""
    bad = "{overrides: [workload.m=1], measured: 2, baseline: {accelerator: bare-aray}}"
    path = write(tmp_path, BARE.partition("cases:")[0] + f"cases:\n  - {bad}\n")
    said = complaint(path)
    assert "cases.0.baseline.accelerator: " in said
    assert "did you mean 'bare-array'" in said


def test_metrics_of_the_description_need_no_workload(tmp_path: Path) -> None:
    """Area and peak power are predicted without a simulation, and equal what a run reports."""
    text = """\
name: mine
accelerator: tpu-v1
unit: mm2
cases:
  - {metric: area_mm2.total, measured: 331}
  - {metric: area_mm2.total, measured: 331, workload: gemm}
  - {metric: peak_power_w.total, measured: 75, unit: W, workload: gemm}
"""
    first, second, power = tw.validate(write(tmp_path, text)).suites[0].cases
    assert first.predicted == second.predicted == sum(area_mm2(load_accelerator("tpu-v1")).values())
    assert power.predicted > 0
    assert (first.workload, power.unit) == ("", "W")


def test_files_are_looked_for_beside_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator, a workload and a table that a suite names stand in its folder."""
    folder = tmp_path / "inner"
    folder.mkdir()
    write(folder, load_accelerator("bare-array").model_dump_json(), "chip.yaml")
    write(folder, "family: gemm\nm: 5\nk: 32\nn: 32\n", "work.yaml")
    write(folder, "measured\n131\n", "table.csv")  # 5 + 2 R + C - 2 cycles: 99
    common = "name: mine\naccelerator: chip.yaml\nworkload: work.yaml\nmetric: cycles\n"
    path = write(folder, common + "cases_from: table.csv\n")
    monkeypatch.chdir(tmp_path)
    assert [case.predicted for case in tw.validate(path).suites[0].cases] == [99]


# --- tables


def test_cases_from_a_table(tmp_path: Path) -> None:
    """Columns are keys and overrides; an empty cell is a key left out; rows follow the cases of the file."""
    table = """\
name,overrides,workload.m,arch.array.cols,measured,tolerance,note
wide,arch.array.rows=4 workload.k=1,1,8,15,0.1,"one, two"

,,2,,12,,
"""
    write(tmp_path, table, "table.csv")
    cases = tw.validate(write(tmp_path, BARE + "cases_from: table.csv\n")).suites[0].cases
    assert [case.predicted for case in cases] == [11, 21, 15, 12]
    assert (cases[2].case, cases[2].tolerance, cases[2].note) == ("wide", 0.1, "one, two")
    assert cases[2].overrides[-4:] == (
        "arch.array.rows=4", "workload.k=1", "workload.m=1", "arch.array.cols=8",
    )  # fmt: skip
    assert cases[3].overrides[-1] == "workload.m=2"


def test_a_table_may_name_accelerator_and_workload(tmp_path: Path) -> None:
    """These are columns beside the overrides that begin like them."""
    write(
        tmp_path,
        "accelerator,workload,workload.m,arch.array.rows,measured\nbare-array,gemm,2,4,12\n",
        "table.csv",
    )
    cases = tw.validate(write(tmp_path, BARE + "cases_from: table.csv\n")).suites[0].cases
    assert (cases[2].accelerator, cases[2].workload) == ("bare-array", "gemm")
    assert cases[2].overrides[-2:] == ("workload.m=2", "arch.array.rows=4")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("arch,measured\n1,1\n", "table.csv:1:1: arch: unknown column 'arch'"),
        ("measure\n1\n", "table.csv:1:1: measure: unknown column 'measure', did you mean 'measured'?"),
        ("metric\ncycles\n", "table.csv:1:1: no column 'measured'"),
        ("measured\n", "table.csv: no cases: only a header"),
        ("measured,measured\n1,1\n", "column 'measured' stands here more than once"),
        ("workload.m,measured\n4\n", "table.csv:2:1: 1 cells in a table of 2 columns"),
        (
            "workload.m,measured\n4,many\n5,0\n",
            "table.csv:2:3: measured: must be a number, not 'many'\n    4,many\n      ^\n"
            "table.csv:3:3: measured: must be greater than 0, not",
        ),
        (
            "metric,measured\ncycle,1\n",
            "table.csv:2:1: metric: unknown metric 'cycle', did you mean 'cycles'?",
        ),
    ],
)
def test_mistakes_in_a_table_are_placed(table: str, said: str, tmp_path: Path) -> None:
    """Each is reported with its file, line and column, all at once."""
    write(tmp_path, table, "table.csv")
    assert said in complaint(write(tmp_path, BARE + "cases_from: table.csv\n"))


def test_a_missing_table_is_reported_where_it_is_named(tmp_path: Path) -> None:
    """The place is that of `cases_from`."""
    assert complaint(write(tmp_path, BARE + "cases_from: gone.csv\n")).startswith(
        "suite.yaml:9:13: cases_from: gone.csv: no such file\n"
    )


# --- mistakes


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "metric: cycles",
            "metrics: cycles",
            "suite.yaml:5:1: metrics: unknown key 'metrics', did you mean 'metric'?",
        ),
        (
            "measured: 20",
            "mesured: 20",
            "suite.yaml:8:34: cases.1.mesured: unknown key 'mesured', did you mean 'measured'?",
        ),
        ("measured: 20", "measured: -1", "cases.1.measured: must be greater than 0, not -1"),
        ("name: mine", "name: mine\nevidence: chip", "suite.yaml:2:11: evidence: must be 'silicon', 'rtl'"),
        (BARE[BARE.index("cases") :], "", "a suite needs `cases`, or a table named by `cases_from`"),
        (
            "metric: cycles\n",
            "",
            "suite.yaml:6:5: cases.0.metric: required key is missing: in the case, or for the suite",
        ),
        (
            "accelerator: bare-array",
            "accelerator: bare-aray",
            "suite.yaml:2:14: accelerator: unknown accelerator 'bare-aray', did you mean 'bare-array'?",
        ),
        ("workload: gemm", "workload: gem", "suite.yaml:3:11: workload: unknown workload 'gem', did you"),
        (
            "[workload.m=11]",
            "[workload.mm=11]",
            "cases.1.overrides: in 'workload.mm=11': unknown key workload.mm, did you mean workload.m?",
        ),
        ("[workload.m=11]", "[workload.m=-1]", "in 'workload.m=-1': m: must be greater than 0, not -1"),
        ("[workload.m=11]", "[m=11]", "cases.1.overrides: override 'm=11' does not say of what"),
        (
            "workload: gemm\n",
            "",
            "overrides: 'workload.k=1' is an override of a workload, and this case has none",
        ),
        (
            "metric: cycles",
            "metric: cycle",
            "suite.yaml:5:9: metric: unknown metric 'cycle', did you mean 'cycles'?",
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_suite_are_placed(old: str, new: str, said: str, tmp_path: Path) -> None:
    """What is wrong, where, and what was probably meant."""
    assert old in BARE
    assert said in complaint(write(tmp_path, BARE.replace(old, new)))


def test_mistakes_of_all_cases_come_at_once(tmp_path: Path) -> None:
    """Two bad cases are two problems; one that all cases share is one."""
    two = BARE.replace("workload.m=1]", "workload.x=1]").replace("workload.m=11]", "workload.y=1]")
    with pytest.raises(InputError) as caught:
        tw.validate(write(tmp_path, two))
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError) as caught:
        tw.validate(write(tmp_path, BARE.replace("metric: cycles", "metric: cicles")))
    assert len(caught.value.problems) == 1


def test_mistakes_of_all_suites_come_at_once(tmp_path: Path) -> None:
    """A second bad suite is reported with the first."""
    first, second = (write(tmp_path, f"name: {name}\n", f"{name}.yaml") for name in ("one", "two"))
    with pytest.raises(InputError) as caught:
        tw.validate(first, second)
    assert [Path(problem.source).name for problem in caught.value.problems] == ["one.yaml", "two.yaml"]


def test_what_cannot_be_run_is_bad_input(tmp_path: Path) -> None:
    """A case whose buffer holds no tile is reported where it stands."""
    text = """\
name: mine
cases:
  - accelerator: gemmini-default
    workload: gemm
    overrides: [arch.buffers.scratchpad.capacity_bytes=4]
    metric: cycles
    measured: 1
"""
    assert "this can't be run: " in complaint(write(tmp_path, text))


@pytest.mark.parametrize("name", ["bare-array", "gone.yaml"])
def test_an_unknown_suite_ends_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing goes to stdout; a name close to a shipped suite's gets it as a hint."""
    assert execute(["validate", name]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: gone.yaml: no such file\n"
        if name == "gone.yaml"
        else "error: unknown suite 'bare-array', did you mean 'bare-arrays'? "
        "(tilewright list suites shows them all); it is no file either\n"
    )


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("cicles", "unknown metric 'cicles', did you mean 'cycles'?"),
        ("energy.total", "unknown metric 'energy.total', did you mean 'energy_j.total'?"),
        ("energy_j.totl", "unknown metric 'energy_j.totl', did you mean 'energy_j.total'?"),
        ("energy_j.x", "unknown metric 'energy_j.x'; known in 'energy_j': total, array"),
        ("energy_j", "metric 'energy_j' is no number but holds several: total, array"),
        ("cycles.x", "unknown metric 'cycles.x': 'cycles' holds nothing further"),
        ("fidelity", "metric 'fidelity' is no number here, but 'event'"),
        ("peak", "metric 'peak' is no number here, but empty"),
        ("operators.2.cycles", "unknown metric 'operators.2.cycles'; known in 'operators': 0, 1"),
    ],
)
def test_unknown_metric(metric: str, said: str) -> None:
    """The message says what there is at the place where the key goes wrong."""
    figures = {
        "cycles": 5,
        "fidelity": "event",
        "peak": None,
        "energy_j": {"total": 3.0, "array": 3.0},
        "operators": [{"cycles": 2}, {"cycles": 3}],
    }
    assert metric_value(figures, "operators.1.cycles") == 3
    named = {"operators": [{"name": "ffn.up", "cycles": 4}, {"name": "ffn", "cycles": 5}]}
    assert metric_value(named, "operators.ffn.up.cycles") == 4
    assert metric_value(named, "operators.ffn.cycles") == 5
    with pytest.raises(InputError) as caught:
        metric_value(figures, metric)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("100 * stalls.weight_stall / cycles", 25.0),
        ("100 * (cycles - stalls.weight_stall - stalls.a-b) / cycles", 50.0),
        ("stalls.weight_stall + 2 * operators.0.cycles", 6.0),
        ("cycles / 0.5", 16.0),
    ],
)
def test_metrics_are_worked_out_of_several_keys(metric: str, value: float) -> None:
    """The usual order of operations; a key may hold a `-`."""
    figures = {"cycles": 8, "stalls": {"weight_stall": 2, "a-b": 2}, "operators": [{"cycles": 2}]}
    assert metric_value(figures, metric) == value


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("100 * cycle / cycles", "unknown metric 'cycle', did you mean 'cycles'?"),
        ("cycles / zero", "metric 'cycles / zero' divides by zero here"),
        *(
            (
                metric,
                f"metric {metric!r} can't be read; write a dotted key, or keys and numbers with `+ - * /` "
                "and brackets between them",
            )
            for metric in ("100 * (cycles", "cycles ** 2", "max(cycles, zero)", "cycles[0]", "", "'cycles'")
        ),
    ],
)
def test_metrics_that_can_not_be_worked_out(metric: str, said: str) -> None:
    """A key is looked for as ever; nothing but arithmetic is understood."""
    with pytest.raises(InputError) as caught:
        metric_value({"cycles": 5, "zero": 0}, metric)
    assert str(caught.value) == said


SHARES = (
    BARE
    + """\
  - {overrides: [workload.m=11], metric: 100 * units.array.busy / cycles, measured: 50, points: true}
"""
)
"""11 of 21 cycles, 52.38 %."""


def test_shares_are_compared_in_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error of a share in per cent is its difference; a case's tolerance is in points, too."""
    path = write(tmp_path, SHARES)
    (*_, share) = tw.validate(path).suites[0].cases
    assert share.error == pytest.approx(11 / 21 - 0.5)
    beyond = write(tmp_path, SHARES.replace("points: true", "points: true, name: share, tolerance: 0.02"))
    assert execute(["validate", str(beyond)]) == ExitCode.FAILURES
    out, err = capsys.readouterr()
    assert err == "mine: share: error +2.38 pt exceeds the tolerance of 2 pt\n"
    assert re.search(r"^3  share .* \+2\.38 pt", out, re.MULTILINE)


def test_long_metrics_are_shortened_in_the_plain_table_only(tmp_path: Path) -> None:
    """Documents have them whole."""
    metric = "cycles + units.array.busy - units.array.busy + units.vector.busy"
    found = tw.validate(write(tmp_path, BARE.replace("metric: cycles", f"metric: {metric}")))
    assert "cycles + units.array.busy - units.array.busy ... " in plain_text(found)
    assert metric not in plain_text(found)
    assert metric in markdown(found)


def test_nothing_measured_is_a_share(tmp_path: Path) -> None:
    """Zero can be compared in points, and not otherwise."""
    nothing = SHARES.replace("measured: 50", "measured: 0")
    assert tw.validate(write(tmp_path, nothing)).suites[0].cases[2].error == pytest.approx(11 / 21)
    assert (
        "measured: must be greater than 0, not 0; a share in per cent is compared by `points: true`"
        in complaint(write(tmp_path, nothing.replace("points: true", "points: false")))
    )


# --- the shipped suites


def test_the_shipped_suites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`tilewright list suites` names what `validate` runs by default."""
    assert execute(["list", "suites", "--format", "json"]) == ExitCode.OK
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(suite_names())
    assert {"area-and-power", "bare-arrays", "tpu-v3-operators"} <= set(suite_names())


def test_bare_arrays_are_exact(shipped: tw.Validation) -> None:
    """All 60 rows, to the cycle."""
    (suite,) = (suite for suite in shipped.suites if suite.name == "bare-arrays")
    assert suite.tolerance == 0
    assert len(suite.cases) == 60
    assert [case.predicted for case in suite.cases] == [case.measured for case in suite.cases]
    assert {override for case in suite.cases for override in case.overrides if "dataflow" in override} == {
        f"arch.array.dataflow={kind}_stationary" for kind in ("input", "output", "weight")
    }


def test_every_published_row_is_a_case(shipped: tw.Validation) -> None:
    """The suite has the rows of the table of published designs, none left out, with their explanations."""
    (suite,) = (suite for suite in shipped.suites if suite.name == "area-and-power")
    assert [(case.case, case.metric, case.measured, case.predicted, case.note) for case in suite.cases] == [
        (row.system, row.quantity, row.published, row.modelled, row.why) for row in published()
    ]


def test_shipped_cases_have_sources_and_far_ones_are_explained(shipped: tw.Validation) -> None:
    """Each says what kind of figure it is and where it is from; beyond 30 % the table says why."""
    text, page = " ".join(plain_text(shipped).split()), markdown(shipped)
    for suite in shipped.suites:
        for case in suite.cases:
            assert case.evidence, case.case
            assert case.source, case.case
            if abs(case.error) > EXPLAINED:
                assert f"{case.case}: {case.note}." in text
                assert f"Why it is off: {case.note}." in page


def test_shipped_suites_keep_their_tolerances(shipped: tw.Validation) -> None:
    """`tilewright validate` ends with 0."""
    assert [failure for suite in shipped.suites for failure in suite.failures] == []


def test_the_document_has_a_row_for_each_shipped_case(shipped: tw.Validation) -> None:
    """docs/validation.md shows all suites and all their cases."""
    assert markdown(shipped) in (ROOT / "docs" / "validation.md").read_text(), "run: make golden"


@pytest.mark.parametrize("name", suite_names())
def test_a_suite_names_its_schema(name: str) -> None:
    """Editors check a shipped suite, whose name is that of its file."""
    folder = ROOT / "explore" / "suites"
    first = (folder / f"{name}.yaml").read_text().splitlines()[0]
    relative = first.removeprefix("# yaml-language-server: $schema=")
    assert (folder / relative).resolve() == ROOT / "docs" / "schema" / "suite.schema.json"
    assert load_suite(name).suite.name == name


def test_the_schema_file_is_up_to_date() -> None:
    """docs/schema/suite.schema.json is what `tilewright schema suite` prints (else: `make golden`)."""
    assert json.loads((ROOT / "docs" / "schema" / "suite.schema.json").read_text()) == suite_schema()
