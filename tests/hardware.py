"""What the tests of hardware share: a design under Amaranth's simulator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator, SimulatorContext


def simulate(design: Elaboratable, *benches: Callable[[SimulatorContext], Awaitable[None]]) -> None:
    """Run the benches together until all have ended, with a clock."""
    simulator = Simulator(design)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()
