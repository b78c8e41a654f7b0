"""Which units a `tilewright rtl` writes: one, or those of a study's front."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.cli.output import note
from tilewright.description.errors import InputError

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator


@dataclass(frozen=True)
class Build:
    """One unit to write."""

    accelerator: Accelerator
    directory: Path
    study: Path | None = None
    """Where to keep what is measured of it."""
    command: str = ""
    """That does this build and no other, in terms of the point's number; with `study`."""
    title: str = ""
    """Its points, where there may be several units."""

    @property
    def alone(self) -> bool:
        """Whether no other was asked for."""
        return not self.title


def builds(name: str, overrides: Sequence[str], directory: Path, synth: str | None) -> list[Build]:
    """Of an accelerator, of a study's point, or of each different unit of `STUDY@front`, in folders of their
    own; of those to be synthesised, only units of which nothing is known yet. Raises `InputError`."""
    from tilewright.api import load_accelerator

    found = None
    if "@" in name:
        from tilewright.explore.study.study import Study, split_point

        found = split_point(name)
    if found is None:
        return [Build(load_accelerator(name, overrides), directory)]
    folder, which = found
    if which == "front":
        return _front_builds(folder, overrides, directory, synth)
    number = int(str(Study(folder).chosen(which)["point"]))
    return [_point_build(folder, number, overrides, directory, synth)]


def _point_build(
    folder: Path, number: int, overrides: Sequence[str], directory: Path, synth: str | None, title: str = ""
) -> Build:
    from tilewright.api import load_accelerator

    name = f"{folder}@{number}"
    words = ["tilewright", "rtl", name, *(f"arch.{each.removeprefix('arch.')}" for each in overrides)]
    words += ["-o", str(directory), *(["--synth", synth] if synth else [])]
    return Build(load_accelerator(name, overrides), directory, folder, shlex.join(words), title)


def _front_builds(folder: Path, overrides: Sequence[str], directory: Path, synth: str | None) -> list[Build]:
    from tilewright.explore.study.study import Study
    from tilewright.rtl.fpga_targets import target_of

    if overrides:
        raise InputError(
            f"override {overrides[0]!r} does not fit: {folder}@front is the units of its points as they are; "
            f"give overrides to one point, such as {folder}@front:1"
        )
    device = target_of(synth).name if synth else ""
    units, without = Study(folder).front_units()
    for number, reason in without:
        note(f"point {number} is left out: {reason}")
    if not units:
        raise InputError(
            f"{folder}@front: none of its {len(without)} points has a unit that Verilog is written of"
        )
    found = []
    for each in units:
        first, known = each.points[0], each.known.get(device)
        title = f"point{'s' * (len(each.points) > 1)} {', '.join(map(str, each.points))}"
        if known is None:
            found.append(_point_build(folder, first, (), directory / f"point-{first}", synth, title))
        else:
            note(f"{title}: measured before, by {known.origin}")
    return found
