"""The attention unit that streams: exact attention in two arrays, whose Verilog `tilewright rtl` writes.

What it computes and in which cycles is in docs/attention-unit.md. Rows, columns and operand width are those
of the accelerator's array, of which there are two: for scores and for values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tilewright.arch.array import Array
from tilewright.arch.sparse_unit import Unit
from tilewright.description.errors import InputError, Problem

OPERAND_BITS = {"int4": 4, "int8": 8, "int16": 16}
"""Element types that the unit can be built for."""
GUARD_BITS = 8
"""Fraction bits of a row's sum of probabilities below one unit."""
MOST_SUM_BITS = 48
"""Widest accumulator that is built."""
LEAST_SUM_BITS = 17
"""Of a row's sum, from which the reciprocal takes so many."""
LOG_BITS = 16
"""Of a score in base 2."""
LEAST_COLS = 4
ARRAYS = 2


def clog2(value: int) -> int:
    """Smallest b with 2^b >= `value` (at least 1)."""
    return (value - 1).bit_length()


class Streaming(Unit):
    """Exact attention, Q tile by Q tile, with running maximum and sum: a score array and a value array work
    side by side, and whole tiles of masked keys take no cycles (docs/attention-unit.md)."""

    kind: Literal["streaming"]
    head_dim: Annotated[int, Field(ge=4, le=4096)] = 64
    """Width of a head, which the memories are built for; narrower heads are padded with zeros at full cost.
    That of BERT and most transformers since."""
    probability_bits: Annotated[int, Field(ge=4, le=16)] = 8
    """Of an unsigned probability; 8, as the operands it is multiplied with."""
    exponent_fraction_bits: Annotated[int, Field(ge=4, le=10)] = 6
    """Fraction bits of a score in base 2, hence address bits of the exponential's table."""
    max_keys: Annotated[int, Field(ge=1, le=2**24)] = 65536
    """Most queries or keys of a head; sums are wide enough for so many."""
    fifo_depth: Annotated[int, Field(ge=2, le=1024)] = 4
    """Beats in each input's FIFO; two keep up one a cycle, four take up a short stall."""
    output_columns: Annotated[int, Field(ge=4, le=2**16)] = 128
    """Columns of O in the output FIFO: two tiles of the default head, so that one leaves while the next one
    comes."""
    score_banks: Literal[2, 4] = 2
    """Tiles of scores between the score array and the exponential; with two, both arrays are busy already
    where the head is wide enough (docs/attention-unit.md, Cycles)."""


@dataclass(frozen=True, slots=True)
class UnitSizes:
    """What cycles and numbers of a streaming unit depend on; as `unit_sizes` makes it, buildable."""

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
        """Of a row's sum of probabilities, guard bits included."""
        return self.probability_bits + clog2(self.max_keys) + GUARD_BITS

    @property
    def output_bits(self) -> int:
        """Of a running sum of O."""
        return self.probability_bits + self.operand_bits + clog2(self.max_keys)

    @property
    def memory_bits(self) -> int:
        """Of its own memories: Q, score banks, a second tile of probabilities, running sums of O, FIFOs."""
        queries = 2 * self.rows * self.score_beats * self.operand_bits
        scores = self.rows * self.cols * (self.score_banks * LOG_BITS + self.probability_bits)
        sums = self.rows * self.head_dim * self.output_bits
        into = self.fifo_depth * (self.rows + 2 * self.cols) * self.operand_bits
        return queries + scores + sums + into + self.output_columns * self.rows * self.operand_bits


def unit_sizes(unit: Streaming, array: Array) -> UnitSizes:
    """The unit's sizes with its array's. Raises `InputError` with key and reason if it can't be built."""
    if array.operand not in OPERAND_BITS:
        message = (
            f"a streaming unit works on integers: `array.operand` must be {', '.join(OPERAND_BITS)}, "
            f"not {array.operand}"
        )
        raise InputError(Problem(message, key="array.operand"))
    sizes = UnitSizes(
        rows=array.rows,
        cols=array.cols,
        head_dim=unit.head_dim,
        operand_bits=OPERAND_BITS[array.operand],
        probability_bits=unit.probability_bits,
        exponent_fraction_bits=unit.exponent_fraction_bits,
        max_keys=unit.max_keys,
        fifo_depth=unit.fifo_depth,
        output_columns=unit.output_columns,
        score_banks=unit.score_banks,
    )
    if array.flexible is not None:
        message = "a streaming unit's arrays are systolic: leave `array.flexible` out"
        raise InputError(Problem(message, key="array.flexible"))
    if array.count != ARRAYS:
        message = (
            f"a streaming unit has a score and a value array: `array.count` must be 2, not {array.count}"
        )
        raise InputError(Problem(message, key="array.count"))
    if sizes.cols < LEAST_COLS or sizes.cols & (sizes.cols - 1):
        message = f"`array.cols` must be a power of two of at least 4 (keys of a tile), not {sizes.cols}"
        raise InputError(Problem(message, key="array.cols"))
    reason = _unbuildable(sizes)
    if reason:
        raise InputError(Problem(reason, key="attention_unit"))
    return sizes


def _unbuildable(sizes: UnitSizes) -> str:
    if sizes.output_columns < sizes.head_dim:
        return (
            f"`output_columns` ({sizes.output_columns}) must be at least `head_dim` ({sizes.head_dim}): "
            "the last tile's columns must have room before it starts"
        )
    if sizes.sum_bits < LEAST_SUM_BITS:
        return (
            f"the sum of probabilities has {sizes.sum_bits} bits and the reciprocal takes "
            f"{LEAST_SUM_BITS}: raise `probability_bits` ({sizes.probability_bits}) or `max_keys` "
            f"({sizes.max_keys})"
        )
    widths = {"score": sizes.score_bits, "sum": sizes.sum_bits, "output": sizes.output_bits}
    name, bits = max(widths.items(), key=lambda item: item[1])
    if bits > MOST_SUM_BITS:
        return (
            f"the {name} accumulator would have {bits} bits, more than {MOST_SUM_BITS}: lower `head_dim` "
            f"({sizes.head_dim}), `max_keys` ({sizes.max_keys}) or `probability_bits` "
            f"({sizes.probability_bits})"
        )
    return ""
