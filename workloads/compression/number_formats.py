"""Narrow numbers: what is left of an array that is quantised.

Integers with a scale as in Jacob et al., arXiv:1712.05877; FP8 as in Micikevicius et al., "FP8 Formats for
Deep Learning", arXiv:2209.05433. All round to nearest, ties to even.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Integers = NDArray[np.int64]


def symmetric(x: Values, bits: int, axis: int | tuple[int, ...] | None = None) -> tuple[Integers, Values]:
    """(q, scale) with x ~ q scale, |q| < 2^(bits - 1): the largest magnitude is the largest number.

    One scale for all of `x`, or one for each place along the axes that are not in `axis` (weights [k, n] per
    column: `axis=0`). Zeros alone get the scale 1.
    """
    largest = np.abs(x).max(axis=axis, keepdims=axis is not None)
    top = 2 ** (bits - 1) - 1
    scale = np.where(largest > 0, largest / top, 1.0)
    return np.clip(np.rint(x / scale), -top, top).astype(np.int64), scale


def affine(x: Values, bits: int) -> tuple[Integers, float, int]:
    """(q, scale, zero) with x ~ (q - zero) scale, 0 <= q < 2^bits; zero itself stays zero."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    top = 2**bits - 1
    scale = (high - low) / top or 1.0
    zero = int(np.clip(np.rint(-low / scale), 0, top))
    return np.clip(np.rint(x / scale) + zero, 0, top).astype(np.int64), scale, zero


class Float(NamedTuple):
    """A binary floating-point format with subnormal numbers."""

    mantissa_bits: int
    """Stored ones, without the leading 1."""
    smallest_exponent: int
    """Of normal numbers."""
    largest: float
    beyond: float
    """What greater magnitudes become."""


FLOATS = {
    "fp8_e4m3": Float(3, -6, 448.0, 448.0),  # has no infinity
    "fp8_e5m2": Float(2, -14, 57344.0, np.inf),
    "fp16": Float(10, -14, 65504.0, np.inf),
    "bf16": Float(7, -126, float.fromhex("0x1.fep127"), np.inf),
}


def rounded(x: Values, name: str) -> Values:
    """`x` as the format `name` of `FLOATS` holds it: the nearest of its numbers."""
    form = FLOATS[name]
    exponent = np.maximum(np.frexp(x)[1] - 1, form.smallest_exponent)
    unit = np.ldexp(1.0, exponent - form.mantissa_bits)
    nearest = np.rint(x / unit) * unit
    return np.where(np.abs(nearest) > form.largest, np.copysign(form.beyond, x), nearest)
