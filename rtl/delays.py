"""Delay lines: a value some cycles later, a vector with its lanes put askew, and put straight again."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value, ValueLike


def chain(m: Module, value: ValueLike, cycles: int, name: str, *, reset_less: bool = True) -> list[Value]:
    """`value` after 0, 1 … `cycles` cycles."""
    taps = [Value.cast(value)]
    for delay in range(1, cycles + 1):
        tap = Signal(taps[0].shape(), name=f"{name}_{delay}", reset_less=reset_less)
        m.d.sync += tap.eq(taps[-1])
        taps.append(tap)
    return taps


def askew(m: Module, lanes: Value, width: int, name: str) -> list[Value]:
    """The lanes of a vector (lane i at bit i · width), lane i delayed by i cycles."""
    out, waiting = [lanes[:width]], lanes
    while len(waiting) > width:
        later = Signal(len(waiting) - width, name=f"{name}_{len(out)}", reset_less=True)
        m.d.sync += later.eq(waiting[width:])
        out.append(later[:width])
        waiting = later
    return out


def straight(m: Module, lanes: list[Value], name: str) -> Value:
    """The vector of `lanes`, of which lane i comes i cycles after lane 0: whole when the last is there."""
    vector: Value = Cat(lanes[0])
    for index, lane in enumerate(lanes[1:], start=1):
        earlier = Signal(len(vector), name=f"{name}_{index}", reset_less=True)
        m.d.sync += earlier.eq(vector)
        vector = Cat(earlier, lane)
    return vector
