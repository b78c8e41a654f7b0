"""Verilog of components: deterministic, portable, free of what Amaranth knows only for itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.unit import AttentionUnit
from tilewright.rtl.verilog import YosysError, run_yosys, verilog


class Machine(wiring.Component):  # type: ignore[misc] # amaranth has no types
    """Two states, so that an `always @*` is made."""

    def __init__(self) -> None:
        super().__init__({"step": In(1), "high": Out(1)})

    def elaborate(self, _: object) -> Module:
        m = Module()
        count = Signal(3)
        with m.FSM():
            with m.State("LOW"), m.If(self.step):
                m.next = "HIGH"
            with m.State("HIGH"):
                m.d.comb += self.high.eq(count == 2)
                m.d.sync += count.eq(count + 1)
        return m


def test_the_text_is_the_same_every_time() -> None:
    """Two components made alike give the same bytes, and no path of this machine is in them."""
    text = verilog(Machine(), "machine")
    assert text == verilog(Machine(), "machine")
    assert "module machine(" in text
    assert "src" not in text
    assert str(Path(__file__).parent) not in text


def test_every_combinational_process_runs_at_the_start() -> None:
    """What triggers `always @*` is assigned at time 0, not before: else Icarus leaves outputs unknown."""
    text = verilog(Machine(), "machine")
    assert "always @*" in text
    assert "  reg \\$start ;\n  initial \\$start  <= 0;\n" in text
    assert "dump_module" not in text


def test_yosys_errors_are_passed_on() -> None:
    """What Yosys says of a design that it can't read reaches the caller."""
    with pytest.raises(YosysError, match="ERROR"):
        run_yosys("module", "write_verilog")


def test_equal_parts_are_written_once() -> None:
    """Modules grow with the rows (a lane each), not with the processing elements."""
    small, large = (verilog(AttentionUnit(UnitSizes(rows=n, cols=n, head_dim=64))) for n in (4, 8))
    assert large.count("\nmodule ") - small.count("\nmodule ") <= 4 * (8 - 4)
