"""How far the attention unit's integers are from float64 attention, over head dimension and length.

    python -m benchmarks.unit_accuracy

Q, K and V are normally distributed, the range of the operands is three standard deviations, and the scale is
that of `1 / sqrt(D)` for variance 1. Errors are in units of an output's last bit; rounding alone is off by up
to 0.5, and by 0.25 in the mean. The bound is that of `tilewright.rtl.accuracy.bound` for the rows' own sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.accuracy import bound, softmax_attention
from tilewright.rtl.job import Job, scale_for
from tilewright.rtl.model import accumulated, attention

HEAD_DIMS = (16, 32, 64, 128)
LENGTHS = (16, 64, 256, 1024)
PRECISIONS = ((8, 6), (16, 6))
"""Probability bits, exponent fraction bits."""
QUERIES = 64


@dataclass(frozen=True)
class Error:
    """Over all elements of O, in units of its last bit."""

    greatest: float
    mean: float
    bound: float


def measured(unit: UnitSizes, length: int, seed: int = 0) -> Error:
    """Of 64 queries on `length` keys."""
    rng = np.random.default_rng(seed)
    half = 1 << (unit.operand_bits - 1)
    deviation = half / 3
    shapes = ((QUERIES, unit.head_dim), (length, unit.head_dim), (length, unit.head_dim))
    drawn = (np.rint(rng.normal(0, deviation, shape)) for shape in shapes)
    q, k, v = (np.clip(values, -half, half - 1).astype(np.int64) for values in drawn)
    factor = unit.head_dim**-0.5 / deviation**2
    job = Job.full(QUERIES, length, scale_for(unit, factor))
    error = np.abs(attention(unit, job, q, k, v) - softmax_attention(unit, job, factor, q, k, v))
    most = bound(unit, length, accumulated(unit, job, q, k, v).total, int(np.ptp(v)))
    return Error(float(error.max()), float(error.mean()), float(most.max()))


def lines() -> Iterator[str]:
    """The table, in Markdown."""
    heads = [f"P = {p}, F = {f}: {what}" for p, f in PRECISIONS for what in ("max", "mean", "bound")]
    yield f"| head dimension | keys | {' | '.join(heads)} |"
    yield "|---:" * (2 + len(heads)) + "|"
    for head_dim in HEAD_DIMS:
        for length in LENGTHS:
            cells = [str(head_dim), f"{length:,}"]
            for probability, fraction in PRECISIONS:
                unit = UnitSizes(
                    rows=16,
                    cols=16,
                    head_dim=head_dim,
                    probability_bits=probability,
                    exponent_fraction_bits=fraction,
                )
                error = measured(unit, length)
                cells += [f"{error.greatest:.2f}", f"{error.mean:.3f}", f"{error.bound:.2f}"]
            yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(lines()))
