"""Bad input through the whole command line: exit code 2, one clear reason, nothing on stdout or in a file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tilewright.api import load_accelerator, load_workload, simulate
from tilewright.cli import ExitCode, execute
from tilewright.cli.output import staged, write_stdout
from tilewright.description.errors import InputError

CONFIG = (
    '{"model_type": "gpt2", "n_layer": 2, "n_embd": %s, "n_head": 2, "n_positions": 64, "vocab_size": 99}'
)
BANKED = "arch.dram={kind: banked, standard: ddr4-2400, t_rfc_ns: 9000}"


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The first line of the reason, once everything else about a refusal has been checked."""
    before = sorted(Path().iterdir())
    assert execute(words) == ExitCode.BAD_INPUT
    told = capsys.readouterr()
    assert told.out == ""
    assert sorted(Path().iterdir()) == before
    return told.err.splitlines()[0].removeprefix("error: ").removeprefix("command line: ")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (
            "arch.array.rows=99999999999999999999",
            "array.rows: must be at most 65536, not 99999999999999999999",
        ),
        ("arch.cores=1000001", "cores: must be at most 1000000, not 1000001"),
        ("arch.clock_mhz=1e-9", "clock_mhz: must be at least 1e-06, not 1e-09"),
        ("arch.dram.latency_cycles=1e18", "dram.latency_cycles: must be at most 1000000000, not 1e+18"),
        (
            BANKED,
            "dram: `t_refi_ns` (7800) must exceed `t_rfc_ns` (9000), or the memory does nothing but refresh",
        ),
        (
            "arch.buffers.inputs.capacity_bytes=1",
            "buffers: no tile of the matmul 512 x 768 x 768 fits two slots of each operand in inputs "
            "(1 bytes), weights (1,024 bytes), sums (4,096 bytes); make a buffer larger or the array smaller",
        ),
        (
            "workload.family=softmax",
            "override 'workload.family=softmax': a workload's family can't be changed; name another workload",
        ),
    ],
)
def test_a_size_out_of_range_is_refused(
    override: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A machine or workload that can't be is named as such, and no report is begun."""
    monkeypatch.chdir(tmp_path)
    words = ["run", "teaching-4x4", "gemm", override, "--report", "r.html", "--trace", "t.json"]
    assert refused(words, capsys) == reason


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            "run teaching-4x4 softmax workload.rows=2000000000 workload.cols=2000000",
            "softmax: tensor x has 4,000,000,000,000,000 elements, "
            "more than the 1,125,899,906,842,624 allowed",
        ),
        (
            "run teaching-4x4 gemm workload.m=2000000000 workload.k=20000 workload.n=20000",
            "gemm: gemm has 800,000,000,000,000,000 MACs, more than the 72,057,594,037,927,936 allowed",
        ),
        ("run teaching-4x4 bert-base workload.layers=16385", "layers: must be at most 16384, not 16385"),
        ("run bert-base teaching-4x4", "'bert-base' is a workload; the order is ACCELERATOR WORKLOAD"),
        ("run x.yaml teaching-4x4", "'teaching-4x4' is an accelerator; the order is ACCELERATOR WORKLOAD"),
        (
            "run teaching-4x4 gemm --print-config --report r.html",
            "--print-config simulates nothing: leave out --trace and --report",
        ),
        (
            "show gemm --source workload.m=3",
            "--source prints 'gemm' as it was written: leave out 'workload.m=3'",
        ),
        (
            "run teaching-4x4 gemm ARCH.array.rows=8",
            "unknown prefix 'ARCH' in 'ARCH.array.rows=8', did you mean arch.array.rows?",
        ),
        (
            "run teaching-4x4 gemm accelerator.array.rows=8",
            "unknown prefix 'accelerator' in 'accelerator.array.rows=8', did you mean arch.array.rows?",
        ),
        (
            "run teaching-4x4 gemm model.m=8",
            "unknown prefix 'model' in 'model.m=8', did you mean workload.m?",
        ),
        (
            "report . workload.m=3 --seed 3 -o r.html",
            ". holds results, nothing is simulated: leave out workload.m=3 --seed 3",
        ),
        (
            "rtl attention-unit-8x8 -o build --synth spartan",
            "unknown FPGA target 'spartan' (known: ecp5, ice40, xilinx, lfe5u-85f-8, lfe5u-85f-6, up5k, xc7)",
        ),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(
    words: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What could only be ignored, or counted wrongly, is refused instead."""
    monkeypatch.chdir(tmp_path)
    assert refused(words.split(), capsys) == reason


def test_a_saved_result_takes_no_options_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A report of a saved result refuses what would only be ignored."""
    monkeypatch.chdir(tmp_path)
    assert execute(["run", "teaching-4x4", "gemm", "workload.m=4", "--format", "json"]) == ExitCode.OK
    Path("saved.json").write_text(capsys.readouterr().out)
    reason = refused(["report", "saved.json", "--fidelity", "cycle", "-o", "r.html"], capsys)
    assert reason == "saved.json holds results, nothing is simulated: leave out --fidelity cycle"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("cycles", "-1", "(cycles is -1)"),
        ("clock_mhz", "0", "(clock_mhz is 0)"),
        ("clock_mhz", "NaN", "(nan is not a number)"),
        ("fidelity", '"exact"', "(fidelity is 'exact')"),
        ("macs", "9" * 5000, ""),
        ("units", "[" * 100_000 + "]" * 100_000, ""),
    ],
)
def test_a_result_that_nobody_saved_is_refused(
    key: str,
    value: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A JSON file with figures that no run gives is no result, and is not drawn."""
    monkeypatch.chdir(tmp_path)
    result = simulate(load_accelerator("teaching-4x4"), load_workload("gemm", ["m=4"]))
    marked = json.dumps(result.to_dict() | {key: "HERE"})
    Path("saved.json").write_text(marked.replace('"HERE"', value))
    expected = f"saved.json: not a saved result{' ' if reason else ''}{reason}; write one with "
    assert refused(["report", "saved.json", "-o", "r.html"], capsys).startswith(expected)


@pytest.mark.parametrize("command", [["run", "", "gemm"], ["show", ""]])
def test_an_empty_name_is_no_directory(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A name that a shell variable left empty is said to be unknown."""
    assert "''" in refused(command, capsys)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ('""', "must not be empty"),
        ('" "', "must not be empty"),
        ('"a\\nb"', "must be one line of at most 200 printable characters"),
        ('"a\\e[31mb"', "must be one line of at most 200 printable characters"),
        ("x" * 201, "must be one line of at most 200 printable characters"),
    ],
)
def test_a_name_that_would_upset_a_table_is_refused(
    name: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What results are called is one line that a terminal can show."""
    assert refused(["run", "teaching-4x4", "gemm", f"arch.name={name}"], capsys) == f"name: {reason}"


def test_merge_keys_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """YAML 1.1's `<<` is no unknown key but something that is not understood, with what to do."""
    monkeypatch.chdir(tmp_path)
    Path("machine.yaml").write_text("clock_mhz: 1\narray:\n  <<: {rows: 4}\n")
    assert execute(["show", "machine.yaml"]) == ExitCode.BAD_INPUT
    told = capsys.readouterr().err
    assert (
        "machine.yaml:3:3: array: merge keys are not understood: write the keys out, or repeat a value by "
        "its alias\n" in told
    )


@pytest.mark.parametrize("name", ["machine.yaml", "out.html"])
def test_links_in_a_circle_are_no_internal_error(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A symbolic link to itself can be neither read nor written, and that is said."""
    monkeypatch.chdir(tmp_path)
    Path(name).symlink_to(name)
    told = refused(["run", name, "gemm", "--report", "out.html"], capsys)
    if name == "machine.yaml":
        assert told == "machine.yaml: can't be read: too many levels of symbolic links"
    else:
        assert told.startswith("can't write out.html: ")


@pytest.mark.parametrize(
    "words", ["run teaching-4x4 gemm --report r.html", "rtl attention-unit-8x8 -o build"]
)
def test_a_working_directory_that_is_gone_is_no_internal_error(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no current directory, a relative path can't be written."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert execute(words.split()) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.startswith(f"error: can't write {words.split()[-1]}: ")


CLOSED = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-", "all": "<&- >&- 2>&-", "full": "2>/dev/full"}


@pytest.mark.parametrize("closed", CLOSED)
def test_closed_or_full_streams_change_nothing_else(closed: str, tmp_path: Path) -> None:
    """A stream that leads nowhere costs its own text; exit code, files and the other stream are the same."""
    script = f"{sys.executable} -m tilewright {{}} {CLOSED[closed]}; echo $?"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}

    def lines(words: str) -> list[str]:
        done = subprocess.run(
            ["sh", "-c", script.format(words)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return (done.stdout + done.stderr).splitlines()

    written = lines("run teaching-4x4 gemm workload.m=4 --trace t.json")
    assert written[-1 if closed != "stdout" else 0] == "0"
    assert (tmp_path / "t.json").is_file()
    if closed in ("stderr", "full"):
        assert written[0] == "gemm on teaching-4x4, event fidelity"
        assert not any("trace written" in line for line in written)
    refusal = lines("run nothing gemm")
    assert "2" in refusal
    assert any("nothing" in line for line in refusal) == (closed == "stdout")


def test_an_encoding_that_lacks_a_character_gets_a_question_mark(tmp_path: Path) -> None:
    """`mm²` in a pipe that takes ASCII only is no internal error."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "PYTHONIOENCODING": "ascii",
    }
    words = [sys.executable, "-m", "tilewright", "run", "teaching-4x4", "gemm", "workload.m=4"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert " mm?\n" in done.stdout


def test_a_negative_seed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Seeds are not negative."""
    assert execute(["run", "teaching-4x4", "gemm", "--seed", "-1"]) == ExitCode.BAD_INPUT
    assert "'--seed'" in capsys.readouterr().err


@pytest.mark.parametrize("width", ["-4", "0"])
def test_a_config_is_corrected_in_its_own_words(
    width: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong size in a config.json is named as the config names it."""
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(CONFIG % width)
    reason = refused(["run", "teaching-4x4", "config.json"], capsys)
    assert reason == f"config.json: field 'n_embd' must be at least 1, not {width}"


def test_a_full_disk_is_no_internal_error(tmp_path: Path) -> None:
    """What fails while a file is being written is told with the file's name, and nothing is left behind."""
    target = tmp_path / "r.html"
    with (
        pytest.raises(InputError, match=r"^can't write .*r\.html: no space left on device$"),
        staged([target]),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_full_stdout_is_no_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`> /dev/full` gets a reason."""
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(InputError, match=r"^can't write to stdout: no space left on device$"):
            write_stdout("some text")


@pytest.mark.parametrize("delay_s", [0.3, 1.0])
def test_ctrl_c_ends_a_run_without_a_trace(delay_s: float, tmp_path: Path) -> None:
    """An interrupted run says so with exit code 130 and leaves no file, whenever it is interrupted."""
    program = "print('started', flush=True); from tilewright.cli import main; main()"
    command = [sys.executable, "-c", program, "run", "tpu-v3-core", "llama-2-7b", "workload.seq=4096"]
    command += ["workload.generate=9999", "--report", "r.html"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        time.sleep(delay_s)
        run.send_signal(signal.SIGINT)
        _, told = run.communicate(timeout=60)
    assert (run.returncode, told) == (ExitCode.INTERRUPTED, "interrupted\n")
    assert list(tmp_path.iterdir()) == []
