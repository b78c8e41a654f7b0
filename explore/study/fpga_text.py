"""FPGA resources of a study's points in words: of one point, and of a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.explore.study.fpga import StudyFpga, UnitOnFpga
from tilewright.rtl.fpga_targets import FAMILIES, KINDS, LUT_INPUTS, TARGETS, short_name

_FAMILY_TITLES = {"ecp5": "ECP5", "ice40": "iCE40", "xilinx": "7 series"}
_CELLS = ("LUTs", "FFs", "DSPs", "block RAMs")
NOTHING = "–"
"""Where nothing was measured."""


@dataclass(frozen=True, slots=True)
class PointFpga:
    """What a page tells of one point."""

    tables: dict[str, dict[str, str]]
    """By device: what is counted, and how many."""
    notes: tuple[str, ...] = ()
    """Who measured it and how, or why nothing is known."""
    command: str = ""
    """That would measure it, where it was not."""


@dataclass(frozen=True, slots=True)
class FrontFpga:
    """Columns beside a front's points."""

    heads: tuple[str, ...]
    """None where nothing was measured of any of the points."""
    rows: tuple[tuple[str, ...], ...]
    """A row for each point, as long as `heads`."""
    notes: tuple[str, ...]
    """What the columns are, and what is not known."""
    commands: tuple[str, ...]
    """That would measure what is missing."""


def point_fpga(fpga: StudyFpga, point: str, overrides: Sequence[str]) -> PointFpga | None:
    """Of a point with these accelerator overrides. None in a study without units."""
    if fpga.changed:
        return PointFpga({}, (_CHANGED,))
    if not fpga.has_units:
        return None
    unit = fpga.unit(overrides)
    if isinstance(unit, str):
        return PointFpga({}, (f"No Verilog is written of this point: {unit}.",))
    known = fpga.of(overrides).values()
    if not known:
        return PointFpga({}, (_NOT_RUN,), fpga.command(point))
    return PointFpga({each.target.title: figures(each) for each in known}, tuple(map(_provenance, known)))


def figures(entry: UnitOnFpga) -> dict[str, str]:
    """One measurement: what is counted, and how many of how many."""
    row = entry.measured
    luts = f"LUTs of {LUT_INPUTS[entry.target.family]} inputs"
    names = {"lut": luts, "ff": "flip-flops", "dsp": "multipliers (DSPs)", "bram": "block RAMs"}
    found = {text: _share(getattr(row, kind), row.available.get(kind)) for kind, text in names.items()}
    return found | ({"fmax, placed and routed": _clock(entry)} if entry.target.device else {})


def _provenance(entry: UnitOnFpga) -> str:
    """Who measured it, with what."""
    row = entry.measured
    tools = ", ".join(f"{name} {version}" for name, version in row.tools.items())
    command = f": {row.source}" if row.source else ""
    refused = f". Refused: {entry.refused}" if entry.refused else ""
    return f"{_title(row.target)}, measured by {entry.origin}{command} ({tools}){refused}"


def front_fpga(fpga: StudyFpga, points: Sequence[Sequence[str]]) -> FrontFpga | None:
    """Of a front's points, given by their accelerator overrides. None in a study without units."""
    if fpga.changed:
        return FrontFpga((), ((),) * len(points), (_CHANGED,), ())
    if not fpga.has_units:
        return None
    known = [fpga.of(each) for each in points]
    buildable = [not isinstance(fpga.unit(each), str) for each in points]
    shown = [name for name in fpga.targets if any(name in each for each in known)]
    heads = tuple(f"{_title(name)} {figure}" for name in shown for figure in _figures(name))
    rows = tuple(tuple(text for n in shown for text in _row(n, each.get(n))) for each in known)
    missing = {
        name: sum(can and name not in each for can, each in zip(buildable, known, strict=True))
        for name in shown or [FAMILIES["ecp5"]]
    }
    lacking = [name for name, count in missing.items() if count]
    told = ", ".join(f"{missing[name]:,} of {len(points):,} points on {_title(name)}" for name in lacking)
    notes = (
        *[_legend(shown)] * bool(shown),
        *[f"No Verilog is written of {buildable.count(False):,} points."] * (not all(buildable)),
        *[f"Not run for {told}. This measures the rest, and keeps it in the study:"] * bool(lacking),
    )
    return FrontFpga(heads, rows, notes, tuple(fpga.command("front", short_name(n)) for n in lacking))


_NOT_RUN = "Its attention unit was not run. This measures it, and keeps the result in the study:"
_CHANGED = (
    "The accelerator, a workload or tilewright has changed since this sweep: what its units take on FPGAs is "
    "not known. Sweep again."
)


def _legend(targets: Sequence[str]) -> str:
    devices = "; ".join(
        f"{_title(name)} is {TARGETS[name].title} (LUTs of {LUT_INPUTS[TARGETS[name].family]} inputs)"
        for name in targets
    )
    return (
        f"On FPGAs, the attention unit alone, with its memories and FIFOs: {devices}. fmax is the clock "
        "after place and route, not the one of the study's figures."
    )


def _title(target: str) -> str:
    short = short_name(target)
    return _FAMILY_TITLES.get(short, short.upper())


def _figures(target: str) -> tuple[str, ...]:
    return (*_CELLS, "fmax") if TARGETS[target].device else _CELLS


def _row(target: str, entry: UnitOnFpga | None) -> tuple[str, ...]:
    if entry is None:
        return (NOTHING,) * len(_figures(target))
    row = entry.measured
    cells = tuple(f"{getattr(row, kind):,}" for kind in KINDS)
    return (*cells, _clock(entry)) if entry.target.device else cells


def _clock(entry: UnitOnFpga) -> str:
    if entry.refused:
        return "does not fit"
    return NOTHING if entry.measured.fmax_mhz is None else f"{entry.measured.fmax_mhz:.1f} MHz"


def _share(used: int, there: int | None) -> str:
    return f"{used:,} of {there:,} ({100 * used / there:.0f} %)" if there else f"{used:,}"
