"""The stand-alone matrix unit: y = x w on the systolic array, w double-buffered (docs/matrix-unit.md)."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.arch.matrix_unit import SIZE_BITS, MatrixUnit
from tilewright.arch.streaming_unit import clog2
from tilewright.rtl.accumulators import REUSE, AccumulatorColumn, token_layout
from tilewright.rtl.array import SystolicArray, latency
from tilewright.rtl.delays import askew, chain


def command_layout(unit: MatrixUnit) -> data.StructLayout:
    """A command's fields, the first in the lowest bits."""
    return data.StructLayout(
        {
            "m": SIZE_BITS,
            "k_tiles": unit.most_k_tiles.bit_length(),
            "n_tiles": SIZE_BITS,
            "block": unit.block_rows.bit_length(),
        }
    )


class TileMemory(wiring.Component):
    """Two tiles of w: one is filled from the stream while the other goes into the array.

    `ready`: a whole tile is there and the bus is free. In the cycle of `start` (only while `ready`) the first
    of its C beats is read, then one a cycle; row r's weight is at `weights` r + 1 cycles after it was read.
    """

    def __init__(self, unit: MatrixUnit) -> None:
        self.unit = unit
        self.width = unit.rows * unit.operand_bits
        super().__init__(
            {
                "w": In(stream.Signature(self.width)),
                "ready": Out(1),
                "start": In(1),
                "weights": Out(self.width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Two counters, each with the tile that it is in as its highest bit."""
        m = Module()
        cols = self.unit.cols
        bits = clog2(cols)
        m.submodules.memory = memory = Memory(shape=self.width, depth=2 << bits, init=[])
        read, write = memory.read_port(), memory.write_port()
        full = Signal(2)
        fill, drain = Signal(bits), Signal(bits)
        fill_tile, drain_tile = Signal(), Signal()
        filled, drained = Signal(), Signal()
        filling, draining = Signal(), Signal()
        m.d.comb += [
            self.w.ready.eq(~full[1]),
            filling.eq(self.w.valid & self.w.ready),
            filled.eq(filling & (fill == cols - 1)),
            self.ready.eq((full != 0) & (drain == 0)),
            draining.eq(self.start | (drain != 0)),
            drained.eq(draining & (drain == cols - 1)),
            write.addr.eq(Cat(fill, fill_tile)),
            write.data.eq(self.w.payload),
            write.en.eq(filling),
            read.addr.eq(Cat(drain, drain_tile)),
            read.en.eq(1),
            self.weights.eq(Cat(askew(m, read.data, self.unit.operand_bits, "weights"))),
        ]
        m.d.sync += full.eq(full + filled - drained)
        for step, count, tile, end in (
            (filling, fill, fill_tile, filled),
            (draining, drain, drain_tile, drained),
        ):
            with m.If(step):
                m.d.sync += [count.eq(Mux(end, 0, count + 1)), tile.eq(tile ^ end)]
        return m


class PassCounter(wiring.Component):
    """Walks a job's loops: block, tile of y, tile of k, row. `step` takes the beat that the outputs describe.

    `slot` is the row within the block; `first_row` and `last_k` say what the beat waits for besides its x.
    """

    def __init__(self, unit: MatrixUnit) -> None:
        self.unit = unit
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(unit))),
                "step": In(1),
                "busy": Out(1),
                "slot": Out(max(1, clog2(unit.block_rows))),
                "first_row": Out(1),
                "first_k": Out(1),
                "last_k": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Counters run down to zero: what is left after this beat, in its loop."""
        m = Module()
        job = Signal(command_layout(self.unit))
        rows = Signal(range(self.unit.block_rows))
        m_left, m_left_at_block = Signal(SIZE_BITS), Signal(SIZE_BITS)
        k_left, n_left = Signal(job.k_tiles.shape()), Signal(SIZE_BITS)
        last_row = Signal()
        m.d.comb += [
            self.command.ready.eq(~self.busy),
            self.first_row.eq(self.slot == 0),
            last_row.eq((rows == 0) | (m_left == 0)),
            self.last_k.eq(k_left == 0),
        ]
        command = self.command.payload
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [job.eq(command), self.busy.eq(1), self.slot.eq(0), self.first_k.eq(1)]
            m.d.sync += [
                rows.eq(command.block - 1),
                m_left.eq(command.m - 1),
                m_left_at_block.eq(command.m - 1),
            ]
            m.d.sync += [k_left.eq(command.k_tiles - 1), n_left.eq(command.n_tiles - 1)]
        with m.If(self.step & ~last_row):
            m.d.sync += [self.slot.eq(self.slot + 1), rows.eq(rows - 1), m_left.eq(m_left - 1)]
        with m.If(self.step & last_row):
            m.d.sync += [self.slot.eq(0), rows.eq(job.block - 1), self.first_k.eq(self.last_k)]
            m.d.sync += [k_left.eq(Mux(self.last_k, job.k_tiles - 1, k_left - 1)), m_left.eq(m_left_at_block)]
            with m.If(self.last_k):
                m.d.sync += n_left.eq(n_left - 1)
            with m.If(self.last_k & (n_left == 0)):
                m.d.sync += [n_left.eq(job.n_tiles - 1), self.busy.eq(m_left != 0)]
                m.d.sync += [m_left.eq(m_left - 1), m_left_at_block.eq(m_left - 1)]
        return m


class MatrixCore(wiring.Component):
    """y = x w; docs/matrix-unit.md has the streams and cycles. `active`: the array has a beat."""

    def __init__(self, unit: MatrixUnit) -> None:
        self.unit = unit
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(unit))),
                "x": In(stream.Signature(unit.cols * unit.operand_bits)),
                "w": In(stream.Signature(unit.rows * unit.operand_bits)),
                "y": Out(stream.Signature(unit.rows * unit.accumulator_bits)),
                "active": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Input FIFOs, pass counter, array, accumulators, output FIFO."""
        m = Module()
        unit = self.unit
        m.submodules.x_fifo = x_fifo = SyncFIFO(width=len(self.x.payload), depth=unit.fifo_depth)
        m.submodules.w_fifo = w_fifo = SyncFIFO(width=len(self.w.payload), depth=unit.fifo_depth)
        m.submodules.tiles = tiles = TileMemory(unit)
        m.submodules.passes = passes = PassCounter(unit)
        wiring.connect(m, wiring.flipped(self.command), passes.command)
        wiring.connect(m, wiring.flipped(self.x), x_fifo.w_stream)
        wiring.connect(m, wiring.flipped(self.w), w_fifo.w_stream)
        wiring.connect(m, w_fifo.r_stream, tiles.w)
        pop = Signal()
        may_start = tiles.ready & self._accumulators_free(m, pop, passes.slot)
        allowed = (may_start | ~passes.first_row) & (self._credit(m, pop & passes.last_k) | ~passes.last_k)
        m.d.comb += [
            pop.eq(passes.busy & allowed & x_fifo.r_rdy),
            x_fifo.r_en.eq(pop),
            passes.step.eq(pop),
            tiles.start.eq(pop & passes.first_row),
            self.idle.eq(~passes.busy),
        ]
        self._datapath(m, pop, x_fifo, tiles, passes)
        return m

    def _accumulators_free(self, m: Module, pop: Signal, slot: Signal) -> Value:
        """High when slot 0 may be used again, so that slot n, n cycles later at least, may be too."""
        wait = Signal(2)
        with m.If(pop):
            m.d.sync += wait.eq(Mux(slot >= REUSE, 0, REUSE - 1 - slot))
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        return wait == 0

    def _credit(self, m: Module, taken: object) -> Signal:
        """High while another beat of y has room in the output FIFO, those under way counted."""
        credits = Signal(range(self.unit.credits + 1), init=self.unit.credits)
        some = Signal()
        m.d.sync += credits.eq(credits - taken + (self.y.valid & self.y.ready))
        m.d.comb += some.eq(credits != 0)
        return some

    def _datapath(
        self, m: Module, pop: Signal, x_fifo: SyncFIFO, tiles: TileMemory, passes: PassCounter
    ) -> None:
        """From a beat popped to its sums in the output FIFO: no stalls, and so no handshakes."""
        unit = self.unit
        operand = signed(unit.operand_bits)
        m.submodules.array = array = SystolicArray(unit.rows, unit.cols, operand, operand)
        m.submodules.accumulators = column = AccumulatorColumn(
            unit.rows, unit.block_rows, array.sum_bits, unit.accumulator_bits
        )
        m.submodules.y_fifo = y_fifo = SyncFIFOBuffered(width=len(self.y.payload), depth=unit.credits)
        beat = Signal(x_fifo.r_data.shape(), reset_less=True)
        load = Signal(reset_less=True)
        token = Signal(token_layout(unit.block_rows))
        m.d.sync += [beat.eq(x_fifo.r_data), load.eq(tiles.start)]
        m.d.sync += [token.valid.eq(pop), token.first.eq(passes.first_k)]
        m.d.sync += [token.last.eq(passes.last_k), token.slot.eq(passes.slot)]
        m.d.comb += [
            array.moving.eq(beat),
            array.load.eq(load),
            array.weights.eq(tiles.weights),
            column.token.eq(chain(m, token, latency(unit.cols), "token", reset_less=False)[-1]),
            column.sums.eq(array.sums),
            y_fifo.w_data.eq(column.totals),
            y_fifo.w_en.eq(column.done),
            self.active.eq(token.valid),
        ]
        wiring.connect(m, wiring.flipped(self.y), y_fifo.r_stream)
