"""The stand-alone matrix unit: what it is built with, and what it can be asked (docs/matrix-unit.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tilewright.description.errors import InputError

LEAST_COLS = 4
"""Cycles between two uses of an accumulator: read, register, add, write."""
MOST_ACCUMULATOR_BITS = 48
SIZE_BITS = 20
"""Bits of `m` and `n_tiles` in a command."""

Order = Literal["weight_stationary", "output_stationary"]


@dataclass(frozen=True)
class MatrixUnit:
    """A systolic array of `rows` x `cols` PEs with `block_rows` accumulators beside each row.

    Raises `InputError` where it can't be built.
    """

    rows: int
    cols: int
    operand_bits: int = 8
    accumulator_bits: int = 32
    block_rows: int = 64
    fifo_depth: int = 4

    def __post_init__(self) -> None:
        least = 2 * self.operand_bits + (self.cols - 1).bit_length()
        checks = [
            (self.rows < 1, f"rows is {self.rows}: must be at least 1"),
            (
                self.cols < LEAST_COLS,
                f"cols is {self.cols}: must be at least {LEAST_COLS}, "
                "for an accumulator is used again after cols cycles",
            ),
            (
                self.operand_bits not in (4, 8, 16),
                f"operand_bits is {self.operand_bits}: must be 4, 8 or 16",
            ),
            (
                not least <= self.accumulator_bits <= MOST_ACCUMULATOR_BITS,
                f"accumulator_bits is {self.accumulator_bits}: must be {least} to {MOST_ACCUMULATOR_BITS}, "
                "for it holds at least the sum of one row of the array",
            ),
            (
                self.block_rows < self.cols,
                f"block_rows is {self.block_rows}: must be at least cols ({self.cols}), "
                "for weights take cols cycles to load",
            ),
            (self.fifo_depth < 2, f"fifo_depth is {self.fifo_depth}: must be at least 2"),
        ]
        if problems := [message for wrong, message in checks if wrong]:
            raise InputError(*problems)

    @property
    def credits(self) -> int:
        """Beats of y that may be under way: the cycles from a beat of x to its credit's return."""
        return self.cols + self.rows + 8

    @property
    def most_k_tiles(self) -> int:
        """Tiles along K whose sum is sure to fit: K · 2^(2W-2) < 2^(A-1)."""
        return ((1 << (self.accumulator_bits - 2 * self.operand_bits + 1)) - 1) // self.cols


@dataclass(frozen=True)
class MatrixJob:
    """One command: y (m x n) = x (m x k) w (k x n), in tiles."""

    m: int
    k_tiles: int
    n_tiles: int
    block: int
    """Rows of y held at a time."""

    @property
    def blocks(self) -> int:
        """Blocks of rows."""
        return -(-self.m // self.block)

    def block_sizes(self) -> list[int]:
        """Rows of each block; the last may be smaller."""
        return [min(self.block, self.m - first) for first in range(0, self.m, self.block)]

    @property
    def x_beats(self) -> int:
        """Beats of x, each of `cols` elements; a cycle of the array each."""
        return self.m * self.k_tiles * self.n_tiles

    def w_beats(self, unit: MatrixUnit) -> int:
        """Beats of w, each of `rows` elements."""
        return self.blocks * self.k_tiles * self.n_tiles * unit.cols

    @property
    def y_beats(self) -> int:
        """Beats of y, each of `rows` sums."""
        return self.m * self.n_tiles


def matrix_job(unit: MatrixUnit, m: int, k: int, n: int, order: Order = "weight_stationary") -> MatrixJob:
    """The command for a product of `m` x `k` and `k` x `n`. Raises `InputError` where `unit` can't do it."""
    block = unit.cols if order == "output_stationary" else unit.block_rows
    job = MatrixJob(m, -(-k // unit.cols), -(-n // unit.rows), min(m, block))
    most_k, most = unit.most_k_tiles * unit.cols, (1 << SIZE_BITS) - 1
    checks = [
        (min(m, k, n) < 1, f"a product of {m} x {k} and {k} x {n}: every dimension must be at least 1"),
        (
            k > most_k,
            f"k is {k}: sums of {unit.accumulator_bits} bits are sure to hold {most_k} products of "
            f"{unit.operand_bits}-bit operands; cut k, or give the unit more accumulator_bits",
        ),
        (m > most, f"m is {m}: a command's most is {most}; cut m"),
        (job.n_tiles > most, f"n is {n}: a command's most is {most * unit.rows} on {unit.rows} rows; cut n"),
    ]
    if problems := [message for wrong, message in checks if wrong]:
        raise InputError(*problems)
    return job
