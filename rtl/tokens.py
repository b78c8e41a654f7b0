"""The control tokens that run down the lanes: row 0 gets each from the controller, row r from row r - 1.

A lane registers what it got and hands it on, so that row r does everything r cycles after row 0. The times
are those at row 0's inputs; `a`, `e` and `b` are the cycles of docs/attention-unit.md in which a K beat is
popped, an exponential pass starts, and a V beat is popped. Fields other than `valid` mean nothing unless
`valid` is set.
"""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data

from tilewright.arch.streaming_unit import UnitSizes, clog2


def bound_bits(parameters: UnitSizes) -> int:
    """Signed bits of a local bound of the mask: from -R to C + R - 1."""
    return clog2(parameters.cols + parameters.rows) + 1


def score_token(parameters: UnitSizes) -> data.StructLayout:
    """With each K beat, in cycle a + C + 2 (one before its sum is at row 0's right edge).

    `key` c and `bank` say where the score goes. Key c of row r is attended iff `low + r <= c < high + r` and
    `c < count`: `low` and `high` are those of the tile's first query and first key, clamped to [-R, C], and
    each lane hands them on plus one. `count` is the number of keys in the tile (0 in a dead one).
    """
    bound = bound_bits(parameters)
    return data.StructLayout(
        {
            "valid": 1,
            "key": clog2(parameters.cols),
            "first_chunk": 1,
            "last_chunk": 1,
            "bank": clog2(parameters.score_banks),
            "low": signed(bound),
            "high": signed(bound),
            "count": clog2(parameters.cols) + 1,
        }
    )


def exponential_token(parameters: UnitSizes) -> data.StructLayout:
    """For key c of a tile in cycle e + c, C cycles in a row.

    `first` and `last` (constant over the pass) say whether the tile is the first or the last of its Q tile,
    `bank` where its scores are, `parity` (tile number mod 2) which of the two banks of probabilities,
    rescaling and reciprocal it uses.
    """
    return data.StructLayout(
        {
            "valid": 1,
            "key": clog2(parameters.cols),
            "first": 1,
            "last": 1,
            "bank": clog2(parameters.score_banks),
            "parity": 1,
        }
    )


def weight_token(parameters: UnitSizes) -> data.StructLayout:
    """For key c in cycle b(i, 0) + c, C cycles in a row: the lane's weight is out in the next cycle."""
    return data.StructLayout({"valid": 1, "key": clog2(parameters.cols), "parity": 1})


def value_token(parameters: UnitSizes) -> data.StructLayout:
    """With each V beat, in cycle b + C + 1 (two before its sum is at row 0's right edge).

    `column` is the column j of the head, `first` whether the tile is the first of its Q tile. The lane
    normalises every column; what comes out (`row_value.OUTPUT_LATENCY` later) is wanted for the last tile of
    a Q tile only.
    """
    return data.StructLayout({"valid": 1, "column": clog2(parameters.head_dim), "first": 1, "parity": 1})


def sum_token() -> data.StructLayout:
    """To the reciprocal: row 0's running sum is complete; from it to the lanes: its reciprocal is."""
    return data.StructLayout({"valid": 1, "parity": 1})
