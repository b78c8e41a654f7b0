"""Who pops K beats, and what accompanies them down the score array (docs/attention-unit.md, Score pass)."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes, clog2
from tilewright.rtl.delays import chain
from tilewright.rtl.sequencer import tile_layout
from tilewright.rtl.tokens import bound_bits, score_token

TOKEN_CYCLES = 2
"""Beyond C: cycles from a beat's pop to its token."""
DONE_CYCLES = 6
"""Beyond C: cycles from a tile's last beat to `done`, the cycle before its exponential pass may start."""
BOUND_LATENCY = 3
"""Cycles from a tile's first beat to its local bounds."""


class ScorePass(wiring.Component):
    """Pops the HC beats of each tile, one a cycle while there are some (`available`).

    The first waits for the tile, for its Q tile (`query_ready`), and for a bank of scores; `freed` gives
    one back. `pop`, `load` (with the first beat of a chunk) and `release` (with the last beat of a Q
    tile) are of the cycle of the beat; the tile is popped with its last beat.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "tiles": In(stream.Signature(tile_layout(parameters))),
                "keys": In(parameters.max_keys.bit_length()),
                "query_ready": In(1),
                "available": In(1),
                "freed": In(1),
                "pop": Out(1),
                "load": Out(1),
                "release": Out(1),
                "token": Out(score_token(parameters)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Counters where beats are popped and where they come out, a line of two bits between them."""
        m = Module()
        start = self._pop(m)
        starts = chain(m, start, self.parameters.cols + TOKEN_CYCLES - 1, "start", reset_less=False)
        beats = chain(m, self.pop, self.parameters.cols + TOKEN_CYCLES, "beat", reset_less=False)
        self._mask(m, start, starts[-1])
        self._place(m, beats[-1])
        return m

    def _pop(self, m: Module) -> Signal:
        """Take beats; high with the first of a tile."""
        parameters = self.parameters
        start = Signal()
        inside = Signal()
        key = Signal(range(parameters.cols))
        chunk = Signal(range(parameters.chunks))
        banks = Signal(range(parameters.score_banks + 1), init=parameters.score_banks)
        may_start = self.tiles.valid & self.query_ready & (banks != 0)
        last = self.pop & key.all() & (chunk == parameters.chunks - 1)
        m.d.comb += [
            self.pop.eq(self.available & (inside | may_start)),
            start.eq(self.pop & ~inside),
            self.load.eq(self.pop & (key == 0)),
            self.tiles.ready.eq(last),
            self.release.eq(last & self.tiles.payload.last),
        ]
        m.d.sync += banks.eq(banks - start + self.freed)
        with m.If(self.pop):
            m.d.sync += [inside.eq(~last), key.eq(key + 1)]
            with m.If(key.all()):
                m.d.sync += chunk.eq(Mux(last, 0, chunk + 1))
        return start

    def _mask(self, m: Module, start: Value, arrives: Value) -> None:
        """The tile's local bounds: worked out while its first beat is in the array, held till the next's."""
        parameters = self.parameters
        tile = data.View(
            tile_layout(parameters), Signal(tile_layout(parameters), name="tile", reset_less=True)
        )
        with m.If(start):
            m.d.sync += Value.cast(tile).eq(Value.cast(self.tiles.payload))
        first_key = tile.index << clog2(parameters.cols)
        dead = Signal(reset_less=True)
        m.d.sync += dead.eq(tile.dead)
        bound = signed(bound_bits(parameters))
        fields = {
            "low": self._local(m, tile.low - first_key, -parameters.rows, bound, "low"),
            "high": self._local(m, tile.high - first_key, -parameters.rows, bound, "high"),
            "count": self._local(m, self.keys - first_key, 0, self.token.count.shape(), "count", dead),
        }
        for name, local in fields.items():
            held = Signal(local.shape(), name=name, reset_less=True)
            with m.If(arrives):
                m.d.sync += held.eq(local)
            m.d.comb += self.token[name].eq(held)

    def _local(
        self, m: Module, value: Value, least: int, shape: Shape, name: str, never: Value | int = 0
    ) -> Signal:
        """`value` held between `least` and C (`least` if `never`): two cycles."""
        cols = self.parameters.cols
        exact = Signal(value.shape(), name=f"{name}_exact", reset_less=True)
        local = Signal(shape, name=f"{name}_local", reset_less=True)
        m.d.sync += [
            exact.eq(value),
            local.eq(Mux((exact < least) | never, least, Mux(exact > cols, cols, exact))),
        ]
        return local

    def _place(self, m: Module, beat: Value) -> None:
        """Where the beat stands in its tile, counted again where it comes out."""
        parameters = self.parameters
        key = Signal(range(parameters.cols))
        chunk = Signal(range(parameters.chunks))
        bank = Signal(range(parameters.score_banks))
        token = self.token
        m.d.comb += [
            token.valid.eq(beat),
            token.key.eq(key),
            token.bank.eq(bank),
            token.first_chunk.eq(chunk == 0),
            token.last_chunk.eq(chunk == parameters.chunks - 1),
        ]
        key_end = beat & key.all()
        tile_end = key_end & token.last_chunk
        with m.If(beat):
            m.d.sync += key.eq(key + 1)
        with m.If(key_end):
            m.d.sync += chunk.eq(Mux(tile_end, 0, chunk + 1))
        with m.If(tile_end):
            m.d.sync += bank.eq(bank + 1)
        ends = chain(m, tile_end, DONE_CYCLES - TOKEN_CYCLES, "end", reset_less=False)
        m.d.comb += self.done.eq(ends[-1])
