"""Powers of two: a key's probability from its distance to the maximum (docs/attention-unit.md, step 4)."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import LOG_BITS, UnitSizes

LATENCY = 3
"""Cycles from `x` and `peak` to `half_units` and `probability`: subtract, table, shift. One key a cycle."""


def power_table(parameters: UnitSizes) -> list[int]:
    """`round(2^(P + 1 - f / 2^F))` for each f, in units of half a probability."""
    top, steps = parameters.probability_bits + 1, 1 << parameters.exponent_fraction_bits
    return [round(2 ** (top - f / steps)) for f in range(steps)]


def held_table(parameters: UnitSizes) -> list[int]:
    """The table as the hardware has it: P + 1 bits, held at 2^(P+1) - 2, and a bit that is set for 2^(P+1).

    Held so, rounding gives what the minimum of the definition does: (2^(P+1) - 2) >> n is 2^(P+1-n) - 1 for n
    >= 1, which rounds to the same as 2^(P+1-n), and for n = 0 it rounds to 2^P - 1. Only 2^(P+1) >> (P + 1) =
    1 would be lost: hence the bit.
    """
    full = 1 << (parameters.probability_bits + 1)
    return [min(full - 2, power) | (full if power == full else 0) for power in power_table(parameters)]


def model(parameters: UnitSizes, t: NDArray[np.int64], masked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Probabilities of keys `t` (F fraction bits, at least 0 unless masked) below the maximum."""
    fraction = parameters.exponent_fraction_bits
    table = np.array(power_table(parameters))
    held = np.where(masked, 0, t)
    shifted = table[held % (1 << fraction)] >> np.minimum(held >> fraction, 63)
    rounded = np.minimum((1 << parameters.probability_bits) - 1, (shifted + 1) >> 1)
    return np.where(masked, 0, rounded)


class Exponential(wiring.Component):
    """One key a cycle, without valid: what goes in comes out `LATENCY` cycles later.

    `x` and `masked` are the key's, `peak` the row's maximum (an integer, at least x unless masked).
    `half_units` is 2 p before rounding: `probability` is `half_units[1:] + half_units[0]`, behind an adder
    and no register.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        fraction, top = parameters.exponent_fraction_bits, parameters.probability_bits
        super().__init__(
            {
                "x": In(signed(LOG_BITS)),
                "masked": In(1),
                "peak": In(signed(LOG_BITS - fraction)),
                "half_units": Out(top + 1),
                "probability": Out(top),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Three registers in a row."""
        m = Module()
        fraction, top = self.parameters.exponent_fraction_bits, self.parameters.probability_bits + 1
        init = held_table(self.parameters)
        m.submodules.table = table = Memory(shape=top + 1, depth=1 << fraction, init=init)
        power = table.read_port(domain="sync")
        t = Signal(LOG_BITS, reset_less=True)
        masked = Signal(reset_less=True)
        octaves = t[fraction:]
        near = min(len(octaves), (top - 1).bit_length())
        shift = Signal(near, reset_less=True)
        zero = Signal(reset_less=True)
        edge = Signal(reset_less=True)
        shifted = Signal(top, reset_less=True)
        m.d.comb += power.addr.eq(t[:fraction])
        m.d.sync += [
            t.eq((self.peak << fraction) - self.x),
            masked.eq(self.masked),
            shift.eq(octaves),
            zero.eq(masked | octaves[near:].any()),
            edge.eq(~masked & (octaves == top)),
            shifted.eq(Mux(zero, 0, power.data[:top] >> shift) | (edge & power.data[top])),
        ]
        m.d.comb += [
            self.half_units.eq(shifted),
            self.probability.eq(shifted[1:] + shifted[0]),
        ]
        return m
