"""Sweeps that are stopped, or can't begin."""

import signal
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import tilewright as tw
from tests.sweeps import SPACE, rows, start
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.explore.space.load import load_space
from tilewright.explore.sweep import executors
from tilewright.explore.sweep import sweep as sweeping
from tilewright.explore.sweep.executors import Serial

LONG = "bert-large, overrides: [workload.seq=512]"
"""Work that takes a process some seconds."""


class Busy(Serial):
    """Is at every call for ever."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def submit(self, function: Callable[..., Any], *arguments: object) -> Future[Any]:  # noqa: ARG002 - see `Serial`
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        return future

    def abandon(self) -> None:
        self.done.append("abandoned")

    def close(self) -> None:
        self.done.append("closed")


def test_the_second_interrupt_leaves_what_is_under_way(
    space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one says what it waits for, and how not to."""
    busy, said = Busy(), list[str]()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "executor", lambda *_: busy)
    monkeypatch.setattr(sweeping, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweeping.sweep(load_space(space), tmp_path / "study", tell=said.append)
    assert said == ["finishing 3 points under way; Ctrl-C again leaves them"]
    assert busy.done == ["abandoned", "closed"]


@pytest.mark.slow
def test_two_interrupts_end_a_sweep_in_the_middle_of_a_point(space: Path, tmp_path: Path) -> None:
    """None of the points under way is waited for, and no process is left."""
    folder = tmp_path / "study"
    space.write_text(SPACE.replace("gemm, overrides: [workload.m=64, workload.k=64, workload.n=64]", LONG))
    process = start(space, folder, jobs=2)
    while not (folder / "claims.sqlite").exists() or not claimed(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "under way; Ctrl-C again leaves them" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "To go on:\n" in err
    assert rows(folder) == []


def claimed(folder: Path) -> bool:
    """Whether a sweep on the folder has begun with points."""
    with sqlite3.connect(folder / "claims.sqlite", timeout=30) as db:
        try:
            return len(db.execute("SELECT id FROM claims").fetchall()) >= 2
        except sqlite3.OperationalError:  # no table yet
            return False


def test_a_folder_is_made_only_for_a_sweep_that_can_begin(
    space: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where no Dask scheduler answers; and an empty name is none."""
    monkeypatch.setattr(executors, "CONNECT_S", 1)
    words = ["sweep", str(space), "-o"]
    assert execute([*words, str(tmp_path / "study"), "--dask", "tcp://127.0.0.1:9"]) == ExitCode.BAD_INPUT
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
    monkeypatch.chdir(tmp_path)
    for command in (words, ["rtl", "attention-unit", "-o"]):
        assert execute([*command, ""]) == ExitCode.BAD_INPUT
        assert "'' names no folder; '.' is the working directory" in capsys.readouterr().err
    with pytest.raises(InputError, match="names no folder"):
        tw.sweep(space, "")
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]
