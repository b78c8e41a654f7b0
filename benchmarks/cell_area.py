"""A cross-check of the area model's ratios: blocks of the Verilog in an open 180 nm cell library.

    python -m benchmarks.cell_area [LIBERTY]

Each block is mapped to the OSU 180 nm cells (Oklahoma State University; Debian's qflow-tech-osu018), and
compared with what `tilewright.arch` charges for it at 45 nm. Both are over an int32 adder: 180 nm square
micrometres say nothing of another node, ratios something. Sizes are minimal, nothing is optimised for
speed. Needs `pyosys`. Where OpenSTA is installed (Debian's opensta), it times each mapped block: the
slowest path from an input or a register to an output or a register, without wires.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from docs.markdown import table
from tilewright.arch.load import load_accelerator
from tilewright.arch.technology import technology_of
from tilewright.rtl.fpga import YOSYS
from tilewright.rtl.pe import ProcessingElement
from tilewright.rtl.verilog import TOP, verilog

LIBERTY = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")
REFERENCE = "int32 adder"
NODE_NM = 45
OPTIONS = [f"technology.node_nm={NODE_NM}"]


class Operation(wiring.Component):  # type: ignore[misc] # amaranth has no types
    """`o` is a function of `a` and `b`, all signed or unsigned as the shapes say; combinational."""

    def __init__(self, bits: int, result_bits: int, compute: Callable[[Signal, Signal], object]) -> None:
        self.compute = compute
        super().__init__({"a": In(signed(bits)), "b": In(signed(bits)), "o": Out(signed(result_bits))})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.compute(self.a, self.b))
        return m


class Register(wiring.Component):  # type: ignore[misc]
    """A register of 32 bits without reset."""

    def __init__(self) -> None:
        super().__init__({"d": In(32), "q": Out(32)})

    def elaborate(self, _platform: object) -> Module:
        m = Module()
        held = Signal(32, reset_less=True)
        m.d.sync += held.eq(self.d)
        m.d.comb += self.q.eq(held)
        return m


@dataclass(frozen=True)
class Block:
    """A component, and how many of what the area model charges for it."""

    component: wiring.Component
    modelled: Mapping[str, float]
    """By dotted path of the technology tables."""


def blocks() -> dict[str, Block]:
    """The blocks by name."""
    adders = "arithmetic.int32.add.area_um2"
    register = "register.area_um2_per_bit"
    multiply = {bits: f"arithmetic.int{bits}.multiply.area_um2" for bits in (8, 16)}
    pe_bits = 8 + 8 + 1 + 16 + 32
    return {
        REFERENCE: Block(Operation(32, 32, lambda a, b: a + b), {adders: 1}),
        "int8 multiplier": Block(Operation(8, 16, lambda a, b: a * b), {multiply[8]: 1}),
        "int16 multiplier": Block(Operation(16, 32, lambda a, b: a * b), {multiply[16]: 1}),
        "32-bit register": Block(Register(), {register: 32}),
        "PE, int8, 32-bit sum": Block(
            ProcessingElement(signed(8), signed(8), 32), {multiply[8]: 1, adders: 1, register: pe_bits}
        ),
    }


@dataclass(frozen=True)
class Mapped:
    """A block in the library's cells."""

    area_um2: float
    path_ns: float | None
    """None without OpenSTA."""


def mapped(component: wiring.Component, liberty: Path) -> Mapped:
    """`component` in the library's cells."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "block.v").write_text(verilog(component), encoding="utf-8")
        script = [
            "read_verilog block.v",
            f"synth -flatten -top {TOP}",
            f"dfflibmap -liberty {liberty}",
            f"abc -liberty {liberty}",
            f"tee -q -o stat.json stat -json -liberty {liberty}",
            "write_verilog -noattr mapped.v",
        ]
        (Path(directory) / "area.ys").write_text("\n".join([*script, ""]), encoding="utf-8")
        subprocess.run(
            [sys.executable, "-c", YOSYS, "area.ys"], cwd=directory, check=True, capture_output=True
        )
        report = json.loads((Path(directory) / "stat.json").read_text(encoding="utf-8"))
        return Mapped(float(report["design"]["area"]), path_ns(Path(directory), liberty))


def path_ns(folder: Path, liberty: Path) -> float | None:
    """Delay of the slowest path of `mapped.v`, by OpenSTA; None if that is not installed."""
    tool = shutil.which("sta")
    if tool is None:
        return None
    (folder / "time.tcl").write_text(_TIMING.format(liberty=liberty, top=TOP), encoding="utf-8")
    command = [tool, "-no_splash", "-exit", "time.tcl"]
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", check=True)
    slack = re.search(r"^worst slack (-?[\d.]+)$", done.stdout, re.MULTILINE)
    if slack is None:
        raise SystemExit(f"OpenSTA found no path:\n{done.stdout}{done.stderr}")
    return PERIOD_NS - float(slack[1])


PERIOD_NS = 1000
_TIMING = f"""\
read_liberty {{liberty}}
read_verilog mapped.v
link_design {{top}}
create_clock -name clk -period {PERIOD_NS} [get_ports -quiet clk]
set_input_delay 0 -clock clk [all_inputs]
set_output_delay 0 -clock clk [all_outputs]
report_worst_slack
"""


def main() -> None:
    """Entry point."""
    liberty = Path(sys.argv[1]) if len(sys.argv) > 1 else LIBERTY
    if not liberty.exists():
        raise SystemExit(f"no {liberty}; install Debian's qflow-tech-osu018, or name a Liberty file")
    technology = technology_of(load_accelerator("bare-array", OPTIONS))
    made = blocks()
    blocks_mapped = {name: mapped(block.component, liberty) for name, block in made.items()}
    cells = {name: block.area_um2 for name, block in blocks_mapped.items()}
    model = {
        name: sum(count * technology.value(path) for path, count in block.modelled.items())
        for name, block in made.items()
    }
    rows = [
        (
            name,
            f"{cells[name]:,.0f}",
            f"{model[name]:,.0f}",
            f"{cells[name] / cells[REFERENCE]:.2f}",
            f"{model[name] / model[REFERENCE]:.2f}",
            "–" if block.path_ns is None else f"{block.path_ns:.2f}",
        )
        for name, block in blocks_mapped.items()
    ]
    heads = (
        "block",
        f"{liberty.stem}, µm²",
        f"model at {NODE_NM} nm, µm²",
        "ratio, cells",
        "ratio, model",
        "path, ns",
    )
    sys.stdout.write(table(heads, rows, right=(1, 2, 3, 4, 5)))


if __name__ == "__main__":
    main()
