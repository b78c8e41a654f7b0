"""The sequencer: a command and a bitmap become the tiles to visit (docs/attention-unit.md, Cycles)."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes, clog2
from tilewright.rtl.parameters import SCALE_BITS, TILE_FIFO_DEPTH, WORD_TILES

TILE_LATENCY = 1
"""Cycles from the push of a tile to its being seen at `tiles`."""


def command_layout(parameters: UnitSizes) -> data.StructLayout:
    """One job. `low` and `high` go from -max_keys to max_keys; what lies beyond means the same as these."""
    count = unsigned(parameters.max_keys.bit_length())
    bound = signed(count.width + 1)
    return data.StructLayout(
        {
            "queries": count,
            "keys": count,
            "scale": SCALE_BITS,
            "low": bound,
            "high": bound,
            "use_bitmap": 1,
        }
    )


def position_shape(parameters: UnitSizes) -> Shape:
    """Of `i0 + low` and `i0 + high`: a bound moved by up to `max_keys` queries and two Q tiles."""
    return signed((2 * parameters.max_keys + 2 * parameters.rows).bit_length() + 1)


def index_shape(parameters: UnitSizes) -> Shape:
    """Of the number of a K tile."""
    return unsigned(max(1, clog2(-(-parameters.max_keys // parameters.cols))))


def tile_layout(parameters: UnitSizes) -> data.StructLayout:
    """A tile to visit: `i0 + low`, `i0 + high`, its number, place in its Q tile, whether all is masked."""
    position = position_shape(parameters)
    return data.StructLayout(
        {
            "low": position,
            "high": position,
            "index": index_shape(parameters),
            "first": 1,
            "last": 1,
            "dead": 1,
        }
    )


class Sequencer(wiring.Component):
    """Walks the Q tiles of a job and pushes the K tiles that each visits, in ascending order.

    Command taken at t: START at t + 1 (a cycle a Q tile), then WORD and SCAN by turns, a tile found in
    each cycle of SCAN. `closed` says that the last column of a Q tile of O is taken in this cycle; the
    next command waits for all of them. `keys` and `scale` are those of the job at work; `idle`: a command
    would be taken.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        count = unsigned(parameters.max_keys.bit_length())
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(parameters))),
                "bitmap": In(stream.Signature(WORD_TILES)),
                "tiles": Out(stream.Signature(tile_layout(parameters))),
                "closed": In(1),
                "keys": Out(count),
                "scale": Out(16),
                "idle": Out(1),
            }
        )
        position = position_shape(parameters)
        self._tile = signed(position.width - clog2(parameters.cols))
        self._low = Signal(position)  # i0 + low
        self._high = Signal(position)  # i0 + high
        self._tile_stop = Signal(position)  # last key within `high` of a full Q tile,
        self._job_stop = Signal(position)  # of the job's last query,
        self._keys_stop = Signal(position)  # and of all
        self._left = Signal(count)  # queries from i0 on
        self._final = Signal()  # the Q tile is the last
        self._use_bitmap = Signal()
        self._first_tile = Signal(self._tile)
        self._last_tile = Signal(self._tile)
        self._word = Signal(self._tile)
        self._is_last_word = Signal()
        self._bits = Signal(WORD_TILES)  # tiles of the word not found yet
        self._holds = Signal()  # a tile is found and not pushed:
        self._held_index = Signal(index_shape(parameters))
        self._held_first = Signal()

    def elaborate(self, platform: object) -> Module:
        """The states, the tile FIFO, and the count of Q tiles at work."""
        m = Module()
        m.submodules.fifo = fifo = SyncFIFO(width=tile_layout(self.parameters).size, depth=TILE_FIFO_DEPTH)
        m.d.comb += [
            Value.cast(self.tiles.payload).eq(fifo.r_data),
            self.tiles.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.tiles.ready),
        ]
        opened = Signal()
        at_work = Signal.like(self.keys)
        m.d.sync += at_work.eq(at_work + opened - self.closed)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.idle.eq(at_work == 0)
                self._take_command(m)
            with m.State("START"):
                m.d.comb += opened.eq(1)
                self._start(m)
            with m.State("WORD"):
                self._take_word(m)
            with m.State("SCAN"):
                self._scan(m, fifo)
        return m

    def _take_command(self, m: Module) -> None:
        rows = self.parameters.rows
        job = self.command.payload
        m.d.comb += self.command.ready.eq(self.idle)
        with m.If(self.command.valid & self.idle):
            m.d.sync += [
                self.keys.eq(job.keys),
                self.scale.eq(job.scale),
                self._use_bitmap.eq(job.use_bitmap),
                self._low.eq(job.low),
                self._high.eq(job.high),
                self._tile_stop.eq(job.high + (rows - 2)),
                self._job_stop.eq(job.high + job.queries - 2),
                self._keys_stop.eq(job.keys - 1),
                self._left.eq(job.queries),
                self._final.eq(job.queries <= rows),
            ]
            m.next = "START"

    def _start(self, m: Module) -> None:
        """The tiles in range, first to last (which is less if there are none), and the word to begin with."""
        cols = clog2(self.parameters.cols)
        first = Mux(self._low < 0, 0, self._low)
        stop = Mux(self._final, self._job_stop, self._tile_stop)
        last = Mux(stop < self._keys_stop, stop, self._keys_stop)
        m.d.sync += [
            self._first_tile.eq(first >> cols),
            self._last_tile.eq(last >> cols),
            self._word.eq(Mux(self._use_bitmap, 0, first >> (cols + clog2(WORD_TILES)))),
        ]
        m.next = "WORD"

    def _take_word(self, m: Module) -> None:
        """The word's tiles in range, once its bits are there."""
        split = clog2(WORD_TILES)
        tiles = clog2(self.parameters.cols)
        m.d.comb += self.bitmap.ready.eq(self._use_bitmap)
        m.d.sync += [
            self._bits.eq(
                Mux(self._use_bitmap, self.bitmap.payload, -1) & self._from_first() & self._to_last()
            ),
            self._is_last_word.eq(
                self._word
                >= Mux(self._use_bitmap, self._keys_stop >> (tiles + split), self._last_tile >> split)
            ),
        ]
        with m.If(~self._use_bitmap | self.bitmap.valid):
            m.next = "SCAN"

    def _from_first(self) -> Value:
        ones = Const(-1, WORD_TILES)
        word, place = self._first_tile >> clog2(WORD_TILES), self._first_tile[: clog2(WORD_TILES)]
        within = (ones << place)[:WORD_TILES]
        return Mux(self._word == word, within, Mux(self._word > word, ones, 0))

    def _to_last(self) -> Value:
        ones = Const(-1, WORD_TILES)
        word, place = self._last_tile >> clog2(WORD_TILES), self._last_tile[: clog2(WORD_TILES)]
        within = ~(Const(-2, WORD_TILES) << place)[:WORD_TILES]
        return Mux(self._word == word, within, Mux(self._word < word, ones, 0))

    def _scan(self, m: Module, fifo: SyncFIFO) -> None:
        """Find the next tile; push the one before, now that it is known whether it is the last."""
        found = self._bits.any()
        finish = ~found & self._is_last_word
        tile = data.View(tile_layout(self.parameters), fifo.w_data)
        m.d.comb += [
            fifo.w_en.eq(Mux(found, self._holds, self._is_last_word)),
            tile.low.eq(self._low),
            tile.high.eq(self._high),
            tile.index.eq(Mux(self._holds, self._held_index, 0)),
            tile.first.eq(self._held_first | ~self._holds),
            tile.last.eq(finish),
            tile.dead.eq(~self._holds),
        ]
        with m.If(~fifo.w_en | fifo.w_rdy):
            with m.If(found):
                self._hold(m)
            with m.Elif(finish):
                self._advance(m)
            with m.Else():
                m.d.sync += self._word.eq(self._word + 1)
                m.next = "WORD"

    def _hold(self, m: Module) -> None:
        place = Signal(range(WORD_TILES))
        for bit in reversed(range(WORD_TILES)):
            with m.If(self._bits[bit]):
                m.d.comb += place.eq(bit)
        m.d.sync += [
            self._bits.eq(self._bits & (self._bits - 1)),
            self._held_index.eq(Cat(place, self._word)),
            self._held_first.eq(~self._holds),
            self._holds.eq(1),
        ]

    def _advance(self, m: Module) -> None:
        """On to the next Q tile, or idle after the last."""
        rows = self.parameters.rows
        m.d.sync += [
            self._holds.eq(0),
            self._low.eq(self._low + rows),
            self._high.eq(self._high + rows),
            self._tile_stop.eq(self._tile_stop + rows),
            self._left.eq(self._left - rows),
            self._final.eq(self._left <= 2 * rows),
        ]
        with m.If(self._final):
            m.next = "IDLE"
        with m.Else():
            m.next = "START"
