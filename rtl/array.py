"""The systolic array: R x C weight-stationary PEs, the skew of its inputs included.

Interface, all times relative to the cycle t in which a beat is at `moving` (for a beat popped in cycle a and
registered outside, t = a + 1):

- `moving`: the beat, C lanes side by side (lane c at bit c · width), *not* skewed: the array delays
  lane c by c cycles. What is there in cycles without a beat runs through as garbage that nobody
  looks at: there is no valid.
- `load`: high with the first beat that wants new weights, low in all other cycles (with or without a beat).
  Two loads must be at least C cycles apart.
- `weights`: R weights (row r's at bit r · width), skewed by the outside: in cycle t + r + c row r's is the
  weight of PE (r, c), where t is the cycle of `load`, whether or not beats follow without a gap.
- `sums`: R sums (row r's at bit r · sum_bits, signed): row r's sum of the beat comes in cycle t + C + 2 + r.
"""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Shape, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.rtl import pe
from tilewright.rtl.delays import askew, chain
from tilewright.rtl.pe import ProcessingRow
from tilewright.rtl.shared import place


def latency(cols: int) -> int:
    """Cycles from a beat at `moving` to row 0's sum at `sums`; row r's is r cycles later."""
    return (cols - 1) * pe.SUM_LATENCY + pe.LATENCY


class SystolicArray(wiring.Component):
    """`rows` x `cols` PEs; the module's docstring is its interface."""

    def __init__(self, rows: int, cols: int, weight_shape: Shape, moving_shape: Shape) -> None:
        self.rows = rows
        self.cols = cols
        self.weight_shape = weight_shape
        self.moving_shape = moving_shape
        self.sum_bits = pe.sum_bits(weight_shape, moving_shape, cols)
        super().__init__(
            {
                "moving": In(cols * moving_shape.width),
                "load": In(1),
                "weights": In(rows * weight_shape.width),
                "sums": Out(rows * self.sum_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Delay lines at the top, then row below row."""
        m = Module()
        moving: Value = Cat(askew(m, self.moving, self.moving_shape.width, "beat"))
        load: Value = Cat(chain(m, self.load, self.cols - 1, "load"))
        for row in range(self.rows):
            part = ProcessingRow(self.cols, self.weight_shape, self.moving_shape, self.sum_bits)
            m.submodules[f"row_{row}"] = place(part, part.module_name, platform)
            m.d.comb += [
                part.moving_in.eq(moving),
                part.load_in.eq(load),
                part.weight_in.eq(self.weights.word_select(row, self.weight_shape.width)),
                self.sums.word_select(row, self.sum_bits).eq(part.sum_out),
            ]
            moving, load = part.moving_out, part.load_out
        return m


def model(weights: NDArray[np.int64], beats: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums [beat, row] of `beats` [beat, col] on `weights` [row, col]."""
    return beats @ weights.T
