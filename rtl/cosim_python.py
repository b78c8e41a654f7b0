"""The same runs in Amaranth's own simulator: no compiler, a waveform with the design's names, and slow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tilewright.rtl.cosim_shim import counted_wires
from tilewright.rtl.ports import ports_of
from tilewright.rtl.streams import Cycles, Sink, Source, Trace, Words, gap_array, stuck, to_integers, to_words

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

MOST_CYCLES = 1_000_000
_PERIOD_S = 1e-8  # of the waveform's clock


class _Flow:
    """Where a stream stands; the rules are those of `cosim_shim`."""

    def __init__(self, port: Any, beats: int, gaps: Cycles) -> None:  # noqa: ANN401 - an Amaranth interface
        self.port = port
        self.beats = beats
        self.gaps = gaps
        self.taken: list[int] = []
        self.payloads: list[int] = []
        self.next = int(gaps[0]) if beats else 0

    @property
    def pending(self) -> bool:
        return len(self.taken) < self.beats

    def open(self, cycle: int) -> bool:
        return self.pending and cycle >= self.next

    def take(self, cycle: int) -> None:
        self.taken.append(cycle)
        if self.pending:
            self.next = cycle + 1 + int(self.gaps[len(self.taken)])


class PythonSimulator:
    """A component in Amaranth's simulator."""

    engine = "pysim"

    def __init__(self, make: Callable[[], Component], vcd: Path | None = None) -> None:
        """`vcd`: a file that each run writes a waveform to."""
        self._make = make
        self._vcd = vcd
        self._component: Component | None = _made(make)
        self.ports = ports_of(self._component)

    def run(
        self, sources: Mapping[str, Source], sinks: Mapping[str, Sink], limit: int = MOST_CYCLES
    ) -> Trace:
        """As `Simulator.run` says."""
        from amaranth.sim import Simulator

        unit, self._component = self._component or _made(self._make), None
        inputs = {name: _source(unit, name, source) for name, source in sources.items()}
        outputs = {
            name: _Flow(getattr(unit, name), s.beats, gap_array(s.gaps, s.beats)) for name, s in sinks.items()
        }
        active = {wire.name: 0 for wire in counted_wires(self.ports)}
        cycles = -1

        async def bench(ctx: Any) -> None:  # noqa: ANN401 - amaranth has no types
            nonlocal cycles
            for cycle in range(limit):
                _cycle(ctx, cycle, inputs, outputs)
                for name in active:
                    active[name] += int(ctx.get(getattr(unit, name)))
                if not any(flow.pending for flow in outputs.values()):
                    cycles = cycle + 1
                    return
                await ctx.tick()

        simulation = Simulator(unit)
        simulation.add_clock(_PERIOD_S)
        simulation.add_testbench(bench)
        with simulation.write_vcd(str(self._vcd)) if self._vcd else nullcontext():
            simulation.run()
        flows = inputs | outputs
        if cycles < 0:
            raise stuck(limit, {name: (len(flow.taken), flow.beats) for name, flow in flows.items()})
        return Trace(
            cycles,
            {name: np.array(flow.taken, np.int64) for name, flow in flows.items()},
            {name: self._words(name, flow) for name, flow in outputs.items()},
            active,
        )

    def _words(self, name: str, flow: _Flow) -> Words:
        return to_words(flow.payloads, self.ports.stream(name).width)


def _made(make: Callable[[], Component]) -> Component:
    """A component that Amaranth does not complain of if no run follows."""
    component = make()
    component._MustUse__used = True
    return component


def _source(unit: Component, name: str, source: Source) -> _Flow:
    beats = len(source.payloads)
    flow = _Flow(getattr(unit, name), beats, gap_array(source.gaps, beats))
    flow.payloads = to_integers(source.payloads)
    return flow


def _cycle(ctx: Any, cycle: int, inputs: Mapping[str, _Flow], outputs: Mapping[str, _Flow]) -> None:  # noqa: ANN401
    """Set what the streams offer, and note the beats that are taken."""
    from amaranth.hdl import Value

    for flow in inputs.values():
        ctx.set(flow.port.valid, int(flow.open(cycle)))
        if flow.open(cycle):
            ctx.set(Value.cast(flow.port.payload), flow.payloads[len(flow.taken)])
    for flow in outputs.values():
        ctx.set(flow.port.ready, int(flow.open(cycle)))
    moved = [
        flow
        for flow in (*inputs.values(), *outputs.values())
        if flow.open(cycle) and ctx.get(flow.port.ready) and ctx.get(flow.port.valid)
    ]
    for flow in moved:
        if flow in outputs.values():
            flow.payloads.append(int(ctx.get(Value.cast(flow.port.payload))))
        flow.take(cycle)
