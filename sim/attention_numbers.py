"""The integer arithmetic of the streaming attention unit (docs/attention-unit.md, Numbers), element-wise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import e, floor, log2

import numpy as np
import numpy.typing as npt

from tilewright.arch.streaming_unit import GUARD_BITS, UnitSizes

Ints = npt.NDArray[np.int64]
LOG_LIMIT = 2**15 - 1
"""Largest score in base 2, fraction bits included."""
SCORE_BITS = 18
"""Upper bits of a score that are scaled."""
RECIPROCAL_BITS = 17
SCALE_LIMIT = 2**16
_MOST_SHIFT = 63
"""Shifts of 64-bit integers by more are not defined; nothing is left after so many."""


def host_scale(sizes: UnitSizes, factor: float) -> int:
    """The command's `scale` for softmax(`factor` S). Raises `ValueError` if the unit can't hold it."""
    scale = round(factor * log2(e) * 2.0 ** (sizes.exponent_fraction_bits + sizes.score_bits))
    if not 0 <= scale < SCALE_LIMIT:
        raise ValueError(f"scores times {factor:g} need a scale of {scale}, which is not below {SCALE_LIMIT}")
    return scale


@dataclass(frozen=True)
class Numbers:
    """Tables and steps for one unit's widths."""

    sizes: UnitSizes

    @cached_property
    def lowest(self) -> int:
        """The running maximum before the first key."""
        return -(1 << 15 - self.sizes.exponent_fraction_bits)

    @cached_property
    def dropped(self) -> int:
        """Lower bits of a score that are not scaled."""
        return max(0, self.sizes.score_bits - SCORE_BITS)

    @cached_property
    def powers(self) -> Ints:
        """2^(-f) for the fractions f, a bit wider than a probability."""
        count, top = 1 << self.sizes.exponent_fraction_bits, self.sizes.probability_bits + 1
        return np.array([floor(2.0 ** (top - f / count) + 0.5) for f in range(count)], dtype=np.int64)

    @cached_property
    def index_bits(self) -> int:
        """Of the reciprocal's table."""
        return 6 if self.sizes.operand_bits <= 8 else 8

    @cached_property
    def inverses(self) -> Ints:
        """1/(1 + i) for fractions i, both ends included."""
        count = 1 << self.index_bits
        exact = [2.0**RECIPROCAL_BITS / (1 + i / count) for i in range(count + 1)]
        return np.array([min(2**RECIPROCAL_BITS - 1, floor(each + 0.5)) for each in exact], dtype=np.int64)

    def scaled(self, score: Ints, scale: Ints) -> Ints:
        """The product of score and scale."""
        return (score >> self.dropped) * scale

    def logarithm(self, product: Ints) -> Ints:
        """The score in base 2."""
        shift = self.sizes.score_bits - self.dropped
        return _within((product + (1 << shift - 1)) >> shift, -LOG_LIMIT, LOG_LIMIT)

    def ceiling(self, x: Ints) -> Ints:
        """Least whole number that is not below."""
        return -(-x >> self.sizes.exponent_fraction_bits)

    def below(self, maximum: Ints, x: Ints) -> Ints:
        """How far a score is below the maximum."""
        return (maximum << self.sizes.exponent_fraction_bits) - x

    def split(self, distance: Ints) -> tuple[Ints, Ints]:
        """(table entry, shift) of 2^-distance."""
        fraction = self.sizes.exponent_fraction_bits
        return self.powers[distance & ((1 << fraction) - 1)], distance >> fraction

    def probability(self, entry: Ints, shift: Ints) -> Ints:
        """Rounded, at most all ones."""
        rounded = (down(entry, shift) + 1) >> 1
        return _within(rounded, 0, (1 << self.sizes.probability_bits) - 1)

    def guarded(self, probability: Ints) -> Ints:
        """As it is added up."""
        return probability << GUARD_BITS

    def reciprocal(self, total: Ints) -> tuple[Ints, Ints]:
        """(bit length, inverse of the leading bits) of each row's sum; 8 and 0 of nothing."""
        length = np.array([int(each).bit_length() for each in total], dtype=np.int64)
        leading = (total << (self.sizes.sum_bits - length)) >> (self.sizes.sum_bits - RECIPROCAL_BITS)
        low = RECIPROCAL_BITS - 1 - self.index_bits
        index, rest = (leading >> low) & ((1 << self.index_bits) - 1), leading & ((1 << low) - 1)
        slope = self.inverses[index] - self.inverses[index + 1]
        inverse = self.inverses[index] - ((slope * rest) >> low)
        return np.where(total > 0, length, 8), np.where(total > 0, inverse, 0)

    def aligned(self, out: Ints, length: Ints) -> Ints:
        """A sum of O with the point where the sum of probabilities has its leading one."""
        return (out << 8) >> (length - 8)

    def rounded(self, product: Ints) -> Ints:
        """An element of O."""
        most = 1 << self.sizes.operand_bits - 1
        return _within((product + (1 << 23)) >> 24, -most, most - 1)


def _within(values: Ints, least: int, most: int) -> Ints:
    return np.asarray(np.clip(values, least, most), dtype=np.int64)


def down(value: Ints, shift: Ints) -> Ints:
    """Arithmetic shift to the right, however far."""
    return value >> np.minimum(shift, _MOST_SHIFT)
