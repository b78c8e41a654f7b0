"""From a folder that `tilewright rtl` wrote to resources, clock and bitstream, with tools from PyPI.

Yosys (`pyosys`) synthesises, nextpnr places and routes, Project Trellis or IceStorm pack; each runs as a
process of its own in the folder and leaves its log there. Same input, same bytes: the placer's seed is fixed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tilewright.description.errors import InputError
from tilewright.rtl.fpga_targets import CELLS, KINDS, Kind, Target, pack_arguments, place_arguments, target_of
from tilewright.rtl.verilog import TOP

TARGET_MHZ = 120.0
"""Clock that place and route aims at; the one reached is reported, above or below."""
_UTILISATION = re.compile(r"^Info:\s+(\w+):\s*(\d+)/\s*\d+\s+\d+%", re.MULTILINE)
"""A line of nextpnr's on cells that are used and there."""
Progress = Callable[[str], None]
"""Is told, now and then, what is being done."""

YOSYS = "import sys; from pyosys import libyosys as y; y.run_pass('script ' + sys.argv[1], y.Design())"
"""Python that runs the Yosys script named by its argument; Yosys ends its process when it fails."""
_WASM = "import sys; from yowasp_nextpnr_{family} import run_{tool} as run; sys.exit(run(sys.argv[1:]))"
_FULL = ("Unable to find legal placement", "no BELs remaining", "Failed to expand region")
"""What nextpnr says of a design that its device has no room for."""
_STAGES = {
    "Info: Packing": "packing",
    "Info: Placed": "placing",
    "Info: Running simulated annealing": "refining the placement",
    "Info: Routing": "routing",
    "Info: Max frequency": "timing",
}
"""What nextpnr is about, by the line that it prints first."""


class ToolError(RuntimeError):
    """A tool refused what it was given; the message ends with its last words."""


@dataclass(frozen=True)
class Resources:
    """What a unit takes on an FPGA."""

    target: str
    """Name of the target (`fpga_targets.TARGETS`)."""
    parameters: Mapping[str, int]
    """Of the unit."""
    lut: int
    """Look-up tables, of 4 inputs (ECP5, iCE40) or 6 (7 series), carry chains and LUT memories included."""
    ff: int
    dsp: int
    """Multipliers: MULT18X18D, SB_MAC16 or DSP48E1."""
    bram: int
    """Block RAMs of 18 kbit (ECP5, 7 series) or 4 kbit (iCE40)."""
    fmax_mhz: float | None
    """Of the slowest path between registers, routed; None where there is no place and route."""
    critical_path: tuple[str, ...] = ()
    """Cells on that path, first to last, with the delay up to each in ns."""
    bitstream: str | None = None
    """File in the folder."""
    available: Mapping[Kind, int] = field(default_factory=dict)
    """What the device has; empty if none was chosen."""
    tools: Mapping[str, str] = field(default_factory=dict)
    """Versions."""

    def lines(self) -> list[str]:
        """For people."""
        names = {"lut": "LUTs", "ff": "FFs", "dsp": "DSPs", "bram": "block RAMs"}
        found = []
        for kind in KINDS:
            used, there = getattr(self, kind), self.available.get(kind)
            share = f" of {there:,} ({100 * used / there:.0f} %)" if there else ""
            found.append(f"{names[kind]}: {used:,}{share}")
        if self.fmax_mhz is not None:
            found.append(f"fmax: {self.fmax_mhz:.1f} MHz")
        if self.bitstream is not None:
            found.append(f"bitstream: {self.bitstream}")
        return found

    def to_json(self) -> str:
        """The object that `synthesise` writes."""
        return json.dumps(asdict(self), indent=2) + "\n"


class DoesNotFitError(InputError):
    """The unit is larger than the device."""

    def __init__(self, message: str, resources: Resources) -> None:
        super().__init__(message)
        self.resources = resources
        """As nextpnr packed them, or as synthesis counted them if it is too large even so (LUTs that hold
        memories come on top); without a clock."""


