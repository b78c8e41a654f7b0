"""A row's maximum, probabilities and running sum, and its accumulators of O, up to the normalised result."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import GUARD_BITS, LOG_BITS, UnitSizes, clog2
from tilewright.rtl.exponential import Exponential
from tilewright.rtl.reciprocal import FACTOR_BITS, shift_bits
from tilewright.rtl.tokens import exponential_token, sum_token, value_token, weight_token

PROBABILITY_LATENCY = 4
"""Cycles from an exponential token to its probability at the buffer's write port (readable one later)."""
SUM_LATENCY = 6
"""Cycles from the last key's exponential token to the running sum at `total`."""
WEIGHT_LATENCY = 1
"""Cycles from a weight token to `weight`."""
OUTPUT_LATENCY = 6
"""Cycles from a value token to `o`: read, rescale, add, align, multiply, round."""
Integers = NDArray[np.int64]
RESCALE_BITS = 6
"""Of a rescaling shift: 63 empties any accumulator (at most 48 bits)."""


def within(values: Integers, low: int, stop: int) -> bool:
    """Whether all `values` are at least `low` and less than `stop`."""
    return values.size == 0 or low <= int(values.min()) <= int(values.max()) < stop


def model_rescale(parameters: UnitSizes, before: Integers, after: Integers) -> Integers:
    """The shift a from the maximum `before` a tile to the one `after` it, held at 63."""
    shift = after - before
    assert within(shift, 0, 1 << (LOG_BITS - parameters.exponent_fraction_bits)), "the maximum fell"
    return np.minimum(shift, (1 << RESCALE_BITS) - 1)


def model_sum(parameters: UnitSizes, total: Integers, shift: Integers, probabilities: Integers) -> Integers:
    """The running sums [rows] after a tile of `probabilities` [rows, keys] (step 5)."""
    after = (total >> shift) + (probabilities.sum(axis=1) << GUARD_BITS)
    assert within(after, 0, 1 << parameters.sum_bits), "a running sum overflows"
    return after


def model_output(parameters: UnitSizes, o: Integers, shift: Integers, partial: Integers) -> Integers:
    """The accumulators [rows, D] after a tile's `partial` sums of p v (step 6)."""
    after = (o >> shift[:, None]) + partial
    limit = 1 << (parameters.output_bits - 1)
    assert within(after, -limit, limit), "an accumulator of O overflows"
    return after


def model_normalised(parameters: UnitSizes, o: Integers, length: Integers, factor: Integers) -> Integers:
    """O [rows, D] in W bits, from accumulators and the sums' bit lengths and reciprocals [rows] (step 8)."""
    half = 1 << (parameters.operand_bits - 1)
    aligned = (o << GUARD_BITS) >> np.maximum(length - 8, 0)[:, None]
    aligned = np.where((factor == 0)[:, None], 0, aligned)
    room = 1 << (parameters.operand_bits + 9)
    assert within(aligned, -room, room), "an aligned O overflows"
    return np.clip((aligned * factor[:, None] + (1 << 23)) >> 24, -half, half - 1)


