"""What the attention unit is built with, and the widths that follow (docs/attention-unit.md)."""

from __future__ import annotations

from dataclasses import dataclass

GUARD_BITS = 8
"""Fraction bits of the running sum below one unit of a probability."""
SCALE_BITS = 16
"""Bits of the run-time scale."""
LOG_BITS = 16
"""Bits of a score in base 2, sign and fraction included."""
WORD_TILES = 16
"""K tiles to a word of the bitmap."""
TILE_FIFO_DEPTH = 4
"""Tiles that the sequencer may be ahead."""


def clog2(value: int) -> int:
    """Smallest b with 2^b >= `value` (at least 1)."""
    return (value - 1).bit_length()


@dataclass(frozen=True)
class UnitParameters:
    """Parameters of one attention unit; valid as built by `arch`, which refuses the rest."""

    rows: int
    cols: int
    head_dim: int
    operand_bits: int = 8
    probability_bits: int = 8
    exponent_fraction_bits: int = 6
    max_keys: int = 65536
    fifo_depth: int = 4
    output_columns: int = 128
    score_banks: int = 2

    @property
    def chunks(self) -> int:
        """Passes over the keys of a tile that make one score."""
        return -(-self.head_dim // self.cols)

    @property
    def score_beats(self) -> int:
        """K beats of a tile."""
        return self.chunks * self.cols

    @property
    def score_bits(self) -> int:
        """Of an exact score."""
        return 2 * self.operand_bits + clog2(self.head_dim)

    @property
    def sum_bits(self) -> int:
        """Of the running sum of probabilities, guard bits included."""
        return self.probability_bits + clog2(self.max_keys) + GUARD_BITS

    @property
    def output_bits(self) -> int:
        """Of an accumulator of O."""
        return self.probability_bits + self.operand_bits + clog2(self.max_keys)
