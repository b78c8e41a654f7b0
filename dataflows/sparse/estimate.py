"""What the predictors of sparse-attention units compute with: few bits, powers of two, the strongest few.

Integers are `Values` too: sums of their products are exact in float64.
"""

from __future__ import annotations

import numpy as np

from tilewright.dataflows.sparse.base import Mask, Values


def quantized(x: Values, bits: int) -> tuple[Values, float]:
    """Symmetric integers of `bits`, and the scale that gives the values back: one for the whole of `x`."""
    scale = float(np.abs(x).max(initial=0.0)) / (2 ** (bits - 1) - 1) or 1.0
    return np.rint(x / scale), scale


def upper_bits(x: Values, bits: int) -> Values:
    """The upper `bits` of 16-bit integers (two's complement: rounded down), as integers."""
    return np.asarray(np.floor(x / 2 ** (16 - bits)))


def leading_ones(x: Values) -> Values:
    """Each integer's sign and the largest power of two in it; 0 stays 0."""
    size = np.abs(x)
    power = np.exp2(np.floor(np.log2(np.maximum(size, 1))))
    return np.where(size > 0, np.sign(x) * power, 0.0)


def weights(scores: Values, seen: Mask) -> Values:
    """Softmax of each row over the keys that may be seen; 0 elsewhere, and where nothing may be."""
    scores = np.where(seen, scores, -np.inf)
    highest = scores.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(scores - np.where(np.isfinite(highest), highest, 0.0))
    total = exponentials.sum(axis=1, keepdims=True)
    return np.asarray(exponentials / np.where(total > 0, total, 1.0))


def strongest(estimates: Values, share: float, seen: Mask) -> Mask:
    """Of what may be seen in each row, the largest estimates: this share of them, rounded up. Among equals
    the first."""
    visible = np.where(seen, estimates, -np.inf)
    count = np.ceil(share * seen.sum(axis=1, keepdims=True)).astype(np.int64)
    least = np.take_along_axis(np.sort(visible, axis=1), visible.shape[1] - np.maximum(count, 1), axis=1)
    above, equal = visible > least, visible == least
    room = count - above.sum(axis=1, keepdims=True)
    return np.asarray((above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room))) & seen)
