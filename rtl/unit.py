"""The attention unit: everything wired together (docs/attention-unit.md)."""

from __future__ import annotations

from itertools import pairwise

from amaranth.hdl import Cat, Module, Signal, Value, signed, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.array import SystolicArray
from tilewright.rtl.controller import Controller
from tilewright.rtl.delays import straight
from tilewright.rtl.lane import Lane
from tilewright.rtl.parameters import WORD_TILES
from tilewright.rtl.query_memory import QueryMemory
from tilewright.rtl.reciprocal import Reciprocal
from tilewright.rtl.sequencer import Sequencer, command_layout


class AttentionUnit(wiring.Component):
    """`O = softmax(scale · Q Kᵀ + mask) V`, streams in, stream out.

    Element e of a beat of `q`, `k`, `v`, `o` is at bits e · W of the payload. `score_active` and
    `value_active`: a beat enters the array in this cycle; `idle`: a command would be taken.
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = parameters
        row_wide = parameters.rows * parameters.operand_bits
        col_wide = parameters.cols * parameters.operand_bits
        super().__init__(
            {
                "command": In(stream.Signature(command_layout(parameters))),
                "bitmap": In(stream.Signature(WORD_TILES)),
                "q": In(stream.Signature(row_wide)),
                "k": In(stream.Signature(col_wide)),
                "v": In(stream.Signature(col_wide)),
                "o": Out(stream.Signature(row_wide)),
                "score_active": Out(1),
                "value_active": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Sequencer and controller, Q memory, two arrays with a lane a row between them, output FIFO."""
        m = Module()
        m.submodules.sequencer = sequencer = Sequencer(self.parameters)
        m.submodules.controller = controller = Controller(self.parameters)
        m.submodules.query_memory = query = QueryMemory(self.parameters)
        wiring.connect(m, wiring.flipped(self.command), sequencer.command)
        wiring.connect(m, sequencer.tiles, controller.tiles)
        m.d.comb += [
            controller.keys.eq(sequencer.keys),
            sequencer.closed.eq(controller.closed),
            self.idle.eq(sequencer.idle),
            controller.q_ready.eq(query.ready),
            query.load.eq(controller.k_load),
            query.release.eq(controller.q_release),
        ]
        self._feed(m, sequencer.bitmap, self._input(m, "bitmap", self.bitmap))
        self._feed(m, query.q, self._input(m, "q", self.q))
        scores, values = self._arrays(m, controller, query)
        columns = self._lanes(m, controller, sequencer.scale, scores, values)
        self._output(m, controller, columns)
        return m

    def _input(self, m: Module, name: str, source: stream.Interface) -> SyncFIFO:
        m.submodules[f"{name}_fifo"] = fifo = SyncFIFO(
            width=len(Value.cast(source.payload)), depth=self.parameters.fifo_depth
        )
        m.d.comb += [fifo.w_data.eq(source.payload), fifo.w_en.eq(source.valid), source.ready.eq(fifo.w_rdy)]
        return fifo

    def _feed(self, m: Module, sink: stream.Interface, fifo: SyncFIFO) -> None:
        m.d.comb += [sink.payload.eq(fifo.r_data), sink.valid.eq(fifo.r_rdy), fifo.r_en.eq(sink.ready)]

    def _arrays(
        self, m: Module, controller: Controller, query: QueryMemory
    ) -> tuple[SystolicArray, SystolicArray]:
        """The arrays, each fed by a register behind its FIFO."""
        p = self.parameters
        operand = signed(p.operand_bits)
        m.submodules.score_array = scores = SystolicArray(p.rows, p.cols, operand, operand)
        m.submodules.value_array = values = SystolicArray(
            p.rows, p.cols, unsigned(p.probability_bits), operand
        )
        k, v = self._input(m, "k", self.k), self._input(m, "v", self.v)
        m.d.comb += [
            controller.k_available.eq(k.r_rdy),
            k.r_en.eq(controller.k_pop),
            controller.v_available.eq(v.r_rdy),
            v.r_en.eq(controller.v_pop),
            scores.weights.eq(query.weights),
        ]
        self._register(m, scores, "k", k.r_data, controller.k_load)
        self._register(m, values, "v", v.r_data, controller.v_load)
        m.d.sync += [self.score_active.eq(controller.k_pop), self.value_active.eq(controller.v_pop)]
        return scores, values

    def _register(self, m: Module, array: SystolicArray, name: str, beat: Value, load: Value) -> None:
        moving = Signal(len(beat), name=f"{name}_beat", reset_less=True)
        first = Signal(name=f"{name}_first")
        m.d.sync += [moving.eq(beat), first.eq(load)]
        m.d.comb += [array.moving.eq(moving), array.load.eq(first)]

    def _lanes(
        self, m: Module, controller: Controller, scale: Value, scores: SystolicArray, values: SystolicArray
    ) -> list[Value]:
        """A lane a row. Returned: each row's column of O, row r's r cycles after row 0's."""
        p = self.parameters
        m.submodules.reciprocal = reciprocal = Reciprocal(p)
        lanes = [Lane(p) for _ in range(p.rows)]
        for row, lane in enumerate(lanes):
            m.submodules[f"lane_{row}"] = lane
            m.d.comb += [
                lane.scale.eq(scale),
                lane.score_sum.eq(scores.sums.word_select(row, scores.sum_bits)),
                lane.value_sum.eq(values.sums.word_select(row, values.sum_bits)),
                lane.shift.eq(reciprocal.shift),
                lane.factor.eq(reciprocal.factor),
            ]
        m.d.comb += [
            values.weights.eq(Cat(lane.weight for lane in lanes)),
            reciprocal.sums.eq(Cat(lane.total for lane in lanes)),
            reciprocal.start.eq(lanes[0].complete),
        ]
        self._pass_tokens(m, controller, reciprocal, lanes)
        return [Value.cast(lane.o) for lane in lanes]

    def _pass_tokens(
        self, m: Module, controller: Controller, reciprocal: Reciprocal, lanes: list[Lane]
    ) -> None:
        for name in ("scores", "exponentials", "weights", "values"):
            m.d.comb += getattr(lanes[0], name).eq(getattr(controller, name))
        m.d.comb += lanes[0].done.eq(reciprocal.done)
        for above, below in pairwise(lanes):
            for name in ("scores", "exponentials", "weights", "values", "done"):
                m.d.comb += getattr(below, name).eq(getattr(above, f"{name}_out"))

    def _output(self, m: Module, controller: Controller, columns: list[Value]) -> None:
        """Rows are put straight and queued; credit keeps the queue from overflowing."""
        p = self.parameters
        m.submodules.o_fifo = fifo = SyncFIFOBuffered(width=p.rows * p.operand_bits, depth=p.output_columns)
        m.d.comb += [
            fifo.w_data.eq(straight(m, columns, "o")),
            fifo.w_en.eq(controller.o_write),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
            controller.o_taken.eq(self.o.valid & self.o.ready),
        ]
