"""The memory of Q tiles: one in use, the next one loading; it feeds the weights of the score array."""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes, clog2
from tilewright.rtl.delays import askew

TILES = 2
WEIGHT_LATENCY = 1
"""Cycles from `load` to column 0 of the chunk at row 0."""


class QueryMemory(wiring.Component):
    """Two Q tiles, column by column.

    `q` brings D columns a tile. `ready`: there is a whole one. `load`, in the cycle in which the first K
    beat of a chunk is popped, at least C cycles after the one before, gives the chunk's columns to
    `weights`: row r's element of column c (at bit r · W) is there 1 + r + c cycles later. `release`, with
    the last K beat of a Q tile, lets it be overwritten.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        width = parameters.rows * parameters.operand_bits
        super().__init__(
            {
                "q": In(stream.Signature(width)),
                "ready": Out(1),
                "load": In(1),
                "release": In(1),
                "weights": Out(width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The memory, who fills it, who reads it, and how many of its halves are full."""
        m = Module()
        parameters = self.parameters
        column = clog2(parameters.score_beats)
        m.submodules.columns = columns = Memory(
            shape=parameters.rows * parameters.operand_bits, depth=TILES << column, init=[]
        )
        loaded = self._fill(m, columns, column)
        full = Signal(range(TILES + 1))  # seen by the score pass
        room = Signal(range(TILES + 1), init=TILES)  # seen by the loader
        m.d.sync += [full.eq(full + loaded - self.release), room.eq(room - loaded + self.release)]
        m.d.comb += [self.ready.eq(full != 0), self.q.ready.eq(room != 0)]
        self._read(m, columns, column)
        return m

    def _fill(self, m: Module, columns: Memory, bits: int) -> Signal:
        """Write the columns of a tile; high with its last one."""
        at = Signal(bits)
        half = Signal()
        loaded = Signal()
        write = columns.write_port()
        m.d.comb += [
            write.addr.eq(Cat(at, half)),
            write.data.eq(self.q.payload),
            write.en.eq(self.q.valid & self.q.ready),
            loaded.eq(write.en & (at == self.parameters.head_dim - 1)),
        ]
        with m.If(write.en):
            m.d.sync += at.eq(Mux(loaded, 0, at + 1))
        m.d.sync += half.eq(half ^ loaded)
        return loaded

    def _read(self, m: Module, columns: Memory, bits: int) -> None:
        """A column a cycle, C of them after each `load`; zeros beyond D."""
        parameters = self.parameters
        at = Signal(bits)
        half = Signal()
        running = Signal()
        active = Signal()
        read = columns.read_port(domain="sync")
        m.d.comb += [active.eq(self.load | running), read.addr.eq(Cat(at, half))]
        m.d.sync += [running.eq(active & ~at[: clog2(parameters.cols)].all()), half.eq(half ^ self.release)]
        with m.If(active):
            m.d.sync += at.eq(Mux(at == parameters.score_beats - 1, 0, at + 1))
        column: Value = read.data
        if parameters.score_beats > parameters.head_dim:
            beyond = Signal(reset_less=True)  # nobody writes there: zeros on an FPGA, anything elsewhere
            m.d.sync += beyond.eq(at >= parameters.head_dim)
            column = Mux(beyond, 0, read.data)
        m.d.comb += self.weights.eq(Cat(askew(m, column, parameters.operand_bits, "row")))
