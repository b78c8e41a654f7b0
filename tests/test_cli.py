"""The command line: what goes to stdout and stderr, exit codes, files, and how quickly it starts."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import tilewright
from tilewright.arch.area import area_mm2
from tilewright.arch.energy import peak_power_w, sources
from tilewright.arch.load import load_accelerator
from tilewright.arch.load import preset_names as accelerator_names
from tilewright.arch.technology import shipped_figures
from tilewright.cli import ExitCode, execute, main
from tilewright.cli.output import staged
from tilewright.description.errors import InputError
from tilewright.sim.result import OperatorRow, Result
from tilewright.sim.saved import load_result
from tilewright.workloads.load import preset_names as workload_names

Call = dict[str, object]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, result_of: Callable[..., Result]) -> list[Call]:
    """Puts a simulator in place that answers with a made-up result at once; returns what it was asked."""
    asked: list[Call] = []

    def load(kind: str) -> Callable[..., object]:
        def loader(name: str, overrides: list[str]) -> object:
            if name == "broken":
                raise InputError(f"{kind}.yaml:1:2: no good", f"{kind}.yaml:3:4: no good either")
            return (name, *overrides)

        return loader

    def simulate(
        accelerator: object, workload: object, fidelity: str, *, seed: int, fast_forward: bool, trace: bool
    ) -> Result:
        asked.append(
            {
                "accelerator": accelerator,
                "workload": workload,
                "fidelity": fidelity,
                "seed": seed,
                "fast_forward": fast_forward,
                "trace": trace,
            }
        )
        if workload == ("interrupted",):
            raise KeyboardInterrupt
        if workload == ("crash",):
            raise ZeroDivisionError("by\nzero")
        return result_of(traced=trace)

    api = ModuleType("tilewright.api")
    vars(api).update(load_accelerator=load("accelerator"), load_workload=load("workload"), simulate=simulate)
    monkeypatch.setitem(sys.modules, "tilewright.api", api)
    return asked


def test_run_prints_the_table(calls: list[Call], capsys: pytest.CaptureFixture[str]) -> None:
    """The default: a table on stdout, nothing on stderr, the `event` fidelity, fast-forward on."""
    assert execute(["run", "toy", "toy-bert"]) == ExitCode.OK
    out, err = capsys.readouterr()
    assert out.startswith("toy-bert on toy, event fidelity\n")
    assert err == ""
    assert calls == [
        {
            "accelerator": ("toy",),
            "workload": ("toy-bert",),
            "fidelity": "event",
            "seed": 0,
            "fast_forward": True,
            "trace": False,
        }
    ]


def test_run_passes_its_options_and_overrides_on(calls: list[Call]) -> None:
    """Overrides go to what their prefix names, in order, wherever they stand."""
    line = "run toy bert arch.a.b=1 workload.seq=5 --fidelity analytic --seed 7 arch.c=x=y --no-fast-forward"
    assert execute(line.split()) == ExitCode.OK
    assert calls == [
        {
            "accelerator": ("toy", "arch.a.b=1", "arch.c=x=y"),
            "workload": ("bert", "workload.seq=5"),
            "fidelity": "analytic",
            "seed": 7,
            "fast_forward": False,
            "trace": False,
        }
    ]


@pytest.mark.usefixtures("calls")
def test_run_json_is_the_result(capsys: pytest.CaptureFixture[str], result: Result) -> None:
    """One object, `Result.to_dict()`."""
    assert execute(["run", "toy", "bert", "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result.to_dict()))


@pytest.mark.usefixtures("calls")
def test_run_csv_has_a_row_per_operator(capsys: pytest.CaptureFixture[str], result: Result) -> None:
    """The columns are the operator's fields, energy by component with its unit; cycles and energy add up."""
    assert execute(["run", "toy", "bert", "--format", "csv"]) == ExitCode.OK
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    parts = [f"energy_pj.{part}" for part in ("total", "array", "dram", "leakage")]
    assert list(rows[0]) == [*OperatorRow.__slots__[:-1], *parts] == list(result.to_frame().columns)
    assert len(rows) == len(result.operators)
    assert sum(int(row["cycles"]) for row in rows) == result.cycles
    assert sum(float(row["energy_pj.total"]) for row in rows) == pytest.approx(
        1e12 * result.energy_j["total"]
    )


