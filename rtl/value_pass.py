"""Who pops V beats, and what accompanies them (docs/attention-unit.md, Value pass and Credit)."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.delays import chain
from tilewright.rtl.exponential_pass import PROBABILITY_BANKS
from tilewright.rtl.tokens import value_token, weight_token

TOKEN_CYCLES = 1
"""Beyond C: cycles from a beat's pop to its token."""
OUTPUT_CYCLES = 6
"""Beyond C + R: cycles from a beat's pop to the column of O that it completes, all rows together."""


class ValuePass(wiring.Component):
    """Pops the D beats of each tile, one a cycle while there are some (`available`).

    The first waits for the probabilities (`ready`, the cycle before), for the array to have taken the
    weights of the tile before, and in the last tile of a Q tile for credit: room for D columns of O;
    `taken` gives one back. `first` and `last` are the tile's at the head of the queue of tiles with
    probabilities, popped by `finish`, which is high with the last beat. `pop` and `load` (with the first
    beat) are of the cycle of the beat; `column_done` is high when a column of a last tile is complete.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "ready": In(1),
                "first": In(1),
                "last": In(1),
                "available": In(1),
                "taken": In(1),
                "pop": Out(1),
                "load": Out(1),
                "finish": Out(1),
                "weights": Out(weight_token(parameters)),
                "token": Out(value_token(parameters)),
                "column_done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Counters where beats are popped and where they come out, a line of three bits between them."""
        m = Module()
        p = self.parameters
        self._pop(m, self._weights(m))
        beat = Cat(self.pop, self.first, self.pop & self.last)
        later = chain(m, beat, p.cols + TOKEN_CYCLES, "beat", reset_less=False)[-1]
        self._place(m, later)
        done = chain(m, later[2], p.rows + OUTPUT_CYCLES - TOKEN_CYCLES, "done", reset_less=False)
        m.d.comb += self.column_done.eq(done[-1])
        return m

    def _pop(self, m: Module, loading: Value) -> None:
        p = self.parameters
        column = Signal(range(p.head_dim))
        inside = Signal()
        ready = Signal(range(PROBABILITY_BANKS + 1))
        may_start = (ready != 0) & (~self.last | self._credit(m))
        if p.head_dim < p.cols:  # else the beats themselves keep the distance
            may_start &= ~loading
        m.d.comb += [
            self.pop.eq(self.available & (inside | may_start)),
            self.load.eq(self.pop & ~inside),
            self.finish.eq(self.pop & (column == p.head_dim - 1)),
        ]
        m.d.sync += ready.eq(ready + self.ready - self.load)
        with m.If(self.pop):
            m.d.sync += [inside.eq(~self.finish), column.eq(Mux(self.finish, 0, column + 1))]

    def _credit(self, m: Module) -> Value:
        """Whether D columns more have room at the output."""
        p = self.parameters
        credit = Signal(range(p.output_columns + 1), init=p.output_columns)
        m.d.sync += credit.eq(credit + self.taken - Mux(self.load & self.last, p.head_dim, 0))
        return credit >= p.head_dim

    def _weights(self, m: Module) -> Signal:
        """C tokens from the first beat on; high while they are not all out."""
        running = Signal()
        parity = Signal()
        key = Signal(range(self.parameters.cols))
        token = self.weights
        m.d.comb += [token.valid.eq(self.load | running), token.key.eq(key), token.parity.eq(parity)]
        m.d.sync += running.eq(token.valid & ~key.all())
        with m.If(token.valid):
            m.d.sync += [key.eq(key + 1), parity.eq(parity ^ key.all())]
        return running

    def _place(self, m: Module, beat: Value) -> None:
        """Where the beat stands in its tile, counted again where it comes out."""
        token = self.token
        column = Signal(range(self.parameters.head_dim))
        parity = Signal()
        end = column == self.parameters.head_dim - 1
        m.d.comb += [
            token.valid.eq(beat[0]),
            token.first.eq(beat[1]),
            token.column.eq(column),
            token.parity.eq(parity),
        ]
        with m.If(token.valid):
            m.d.sync += [column.eq(Mux(end, 0, column + 1)), parity.eq(parity ^ end)]
