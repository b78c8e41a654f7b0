"""Processes that evaluate: started from any program, and quiet when they are interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """\
name: two
cases:
  - &case
    accelerator: teaching-4x4
    workload: gemm
    overrides: [workload.m=8, workload.k=8, workload.n=8]
    metric: cycles
    measured: 100
    evidence: model
  - accelerator: teaching-4x4
    workload: gemm
    overrides: [workload.m=4, workload.k=8, workload.n=8]
    metric: cycles
    measured: 100
    evidence: model
"""
SCRIPT = """\
import tilewright as tw
print("run")
print(len(tw.validate("suite.yaml", jobs=2).to_frame()))
"""
INTERRUPTED = """\
import time
from tilewright.explore.processes import process_pool
try:
    with process_pool(2, finish={finish}) as pool:
        pool.submit(max, 1, 2).result()
        waits = pool.submit(time.sleep, {sleep_s})
        print("started", flush=True)
        waits.result()
except KeyboardInterrupt:
    print("stopped", waits.done() and waits.exception() is None)
"""


def _started(script: str, folder: Path) -> "subprocess.Popen[str]":
    (folder / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    return subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    """A script needs no `if __name__ == "__main__":` to use several processes."""
    (tmp_path / "suite.yaml").write_text(SUITE)
    with _started(SCRIPT, tmp_path) as script:
        assert script.communicate(timeout=120) == ("run\n2\n", "")
    assert script.returncode == 0


@pytest.mark.parametrize(("finish", "sleep_s"), [(True, 2), (False, 600)])
def test_ctrl_c_in_the_terminal_ends_workers_quietly(finish: bool, sleep_s: int, tmp_path: Path) -> None:
    """Ctrl-C, which reaches all processes, prints no traceback; work under way is finished if it is to be."""
    with _started(INTERRUPTED.format(finish=finish, sleep_s=sleep_s), tmp_path) as script:
        assert script.stdout is not None
        assert script.stdout.readline() == "started\n"
        os.killpg(script.pid, signal.SIGINT)
        assert script.communicate(timeout=60) == (f"stopped {finish}\n", "")
