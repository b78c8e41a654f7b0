"""What the attention units of a study's points take on FPGAs, as far as it was measured.

A measurement belongs to a device and to the sizes that the unit's Verilog is written from, not to a point:
points that differ in DRAM or clock alone have the same unit, and one synthesis serves them all. Nothing of it
is in the key of a point, so that sweeps resume whatever was synthesised meanwhile.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright import __version__
from tilewright.arch.fpga import Measured
from tilewright.arch.fpga_results import shipped_measurements
from tilewright.arch.load import load_accelerator
from tilewright.arch.streaming_unit import Streaming, UnitSizes
from tilewright.description.errors import InputError
from tilewright.explore.space.load import LoadedSpace
from tilewright.explore.sweep.store import SpaceRecord, Store
from tilewright.explore.unit_rtl import sizes_of
from tilewright.rtl.fpga_targets import LUT_INPUTS, TARGETS, Target, short_name

if TYPE_CHECKING:
    from tilewright.rtl.fpga import Resources

_UNIT_KEYS = ("array", "attention_unit")
"""Blocks of an accelerator that a unit's sizes are in."""
THIS_STUDY, OWN, SHIPPED = "this study", "the accelerator's `fpga`", f"tilewright {__version__}"
"""Who measured."""


@dataclass(frozen=True, slots=True)
class UnitOnFpga:
    """One unit on one device."""

    measured: Measured
    """Without a clock if the unit was refused or only synthesised."""
    origin: str
    """Who measured it."""
    refused: str = ""
    """Why it does not fit the device."""

    @property
    def target(self) -> Target:
        """The device."""
        return TARGETS[self.measured.target]

    @property
    def fits(self) -> bool | None:
        """Whether the device is large enough; None where no device was chosen."""
        return not self.refused if self.target.device else None

    def columns(self) -> dict[str, object]:
        """By the names of `columns_of`."""
        row = self.measured
        tools = ", ".join(f"{name} {version}" for name, version in row.tools.items())
        source = f"{self.origin}: {row.source}" if row.source else self.origin
        values = (row.lut, row.ff, row.dsp, row.bram, row.fmax_mhz, self.fits, row.target, tools, source)
        return dict(zip(columns_of(row.target), values, strict=True))


def columns_of(target: str) -> tuple[str, ...]:
    """The columns of a target, without what stands before them: cells (LUTs with their number of inputs),
    clock, whether the unit fits, the device, the tools' versions, who measured with which command."""
    lut = f"lut{LUT_INPUTS[TARGETS[target].family]}"
    return (lut, "ff", "dsp", "bram", "fmax_mhz", "fits", "part", "tools", "source")


