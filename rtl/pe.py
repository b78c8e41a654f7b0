"""The processing element and a row of them: weight stationary, one operation between registers."""

from __future__ import annotations

from typing import cast

import numpy as np
from amaranth.hdl import Module, Shape, Signal, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import clog2
from tilewright.rtl.shared import place

LATENCY = 3
"""Cycles from `moving_in` to the `sum_out` it has gone into."""
SUM_LATENCY = 1
"""Cycles from `sum_in` to `sum_out`."""
HOP = 1
"""Cycles from `moving_in` and `load_in` to the PE below."""


def sum_bits(weight: Shape, moving: Shape, cols: int) -> int:
    """Bits of a signed sum of `cols` exact products.

    Signed x signed: the extreme is cols · 2^(w-1) · 2^(m-1), that is
    cols · 2^(w+m-2), reached when all are at their least.
    Unsigned x signed: -cols · (2^w - 1) · 2^(m-1) > -cols · 2^(w+m-1). Both fit w + m + clog2(cols) bits,
    and neither fits one bit less (for cols a power of two).
    """
    return weight.width + moving.width + clog2(cols)


def shape_name(shape: Shape) -> str:
    """A shape as part of a module name: `s8`, `u16`."""
    return f"{'s' if shape.signed else 'u'}{shape.width}"


class ProcessingElement(wiring.Component):
    """One multiply-accumulate: `sum_out = sum_in + weight · moving`.

    With what enters as `moving_in` in cycle t, the weight is `weight_in` of cycle t if `load_in` is high in
    t, else the one before; the product, seen at t + 2, is added to `sum_in` of t + 2 and seen at t + 3.
    `moving_out` and `load_out` are `moving_in` and `load_in` a cycle later, for the PE below.
    """

    def __init__(self, weight_shape: Shape, moving_shape: Shape, sum_bits: int) -> None:
        self.weight_shape = weight_shape
        self.moving_shape = moving_shape
        self.sum_bits = sum_bits
        super().__init__(
            {
                "moving_in": In(moving_shape),
                "load_in": In(1),
                "weight_in": In(weight_shape),
                "sum_in": In(Shape(sum_bits, signed=True)),
                "moving_out": Out(moving_shape),
                "load_out": Out(1),
                "sum_out": Out(Shape(sum_bits, signed=True)),
            }
        )

    @property
    def module_name(self) -> str:
        """Of the module that all PEs of these shapes share."""
        return f"pe_{shape_name(self.weight_shape)}_{shape_name(self.moving_shape)}_{self.sum_bits}"

    def elaborate(self, platform: object) -> Module:
        """Five registers, each overwritten before its value matters."""
        m = Module()
        weight = Signal(self.weight_shape, reset_less=True)
        moving = Signal(self.moving_shape, reset_less=True)
        load = Signal(reset_less=True)
        product = Signal(
            Shape(self.weight_shape.width + self.moving_shape.width, signed=True), reset_less=True
        )
        total = Signal(Shape(self.sum_bits, signed=True), reset_less=True)
        with m.If(self.load_in):
            m.d.sync += weight.eq(self.weight_in)
        m.d.sync += [
            moving.eq(self.moving_in),
            load.eq(self.load_in),
            product.eq(weight * moving),
            total.eq(self.sum_in + product),
        ]
        m.d.comb += [self.moving_out.eq(moving), self.load_out.eq(load), self.sum_out.eq(total)]
        return m


def model(
    weight: NDArray[np.int64], moving: NDArray[np.int64], sum_in: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What a PE computes, element by element."""
    return sum_in + weight * moving


class ProcessingRow(wiring.Component):
    """`cols` PEs side by side: sums pass from left to right, one weight bus serves them all.

    `moving_in` and `moving_out` are `cols` lanes (lane c at bit c · width), `load_in` and `load_out` bits.
    """

    def __init__(self, cols: int, weight_shape: Shape, moving_shape: Shape, sum_bits: int) -> None:
        self.cols = cols
        self.weight_shape = weight_shape
        self.moving_shape = moving_shape
        self.sum_bits = sum_bits
        super().__init__(
            {
                "moving_in": In(cols * moving_shape.width),
                "load_in": In(cols),
                "weight_in": In(weight_shape),
                "moving_out": Out(cols * moving_shape.width),
                "load_out": Out(cols),
                "sum_out": Out(Shape(sum_bits, signed=True)),
            }
        )

    @property
    def module_name(self) -> str:
        """Of the module that all rows of this form share."""
        return (
            f"row{self.cols}_{shape_name(self.weight_shape)}_{shape_name(self.moving_shape)}_{self.sum_bits}"
        )

    def elaborate(self, platform: object) -> Module:
        """A chain of PEs."""
        m = Module()
        width = self.moving_shape.width
        total: ValueLike = 0
        for col in range(self.cols):
            pe = ProcessingElement(self.weight_shape, self.moving_shape, self.sum_bits)
            m.submodules[f"pe_{col}"] = place(pe, pe.module_name, platform)
            lane = slice(col * width, (col + 1) * width)
            m.d.comb += [
                pe.moving_in.eq(self.moving_in[lane]),
                pe.load_in.eq(self.load_in[col]),
                pe.weight_in.eq(self.weight_in),
                pe.sum_in.eq(total),
                self.moving_out[lane].eq(pe.moving_out),
                self.load_out[col].eq(pe.load_out),
            ]
            total = cast(ValueLike, pe.sum_out)
        m.d.comb += self.sum_out.eq(total)
        return m