def synthesise(directory: Path, target: str, progress: Progress = lambda _: None) -> Resources:
    """Take the unit in `directory` through the flow for `target`: a family or a device.

    Needs what `fpga_scripts.scripts` returns in the folder, beside `attention_unit.v` and `.json`. Writes
    `resources.TARGET.json`, and for a device the bitstream. Raises InputError if the tools are not installed
    or the target is unknown, DoesNotFitError if the device is too small; ToolError if a tool fails otherwise.
    """
    chosen = target_of(target)
    require_tools(chosen)
    clock = _Clock(progress)
    clock.say(f"synthesising for {chosen.title}")
    family = chosen.family
    _run([YOSYS, f"synth_{family}.ys"], directory, f"synth_{family}.log")
    counted = _statistics(json.loads((directory / f"{family}.stat.json").read_text(encoding="utf-8")))
    if chosen.device:
        resources = _placed(directory, chosen, counted, clock)
    else:
        resources = _resources(directory, chosen, counted)
    (directory / f"resources.{chosen.name}.json").write_text(resources.to_json(), encoding="utf-8")
    return resources


def _placed(directory: Path, target: Target, counted: Mapping[str, int], clock: _Clock) -> Resources:
    family = target.family
    try:
        refuse_what_cannot_fit(target, counted)
    except InputError as error:
        raise DoesNotFitError(str(error), _synthesised(directory, target, counted)) from None
    code = _WASM.format(family=family, tool=f"nextpnr_{family}")
    log = f"place_{family}.log"
    try:
        _run([code, *place_arguments(target, TARGET_MHZ)], directory, log, clock.stage)
    except ToolError as error:
        full = [line for line in str(error).splitlines() if any(text in line for text in _FULL)]
        if full:
            message = _too_large(target, full[-1].removeprefix("ERROR: "))
            packed = {**counted, **_packed((directory / log).read_text(encoding="utf-8"))}
            resources = replace(_resources(directory, target, packed), available=target.available)
            raise DoesNotFitError(message, resources) from error
        raise
    clock.say("packing the bitstream")
    tool, arguments = pack_arguments(target)
    _run([_WASM.format(family=family, tool=tool), *arguments], directory, f"pack_{family}.log")
    report = json.loads((directory / f"{family}.report.json").read_text(encoding="utf-8"))
    used = {cell: entry["used"] for cell, entry in report["utilization"].items()}
    fmax, path = timing(report)
    placed = _resources(directory, target, {**counted, **used})
    return replace(
        placed, fmax_mhz=fmax, critical_path=path, bitstream=arguments[-1], available=target.available
    )


def _resources(directory: Path, target: Target, cells: Mapping[str, int]) -> Resources:
    """What these cells are, without anything that only place and route tells."""
    count = _count(target, cells)
    return Resources(
        target.name,
        _parameters(directory),
        lut=count["lut"],
        ff=count["ff"],
        dsp=count["dsp"],
        bram=count["bram"],
        fmax_mhz=None,
        tools=_versions(target),
    )


def _synthesised(directory: Path, target: Target, counted: Mapping[str, int]) -> Resources:
    """What a device would have to have, as far as synthesis tells."""
    lut = _needed(target, counted)["lut"]
    return replace(_resources(directory, target, counted), lut=lut, available=target.available)


def _parameters(directory: Path) -> dict[str, int]:
    """Of the unit in `directory`."""
    described = json.loads((directory / f"{TOP}.json").read_text(encoding="utf-8"))
    return dict(described["parameters"])


def _packed(log: str) -> dict[str, int]:
    """Cells by type, of nextpnr's log once it has packed a design."""
    return {cell: int(used) for cell, used in _UTILISATION.findall(log)}