class RowValue(wiring.Component):
    """One lane's half on the value array's side.

    Tokens (`exponential`, `weights`, `values`; described in `tokens`) are handed on one cycle later
    (`…_out`). `peak`, `x` and `masked` are `RowScore`'s. `weight` is the probability for the value array,
    whose `sum` comes two cycles after the value token; `o` follows `OUTPUT_LATENCY` after the token. When the
    running sum of a Q tile's last tile is complete, `complete` is valid for one cycle and `total` is the sum;
    else `total` is 0. `done` latches `shift`, and one cycle later `factor`; it is handed on as `done_out`,
    while `shift` and `factor` reach all lanes at once. What an exponential pass leaves behind for the value
    pass is kept twice, by tile parity.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        p = parameters
        super().__init__(
            {
                "exponential": In(exponential_token(p)),
                "exponential_out": Out(exponential_token(p)),
                "peak": In(signed(LOG_BITS - p.exponent_fraction_bits)),
                "x": In(signed(LOG_BITS)),
                "masked": In(1),
                "weights": In(weight_token(p)),
                "weights_out": Out(weight_token(p)),
                "weight": Out(p.probability_bits),
                "values": In(value_token(p)),
                "values_out": Out(value_token(p)),
                "sum": In(signed(p.operand_bits + p.probability_bits + clog2(p.cols))),
                "o": Out(signed(p.operand_bits)),
                "complete": Out(sum_token()),
                "total": Out(p.sum_bits),
                "done": In(sum_token()),
                "done_out": Out(sum_token()),
                "shift": In(shift_bits(p)),
                "factor": In(FACTOR_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The exponential pass, then the value pass."""
        m = Module()
        m.d.sync += [
            self.exponential_out.eq(self.exponential),
            self.weights_out.eq(self.weights),
            self.values_out.eq(self.values),
            self.done_out.eq(self.done),
        ]
        tokens = _stages(m, "key", self.exponential, SUM_LATENCY)
        peak, rescale = self._maximum(m, tokens[0])
        self._probabilities(m, tokens, peak, rescale)
        self._accumulated(m, _stages(m, "column", self.values, 3), self._banked(m, tokens[2], rescale))
        return m

    def _maximum(self, m: Module, token: data.View) -> tuple[Signal, Signal]:
        """The running maximum, from one cycle after key 0, and the rescaling it asks for, two later."""
        peak = Signal(self.peak.shape(), reset_less=True)
        before = Signal(self.peak.shape(), reset_less=True)
        rise = Signal(peak.shape().width, reset_less=True)
        rescale = Signal(RESCALE_BITS, reset_less=True)
        with m.If(token.valid & (token.key == 0)):
            m.d.sync += before.eq(peak)
            with m.If(token.first | (self.peak > peak)):
                m.d.sync += peak.eq(self.peak)
        m.d.sync += [
            rise.eq(peak - before),
            rescale.eq(Mux(rise[RESCALE_BITS:].any(), (1 << RESCALE_BITS) - 1, rise)),
        ]
        return peak, rescale

    def _probabilities(self, m: Module, tokens: list[data.View], peak: Signal, rescale: Signal) -> None:
        """Exponentials into their buffer and into the running sum."""
        p = self.parameters
        m.submodules.power = power = Exponential(p)
        m.submodules.buffer = buffer = Memory(shape=p.probability_bits, depth=2 * p.cols, init=[])
        write, read = buffer.write_port(), buffer.read_port(domain="sync")
        token = tokens[PROBABILITY_LATENCY]
        m.d.comb += [
            power.x.eq(self.x),
            power.masked.eq(self.masked),
            power.peak.eq(peak),
            write.addr.eq(Cat(token.key, token.parity)),
            write.data.eq(power.probability),
            write.en.eq(token.valid),
            read.addr.eq(Cat(self.weights.key, self.weights.parity)),
            self.weight.eq(read.data),
        ]
        self._running_sum(m, tokens[4:], power.half_units, rescale)

    def _running_sum(self, m: Module, tokens: list[data.View], half_units: Value, rescale: Signal) -> None:
        """Adds keys up in the cycles of `tokens[1]`.

        Key 0's cycle is for the shift of the old sum, which is complete just then: key 0 comes in with key 1.
        """
        p = self.parameters
        addend = Signal(p.probability_bits + 1, reset_less=True)
        shifted = Signal(p.sum_bits, reset_less=True)
        total = Signal(p.sum_bits, reset_less=True)
        held = Mux(tokens[0].key == 1, addend, 0)
        token = tokens[1]
        m.d.sync += addend.eq((Cat(Const(1, 1), half_units[1:]) + Cat(half_units[0], held)) >> 1)
        with m.If(token.valid & (token.key == 0)):
            m.d.sync += shifted.eq(Mux(token.first, 0, total >> rescale))
        with m.Elif(token.valid):
            m.d.sync += total.eq(Mux(token.key == 1, shifted, total) + (addend << GUARD_BITS))
        token = tokens[2]
        m.d.comb += [
            self.complete.valid.eq(token.valid & token.last & (token.key == p.cols - 1)),
            self.complete.parity.eq(token.parity),
            self.total.eq(Mux(self.complete.valid, total, 0)),
        ]

    def _banked(self, m: Module, token: data.View, rescale: Signal) -> Banks:
        """What the value pass needs, by tile parity.

        The rescaling changes C + 1 cycles after key 0, when the pass before last is through with it. Factors
        are returned as they will be a cycle later, so that one is chosen in time for the multiplier's input.
        """
        banks = Banks(
            _pair("rescale", RESCALE_BITS),
            _pair("shift", shift_bits(self.parameters)),
            _pair("factor", FACTOR_BITS),
        )
        factor_next = _pair("factor_next", FACTOR_BITS)
        arrived = Signal(sum_token())
        m.d.sync += arrived.eq(self.done)
        for parity in range(2):
            with m.If(token.valid & (token.key == self.parameters.cols - 1) & (token.parity == parity)):
                m.d.sync += banks.rescale[parity].eq(rescale)
            with m.If(self.done.valid & (self.done.parity == parity)):
                m.d.sync += banks.shift[parity].eq(self.shift)
            comes = arrived.valid & (arrived.parity == parity)
            m.d.comb += factor_next[parity].eq(Mux(comes, self.factor, banks.factor[parity]))
            m.d.sync += banks.factor[parity].eq(factor_next[parity])
        return banks._replace(factor=factor_next)

    def _accumulated(self, m: Module, tokens: list[data.View], banks: Banks) -> None:
        """Rescale, add, write back; each column goes on to be normalised.

        A block RAM's output comes too late in the cycle for the shift behind it; hence a distributed one.
        """
        p = self.parameters
        m.submodules.accumulators = memory = Memory(
            shape=signed(p.output_bits), depth=p.head_dim, init=[], attrs={"ram_style": "distributed"}
        )
        read, write = memory.read_port(domain="sync"), memory.write_port()
        rescaled = Signal(signed(p.output_bits), reset_less=True)
        total = Signal(signed(p.output_bits), reset_less=True)
        m.d.comb += [
            read.addr.eq(tokens[0].column),
            write.addr.eq(tokens[3].column),
            write.data.eq(total),
            write.en.eq(tokens[3].valid),
        ]
        m.d.sync += [
            rescaled.eq(Mux(tokens[1].first, 0, read.data >> _of(banks.rescale, tokens[1].parity))),
            total.eq(rescaled + self.sum),
        ]
        self._normalised(m, total, tokens[3].parity, banks)

    def _normalised(self, m: Module, total: Signal, parity: Value, banks: Banks) -> None:
        """Align, multiply, round and clamp (step 8)."""
        p = self.parameters
        aligned = Signal(signed(p.operand_bits + 10), reset_less=True)
        factor = Signal(FACTOR_BITS, reset_less=True)
        product = Signal(signed(p.operand_bits + 10 + FACTOR_BITS), reset_less=True)
        o = Signal(signed(p.operand_bits), reset_less=True)
        rounded = Signal(signed(p.operand_bits + 4))
        m.d.comb += rounded.eq((product >> 24) + product[23])
        high = rounded[p.operand_bits - 1 :]
        edge = Cat((~rounded[-1]).replicate(p.operand_bits - 1), rounded[-1])
        m.d.sync += [
            aligned.eq(((total << GUARD_BITS) >> p.probability_bits) >> _of(banks.shift, parity)),
            factor.eq(_of(banks.factor, parity)),
            product.eq(aligned * factor),
            o.eq(Mux(high.all() | ~high.any(), rounded[: p.operand_bits], edge)),
        ]
        m.d.comb += self.o.eq(o)


class Banks(NamedTuple):
    """What the lane keeps twice, indexed by tile parity."""

    rescale: list[Signal]
    shift: list[Signal]
    factor: list[Signal]


def _pair(name: str, bits: int) -> list[Signal]:
    return [Signal(bits, name=f"{name}_{parity}", reset_less=True) for parity in range(2)]


def _of(pair: list[Signal], parity: Value) -> Value:
    return Mux(parity, pair[1], pair[0])


def _stages(m: Module, name: str, token: data.View, count: int) -> list[data.View]:
    """The token, and as it is 1 … `count` cycles later."""
    stages = [token]
    for n in range(1, count + 1):
        stages.append(Signal(token.shape(), name=f"{name}_{n}"))
        m.d.sync += stages[n].eq(stages[n - 1])
    return stages
