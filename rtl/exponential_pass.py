"""When a tile's exponentials are taken (docs/attention-unit.md, Exponential pass)."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.delays import chain
from tilewright.rtl.tokens import exponential_token

PROBABILITY_BANKS = 2
READY_CYCLES = 6
"""Cycles from the start of a pass to `ready`, the cycle before the value pass may start."""


class ExponentialPass(wiring.Component):
    """Starts a pass of C tokens when a tile is `scored` and a bank of probabilities is free.

    `freed` gives a bank back. `first` and `last` are the tile's at the head of the queue of scored tiles,
    popped by `pop` in the pass's last cycle; `start` is high in its first.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "scored": In(1),
                "freed": In(1),
                "first": In(1),
                "last": In(1),
                "pop": Out(1),
                "start": Out(1),
                "token": Out(exponential_token(parameters)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Counts of tiles and banks, the distance to the pass before, and the key of the token."""
        m = Module()
        parameters, token = self.parameters, self.token
        scored = Signal(range(parameters.score_banks + 1))
        banks = Signal(range(PROBABILITY_BANKS + 1), init=PROBABILITY_BANKS)
        distance = Signal(range(max(parameters.rows, parameters.cols)))  # cycles till the next may start
        running = Signal()
        key = Signal(range(parameters.cols))
        bank = Signal(range(parameters.score_banks))
        parity = Signal()
        m.d.comb += [
            self.start.eq((scored != 0) & (banks != 0) & (distance == 0)),
            self.pop.eq(running & key.all()),
            token.valid.eq(self.start | running),
            token.key.eq(key),
            token.bank.eq(bank),
            token.parity.eq(parity),
            token.first.eq(self.first),
            token.last.eq(self.last),
        ]
        m.d.sync += [
            scored.eq(scored + self.scored - self.start),
            banks.eq(banks + self.freed - self.start),
            running.eq(token.valid & ~key.all()),
            distance.eq(
                Mux(
                    self.start, max(parameters.rows, parameters.cols) - 1, Mux(distance == 0, 0, distance - 1)
                )
            ),
        ]
        with m.If(token.valid):
            m.d.sync += key.eq(key + 1)
        with m.If(self.pop):
            m.d.sync += [bank.eq(bank + 1), parity.eq(~parity)]
        m.d.comb += self.ready.eq(chain(m, self.start, READY_CYCLES, "started", reset_less=False)[-1])
        return m