def test_run_writes_trace_and_report(
    calls: list[Call], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both files appear and are named on stderr; a trace is recorded only because one was asked for."""
    trace, report = tmp_path / "t.json", tmp_path / "r.html"
    report.write_text("the old one")
    assert execute(["run", "toy", "bert", "--trace", str(trace), "--report", str(report)]) == ExitCode.OK
    assert capsys.readouterr().err == f"trace written to {trace}\nreport written to {report}\n"
    assert calls[0]["trace"] is True
    assert json.loads(trace.read_text())["otherData"]["workload"] == "toy-bert"
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "t.json"]


@pytest.mark.parametrize(
    ("workload", "code", "message"),
    [
        ("broken", 2, "error: workload.yaml:1:2: no good\nerror: workload.yaml:3:4: no good either\n"),
        ("interrupted", 130, "interrupted\n"),
        (
            "crash",
            3,
            "internal error: ZeroDivisionError: by zero; run with TILEWRIGHT_DEBUG=1 for the traceback\n",
        ),
    ],
)
@pytest.mark.usefixtures("calls")
def test_what_goes_wrong_has_its_exit_code_and_leaves_no_file(
    workload: str, code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Old files stay as they were, no new ones appear, stdout is empty and there is no traceback."""
    old = tmp_path / "old.json"
    old.write_text("kept")
    assert (
        execute(["run", "toy", workload, "--trace", str(old), "--report", str(tmp_path / "r.html")]) == code
    )
    assert capsys.readouterr() == ("", message)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.json", "kept")]


@pytest.mark.usefixtures("calls")
def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With TILEWRIGHT_DEBUG set an internal error comes with its traceback, and the same exit code."""
    monkeypatch.setenv("TILEWRIGHT_DEBUG", "1")
    assert execute(["run", "toy", "crash"]) == ExitCode.INTERNAL_ERROR
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_found_before_simulating(
    calls: list[Call], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A missing folder, a folder in the file's place, one file for two outputs: exit 2, nothing simulated."""
    missing, twice = tmp_path / "no" / "t.json", tmp_path / "x"
    assert execute(["run", "toy", "bert", "--trace", str(missing)]) == ExitCode.BAD_INPUT
    assert execute(["run", "toy", "bert", "--report", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert (
        execute(["run", "toy", "bert", "--report", str(twice), "--trace", str(twice)]) == ExitCode.BAD_INPUT
    )
    assert capsys.readouterr().err == (
        f"error: can't write {missing}: no such file or directory\n"
        f"error: can't write {tmp_path}: it is a directory\n"
        f"error: two outputs go to the same file, {twice}\n"
    )
    assert calls == []
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_written_to_and_not_replaced() -> None:
    """`--trace /dev/null` must not turn the device into a file."""
    null = Path(os.devnull)
    with staged([null, None]) as parts:
        assert parts == [null, None]
    assert null.is_char_device()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("seq", "unexpected argument 'seq'; an override is written arch.KEY=VALUE or workload.KEY=VALUE"),
        (
            "seq=5",
            "override 'seq=5' does not say of what: "
            "write arch.seq=… for the accelerator or workload.seq=… for the workload",
        ),
        ("wrkload.seq=5", "unknown prefix 'wrkload' in 'wrkload.seq=5', did you mean workload.seq?"),
        *(
            (
                text,
                f"override '{text}' names no key; "
                "an override is written arch.KEY=VALUE or workload.KEY=VALUE",
            )
            for text in ("arch=5", "arch.=5", "workload=5", "=5")
        ),
    ],
)
def test_an_override_without_a_known_prefix_is_refused(
    argument: str, message: str, calls: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what is wrong with which argument, and nothing is simulated."""
    assert execute(["run", "toy", "bert", argument]) == ExitCode.BAD_INPUT
    assert capsys.readouterr() == ("", f"error: {message}\n")
    assert calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rum"], "No such command 'rum'. Did you mean 'run'?"),
        (["run", "a", "b", "--repot", "x"], "No such option: --repot (Possible options: --help, --report)"),
        (["run", "a"], "Missing argument 'WORKLOAD'."),
        (["schema", "accelerato"], "accelerato"),
        (["run", "a", "b", "--seed", "x"], "--seed"),
    ],
)
def test_bad_usage_says_what_was_meant(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, the usage and the likely word on stderr, nothing on stdout."""
    assert execute(arguments) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


@pytest.mark.parametrize("command", [[], ["run"], ["list"], ["show"], ["schema"], ["report"]])
def test_every_help_ends_with_two_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines that start with `tilewright`; the exit codes follow them in the main help."""
    assert execute([*command, "--help"]) == ExitCode.OK
    tail = capsys.readouterr().out.partition("  Examples:\n")[2].splitlines()
    assert [line.startswith("    tilewright ") for line in tail[:3]] == [
        True,
        True,
        *([False] * (len(tail) > 2)),
    ]
    assert len(tail) == 2 or not command


def test_help_prints_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Number and meaning, from the enumeration itself."""
    execute(["--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for code in ExitCode:
        assert [str(code.value), code.__doc__] in lines


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints the package's version."""
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"tilewright {tilewright.__version__}\n"


def test_print_config_is_both_resolved_descriptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two YAML documents with the overrides in them; nothing is simulated."""
    monkeypatch.setattr("tilewright.api.simulate", None)
    line = "run bare-array gemm arch.array.rows=7 workload.m=3 --print-config"
    assert execute(line.split()) == ExitCode.OK
    accelerator, workload = yaml.safe_load_all(capsys.readouterr().out)
    assert accelerator["array"]["rows"] == 7
    assert workload["m"] == 3


def test_bad_descriptions_come_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt preset of either kind is exit 2 with the likely name."""
    assert execute(["run", "bare-aray", "gemm", "--print-config"]) == ExitCode.BAD_INPUT
    assert execute(["run", "bare-array", "bert-bse", "--print-config"]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert "did you mean 'bare-array'?" in err
    assert "did you mean 'bert-base'?" in err


@pytest.mark.parametrize(
    ("what", "names"), [("accelerators", accelerator_names), ("workloads", workload_names)]
)
def test_list_has_every_preset_in_every_format(
    what: str, names: Callable[[], tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same names in the table, in JSON and in CSV."""
    execute(["list", what])
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    execute(["list", what, "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    execute(["list", what, "--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert table == ["name", *names()]
    assert [row["name"] for row in rows] == [line["name"] for line in lines] == list(names())
    assert all(row["description"] for row in rows)


def test_show_prints_a_description_that_loads_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its output is YAML with the peaks as comments: saved to a file, it is the same accelerator."""
    assert execute(["show", "gemmini-default", "arch.array.rows=32"]) == ExitCode.OK
    text = capsys.readouterr().out
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_accelerator(file) == load_accelerator("gemmini-default", ["array.rows=32"])
    assert "# array peak   512 MACs/cycle, 0.512 TMAC/s\n" in text
    assert "# area         0." in text
    assert re.search(
        r"^#   component +area_mm2 +peak_power_w\n#   array +[\d.]+ +[\d.]+\n", text, re.MULTILINE
    )
    assert execute(["show", str(file)]) == ExitCode.OK
    assert capsys.readouterr().out == text


def test_area_and_peak_power_are_shown_by_component(capsys: pytest.CaptureFixture[str]) -> None:
    """Every component of the models has its row, and the rows add up to the totals above them."""
    accelerator = load_accelerator("tpu-v1")
    area, power = area_mm2(accelerator), peak_power_w(accelerator)
    assert execute(["show", "tpu-v1"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert f"# area         {sum(area.values()):,.4g} mm² at 28 nm" in text
    assert f"# peak power   {sum(power.values()):,.4g} W" in text
    rows = dict(re.findall(r"^#   (\w+) +(.*)$", text, re.MULTILINE))
    assert set(rows) == {"component", *area, *power}
    assert rows["array"].split() == [f"{area['array']:,.4g}", f"{power['array']:,.4g}"]
    assert rows["dram"] == f"{power['dram']:,.4g}"


def test_show_sources_names_every_constant_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    """The same constants in the table, in JSON and in CSV, and each citation of the table once."""
    expected = sources(load_accelerator("tpu-v1", ["technology.node_nm=16"]))
    command = ["show", "--sources", "tpu-v1", "arch.technology.node_nm=16"]
    execute([*command, "--format", "json"])
    rows = json.loads(capsys.readouterr().out)
    execute([*command, "--format", "csv"])
    lines = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    execute(command)
    table, _, cited = capsys.readouterr().out.partition("\n\n")
    assert rows == [row.to_dict() for row in expected]
    assert [line["source"] for line in lines] == [row.source for row in expected]
    assert list(lines[0]) == list(rows[0])
    assert [line.split()[0] for line in table.splitlines()[1:]] == [row.constant for row in expected]
    assert len(re.findall(r"^\[\d+\] ", cited, re.MULTILINE)) == len({row.source for row in expected})


def test_a_users_own_figure_shows_as_such(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What a technology file replaces has the file in its source and the confidence `user`."""
    (tmp_path / "mine.yaml").write_text(
        "wire:\n  energy_pj_per_bit_mm: {value: 0.5, unit: pJ/bit/mm, source: our lab}\n"
    )
    execute(["show", "tpu-v1", "--source"])
    text = re.sub(
        "^technology:\n", "technology:\n  file: mine.yaml\n", capsys.readouterr().out, flags=re.MULTILINE
    )
    (tmp_path / "chip.yaml").write_text(text)
    execute(["show", "--sources", str(tmp_path / "chip.yaml"), "--format", "json"])
    rows = {row["constant"]: row for row in json.loads(capsys.readouterr().out)}
    wire = rows["wire.energy_pj_per_bit_mm"]
    assert (wire["value"], wire["confidence"], wire["source"]) == (0.5, "user", "mine.yaml: our lab")
    assert [row["constant"] for row in rows.values() if row["confidence"] == "user"] == [wire["constant"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["bert-base", "--sources"],
            "--sources prints an accelerator's constants; 'bert-base' is a workload",
        ),
        (
            ["tpu-v1", "--source", "--sources"],
            "--source prints a description, --sources its constants: leave out one of them",
        ),
        (["tpu-v1", "--format", "csv"], "--format csv goes with --sources; without it, YAML is printed"),
    ],
)
def test_show_refuses_what_does_not_go_together(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, one line that says what goes with what."""
    assert execute(["show", *arguments]) == ExitCode.BAD_INPUT
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_list_technologies_has_every_shipped_figure(capsys: pytest.CaptureFixture[str]) -> None:
    """Row and key together are the dotted names of the figures, each once; nodes as the tables have them."""
    execute(["list", "technologies", "--format", "json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    grid, scaling = rows.pop("sram.grid"), rows.pop("scaling")
    assert grid["nodes_nm"] == "22, 32, 45, 65"
    assert (scaling["nodes_nm"][:2], scaling["nodes_nm"][-2:]) == ("7,", "65")
    named = [f"{name}.{key}" for name, row in rows.items() for key in row["figures"].split(", ")]
    assert named == list(shipped_figures())
    assert (rows["arithmetic.int8"]["kind"], rows["arithmetic.int8"]["nodes_nm"]) == ("element type", "7, 45")
    assert (rows["dram.hbm2"]["kind"], rows["dram.hbm2"]["nodes_nm"]) == ("DRAM", "any")


def test_show_of_a_workload_counts_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Parameters and MACs of the resolved model: BERT-base has 109,482,240 parameters."""
    assert execute(["show", "bert-base", "workload.seq=64"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert out.startswith("# parameters   109,482,240 (109 M)\n")
    assert yaml.safe_load(out)["seq"] == 64


def test_show_source_is_the_text_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    """With its comments, which say where the figures come from."""
    assert execute(["show", "tpu-v1", "--source"]) == ExitCode.OK
    assert "Jouppi" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["show", "bert-bse"],
            "error: no accelerator, workload or file is called 'bert-bse', did you mean 'bert-base'? "
            "(tilewright list accelerators and tilewright list workloads show them all)\n",
        ),
        (
            ["show", "gpt2", "arch.array.rows=2"],
            "error: override 'arch.array.rows=2' does not fit: 'gpt2' describes the workload\n",
        ),
        (
            ["report", "toy", "-o", "r.html"],
            "error: 'toy' is neither a study's folder nor a saved result (.json); to simulate, name an "
            "accelerator and a workload\n",
        ),
        (
            ["run", "stdy@BEST:latency_s", "bert-base"],
            "error: 'stdy@BEST:latency_s': no such file, and no folder 'stdy' of a study (STUDY@POINT)\n",
        ),
        (
            ["rtl", "stdy@3", "-o", "out"],
            "error: 'stdy@3': no such file, and no folder 'stdy' of a study (STUDY@POINT)\n",
        ),
    ],
)
def test_mistakes_name_the_way_out(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Exit 2 and one line that says what to do."""
    monkeypatch.chdir(tmp_path)
    assert execute(arguments) == ExitCode.BAD_INPUT
    assert capsys.readouterr() == ("", message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("what", "key"), [("accelerator", "array"), ("workload", "$defs")])
def test_schema_is_json_schema(what: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A JSON Schema of the 2020-12 dialect that knows the description's keys."""
    assert execute(["schema", what]) == ExitCode.OK
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert key in {**schema, **schema.get("properties", {})}


def test_report_from_a_saved_result_equals_report_of_the_run(
    calls: list[Call], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved as JSON and read back, from a file or from stdin, a result has the same page, byte for byte."""
    execute(["run", "toy", "bert", "--format", "json"])
    text = capsys.readouterr().out
    saved = tmp_path / "saved.json"
    saved.write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert execute(["report", "toy", "bert", "workload.seq=3", "-o", str(tmp_path / "a.html")]) == ExitCode.OK
    assert execute(["report", str(saved), "-o", str(tmp_path / "b.html")]) == ExitCode.OK
    assert execute(["report", "-", "-o", str(tmp_path / "c.html")]) == ExitCode.OK
    pages = {(tmp_path / name).read_bytes() for name in ("a.html", "b.html", "c.html")}
    assert len(pages) == 1
    assert calls[-1]["workload"] == ("bert", "workload.seq=3")
    assert load_result(text, "").workload == "toy-bert"


HEAVY = ("pandas", "plotly", "optuna", "networkx", "amaranth", "numpy", "pydantic", "simpy", "rich")


def test_a_run_imports_the_family_that_it_names_and_no_other() -> None:
    """Loading BERT leaves the modules of the other families, mechanisms, pandas and plotly alone."""
    code = (
        "import sys, tilewright as tw;"
        "tw.load_accelerator('tpu-v1'); tw.load_workload('bert-base', ['seq=8']);"
        "print(*sorted(name for name in sys.modules if '.families.' in name), 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tilewright.workloads.families.bert", "False"]


def test_help_imports_nothing_heavy() -> None:
    """`python -m tilewright --help` starts without the libraries that only a command needs."""
    code = (
        "import sys, runpy; sys.argv = ['tilewright', '--help']\n"
        "try: runpy.run_module('tilewright', run_name='__main__')\n"
        f"except SystemExit as stop: print(stop.code, [m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert done.stdout.startswith("Usage: tilewright [OPTIONS] COMMAND [ARGS]...\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    """`tilewright schema workload | head -1`: no complaint, no traceback, exit 0."""
    with subprocess.Popen(
        [sys.executable, "-m", "tilewright", "schema", "workload"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == ExitCode.OK


def test_list_attention_names_class_complexity_and_citation(capsys: pytest.CaptureFixture[str]) -> None:
    """Every mechanism is a row that says what it is and who invented it."""
    assert execute(["list", "attention", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"longformer", "bigbird", "reformer", "linformer", "performer"} <= {row["kind"] for row in rows}
    assert all(row["class"] and row["complexity"] and row["citation"] for row in rows)
