"""The base of every sparse-attention unit's description."""

from __future__ import annotations

from tilewright.arch.block import Block


class Unit(Block):
    """Base of every kind."""

    kind: str

    @property
    def predictor_size(self) -> tuple[int, int]:
        """Multiply-accumulators of the predictor, whose area and energy are charged, and their bits."""
        return 0, 4

    @property
    def heads_abreast(self) -> int:
        """Heads that a core works on side by side, with an equal part of its array each."""
        return 1
