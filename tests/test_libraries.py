"""Libraries that a plain install does not bring: one that is missing is told before anything is written."""

import sys
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError

SPACE = """\
accelerator: gemmini-default
workloads: [{workload: gemm, overrides: [workload.m=64, workload.k=64, workload.n=64]}]
parameters: {arch.array.rows: {values: [8, 16]}}
objectives: [{name: latency_s}, {name: area_mm2.total}]
"""
SLURM = "kind: slurm\njobs: 1\ncores: 1\nmemory: 1GB\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in, with the files that the commands name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(SPACE)
    (tmp_path / "ssh.yaml").write_text("kind: ssh\nhosts: [here, there]\n")
    (tmp_path / "slurm.yaml").write_text(SLURM)
    return tmp_path


def refused(words: list[str], missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command without a library; nothing must come of it."""
    before = sorted(Path().rglob("*"))
    with monkeypatch.context() as without:
        without.setitem(sys.modules, missing, None)
        assert execute(words) == ExitCode.BAD_INPUT
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("method", "module", "library"),
    [("sobol", "scipy", "SciPy"), ("nsga2", "optuna", "Optuna"), ("tpe", "optuna", "Optuna")],
)
@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["sweep", "dry run"])
def test_a_method_without_its_library(
    here: Path, method: str, module: str, library: str, more: list[str],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A sweep says which library its method lacks and leaves no study behind; a dry run says it as well."""
    (here / "space.yaml").write_text(f"{SPACE}method: {method}\nbudget: 2\n")
    refused(["sweep", "space.yaml", "-o", "study", "--jobs", "1", *more], module, monkeypatch)
    told = capsys.readouterr()
    assert told.err == (
        f"error: the method '{method}' needs {library}, which is not installed: "
        "pip install 'tilewright[search]'\n"
    )
    assert told.out == ""


@pytest.mark.parametrize(
    ("dask", "module", "needs"),
    [
        ("tcp://127.0.0.1:1", "distributed", "--dask needs Dask"),
        ("ssh.yaml", "asyncssh", "ssh.yaml: kind 'ssh' needs AsyncSSH"),
        ("slurm.yaml", "dask_jobqueue", "slurm.yaml: kind 'slurm' needs dask-jobqueue"),
    ],
)
def test_a_cluster_without_its_library(
    here: Path, dask: str, module: str, needs: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Each kind of cluster names what it lacks; no study is left behind."""
    refused(["sweep", "space.yaml", "-o", "study", "--dask", dask], module, monkeypatch)
    assert capsys.readouterr().err == (
        f"error: {needs}, which is not installed: pip install 'tilewright[distributed]'\n"
    )
    assert not (here / "study").exists()


def test_pages_and_tables_without_their_libraries(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parquet is refused and CSV is not; a dashboard is refused, with the page that does without."""
    tw.sweep(here / "space.yaml", here / "study", jobs=1)
    capsys.readouterr()
    refused(["export", "study", "-o", "points.parquet"], "pyarrow", monkeypatch)
    refused(["dashboard", "study", "--port", "0"], "dash", monkeypatch)
    assert capsys.readouterr().err == (
        "error: writing Parquet needs PyArrow, which is not installed: pip install 'tilewright[search]'\n"
        "error: the dashboard (not `tilewright report`) needs Dash, which is not installed: "
        "pip install 'tilewright[dashboard]'\n"
    )
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert execute(["export", "study", "-o", "points.csv"]) == ExitCode.OK


def test_python_is_told_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tilewright.sweep` raises `InputError` before there is a folder."""
    (here / "space.yaml").write_text(f"{SPACE}method: tpe\nbudget: 2\n")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"^the method 'tpe' needs Optuna, which is not installed: "):
        tw.sweep(here / "space.yaml", here / "study", jobs=1)
    assert not (here / "study").exists()
