"""Clock and area of attention units on FPGAs, from measurements.

Rows of measured units are shipped (`fpga_measured.yaml`); `tilewright rtl … --synth` makes one of any unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.fpga import Fpga, Measured, Measurements
from tilewright.arch.streaming_unit import Streaming, unit_sizes
from tilewright.arch.technology import SourceRow
from tilewright.arch.technology_tables import Confidence
from tilewright.description.errors import InputError, Problem
from tilewright.description.reading import read, read_text


def with_measured_fpga(accelerator: Accelerator, folder: Path) -> Accelerator:
    """The accelerator with `fpga.measured` looked up and `clock_mhz` set to what was measured.

    As it is if it has no `fpga`. `fpga.file` is looked for relative to `folder`, then to the current one.
    Raises InputError if nothing was measured for this unit on this device: it says how to measure.
    """
    fpga = accelerator.fpga
    if fpga is None:
        return accelerator
    unit = accelerator.attention_unit
    if not isinstance(unit, Streaming):
        message = (
            "only the streaming attention unit has Verilog; give `attention_unit: {kind: streaming}` or "
            "leave `fpga` out"
        )
        raise InputError(Problem(message, key="fpga"))
    parameters = asdict(unit_sizes(unit, accelerator.array))
    for row in _rows(fpga, folder):
        if row.target == fpga.target and row.parameters == parameters and row.fmax_mhz is not None:
            chosen = Fpga(target=fpga.target, measured=row)
            return accelerator.model_copy(update={"fpga": chosen, "clock_mhz": row.fmax_mhz})
    raise InputError(Problem(_not_measured(accelerator, fpga), key="fpga"))


def area_fpga(accelerator: Accelerator) -> dict[str, int]:
    """LUTs, flip-flops, multipliers and block RAMs as measured; empty without an FPGA."""
    row = _measured(accelerator)
    return {"lut4": row.lut, "ff": row.ff, "dsp": row.dsp, "bram": row.bram} if row else {}


def fpga_sources(accelerator: Accelerator) -> tuple[SourceRow, ...]:
    """Where clock and area come from; empty without an FPGA."""
    row = _measured(accelerator)
    if row is None or row.fmax_mhz is None:
        return ()
    tools = ", ".join(f"{name} {version}" for name, version in row.tools.items())
    source = f"{row.source or 'measured by the user'} ({tools})"
    values = {
        "fmax_mhz": (row.fmax_mhz, "MHz"),
        **{n: (float(v), "cells") for n, v in area_fpga(accelerator).items()},
    }
    confidence: Confidence = "high" if row in shipped_measurements() else "user"
    return tuple(
        SourceRow(f"fpga.{row.target}.{name}", value, unit, None, "", source, confidence)
        for name, (value, unit) in values.items()
    )


@lru_cache(maxsize=1)
def shipped_measurements() -> tuple[Measured, ...]:
    """The units that were measured for this release."""
    text = (files("tilewright.arch") / "fpga_measured.yaml").read_text(encoding="utf-8")
    return read(Measurements, text, "fpga_measured.yaml", (), "fpga").units


def _measured(accelerator: Accelerator) -> Measured | None:
    return accelerator.fpga.measured if accelerator.fpga else None


def _rows(fpga: Fpga, folder: Path) -> Iterator[Measured]:
    """Rows that may fit, the user's first."""
    if fpga.file is not None:
        there = folder / fpga.file
        path = there if there.exists() else Path(fpga.file)
        yield read(Measured, read_text(path), str(path), (), "fpga")
    if fpga.measured is not None:
        yield fpga.measured
    yield from shipped_measurements()


def _not_measured(accelerator: Accelerator, fpga: Fpga) -> str:
    array = accelerator.array
    return (
        f"no measurement of this unit ({array.rows} x {array.cols}, {array.operand}) on {fpga.target!r}; "
        f"make one with `tilewright rtl ACCELERATOR arch.fpga=null -o build --synth {fpga.target}`, then "
        f"give `fpga.file: build/resources.{fpga.target}.json`; measured are "
        f"{', '.join(sorted(_title(row) for row in shipped_measurements() if row.fmax_mhz is not None))}"
    )


def _title(row: Measured) -> str:
    size = row.parameters
    array = f"{size['rows']} x {size['cols']} int{size['operand_bits']}"
    return f"{array} of head dimension {size['head_dim']} on {row.target}"
