"""How far the unit's integers are from softmax attention in real numbers, and the bound of that."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import GUARD_BITS, UnitSizes
from tilewright.rtl import reciprocal
from tilewright.rtl.job import Integers, Job, attended

Reals = NDArray[np.float64]


def softmax_attention(
    parameters: UnitSizes, job: Job, factor: float, q: Integers, k: Integers, v: Integers
) -> Reals:
    """`softmax(factor · Q Kᵀ + mask) V` [queries, D] in float64; 0 for a query that attends to no key."""
    inside = attended(parameters, job)
    scores = np.where(inside, factor * (q @ k.T).astype(np.float64), -np.inf)
    peak = scores.max(axis=1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isfinite(peak), peak, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    return (weights @ v.astype(np.float64)) / np.where(total > 0, total, 1.0)


def bound(
    parameters: UnitSizes, keys: int | Integers, total: Integers | None = None, spread: int | None = None
) -> Reals:
    """The most that an element of O is off `softmax_attention`, in units of V.

    `keys` n are those that the row attends, at least 1; `total` l is its running sum, by default the least
    there can be (2^(P+7)); `spread` V is the greatest less the smallest element of V, by default 2^W - 1.
    With L = l / 2^8 and M = 2^(W-1), the terms are, one after the other:

    - *Scores.* x is off 2^F times its exponent by 1/2 (rounding), by -1/4 … 0 (the floor of the pre-shift:
      less than 2^pre, times a scale below 2^16, over 2^SB), and by 1/8 (the scale is off by 1/2, and |S| <=
      2^(SB-2)): an interval of 3/2. Up to a factor common to all keys, that cancels, weights are off by
      factors between 1/g and g = 2^(3/4 / 2^F), which shifts a weighted mean by V (g - 1) / (g + 1) at most
      (reached with two groups of keys).
    - *Probabilities.* p is off y = 2^(P - t) by 1/2 (rounding) and 2^-(n+2) (the table's rounding, shifted by
      n), or by 1 if it is held at 2^P - 1; as y > 2^(P-1-n), all but the 1/2 is below 2^-P y. Later rescaling
      makes that smaller. The mean shifts by V (n / 2 + 2^-P L) / ((1 - 2^-P) L) at most. The two terms
      together can't exceed V: the result is still a mean.
    - *Rescaling.* Floors take less than 2 from the accumulator of O and less than 2 guard units from l,
      however often (each halves what the ones before it took): (2^-7 M + 2) / L.
    - *Reciprocal.* It is off by `reciprocal.relative_error`, of at most M and the term before.
    - *Result.* The floor of the alignment, 2^-7, and the rounding, 1/2. (The clamp brings the result nearer.)
    """
    width, top = parameters.operand_bits, parameters.probability_bits
    span = float((1 << width) - 1 if spread is None else spread)
    least = 1 << (reciprocal.least_length(parameters) - 1)
    weight = np.asarray(least if total is None else total, dtype=np.float64) / (1 << GUARD_BITS)
    greatest = 1 << (width - 1)
    stretch = 2 ** (0.75 / (1 << parameters.exponent_fraction_bits))
    scores = span * (stretch - 1) / (stretch + 1)
    probabilities = span * (np.asarray(keys) / (2 * weight) + 2.0**-top) / (1 - 2.0**-top)
    rescaling = (greatest * 2.0**-7 + 2) / weight
    relative = reciprocal.relative_error(parameters)
    final = (greatest + rescaling) * relative + 2.0**-7 * (1 + relative) + 0.5
    return np.asarray(np.minimum(scores + probabilities, span) + rescaling + final)
