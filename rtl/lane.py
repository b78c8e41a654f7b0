"""A lane: what stands beside one row of the two arrays, from its scores to its row of O."""

from __future__ import annotations

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tilewright.arch.streaming_unit import UnitSizes, clog2
from tilewright.rtl.parameters import SCALE_BITS
from tilewright.rtl.reciprocal import FACTOR_BITS, shift_bits
from tilewright.rtl.row_score import RowScore
from tilewright.rtl.row_value import RowValue
from tilewright.rtl.tokens import exponential_token, score_token, sum_token, value_token, weight_token


class Lane(wiring.Component):
    """`RowScore` and `RowValue` of one row, as described there.

    The tokens `scores`, `exponentials`, `weights`, `values` and `done` are handed on to the next row one
    cycle later (`…_out`).
    """

    def __init__(self, parameters: UnitSizes) -> None:
        self.parameters = p = parameters
        tokens = {
            "scores": score_token(p),
            "exponentials": exponential_token(p),
            "weights": weight_token(p),
            "values": value_token(p),
            "done": sum_token(),
        }
        super().__init__(
            {
                **{name: In(layout) for name, layout in tokens.items()},
                **{f"{name}_out": Out(layout) for name, layout in tokens.items()},
                "scale": In(SCALE_BITS),
                "score_sum": In(signed(2 * p.operand_bits + clog2(p.cols))),
                "weight": Out(p.probability_bits),
                "value_sum": In(signed(p.operand_bits + p.probability_bits + clog2(p.cols))),
                "complete": Out(sum_token()),
                "total": Out(p.sum_bits),
                "shift": In(shift_bits(p)),
                "factor": In(FACTOR_BITS),
                "o": Out(signed(p.operand_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """The score array's half, and the value array's."""
        m = Module()
        m.submodules.score = score = RowScore(self.parameters)
        m.submodules.value = value = RowValue(self.parameters)
        m.d.comb += [
            score.token.eq(self.scores),
            self.scores_out.eq(score.token_out),
            score.sum.eq(self.score_sum),
            score.scale.eq(self.scale),
            score.read.eq(self.exponentials),
            value.exponential.eq(self.exponentials),
            self.exponentials_out.eq(value.exponential_out),
            value.peak.eq(score.peak),
            value.x.eq(score.x),
            value.masked.eq(score.masked),
        ]
        self._connect_values(m, value)
        return m

    def _connect_values(self, m: Module, value: RowValue) -> None:
        m.d.comb += [
            value.weights.eq(self.weights),
            self.weights_out.eq(value.weights_out),
            self.weight.eq(value.weight),
            value.values.eq(self.values),
            self.values_out.eq(value.values_out),
            value.sum.eq(self.value_sum),
            self.complete.eq(value.complete),
            self.total.eq(value.total),
            value.done.eq(self.done),
            self.done_out.eq(value.done_out),
            value.shift.eq(self.shift),
            value.factor.eq(self.factor),
            self.o.eq(value.o),
        ]
