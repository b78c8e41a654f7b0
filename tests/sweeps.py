"""What the tests of sweeps share: a small space, sweeps in processes of their own, rows of their stores."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

from tilewright.explore.sweep.store import FILE


def space_text(size: int = 64, *, cols: str = "[8, 16]", clock_mhz: str = "[500, 1000, 250]") -> str:
    """A space of 18 points, or as many as the columns and the range of clocks make, and its work: a GEMM of
    `size` in every direction, which says how long a point takes."""
    return f"""\
accelerator: gemmini-default
workloads:
  - {{workload: gemm, overrides: [workload.m={size}, workload.k={size}, workload.n={size}]}}
parameters:
  arch.array.rows: {{values: [8, 16, 32]}}
  arch.array.cols: {{values: {cols}}}
  arch.clock_mhz: {{range: {clock_mhz}}}
objectives: [{{name: latency_s}}, {{name: energy_j.total}}, {{name: area_mm2.total}}]
"""


SPACE = space_text()
POINTS = 18


def start(space: Path, folder: Path, *, jobs: int = 1, limit: int = 0) -> subprocess.Popen[str]:
    """A sweep in a process of its own, whose files may grow to `limit` bytes at most."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = ["sweep", str(space), "-o", str(folder), "--jobs", str(jobs)]
    return subprocess.Popen(
        [sys.executable, "-m", "tilewright", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited if limit else None,
    )


def rows(folder: Path) -> list[tuple[str, str]]:
    """Point and status of every row of a study, by plain SQL."""
    with sqlite3.connect(folder / FILE, timeout=30) as db:
        return list(db.execute("SELECT point, status FROM points ORDER BY point"))


def rows_so_far(folder: Path) -> int:
    """How many rows a study has that a sweep may be about to begin."""
    if not (folder / FILE).exists():
        return 0
    try:
        return len(rows(folder))
    except sqlite3.OperationalError:  # no table yet
        return 0
