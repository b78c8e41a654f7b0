"""The FPGAs for which a unit is synthesised, and how their tools are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.description.names import unknown_message
from tilewright.rtl.verilog import TOP

NARROW = f"{TOP}_narrow"
"""Module with byte-wide ports, the top on a board."""
Family = Literal["ecp5", "ice40", "xilinx"]
Kind = Literal["lut", "ff", "dsp", "bram"]
KINDS: tuple[Kind, ...] = ("lut", "ff", "dsp", "bram")
SEED = 1
"""Of placement: the same netlist gives the same bitstream."""


@dataclass(frozen=True)
class Target:
    """A device, or for `xilinx` a family whose resources are counted without place and route."""

    name: str
    family: Family
    title: str
    device: tuple[str, ...] = ()
    """Arguments of nextpnr that name it."""
    available: Mapping[Kind, int] = field(default_factory=dict)
    """How many it has, as nextpnr counts them."""


_ECP5: dict[Kind, int] = {"lut": 83_640, "ff": 83_640, "dsp": 156, "bram": 208}
_UP5K: dict[Kind, int] = {"lut": 5_280, "ff": 5_280, "dsp": 8, "bram": 30}
_85F = ("--85k", "--package", "CABGA381", "--speed")
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("lfe5u-85f-8", "ecp5", "Lattice ECP5 LFE5U-85F, CABGA381, speed 8", (*_85F, "8"), _ECP5),
        Target("lfe5u-85f-6", "ecp5", "Lattice ECP5 LFE5U-85F, CABGA381, speed 6", (*_85F, "6"), _ECP5),
        Target("up5k", "ice40", "Lattice iCE40 UP5K, SG48", ("--up5k", "--package", "sg48"), _UP5K),
        Target("xc7", "xilinx", "AMD 7 series, resources after synthesis"),
    )
}
"""By name."""
FAMILIES: dict[str, str] = {"ecp5": "lfe5u-85f-8", "ice40": "up5k", "xilinx": "xc7"}
"""The device that is meant where only the family is named."""

CELLS: dict[Family, dict[Kind, dict[str, int]]] = {
    "ecp5": {
        "lut": {"TRELLIS_COMB": 1},
        "ff": {"TRELLIS_FF": 1},
        "dsp": {"MULT18X18D": 1},
        "bram": {"DP16KD": 1},
    },
    "ice40": {
        "lut": {"ICESTORM_LC": 1},
        "ff": {"SB_DFF*": 1},
        "dsp": {"SB_MAC16": 1},
        "bram": {"SB_RAM40_4K": 1},
    },
    "xilinx": {
        "lut": {"LUT?": 1, "RAM32M": 4, "RAM64M": 4, "RAM32X1D": 2, "RAM64X1D": 2, "SRL16E": 1, "SRLC32E": 1},
        "ff": {"FD?E": 1},
        "dsp": {"DSP48E1": 1},
        "bram": {"RAMB36E1": 2, "RAMB18E1": 1},
    },
}
"""Cells of Yosys and nextpnr that make up a resource, by pattern, and how many of it each is: LUTs also where
they hold carry chains or small memories; block RAMs of Xilinx in halves (18 kbit)."""

LUT_INPUTS: dict[Family, int] = {"ecp5": 4, "ice40": 4, "xilinx": 6}
"""Of a family's LUTs."""


def short_name(target: str) -> str:
    """The shortest name of a target: its family's, if it is the device that is meant by it."""
    return next((family for family, name in FAMILIES.items() if name == target), target)


def target_of(name: str) -> Target:
    """The target of that name, or the usual one of a family. Raises InputError, with the closest names."""
    chosen = FAMILIES.get(name, name)
    if chosen not in TARGETS:
        raise InputError(unknown_message("FPGA target", name, [*FAMILIES, *TARGETS]))
    return TARGETS[chosen]


def synthesis_script(family: Family) -> str:
    """Yosys script: from the Verilog to a netlist and its counts, `FAMILY.json` and `FAMILY.stat.json`."""
    read = f"read_verilog {TOP}.v {NARROW}.v"
    count = f"tee -q -o {family}.stat.json stat -json"
    if family == "xilinx":
        # abc9 trips over wires named as bits of others: flatten and purge first (YosysHQ/yosys#4349)
        first = [f"hierarchy -top {TOP}", "proc", "flatten", "opt_clean -purge"]
        return "\n".join([f"read_verilog {TOP}.v", *first, f"synth_xilinx -family xc7 -top {TOP}", count, ""])
    if family == "ice40":
        # it has no LUT memories, which the unit asks for; block RAMs will do
        there = [read, "setattr -unset ram_style m:*"]
        return "\n".join([*there, f"synth_ice40 -dsp -device u -top {NARROW} -json ice40.json", count, ""])
    return "\n".join([read, f"synth_{family} -top {NARROW} -json {family}.json", count, ""])


def place_arguments(target: Target, target_mhz: float) -> list[str]:
    """nextpnr's arguments: netlist in, placed and routed design and report out."""
    family = target.family
    output = ["--textcfg", "ecp5.config"] if family == "ecp5" else ["--asc", "ice40.asc"]
    unconstrained = "--lpf-allow-unconstrained" if family == "ecp5" else "--pcf-allow-unconstrained"
    settings = ["--freq", f"{target_mhz:g}", "--seed", f"{SEED}", "--timing-allow-fail", unconstrained]
    files = ["--json", f"{family}.json", *output, "--report", f"{family}.report.json"]
    return [*target.device, *settings, *files]


def pack_arguments(target: Target) -> tuple[str, list[str]]:
    """The packer's name and arguments, the bitstream's file last."""
    if target.family == "ecp5":
        return "ecppack", ["ecp5.config", f"{TOP}.{target.name}.bit"]
    return "icepack", ["ice40.asc", f"{TOP}.{target.name}.bin"]
