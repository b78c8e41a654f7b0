"""Sweeps on a Dask cluster: a real scheduler, worker processes, one of them killed."""

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import LocalCluster

from tests.sweeps import space_text
from tilewright.cli import ExitCode, execute
from tilewright.explore.space.load import load_space
from tilewright.explore.study.study import Study
from tilewright.explore.sweep import sweep as sweeping
from tilewright.explore.sweep.store import FILE

SPACE = space_text(96, cols="[16]", clock_mhz="[500, 1000, 50]")
POINTS = 33


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A scheduler and two worker processes on this machine."""
    start: Callable[..., LocalCluster] = LocalCluster
    with start(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=False) as made:
        yield made


@pytest.mark.filterwarnings("ignore")  # of Dask's own, about clocks, ports and event loops
def test_a_worker_dies_in_mid_sweep(cluster: LocalCluster, space: Path, tmp_path: Path) -> None:
    """Every point is there in the end, once, and none failed."""
    space.write_text(SPACE)
    victim = next(iter(cluster.workers.values())).process.pid
    killed: list[int] = []

    def report(progress: sweeping.Progress) -> None:
        if progress.evaluated >= 3 and not killed:
            killed.append(progress.evaluated)
            os.kill(victim, signal.SIGKILL)

    loaded = load_space(space)
    summary = sweeping.sweep(loaded, tmp_path / "study", dask=cluster.scheduler_address, report=report)
    assert 3 <= killed[0] < POINTS
    assert (summary.evaluated, summary.failed) == (POINTS, 0)
    with sqlite3.connect(tmp_path / "study" / FILE) as db:
        assert db.execute("SELECT count(*), count(DISTINCT point) FROM points").fetchone() == (POINTS, POINTS)
    one = sweeping.sweep(loaded, tmp_path / "one", jobs=1)
    assert one.evaluated == POINTS
    keys = ["latency_s", "energy_j.total"]
    fronts = [Study(tmp_path / name).front()[keys].to_dict("records") for name in ("study", "one")]
    assert fronts[0] == fronts[1]


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_file_starts_a_cluster(space: Path, tmp_path: Path) -> None:
    """Local workers by a YAML file; they are gone afterwards."""
    space.write_text(SPACE.replace("[500, 1000, 50]", "[500, 600, 50]"))
    (tmp_path / "cluster.yaml").write_text("kind: local\nworkers: 1\n")
    words = ["sweep", str(space), "-o", str(tmp_path / "study")]
    assert execute([*words, "--dask", str(tmp_path / "cluster.yaml")]) == ExitCode.OK
    assert len(Study(tmp_path / "study").to_frame()) == 9


def test_a_wrong_cluster_is_told(space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes of a cluster file have their place; what is no address is said."""
    space.write_text(SPACE)
    file = tmp_path / "cluster.yaml"
    file.write_text("kind: slurm\njobs: 2\ncore: 4\nmemory: 16GB\n")
    words = ["sweep", str(space), "-o", str(tmp_path / "study"), "--dask"]
    assert execute([*words, str(file)]) == ExitCode.BAD_INPUT
    assert f"error: {file}:3:1: core: unknown key 'core', did you mean 'cores'?\n" in capsys.readouterr().err
    file.write_text("kind: lsf\n")
    assert execute([*words, str(file)]) == ExitCode.BAD_INPUT
    assert "must be one of 'local', 'ssh', 'slurm', not 'lsf'" in capsys.readouterr().err
    assert execute([*words, "somewhere"]) == ExitCode.BAD_INPUT
    assert "--dask 'somewhere' is neither a scheduler's address" in capsys.readouterr().err
    assert execute([*words, "tcp://x:1", "--jobs", "2"]) == ExitCode.BAD_INPUT
    assert "leave one out" in capsys.readouterr().err
