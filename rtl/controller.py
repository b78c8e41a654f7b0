"""The controller: which tile is where, and when each goes on (docs/attention-unit.md, Cycles)."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.exponential_pass import PROBABILITY_BANKS, ExponentialPass
from tilewright.rtl.score_pass import ScorePass
from tilewright.rtl.sequencer import tile_layout
from tilewright.rtl.tokens import exponential_token, score_token, value_token, weight_token
from tilewright.rtl.value_pass import ValuePass


class Controller(wiring.Component):
    """Takes each tile through its score, exponential and value pass.

    `k_available` and `v_available`: there is a beat, which `k_pop` and `v_pop` take. `k_load` and
    `v_load` go with the first beat of a chunk, and of a tile; `q_ready` and `q_release` are those of the
    Q memory. The tokens are for row 0 of the lanes. `o_write`: a column of O is complete in this cycle;
    `o_taken`: one leaves; `closed`: it is the last of its Q tile.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "tiles": In(stream.Signature(tile_layout(parameters))),
                "keys": In(parameters.max_keys.bit_length()),
                "q_ready": In(1),
                "q_release": Out(1),
                "k_available": In(1),
                "k_pop": Out(1),
                "k_load": Out(1),
                "v_available": In(1),
                "v_pop": Out(1),
                "v_load": Out(1),
                "scores": Out(score_token(parameters)),
                "exponentials": Out(exponential_token(parameters)),
                "weights": Out(weight_token(parameters)),
                "values": Out(value_token(parameters)),
                "o_write": Out(1),
                "o_taken": In(1),
                "closed": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Three passes, a queue of tiles' places in their Q tiles between each two."""
        m = Module()
        m.submodules.score_pass = score = ScorePass(self.parameters)
        m.submodules.exponential_pass = exponential = ExponentialPass(self.parameters)
        m.submodules.value_pass = value = ValuePass(self.parameters)
        self._connect_scores(m, score)
        m.d.comb += [score.freed.eq(exponential.start), exponential.scored.eq(score.done)]
        m.d.comb += [exponential.freed.eq(value.finish), value.ready.eq(exponential.ready)]
        # Neither queue is full when pushed: the tile waited for a bank, and the bank's last entry is popped.
        place = Cat(self.tiles.payload.first, self.tiles.payload.last)
        scored = self._queue(
            m, "scored", self.parameters.score_banks, place, self.tiles.ready, exponential.pop
        )
        m.d.comb += Cat(exponential.first, exponential.last).eq(scored)
        weighted = self._queue(m, "weighted", PROBABILITY_BANKS, scored, exponential.start, value.finish)
        m.d.comb += Cat(value.first, value.last).eq(weighted)
        self._connect_tokens(m, score, exponential, value)
        self._connect_values(m, value)
        return m

    def _queue(self, m: Module, name: str, depth: int, entry: Value, push: Value, pop: Value) -> Value:
        """The entry at the head of a queue of tiles."""
        m.submodules[name] = queue = SyncFIFO(width=len(entry), depth=depth)
        m.d.comb += [queue.w_data.eq(entry), queue.w_en.eq(push), queue.r_en.eq(pop)]
        return queue.r_data

    def _connect_scores(self, m: Module, score: ScorePass) -> None:
        wiring.connect(m, wiring.flipped(self.tiles), score.tiles)
        m.d.comb += [
            score.keys.eq(self.keys),
            score.query_ready.eq(self.q_ready),
            score.available.eq(self.k_available),
            self.q_release.eq(score.release),
            self.k_pop.eq(score.pop),
            self.k_load.eq(score.load),
        ]

    def _connect_tokens(
        self, m: Module, score: ScorePass, exponential: ExponentialPass, value: ValuePass
    ) -> None:
        m.d.comb += [
            self.scores.eq(score.token),
            self.exponentials.eq(exponential.token),
            self.weights.eq(value.weights),
            self.values.eq(value.token),
        ]

    def _connect_values(self, m: Module, value: ValuePass) -> None:
        """V beats in, columns of O out, and D of these closing a Q tile."""
        column = Signal(range(self.parameters.head_dim))
        m.d.comb += [
            value.available.eq(self.v_available),
            value.taken.eq(self.o_taken),
            self.v_pop.eq(value.pop),
            self.v_load.eq(value.load),
            self.o_write.eq(value.column_done),
            self.closed.eq(self.o_taken & (column == self.parameters.head_dim - 1)),
        ]
        with m.If(self.o_taken):
            m.d.sync += column.eq(Mux(self.closed, 0, column + 1))
