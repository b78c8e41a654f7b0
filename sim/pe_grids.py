"""One R x C grid of PEs, its registers, and the control that feeds it, advanced one clock at a time.

Data and control move as waves. A *token* says which word goes in next; it enters one corner of an edge and
moves one lane further each clock, so each lane of the edge handles it one clock after the lane before. That
is the skew of a systolic array, and it is the same for operands that stream in, weights that shift down
into place, and sums that shift down and out. A bubble (-1) is a clock in which nothing was issued.

A grid works on one tile after another, and where the description says that folds overlap, tiles do too: the
operands of one, the sums of another and the next stationary operand may all be on their way in it at once.

In each clock the control looks at the state that the previous clock left, issues tokens, the operands
shift, the PEs multiply and accumulate, and stationary operands and drained sums shift last, as they are
written at the clock's end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

BUBBLE = -1


@dataclass(frozen=True)
class Padded:
    """A matrix [height, width] filled up with zeros to whole blocks, plus a row of zeros for bubbles."""

    values: Values
    height: int
    width: int

    @classmethod
    def zeros(cls, height: int, width: int, rows: int, cols: int, dtype: np.dtype[Any]) -> Padded:
        """A zero matrix in blocks of rows x cols."""
        shape = (-(-height // rows) * rows + 1, -(-width // cols) * cols)
        return cls(np.zeros(shape, dtype), height, width)

    @classmethod
    def of(cls, matrix: Values, rows: int, cols: int) -> Padded:
        """A copy of `matrix` in blocks of rows x cols."""
        height, width = matrix.shape
        padded = cls.zeros(height, width, rows, cols, matrix.dtype)
        padded.values[: padded.height, : padded.width] = matrix
        return padded

    @property
    def content(self) -> Values:
        """A view without the padding."""
        return self.values[: self.height, : self.width]

    def addresses(self, row: Indices, column: Indices) -> Indices:
        """Flat address of each token's word in lane 0; the last, which a bubble finds, is the row of
        zeros."""
        rows, width = self.values.shape
        return np.append(row * width + column, (rows - 1) * width)


class Sequencer:
    """Issues the tokens 0, 1, 2, … of the runs queued so far, one per clock in which it may."""

    def __init__(self) -> None:
        self._lengths: deque[int] = deque()  # of the runs not issued whole
        self._closing: set[int] = set()
        self._position = 0
        self.queued = self.issued = 0
        """Tokens so far."""
        self.run = 0
        """The run that the next token belongs to; equally, the runs issued whole."""

    def queue(self, runs: int, length: int) -> range:
        """The tokens of `runs` more runs."""
        first = self.queued
        self.queued += runs * length
        self._lengths.extend([length] * runs)
        self._closing.update(range(first + length - 1, self.queued, length))
        return range(first, self.queued)

    @property
    def begun(self) -> int:
        """The runs of which at least one token has been issued."""
        return self.run + (self._position > 0)

    @property
    def at_first(self) -> bool:
        """Whether the next token opens a run."""
        return self._position == 0

    @property
    def at_last(self) -> bool:
        """Whether the next token closes a run."""
        return self.closes(self.issued)

    def closes(self, token: int) -> bool:
        """Whether `token` is the last of its run; a bubble is not."""
        return token in self._closing

    def issue(self, ready: bool) -> int:
        """The next token if `ready` and there is one, else a bubble."""
        if not ready or not self._lengths:
            return BUBBLE
        self._position += 1
        if self._position == self._lengths[0]:
            self._lengths.popleft()
            self._position = 0
            self.run += 1
        self.issued += 1
        return self.issued - 1


class Wave:
    """The tokens along one edge of the grid: a shift register of one per lane."""

    def __init__(self, lanes: int) -> None:
        self.tokens = np.full(lanes, BUBBLE, np.int64)
        self.last = BUBBLE
        """The token in the last lane."""
        self._filled = 0

    def shift(self, token: int) -> None:
        """One clock: every token moves a lane on, and `token` enters."""
        if token == BUBBLE and not self.busy:
            return
        self._filled += (token != BUBBLE) - (self.last != BUBBLE)
        self.tokens[1:] = self.tokens[:-1]
        self.tokens[0] = token
        self.last = int(self.tokens[-1])

    @property
    def busy(self) -> bool:
        """Whether any lane holds a token."""
        return self._filled > 0


class Feed:
    """Reads one edge's operands: a word per lane and clock, as planes (value, 1 if not padding)."""

    def __init__(self, operand: Padded, addresses: Indices, lanes: int) -> None:
        occupied = np.zeros_like(operand.values)
        occupied[: operand.height, : operand.width] = 1
        self._words = np.stack([operand.values.ravel(), occupied.ravel()])
        self._addresses = addresses
        self._lanes = np.arange(lanes)

    def read(self, own: Indices) -> Values:
        """[2, lanes]; zero where the lane has no token of this tile."""
        return self._words.take(self._addresses[own] + self._lanes, axis=1)


def own(tokens: Indices, tile: range) -> Indices:
    """The tokens of a tile in a wave, counted from its first; others become an index of the bubble's entry,
    which is the last of each table."""
    return np.minimum(np.maximum(tokens - tile.start, BUBBLE), len(tile))


def tokens_of(runs: int, length: int) -> tuple[Indices, Indices]:
    """The (run, position in it) of the tokens of `runs` runs of `length`."""
    token = np.arange(runs * length)
    return token // length, token % length


@dataclass
class Permits:
    """What a tile may do, which is not for the grids to decide."""

    weight_ready: bool = False
    """Its stationary operand may be shifted in: it is in the buffer."""
    stream: bool = False
    """Its other operands are there as well, and its turn has come."""


@dataclass(frozen=True)
class Job:
    """One grid's folds of a tile: `streamed` comes in from the left, `columns` from the top."""

    streamed: Padded
    columns: Padded
    product: Padded
    folds: Indices
    """[folds, 2]: row block, column block."""
    permits: Permits


class Grid(Protocol):
    """One array. It takes its jobs in order; jobs are known by their number."""

    def queue(self, job: Job) -> int:
        """Take on one more job; its number."""

    def clock(self) -> int:
        """Advance one clock; returns the useful multiply-accumulates done in it."""

    def shifted(self, number: int) -> bool:
        """Whether a job's first stationary operand is in place."""

    def streamed(self, number: int) -> bool:
        """Whether the next job's operands may follow a job's."""

    def done(self, number: int) -> bool:
        """Whether every sum of a job has left the array."""

    @property
    def moving(self) -> bool:
        """Whether anything is under way in the registers, or was in the last clock."""
