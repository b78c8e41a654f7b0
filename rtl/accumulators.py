"""What stands beside one row of the matrix unit's array: its accumulators."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from amaranth.hdl import Module, Mux, Shape, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import clog2
from tilewright.rtl.delays import straight
from tilewright.rtl.shared import place

LATENCY = 3
"""Cycles from a sum to the total it has gone into."""
REUSE = LATENCY + 1
"""Cycles from one use of a slot to the next, at least: the total is written back, then seen."""
HOP = 1
"""Cycles from `token` to the lane below."""


def token_layout(slots: int) -> data.StructLayout:
    """What a lane is told with a sum: its accumulator, and whether it is the first or last to go there."""
    return data.StructLayout({"valid": 1, "first": 1, "last": 1, "slot": max(1, clog2(slots))})


class AccumulatorLane(wiring.Component):
    """Adds the sums of one row, slot by slot; `total` comes `LATENCY` cycles later, `done` with the last."""

    def __init__(self, slots: int, sum_bits: int, accumulator_bits: int) -> None:
        self.slots = slots
        self.sum_bits = sum_bits
        self.accumulator_bits = accumulator_bits
        token = token_layout(slots)
        super().__init__(
            {
                "token": In(token),
                "sum": In(Shape(sum_bits, signed=True)),
                "token_below": Out(token),
                "total": Out(Shape(accumulator_bits, signed=True)),
                "done": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        """Of the module that all lanes of this form share."""
        return f"accumulators_{self.slots}_{self.sum_bits}_{self.accumulator_bits}"

    def elaborate(self, platform: object) -> Module:
        """Read, register, add, write back."""
        m = Module()
        shape = Shape(self.accumulator_bits, signed=True)
        m.submodules.memory = memory = Memory(shape=shape, depth=self.slots, init=[])
        read, write = memory.read_port(), memory.write_port()
        tokens = [self.token] + [
            Signal(token_layout(self.slots), name=f"token_{i + 1}") for i in range(LATENCY)
        ]
        added = [
            Signal(Shape(self.sum_bits, signed=True), name=f"sum_{i + 1}", reset_less=True) for i in range(2)
        ]
        held = Signal(shape, reset_less=True)
        total = Signal(shape, reset_less=True)
        m.d.comb += [read.addr.eq(self.token.slot), read.en.eq(1), self.token_below.eq(tokens[HOP])]
        m.d.sync += [later.eq(token) for token, later in pairwise(tokens)]
        m.d.sync += [
            added[0].eq(self.sum),
            added[1].eq(added[0]),
            held.eq(read.data),
            total.eq(Mux(tokens[2].first, 0, held) + added[1]),
        ]
        m.d.comb += [
            write.addr.eq(tokens[3].slot),
            write.data.eq(total),
            write.en.eq(tokens[3].valid),
            self.total.eq(total),
            self.done.eq(tokens[3].valid & tokens[3].last),
        ]
        return m


def model(sums: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last totals [slot] of sums [k tile, slot]."""
    return sums.sum(axis=0)


class AccumulatorColumn(wiring.Component):
    """A lane below the other for each row of the array: row r's sum and token come r cycles after row 0's.

    `totals` are put straight again: a whole beat comes `LATENCY + lanes - 1` cycles after row 0's sum.
    """

    def __init__(self, lanes: int, slots: int, sum_bits: int, accumulator_bits: int) -> None:
        self.lanes = lanes
        self.slots = slots
        self.sum_bits = sum_bits
        self.accumulator_bits = accumulator_bits
        super().__init__(
            {
                "token": In(token_layout(slots)),
                "sums": In(lanes * sum_bits),
                "totals": Out(lanes * accumulator_bits),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Each lane's totals wait for the last lane's."""
        m = Module()
        token = self.token
        totals: list[Value] = []
        for index in range(self.lanes):
            lane = AccumulatorLane(self.slots, self.sum_bits, self.accumulator_bits)
            m.submodules[f"lane_{index}"] = place(lane, lane.module_name, platform)
            m.d.comb += [lane.token.eq(token), lane.sum.eq(self.sums.word_select(index, self.sum_bits))]
            token = lane.token_below
            totals.append(lane.total)
        m.d.comb += [self.totals.eq(straight(m, totals, "totals")), self.done.eq(lane.done)]
        return m