def timing(report: Mapping[str, Any]) -> tuple[float, tuple[str, ...]]:
    """Clock in MHz and slowest path between registers, from nextpnr's report.

    A design with one clock; paths from and to pins do not count.
    """
    (clock,) = report["fmax"].values()
    for path in report["critical_paths"]:
        if path["from"].startswith("posedge") and path["to"].startswith("posedge"):
            return float(clock["achieved"]), tuple(_steps(path["path"]))
    return float(clock["achieved"]), ()


def _steps(path: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    sum_ns = 0.0
    for step in path:
        sum_ns += step["delay"]
        yield f"{sum_ns:6.2f} ns {step['type']}: {step['to']['cell']}.{step['to']['port']}"


def _statistics(report: Mapping[str, Any]) -> dict[str, int]:
    """Cells by type of the whole flattened design, from Yosys' `stat -json`."""
    return dict(report["design"]["num_cells_by_type"])


def _count(target: Target, cells: Mapping[str, int]) -> dict[Kind, int]:
    """Resources that these cells are."""
    patterns = CELLS[target.family]
    return {
        kind: sum(
            weight * count
            for pattern, weight in patterns[kind].items()
            for cell, count in cells.items()
            if fnmatchcase(cell, pattern)
        )
        for kind in KINDS
    }


def refuse_what_cannot_fit(target: Target, counted: Mapping[str, int]) -> None:
    """Raise InputError if the `counted` cells are more than the device has, before place and route."""
    needed = _needed(target, counted)
    for kind in KINDS:
        if needed[kind] > target.available[kind]:
            raise InputError(
                _too_large(target, f"{needed[kind]:,} of {target.available[kind]:,} {kind.upper()}s")
            )


def _needed(target: Target, counted: Mapping[str, int]) -> dict[Kind, int]:
    """Resources of cells after synthesis. LUTs are a lower bound: those that hold memories come on top."""
    luts = sum(counted.get(cell, 0) * weight for cell, weight in _LUTS[target.family].items())
    return {**_count(target, counted), "lut": luts}


_LUTS = {"ecp5": {"LUT4": 1, "CCU2C": 2}, "ice40": {"SB_LUT4": 1}}
"""LUTs that a cell takes after synthesis."""


def _too_large(target: Target, why: str) -> str:
    return (
        f"the unit does not fit {target.title}: {why}; take fewer `array.rows` or `array.cols`, or narrower "
        "operands, or count its resources on a larger family with `--synth xilinx`"
    )


def require_tools(target: Target) -> None:
    """Raise InputError, with what to install, unless the packages for `target` are there."""
    for package in _packages(target):
        try:
            version(package)
        except PackageNotFoundError:
            raise InputError(
                f"synthesis for {target.title} needs the package {package}; install it with: "
                "pip install 'tilewright[fpga]'"
            ) from None


def _packages(target: Target) -> tuple[str, ...]:
    return ("pyosys", f"yowasp-nextpnr-{target.family}") if target.device else ("pyosys",)


def _versions(target: Target) -> dict[str, str]:
    return {package: version(package) for package in _packages(target)}


class _Clock:
    """Tells what is being done, with the seconds since the start, each stage once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._start = time.monotonic()
        self._last = ""

    def say(self, what: str) -> None:
        if what != self._last:
            self._last = what
            self._progress(f"{time.monotonic() - self._start:4.0f} s  {what}")

    def stage(self, line: str) -> None:
        """Of a line of nextpnr's."""
        for start, what in _STAGES.items():
            if line.startswith(start):
                self.say(what)


def _run(
    arguments: Sequence[str], directory: Path, log: str, told: Callable[[str], None] = lambda _: None
) -> None:
    """Run Python code with arguments in `directory`; each line that it prints goes to `log` and `told`."""
    command = [sys.executable, "-c", *arguments]
    lines: list[str] = []
    with (directory / log).open("w", encoding="utf-8") as file, subprocess.Popen(
        command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            for line in process.stdout:
                file.write(line)
                lines.append(line)
                told(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        last = "".join(lines[-5:]).strip()
        raise ToolError(f"{directory / log}: the tool ended with code {process.returncode}:\n{last}")
