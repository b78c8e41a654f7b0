"""The reciprocal of a row's running sum (docs/attention-unit.md, step 7), one unit for all rows."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from operator import or_

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import GUARD_BITS, UnitSizes, clog2
from tilewright.rtl.tokens import sum_token

FACTOR_BITS = 17
"""Of a reciprocal, and of the normalised sum it is looked up with."""
LATENCY = 6
"""Cycles from `sums` to `factor`: capture, bit length, normalise, table, multiply, subtract. One a cycle."""
SHIFT_LATENCY = 5
"""Cycles from `sums` to `shift` and `done`: the lane needs the shift one cycle before the factor."""


def index_bits(parameters: UnitSizes) -> int:
    """Of the table's index (I in the contract)."""
    return 6 if parameters.operand_bits <= 8 else 8


def bases(parameters: UnitSizes) -> list[int]:
    """`min(2^17 - 1, round(2^17 / (1 + i / 2^I)))` for i = 0 … 2^I, in integers."""
    steps = 1 << index_bits(parameters)
    top = steps << FACTOR_BITS
    return [min((1 << FACTOR_BITS) - 1, (2 * top + steps + i) // (2 * (steps + i))) for i in range(steps + 1)]


def least_length(parameters: UnitSizes) -> int:
    """Bit length of the smallest sum that is not 0.

    A row's last rescale by a > 0 (or its first key) came with a key less than one octave below the new
    maximum, whose p is at least 2^(P-1); nothing after it makes the sum smaller.
    """
    return parameters.probability_bits + GUARD_BITS


def bit_length(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each value below 2^53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def model(parameters: UnitSizes, sums: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bit length b and factor y, about 2^(b + 16) / l, of each sum l; y = 0 where l = 0."""
    width, low = parameters.sum_bits, 16 - index_bits(parameters)
    length = bit_length(sums)
    least = least_length(parameters)
    assert bool(((sums == 0) | (length >= least)).all()), f"a sum of fewer than {least} bits"
    base = np.array(bases(parameters))
    u = (sums << (width - length)) >> (width - FACTOR_BITS)
    i, d = (u >> low) & ((1 << index_bits(parameters)) - 1), u & ((1 << low) - 1)
    y = base[i] - (((base[i] - base[i + 1]) * d) >> low)
    return length, np.where(sums == 0, 0, y)


def relative_error(parameters: UnitSizes) -> float:
    """The most that y · l / 2^(b + 16) is off 1.

    Dropping bits of l: 2^-16; the chord above the curve: 2^(-2I-2); the rounded bases: 2^-17 of y >= 2^16;
    the floor of the product: 2^-16.
    """
    return 2.5 * 2.0**-16 + 2.0 ** (-2 * index_bits(parameters) - 2)


class Reciprocal(wiring.Component):
    """Serves row after row: row 0's sum in the cycle of `start`, row r's r cycles later.

    `sums` are the R sums side by side, each 0 except in its own cycle (the lanes see to that), so that they
    may be or'ed together. `shift` is b - (P + 8), `SHIFT_LATENCY` cycles after the sum, and `done` is `start`
    as late as that: the token of the lanes' latches for row 0. `factor` follows one cycle later. For a sum of
    0 the shift means nothing.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "sums": In(parameters.rows * parameters.sum_bits),
                "start": In(sum_token()),
                "shift": Out(shift_bits(parameters)),
                "factor": Out(FACTOR_BITS),
                "done": Out(sum_token()),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Two halves: normalise, then look up and interpolate."""
        m = Module()
        normal, zero = self._normalised(m)
        self._interpolated(m, normal, zero)
        token = self.start
        for stage in range(SHIFT_LATENCY):
            later = Signal(sum_token(), name=f"token_{stage}")
            m.d.sync += later.eq(token)
            token = later
        m.d.comb += self.done.eq(token)
        return m

    def _normalised(self, m: Module) -> tuple[Signal, Signal]:
        """Capture, bit length, barrel shift: the bits below the leading one, and whether there was none."""
        p = self.parameters
        total = Signal(p.sum_bits, reset_less=True)
        held = Signal(p.sum_bits, reset_less=True)
        normal = Signal(FACTOR_BITS, reset_less=True)
        shift = [Signal(shift_bits(p), name=f"shift_{n}", reset_less=True) for n in range(4)]
        zero = [Signal(name=f"zero_{n}", reset_less=True) for n in range(2)]
        least = least_length(p)
        top = p.sum_bits - least
        found, leading = leading_one(total[least - 1 :])
        m.d.sync += [
            total.eq(reduce(or_, (self.sums.word_select(r, p.sum_bits) for r in range(p.rows)))),
            held.eq(total),
            zero[0].eq(~found),
            shift[0].eq(leading),
            normal.eq((held << (top - shift[0])[: shift_bits(p)])[p.sum_bits - FACTOR_BITS : p.sum_bits]),
            zero[1].eq(zero[0]),
            Cat(shift[1:]).eq(Cat(shift[:-1])),
        ]
        m.d.comb += self.shift.eq(shift[-1])
        return normal, zero[1]

    def _interpolated(self, m: Module, normal: Signal, zero: Signal) -> None:
        """Table, multiply, subtract."""
        index, low = index_bits(self.parameters), 16 - index_bits(self.parameters)
        base = bases(self.parameters)
        slopes = [a - b for a, b in pairwise(base)]
        slope_bits = max(slopes).bit_length()
        m.submodules.table = table = Memory(
            shape=FACTOR_BITS + slope_bits,
            depth=1 << index,
            init=[b | s << FACTOR_BITS for b, s in zip(base, slopes, strict=False)],
        )
        entry = table.read_port(domain="sync")
        d = Signal(low, reset_less=True)
        held = Signal(FACTOR_BITS, reset_less=True)
        product = Signal(slope_bits + low, reset_less=True)
        factor = Signal(FACTOR_BITS, reset_less=True)
        none = [Signal(name=f"none_{n}", reset_less=True) for n in range(2)]
        m.d.comb += entry.addr.eq(normal[low:16])
        m.d.sync += [
            d.eq(normal[:low]),
            none[0].eq(zero),
            product.eq(entry.data[FACTOR_BITS:] * d),
            held.eq(entry.data[:FACTOR_BITS]),
            none[1].eq(none[0]),
            factor.eq(Mux(none[1], 0, held - (product >> low))),
        ]
        m.d.comb += self.factor.eq(factor)


def leading_one(bits: Value) -> tuple[Value, Value]:
    """Whether a bit is set, and the index of the highest one (a tree, so that it is quick)."""
    if len(bits) == 1:
        return bits[0], Const(0, 0)
    half = 1 << (clog2(len(bits)) - 1)
    below, low = leading_one(bits[:half])
    above, high = leading_one(bits[half:])
    width = clog2(half)
    return below | above, Cat(Mux(above, high, low)[:width] if width else Const(0, 0), above)


def shift_bits(parameters: UnitSizes) -> int:
    """Of a sum's bit length less the least one."""
    return max(1, clog2(parameters.sum_bits - least_length(parameters) + 1))
