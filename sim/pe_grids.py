"""One R x C grid of PEs, its registers, and the control that feeds it, advanced one clock at a time.

Data and control move as waves. A *token* says which word goes in next; it enters one corner of an edge and
moves one lane further each clock, so each lane of the edge handles it one clock after the lane before. That
is the skew of a systolic array, and it is the same for operands that stream in, weights that shift down
into place, and sums that shift down and out. A bubble (-1) is a clock in which nothing was issued.

In each clock the control looks at the state that the previous clock left, issues tokens, the operands
shift, the PEs multiply and accumulate, and stationary operands and drained sums shift last, as they are
written at the clock's end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilewright.arch.accelerator import Array

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
    """Issues the tokens 0, 1, 2, … of `runs` runs of `length` each, one per clock in which it may."""

    def __init__(self, runs: int, length: int) -> None:
        self._end = runs * length
        self._length = length
        self._next = 0

    @property
    def run(self) -> int:
        """The run that the next token belongs to; equally, the runs issued whole."""
        return self._next // self._length

    @property
    def begun(self) -> int:
        """The runs of which at least one token has been issued."""
        return -(-self._next // self._length)

    @property
    def at_first(self) -> bool:
        """Whether the next token opens a run."""
        return self._next % self._length == 0

    @property
    def at_last(self) -> bool:
        """Whether the next token closes a run."""
        return self.closes(self._next)

    def closes(self, token: int) -> bool:
        """Whether `token` is the last of its run; a bubble is not."""
        return token != BUBBLE and token % self._length == self._length - 1

    def issue(self, ready: bool) -> int:
        """The next token if `ready` and there is one, else a bubble."""
        if not ready or self._next == self._end:
            return BUBBLE
        self._next += 1
        return self._next - 1


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

    def read(self, wave: Wave) -> Values:
        """[2, lanes]; zero where the wave has a bubble."""
        return self._words.take(self._addresses[wave.tokens] + self._lanes, axis=1)


class Grid(Protocol):
    """One array at work on its folds of a tile."""

    @property
    def done(self) -> bool:
        """Whether every sum has left the array."""

    def clock(self) -> int:
        """Advance one clock; returns the useful multiply-accumulates done in it."""


class StationaryGrid:
    """Weight stationary: rows hold K, columns hold N, A streams in from the left, sums leave at the bottom.

    Also input stationary, with the operands' roles exchanged by the caller. Fold f keeps its weights in
    copy f modulo `stationary_buffers`; they shift down from the top, one row per clock, column c a clock
    after column c-1. Row 0's word comes last, so a load takes R clocks, and it follows so closely behind
    the operands of the fold before that it may begin as soon as their last row has entered.
    """

    def __init__(
        self, array: Array, streamed: Padded, weights: Padded, product: Padded, folds: Indices
    ) -> None:
        rows, cols = array.rows, array.cols
        self._overlap, self._copies = array.fold_overlap, array.stationary_buffers
        self._count = len(folds)
        self._finished = 0
        self._load = Sequencer(len(folds), rows)
        self._stream = Sequencer(len(folds), streamed.height)
        self._left, self._top, self._bottom = Wave(rows), Wave(cols), Wave(cols)

        fold, index = _tokens(len(folds), streamed.height)
        self._operands = Feed(streamed, streamed.addresses(index, folds[fold, 0] * rows), rows)
        self._copy_of = np.append(fold % self._copies, 0)
        self._targets = product.addresses(index, folds[fold, 1] * cols)
        fold, step = _tokens(len(folds), rows)
        word = (folds[fold, 0] + 1) * rows - 1 - step  # the last row's word goes first
        self._weights = Feed(weights, weights.addresses(word, folds[fold, 1] * cols), cols)
        self._load_copy = np.append(fold % self._copies, 0)
        self._load_step = np.append(step, -1)

        self._out = product.values.reshape(-1)
        self._row, self._lane = np.arange(rows)[:, None], np.arange(cols)
        dtype = product.values.dtype
        planes = 2 if self._copies == 1 else 3  # value, 1 if not padding, which copy of the weights
        self._moving = np.zeros((planes, rows, cols), dtype)
        self._stationary = np.zeros((self._copies, 2, rows, cols), dtype)  # value, 1 if not padding
        self._sums = np.zeros((rows, cols), dtype)

    @property
    def done(self) -> bool:
        """Whether the last sum of the last fold has left."""
        return self._finished == self._count

    def clock(self) -> int:
        """See `Grid`."""
        self._issue()
        macs = self._multiply()
        if self._bottom.busy:
            self._collect()
        if self._top.busy:
            self._shift_weights()
        return macs

    def _issue(self) -> None:
        """A load waits for its copy of the registers, a fold for its load and, without overlap, its
        predecessor."""
        load, stream = self._load, self._stream
        released = stream.run if self._overlap else self._finished
        may_load = not load.at_first or released > load.run - self._copies
        may_stream = not stream.at_first or (
            load.run > stream.run and (self._overlap or self._finished == stream.run)
        )
        self._left.shift(stream.issue(may_stream))
        self._top.shift(load.issue(may_load))
        self._bottom.shift(self._left.last)

    def _multiply(self) -> int:
        moving, sums = self._moving, self._sums
        moving[:, :, 1:] = moving[:, :, :-1]
        moving[:2, :, 0] = self._operands.read(self._left)
        if self._copies == 1:
            weights = self._stationary[0]
        else:
            moving[2, :, 0] = self._copy_of[self._left.tokens]
            weights = np.where(moving[2] == 0, self._stationary[0], self._stationary[1])
        products = moving[:2] * weights
        sums[1:] = sums[:-1]
        sums[0] = 0
        sums += products[0]
        return int(np.count_nonzero(products[1]))

    def _collect(self) -> None:
        """Sums that leave the bottom row are added to the tile's accumulators."""
        self._out[self._targets[self._bottom.tokens] + self._lane] += self._sums[-1]
        self._finished += self._stream.closes(self._bottom.last)

    def _shift_weights(self) -> None:
        """At step j of a column's load its rows 0 to j shift down; the rows below may still be in use."""
        tokens = self._top.tokens
        shifts = self._row <= self._load_step[tokens]
        words = self._weights.read(self._top)
        for copy, weights in enumerate(self._stationary):
            where = shifts & (self._load_copy[tokens] == copy)
            np.copyto(weights[:, 1:], weights[:, :-1].copy(), where=where[1:])
            np.copyto(weights[:, 0], words, where=where[0])