@dataclass(frozen=True)
class StudyFpga:
    """All that is known of a study's units, by point."""

    study: str = ""
    """The study's folder, as it is named on the command line."""
    accelerator: str = ""
    """That points are changes of."""
    has_units: bool = False
    """Whether a point may have a unit that Verilog is written of."""
    entries: tuple[UnitOnFpga, ...] = ()
    """Of the same unit and device, the first counts."""
    changed: bool = False
    """Whether accelerator or workload have changed since the sweep: nothing is known of its points."""
    _units: dict[tuple[str, ...], UnitSizes | str] = field(default_factory=dict, repr=False, compare=False)
    _cells: dict[tuple[str, ...] | None, dict[str, object]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def targets(self) -> tuple[str, ...]:
        """Devices that anything was measured on, in the order of `TARGETS`."""
        known = {each.measured.target for each in self.entries}
        return tuple(name for name in TARGETS if name in known)

    def unit(self, overrides: Sequence[str]) -> UnitSizes | str:
        """The unit of the point with these accelerator overrides (`array.rows=8`), or why it has none."""
        own = _own(overrides)
        if own not in self._units:
            try:
                self._units[own] = sizes_of(load_accelerator(self.accelerator, overrides))
            except InputError as error:
                self._units[own] = "; ".join(problem.message for problem in error.problems)
        return self._units[own]

    def of(self, overrides: Sequence[str]) -> dict[str, UnitOnFpga]:
        """What was measured of a point's unit, by device."""
        if not self.entries:
            return {}
        unit = self.unit(overrides)
        if isinstance(unit, str):
            return {}
        parameters = asdict(unit)
        found: dict[str, UnitOnFpga] = {}
        for each in self.entries:
            if each.measured.parameters == parameters:
                found.setdefault(each.measured.target, each)
        return {name: found[name] for name in self.targets if name in found}

    def columns(self, overrides: Sequence[str] | None) -> dict[str, object]:
        """`fpga.<target>.<column>` of a point, None where nothing was measured, and of one that could not be
        run (`overrides` None): the same columns for each point of a study, none for one without units."""
        if not self.entries:
            return {}
        own = None if overrides is None else _own(overrides)
        if own not in self._cells:  # a study may have a million rows, and has few different units
            self._cells[own] = self._columns({} if overrides is None else self.of(overrides))
        return self._cells[own]

    def _columns(self, known: Mapping[str, UnitOnFpga]) -> dict[str, object]:
        row: dict[str, object] = {}
        for name in self.targets:
            cells = known[name].columns() if name in known else dict.fromkeys(columns_of(name))
            row |= {f"fpga.{short_name(name)}.{column}": value for column, value in cells.items()}
        return row

    def command(self, which: str, target: str = "ecp5") -> str:
        """What measures the unit of a point, or the units of the whole `front`."""
        output = f"build/{target}" if which == "front" else f"build/{target}/point-{which}"
        return shlex.join(["tilewright", "rtl", f"{self.study}@{which}", "-o", output, "--synth", target])


def _own(overrides: Sequence[str]) -> tuple[str, ...]:
    """Those that a unit's sizes depend on."""
    return tuple(text for text in overrides if text.startswith(_UNIT_KEYS))


def read_fpga(study: Path, store: Store, loaded: LoadedSpace, record: SpaceRecord) -> StudyFpga:
    """What is known of the units of a study's points: kept in the study, of the accelerator's own `fpga`, or
    shipped (`arch/fpga_measured.yaml`)."""
    base = load_accelerator(loaded.base.accelerator)
    varied = any(key.startswith("arch.attention_unit") for key in loaded.space.parameters)
    if not varied and not isinstance(base.attention_unit, Streaming):
        return StudyFpga(str(study), loaded.base.accelerator)
    if loaded.digest != record.base:
        return StudyFpga(str(study), loaded.base.accelerator, has_units=True, changed=True)
    own = base.fpga.measured if base.fpga else None
    entries = [
        *(UnitOnFpga(Measured.model_validate_json(text), THIS_STUDY, why) for text, why in store.fpga()),
        *(UnitOnFpga(own, OWN) for own in [own] if own and own not in shipped_measurements()),
        *(UnitOnFpga(each, SHIPPED) for each in shipped_measurements()),
    ]
    known = tuple(each for each in entries if each.measured.target in TARGETS)
    return StudyFpga(str(study), loaded.base.accelerator, has_units=True, entries=known)


def keep_fpga(study: Path, resources: Resources, command: str, refused: str = "") -> None:
    """Keep in a study what `command` measured, for all its points that have this unit, in the place of what
    was kept of the unit on this device. `refused`: why it does not fit. Raises `InputError` where there is no
    study, or it can't be written."""
    given = json.loads(resources.to_json())
    tools = {**given["tools"], "tilewright": __version__}
    measured = Measured.model_validate({**given, "bitstream": None, "tools": tools, "source": command})
    unit = json.dumps(measured.parameters, sort_keys=True)
    with Store(study) as store:
        store.keep_fpga(measured.target, unit, measured.model_dump_json(), refused)


@dataclass(frozen=True, slots=True)
class UnitOfPoints:
    """Points that have the same unit."""

    points: tuple[int, ...]
    """Their numbers."""
    unit: UnitSizes
    known: Mapping[str, UnitOnFpga]
    """What was measured of it, by device."""


def units_of(
    fpga: StudyFpga, points: Iterable[tuple[int, Sequence[str]]]
) -> tuple[list[UnitOfPoints], list[tuple[int, str]]]:
    """The different units of points, given by number and overrides, in their order; and the points that have
    none, with the reason."""
    found: dict[UnitSizes, list[int]] = {}
    known: dict[UnitSizes, Mapping[str, UnitOnFpga]] = {}
    without: list[tuple[int, str]] = []
    for number, overrides in points:
        unit = fpga.unit(overrides)
        if isinstance(unit, str):
            without.append((number, unit))
            continue
        found.setdefault(unit, []).append(number)
        known[unit] = fpga.of(overrides)
    return [UnitOfPoints(tuple(numbers), unit, known[unit]) for unit, numbers in found.items()], without
