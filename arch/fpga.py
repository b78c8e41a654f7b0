"""The FPGA that an attention unit runs on, and the unit as synthesised, placed and routed, not modelled."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tilewright.arch.block import Block, Rate

Cells = Annotated[int, Field(ge=0)]
FpgaTarget = Literal["lfe5u-85f-8", "lfe5u-85f-6", "up5k"]
"""Devices for which units can be placed and routed."""


class Measured(Block):
    """One unit on one device, as the tools reported it: what `--synth` writes to `resources.TARGET.json`."""

    target: str
    """The device."""
    parameters: dict[str, int]
    """The unit's (docs/attention-unit.md)."""
    lut: Cells
    """LUTs, carry chains and LUT memories included."""
    ff: Cells
    """Flip-flops."""
    dsp: Cells
    """Multipliers."""
    bram: Cells
    """Block RAMs."""
    fmax_mhz: Rate | None
    """Of the routed design; none if it was only synthesised."""
    critical_path: tuple[str, ...] = ()
    """Steps of the slowest path."""
    bitstream: str | None = None
    """File written beside."""
    available: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    """What the device has."""
    tools: dict[str, str]
    """Versions of synthesis, place and route."""
    source: str = ""
    """Command that made it."""


class Fpga(Block):
    """The device that the unit runs on. `clock_mhz` becomes the clock measured on it."""

    target: FpgaTarget
    """Device and speed grade."""
    file: str | None = None
    """A `resources.TARGET.json`, relative to this description's folder or else the current one, that is
    looked at before the shipped measurements. Reading the description turns it into `measured`."""
    measured: Measured | None = None
    """The unit as measured; looked up when the description is read."""


class Measurements(Block):
    """A file of measured units."""

    units: tuple[Measured, ...]
    """Any number, in any order."""