class OutputStationaryGrid:
    """Output stationary: rows hold M, columns hold N, A streams in from the left and B from the top.

    Finished sums leave at once (`ideal`), shift down and out of the accumulators themselves (`exposed`), or
    are copied to a second register in each PE which shifts down while the next fold accumulates (`shadow`).
    A drain begins in column 0 when its last row is done, and in column c as many clocks later as that is
    done later.
    """

    def __init__(
        self, array: Array, streamed: Padded, columns: Padded, product: Padded, folds: Indices
    ) -> None:
        rows, cols = array.rows, array.cols
        self._overlap, self._drain_kind = array.fold_overlap, array.output_drain
        self._count = len(folds)
        self._begun_ending = 0  # folds whose first PE has done its last MAC
        self._ripe = 0  # folds whose column 0 has
        self._accumulated = 0  # folds whose last PE has
        self._drained = 0  # folds whose sums have left
        self._stream = Sequencer(len(folds), streamed.height)
        self._drain = Sequencer(len(folds), rows)
        self._left, self._top, self._bottom = Wave(rows), Wave(cols), Wave(cols)

        fold, index = _tokens(len(folds), streamed.height)
        self._from_left = Feed(streamed, streamed.addresses(index, folds[fold, 0] * rows), rows)
        self._from_top = Feed(columns, columns.addresses(index, folds[fold, 1] * cols), cols)
        last = np.where(index == streamed.height - 1, fold + 1, 0)
        self._ending = np.append(last, 0)  # 1 + fold for the token that ends it
        self._blocks = product.addresses(folds[:, 0] * rows, folds[:, 1] * cols)
        self._in_block = np.add.outer(np.arange(rows) * product.values.shape[1], np.arange(cols)).ravel()
        fold, step = _tokens(len(folds), rows)
        row = (folds[fold, 0] + 1) * rows - 1 - step  # the bottom row leaves first
        self._targets = product.addresses(row, folds[fold, 1] * cols)
        self._drain_step = np.append(step, rows)

        self._out = product.values.reshape(-1)
        self._row, self._lane = np.arange(rows)[:, None], np.arange(cols)
        dtype = product.values.dtype
        self._from_west = np.zeros((3, rows, cols), dtype)  # value, 1 if not padding, ending
        self._from_north = np.zeros((2, rows, cols), dtype)
        self._sums = np.zeros((rows, cols), dtype)
        self._shadow = np.zeros((rows, cols), dtype)

    @property
    def done(self) -> bool:
        """Whether the last sum has left; with an ideal drain, whether the last MAC is done."""
        finished = self._accumulated if self._drain_kind == "ideal" else self._drained
        return finished == self._count

    def clock(self) -> int:
        """See `Grid`."""
        self._issue()
        macs = self._multiply()
        if self._bottom.busy:
            self._shift_sums(self._sums if self._drain_kind == "exposed" else self._shadow)
        if self._begun_ending > self._accumulated:
            if self._drain_kind == "ideal":
                self._release()
            elif self._drain_kind == "shadow":
                self._copy_to_shadow()
            self._accumulated += bool(self._from_west[2, -1, -1])
        self._ripe += self._stream.closes(self._left.last)
        self._drained += self._drain.closes(self._bottom.last)
        return macs

    def _issue(self) -> None:
        drain, stream = self._drain, self._stream
        drains_begun = drain.begun
        may_drain = self._drain_kind != "ideal" and (not drain.at_first or self._ripe > drain.run)
        self._bottom.shift(drain.issue(may_drain))
        token = stream.issue(self._may_stream(drains_begun))
        self._begun_ending += stream.closes(token)
        self._left.shift(token)
        self._top.shift(token)

    def _may_stream(self, drains_begun: int) -> bool:
        """Whether the registers that the next token needs are free; `drains_begun` before this clock."""
        stream, fold = self._stream, self._stream.run
        if self._drain_kind == "shadow" and stream.at_last and self._drain.begun < fold:
            return False  # it would end the fold while the first PE's shadow still holds the one before
        if not stream.at_first:
            return True
        if self._overlap:
            return self._drain_kind != "exposed" or drains_begun >= fold
        return fold == (self._drained if self._drain_kind == "exposed" else self._accumulated)

    def _multiply(self) -> int:
        west, north = self._from_west, self._from_north
        west[:, :, 1:] = west[:, :, :-1]
        west[:2, :, 0] = self._from_left.read(self._left)
        west[2, :, 0] = self._ending[self._left.tokens]
        north[:, 1:] = north[:, :-1]
        north[:, 0] = self._from_top.read(self._top)
        products = west[:2] * north
        self._sums += products[0]
        return int(np.count_nonzero(products[1]))

    def _release(self) -> None:
        """Ideal drain: a PE's sum is in the tile's accumulators as soon as its last MAC is done."""
        ending, sums = self._from_west[2].ravel(), self._sums.ravel()
        pes = np.flatnonzero(ending)
        fold = ending[pes].astype(np.int64) - 1
        self._out[self._blocks[fold] + self._in_block[pes]] += sums[pes]
        sums[pes] = 0

    def _copy_to_shadow(self) -> None:
        ending = self._from_west[2] != 0
        np.copyto(self._shadow, self._sums, where=ending)
        np.copyto(self._sums, 0, where=ending)

    def _shift_sums(self, sums: Values) -> None:
        """At step j of a column's drain its rows j and below shift down; those above may be in use again."""
        tokens = self._bottom.tokens
        self._out[self._targets[tokens] + self._lane] += sums[-1]
        first = self._drain_step[tokens]
        np.copyto(sums[1:], sums[:-1].copy(), where=self._row[1:] > first)
        np.copyto(sums, 0, where=self._row == first)


def _tokens(runs: int, length: int) -> tuple[Indices, Indices]:
    """The (run, position in it) of the tokens of `runs` runs of `length`."""
    token = np.arange(runs * length)
    return token // length, token % length
