"""The attention unit behind byte-wide ports: a top with some 30 pins, for boards and for place and route.

All input streams share one byte port. `select` names the stream of a beat (its place among the unit's input
streams, `INPUTS`); the beat's bytes follow, most significant first, the upper bits of the first byte unused.
Beats of `o` leave as bytes in the same order. One beat is held on each side, so a unit fed this way takes a
byte a cycle; a host that sends command, bitmap words, Q tiles, K and V tiles in the order in which the unit
needs them is never stuck.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.rtl.ports import Ports, Stream
from tilewright.rtl.verilog import TOP

INPUTS = ("command", "bitmap", "q", "k", "v")
"""Input streams; the place is the number that `select` takes."""
OUTPUT = "o"
BYTE = 8


class Narrow(wiring.Component):
    """Byte-wide ports around a unit with the streams `INPUTS` and `OUTPUT`.

    Ports: `select` (in, 3 bits, stays while a beat's bytes are sent), `input` and `output` (streams of
    bytes). Without a component, the unit is an instance of the Verilog module `attention_unit`, as
    `tilewright rtl` writes it.
    """

    def __init__(self, ports: Ports, unit: wiring.Component | None = None) -> None:
        self.streams = ports.streams
        self.unit = unit
        super().__init__(
            {
                "select": In(range(len(INPUTS))),
                "input": In(stream.Signature(BYTE)),
                "output": Out(stream.Signature(BYTE)),
            }
        )

    def elaborate(self, _platform: object) -> Module:
        """The unit, a register that collects beats, and one that gives them away."""
        m = Module()
        wires = {stream.name: _Wires(stream) for stream in self.streams}
        m.submodules.unit = self._instance(wires) if self.unit is None else _connected(m, self.unit, wires)
        self._collect(m, wires)
        self._give_away(m, wires[OUTPUT])
        return m

    def _instance(self, wires: Mapping[str, _Wires]) -> Instance:
        ports: dict[str, Any] = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for name, wire in wires.items():
            source, sink = ("i", "o") if wire.is_input else ("o", "i")
            ports[f"{source}_{name}__payload"] = wire.payload
            ports[f"{source}_{name}__valid"] = wire.valid
            ports[f"{sink}_{name}__ready"] = wire.ready
        return Instance(TOP, **ports)

    def _collect(self, m: Module, wires: Mapping[str, _Wires]) -> None:
        """Bytes into beats: `left` more to come, then offered to the stream that `chosen` names."""
        inputs = [wires[name] for name in INPUTS]
        held = Signal(BYTE * max(wire.bytes for wire in inputs), reset_less=True)
        left = Signal(range(max(wire.bytes for wire in inputs)))
        chosen = Signal.like(self.select)
        begun, full = Signal(), Signal()
        m.d.comb += self.input.ready.eq(~full)
        with m.If(self.input.valid & ~full):
            m.d.sync += held.eq(Cat(self.input.payload, held))
            with m.If(begun):
                m.d.sync += [left.eq(left - 1), full.eq(left == 1)]
            with m.Else():
                m.d.sync += [begun.eq(1), chosen.eq(self.select)]
                with m.Switch(self.select):
                    for number, wire in enumerate(inputs):
                        with m.Case(number):
                            m.d.sync += [left.eq(wire.bytes - 1), full.eq(wire.bytes == 1)]
        for number, wire in enumerate(inputs):
            m.d.comb += [wire.payload.eq(held), wire.valid.eq(full & (chosen == number))]
            with m.If(wire.valid & wire.ready):
                m.d.sync += [full.eq(0), begun.eq(0)]

    def _give_away(self, m: Module, wire: _Wires) -> None:
        """A beat into bytes: `left` of them still to go."""
        count = wire.bytes
        held = Signal(BYTE * count, reset_less=True)
        left = Signal(range(count + 1))
        m.d.comb += [
            wire.ready.eq(left == 0),
            self.output.valid.eq(left != 0),
            self.output.payload.eq(held[-BYTE:]),
        ]
        with m.If(wire.valid & wire.ready):
            m.d.sync += [held.eq(wire.payload), left.eq(count)]
        with m.Elif(self.output.valid & self.output.ready):
            m.d.sync += [held.eq(held << BYTE), left.eq(left - 1)]


class _Wires:
    """A stream's signals between the unit and the bytes."""

    def __init__(self, stream: Stream) -> None:
        self.is_input = stream.is_input
        self.bytes = -(-stream.width // BYTE)
        self.payload = Signal(stream.width, name=f"{stream.name}_payload")
        self.valid = Signal(name=f"{stream.name}_valid")
        self.ready = Signal(name=f"{stream.name}_ready")


def _connected(m: Module, unit: wiring.Component, wires: Mapping[str, _Wires]) -> wiring.Component:
    """`unit`, its streams joined to `wires`."""
    for name, wire in wires.items():
        there = getattr(unit, name)
        payload = Value.cast(there.payload)
        if wire.is_input:
            m.d.comb += [payload.eq(wire.payload), there.valid.eq(wire.valid), wire.ready.eq(there.ready)]
        else:
            m.d.comb += [wire.payload.eq(payload), wire.valid.eq(there.valid), there.ready.eq(wire.ready)]
    return unit
