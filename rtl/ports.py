"""A component's ports and a unit's parameters as plain data, for whoever connects it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

    from tilewright.arch.streaming_unit import UnitSizes


@dataclass(frozen=True)
class Field:
    """A slice of a payload."""

    name: str
    offset: int
    """Of its lowest bit."""
    width: int
    signed: bool


@dataclass(frozen=True)
class Stream:
    """A ready/valid stream; its ports are `NAME__payload`, `NAME__valid` and `NAME__ready`."""

    name: str
    is_input: bool
    width: int
    """Bits of the payload."""
    fields: tuple[Field, ...] = ()
    """Of a structured payload."""


@dataclass(frozen=True)
class Wire:
    """A port that belongs to no stream."""

    name: str
    is_input: bool
    width: int


@dataclass(frozen=True)
class Ports:
    """All ports of a component beside `clk` and `rst` (synchronous, active high)."""

    streams: tuple[Stream, ...]
    wires: tuple[Wire, ...]

    def stream(self, name: str) -> Stream:
        """The stream of that name (`KeyError` if there is none)."""
        return {stream.name: stream for stream in self.streams}[name]


def ports_of(component: Component) -> Ports:
    """The ports of a component whose members are streams and single signals."""
    from amaranth.hdl import Shape
    from amaranth.lib import stream, wiring

    streams: list[Stream] = []
    wires: list[Wire] = []
    for name, member in component.signature.members.items():
        is_input = member.flow == wiring.In
        if member.is_port:
            wires.append(Wire(name, is_input, Shape.cast(member.shape).width))
            continue
        signature = member.signature
        plain = signature.flip() if isinstance(signature, wiring.FlippedSignature) else signature
        assert isinstance(plain, stream.Signature), f"port {name} is neither a signal nor a stream"
        shape = plain.members["payload"].shape
        streams.append(Stream(name, is_input, Shape.cast(shape).width, _fields(shape)))
    return Ports(tuple(streams), tuple(wires))


def _fields(shape: Any) -> tuple[Field, ...]:  # noqa: ANN401 - whatever Amaranth takes for a shape
    from amaranth.hdl import Shape
    from amaranth.lib import data

    if isinstance(shape, type) and issubclass(shape, data.Struct):
        shape = data.Layout.cast(shape)
    if not isinstance(shape, data.StructLayout):
        return ()
    found = []
    for name, field in shape:
        own = Shape.cast(field.shape)
        found.append(Field(str(name), field.offset, own.width, own.signed))
    return tuple(found)


def description(name: str, ports: Ports, parameters: UnitSizes) -> dict[str, Any]:
    """Everything that a program needs to connect the unit: module, clock, streams, wires, parameters."""
    return {
        "module": name,
        "clock": {"port": "clk", "edge": "rising"},
        "reset": {"port": "rst", "active": "high", "synchronous": True},
        "streams": [_stream(stream) for stream in ports.streams],
        "wires": [
            {"port": wire.name, "direction": _direction(wire.is_input), "width": wire.width}
            for wire in ports.wires
        ],
        "parameters": asdict(parameters),
        "derived": {
            "chunks": parameters.chunks,
            "score_bits": parameters.score_bits,
            "sum_bits": parameters.sum_bits,
            "output_bits": parameters.output_bits,
        },
    }


def _stream(stream: Stream) -> dict[str, Any]:
    return {
        "name": stream.name,
        "direction": _direction(stream.is_input),
        "payload": {"port": f"{stream.name}__payload", "width": stream.width},
        "valid": f"{stream.name}__valid",
        "ready": f"{stream.name}__ready",
        "fields": [asdict(field) for field in stream.fields],
    }


def _direction(is_input: bool) -> str:
    return "input" if is_input else "output"
