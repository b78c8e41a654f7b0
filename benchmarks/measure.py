"""What a command costs: CPU seconds and peak memory of one child process, and the machine that it ran on.

Only the standard library is imported here: Linux counts the parent's memory at the fork into the child's
peak, so the measuring process must stay smaller than anything that it measures.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Cost:
    """What one run of a command took, or the medians of several runs."""

    cpu_s: float
    """User and system time of the process and of those that it waited for."""
    wall_s: float
    peak_rss_mib: float
    runs: int = 1


@dataclass(frozen=True)
class Limits:
    """What a command may take before the system stops it."""

    cpu_s: int
    address_space_gib: int

    def impose(self) -> None:
        """On this process."""
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s + 1))
        space = self.address_space_gib * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (space, space))


class CommandError(RuntimeError):
    """The measured command did not end with exit code 0."""

    def __init__(self, command: Sequence[str], exit_code: int, said: str) -> None:
        super().__init__(f"{' '.join(command)}\nended with exit code {exit_code}:\n{said}")
        self.exit_code = exit_code
        """Minus the signal's number if it was stopped by one."""
        self.said = said
        """The end of what it wrote to stderr."""


def measure(command: Sequence[str], cwd: Path = ROOT, limits: Limits | None = None) -> tuple[Cost, str]:
    """Run `command` in `cwd`; return what it cost and what it wrote to stdout. Raises `CommandError`."""
    impose = limits.impose if limits else None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdout=out, stderr=err, preexec_fn=impose)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = err.read().decode(errors="replace").strip()[-2000:]
            raise CommandError(command, process.returncode, said)
        # ru_maxrss is in KiB on Linux
        cost = Cost(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024)
        return cost, out.read().decode()


def typical(costs: Sequence[Cost]) -> Cost:
    """Medians over runs of the same command."""
    return Cost(
        median(cost.cpu_s for cost in costs),
        median(cost.wall_s for cost in costs),
        median(cost.peak_rss_mib for cost in costs),
        len(costs),
    )


def circumstances() -> dict[str, object]:
    """Date, machine and revision, to be kept beside a measurement."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def described(kept: dict[str, Any]) -> str:
    """`circumstances` in a line: where, when, and how busy the machine was with other work as well."""
    keys = ("date", "cores", "cpu", "load_average")
    return "{}: {} cores of {}, load average {}".format(*(kept[key] for key in keys))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "unknown"
