"""A row's scores: summed over chunks, scaled, masked, kept until the exponential pass, and their maximum."""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import LOG_BITS, UnitSizes, clog2
from tilewright.rtl.parameters import SCALE_BITS
from tilewright.rtl.tokens import exponential_token, score_token

LATENCY = 4
"""Cycles from a token to its score at the buffer's write port (readable one later)."""
READ_LATENCY = 1
"""Cycles from an exponential token to `x` and `masked`."""
MULTIPLIER_BITS = 18
"""Bits of a score that the scale is multiplied with."""


def lowest_peak(parameters: UnitSizes) -> int:
    """The maximum of a row before its first key."""
    return -(1 << (LOG_BITS - 1 - parameters.exponent_fraction_bits))


def pre_shift(parameters: UnitSizes) -> int:
    """Low bits of a score dropped before the scale."""
    return max(0, parameters.score_bits - MULTIPLIER_BITS)


def model(parameters: UnitSizes, scores: NDArray[np.int64], scale: int) -> NDArray[np.int64]:
    """Scores in base 2 with F fraction bits (step 2).

    The clamp never binds: |S| <= 2^(SB-2) and scale < 2^16, so that |x| <= 2^14; the hardware has none.
    """
    pre = pre_shift(parameters)
    shift = parameters.score_bits - pre
    limit = (1 << (LOG_BITS - 1)) - 1
    x = ((scores >> pre) * scale + (1 << (shift - 1))) >> shift
    assert x.size == 0 or int(np.abs(x).max()) <= 1 << (LOG_BITS - 2), "a score beyond its range"
    return np.clip(x, -limit, limit)


def model_peak(parameters: UnitSizes, x: NDArray[np.int64], masked: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The maximum over the last axis of the unmasked `x`, rounded up; `lowest_peak` if all are masked."""
    fraction = parameters.exponent_fraction_bits
    up = (x + (1 << fraction) - 1) >> fraction
    lowest = lowest_peak(parameters)
    return np.asarray(np.where(masked, lowest, up).max(axis=-1, initial=lowest))


class RowScore(wiring.Component):
    """One lane's half on the score array's side.

    `token` is described in `tokens`; `token_out` is that of the next row, one cycle later. `sum` is the
    array's, one cycle after its token. `scale` must hold still from a job's first token to its last
    exponential. `read` is the exponential's token: `peak` is the tile's maximum in the same cycle (wanted
    with key 0), `x` and `masked` are the key's, one cycle later.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "token": In(score_token(parameters)),
                "token_out": Out(score_token(parameters)),
                "sum": In(signed(2 * parameters.operand_bits + clog2(parameters.cols))),
                "scale": In(SCALE_BITS),
                "read": In(exponential_token(parameters)),
                "x": Out(signed(LOG_BITS)),
                "masked": Out(1),
                "peak": Out(signed(LOG_BITS - parameters.exponent_fraction_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Sum, scale, round and write, one register each; the token runs along."""
        m = Module()
        tokens, masked = self._tokens(m)
        total = self._summed(m, tokens)
        x, up = self._scaled(m, total)
        self._kept(m, tokens[LATENCY], Cat(x, masked[LATENCY]))
        self._highest(m, tokens[LATENCY], masked[LATENCY], up)
        return m

    def _tokens(self, m: Module) -> tuple[list[data.View], list[Value]]:
        """The token, and whether its key is masked, 0 … LATENCY cycles after it came."""
        token, out = self.token, self.token_out
        m.d.sync += [out.eq(token), out.low.eq(token.low + 1), out.high.eq(token.high + 1)]
        outside = (token.key < token.low) | (token.key >= token.high) | (token.key >= token.count)
        tokens, masked = [token], [outside]
        for n in range(1, LATENCY + 1):
            tokens.append(Signal(score_token(self.parameters), name=f"token_{n}"))
            masked.append(Signal(name=f"masked_{n}", reset_less=True))
            m.d.sync += [tokens[n].eq(tokens[n - 1]), masked[n].eq(masked[n - 1])]
        return tokens, masked

    def _summed(self, m: Module, tokens: list[data.View]) -> Signal:
        """The sum of the chunks so far; with several chunks, kept by key from one to the next."""
        p = self.parameters
        total = Signal(signed(p.score_bits), reset_less=True)
        if p.chunks == 1:
            m.d.sync += total.eq(self.sum)
            return total
        m.submodules.partial = partial = Memory(shape=signed(p.score_bits), depth=p.cols, init=[])
        before, write = partial.read_port(domain="sync"), partial.write_port()
        m.d.comb += [
            before.addr.eq(tokens[0].key),
            write.addr.eq(tokens[2].key),
            write.data.eq(total),
            write.en.eq(tokens[2].valid),
        ]
        m.d.sync += total.eq(self.sum + Mux(tokens[1].first_chunk, 0, before.data))
        return total

    def _scaled(self, m: Module, total: Signal) -> tuple[Signal, Signal]:
        """The score in base 2, and the same rounded up, straight from the product (floors nest)."""
        p = self.parameters
        pre, fraction = pre_shift(p), p.exponent_fraction_bits
        shift = p.score_bits - pre
        product = Signal(signed(shift + SCALE_BITS), reset_less=True)
        x = Signal(signed(LOG_BITS), reset_less=True)
        up = Signal(signed(LOG_BITS - fraction), reset_less=True)
        halves = product >> (shift - 1)
        m.d.sync += [
            product.eq((total >> pre) * self.scale),
            x.eq((halves + 1) >> 1),
            up.eq((halves + ((1 << (fraction + 1)) - 1)) >> (fraction + 1)),
        ]
        return x, up

    def _kept(self, m: Module, token: data.View, entry: Value) -> None:
        """The buffer: `score_banks` tiles of scores, each with whether it is masked."""
        p = self.parameters
        m.submodules.buffer = buffer = Memory(shape=LOG_BITS + 1, depth=p.score_banks * p.cols, init=[])
        write, read = buffer.write_port(), buffer.read_port(domain="sync")
        m.d.comb += [
            write.addr.eq(Cat(token.key, token.bank)),
            write.data.eq(entry),
            write.en.eq(token.valid & token.last_chunk),
            read.addr.eq(Cat(self.read.key, self.read.bank)),
            Cat(self.x, self.masked).eq(read.data),
        ]

    def _highest(self, m: Module, token: data.View, masked: Value, up: Signal) -> None:
        """The maximum of each bank's tile so far; key 0 starts it anew."""
        banks = range(self.parameters.score_banks)
        lowest = lowest_peak(self.parameters)
        peaks = [Signal(up.shape(), name=f"peak_{bank}", reset_less=True) for bank in banks]
        first = token.key == 0
        for bank, peak in zip(banks, peaks, strict=True):
            ours = token.valid & token.last_chunk & (token.bank == bank)
            with m.If(ours & (first | (~masked & (up > peak)))):
                m.d.sync += peak.eq(Mux(masked, lowest, up))
            with m.If(self.read.bank == bank):
                m.d.comb += self.peak.eq(peak)
