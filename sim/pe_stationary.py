"""A weight-stationary grid of PEs; also input stationary, with the operands' roles exchanged outside."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from tilewright.arch.array import Array
from tilewright.sim.pe_grids import BUBBLE, Feed, Job, Sequencer, Wave, own, tokens_of


class StationaryGrid:
    """Rows hold K, columns hold N, A streams in from the left, sums leave at the bottom (see `Grid`).

    Fold f keeps its weights in copy f modulo `stationary_buffers`; they shift down from the top, one row per
    clock, column c a clock after column c-1. Row 0's word comes last, so a load takes R clocks, and it
    follows so closely behind the operands of the fold before that it may begin as soon as their last row has
    entered. With two copies the control loads one fold ahead: it begins when the fold before streams.
    """

    def __init__(self, array: Array, dtype: np.dtype[Any]) -> None:
        rows, cols = array.rows, array.cols
        self._overlap, self._copies = array.fold_overlap, array.stationary_buffers
        self._parts: deque[_Part] = deque()  # whose sums have not all left
        self._to_load: deque[_Part] = deque()
        self._to_stream: deque[_Part] = deque()
        self._first_folds = [0]  # of each job, and of the next
        self._finished = 0  # folds
        self._issued = False  # anything in the last clock
        self._load, self._stream = Sequencer(), Sequencer()
        self._left, self._top, self._bottom = Wave(rows), Wave(cols), Wave(cols)
        self._row, self._lane = np.arange(rows)[:, None], np.arange(cols)
        planes = 2 if self._copies == 1 else 3  # value, 1 if not padding, which copy of the weights
        self._moving = np.zeros((planes, rows, cols), dtype)
        self._stationary = np.zeros((self._copies, 2, rows, cols), dtype)  # value, 1 if not padding
        self._sums = np.zeros((rows, cols), dtype)

    def queue(self, job: Job) -> int:
        """See `Grid`."""
        part = _Part(job, self._sums.shape, self._first_folds[-1], self._copies)
        part.stream_tokens = self._stream.queue(len(job.folds), job.streamed.height)
        part.load_tokens = self._load.queue(len(job.folds), self._sums.shape[0])
        for queue in (self._parts, self._to_load, self._to_stream):
            queue.append(part)
        self._first_folds.append(part.end_fold)
        return len(self._first_folds) - 2

    def shifted(self, number: int) -> bool:
        """See `Grid`."""
        return self._load.run > self._first_folds[number]

    def streamed(self, number: int) -> bool:
        """See `Grid`."""
        return (self._stream.run if self._overlap else self._finished) >= self._first_folds[number + 1]

    def done(self, number: int) -> bool:
        """See `Grid`."""
        return self._finished >= self._first_folds[number + 1]

    @property
    def moving(self) -> bool:
        """See `Grid`."""
        return self._issued or self._stream.begun > self._finished or self._top.busy

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
        """A fold waits for its load and, without overlap, its predecessor; a load for its copy of the
        registers."""
        load, stream = self._load, self._stream
        released = stream.run if self._overlap else self._finished
        token = stream.issue(not stream.at_first or self._may_stream())
        if self._copies == 2:
            released = stream.begun
        word = load.issue(not load.at_first or (released >= load.run and self._may_load()))
        if stream.at_first and self._to_stream and stream.issued == self._to_stream[0].stream_tokens.stop:
            self._to_stream.popleft()
        if load.at_first and self._to_load and load.issued == self._to_load[0].load_tokens.stop:
            self._to_load.popleft()
        self._issued = not token == word == BUBBLE
        self._left.shift(token)
        self._top.shift(word)
        self._bottom.shift(self._left.last)

    def _may_stream(self) -> bool:
        """Whether the next fold may begin."""
        if not self._to_stream or not self._to_stream[0].permits.stream:
            return False
        run = self._stream.run
        return self._load.run > run and (self._overlap or self._finished == run)

    def _may_load(self) -> bool:
        return bool(self._to_load) and self._to_load[0].permits.weight_ready

    def _multiply(self) -> int:
        moving, sums = self._moving, self._sums
        moving[:, :, 1:] = moving[:, :, :-1]
        moving[:, :, 0] = 0
        for part in self._parts:
            mine = own(self._left.tokens, part.stream_tokens)
            moving[:2, :, 0] += part.operands.read(mine)
            if self._copies == 2:
                moving[2, :, 0] += part.copy_of[mine]
        weights = self._stationary[0]
        if self._copies == 2:
            weights = np.where(moving[2] == 0, weights, self._stationary[1])
        products = moving[:2] * weights
        sums[1:] = sums[:-1]
        sums[0] = 0
        sums += products[0]
        return int(np.count_nonzero(products[1]))

    def _collect(self) -> None:
        """Sums that leave the bottom row are added to their tile's accumulators."""
        for part in self._parts:
            mine = own(self._bottom.tokens, part.stream_tokens)
            part.out[part.targets[mine] + self._lane] += self._sums[-1]  # others' go where nobody looks
        self._finished += self._stream.closes(self._bottom.last)
        if self._parts[0].end_fold <= self._finished:
            self._parts.popleft()

    def _shift_weights(self) -> None:
        """At step j of a column's load its rows 0 to j shift down; the rows below may still be in use."""
        step, copy_of = np.full(len(self._lane), -1), np.zeros(len(self._lane), np.int64)
        words = np.zeros((2, len(self._lane)), self._sums.dtype)
        for part in self._parts:
            mine = own(self._top.tokens, part.load_tokens)
            step = np.maximum(step, part.load_step[mine])
            copy_of += part.load_copy[mine]
            words += part.weights.read(mine)
        shifts = self._row <= step
        for copy, weights in enumerate(self._stationary):
            where = shifts & (copy_of == copy)
            np.copyto(weights[:, 1:], weights[:, :-1].copy(), where=where[1:])
            np.copyto(weights[:, 0], words, where=where[0])


class _Part:
    """A job with its tables: an entry per token, and one for bubbles at the end."""

    stream_tokens: range
    load_tokens: range

    def __init__(self, job: Job, shape: tuple[int, ...], first_fold: int, copies: int) -> None:
        rows, cols = shape
        folds = job.folds
        self.permits = job.permits
        self.end_fold = first_fold + len(folds)
        fold, index = tokens_of(len(folds), job.streamed.height)
        self.operands = Feed(job.streamed, job.streamed.addresses(index, folds[fold, 0] * rows), rows)
        self.copy_of = np.append((first_fold + fold) % copies, 0)
        self.targets = job.product.addresses(index, folds[fold, 1] * cols)
        self.out = job.product.values.reshape(-1)
        fold, step = tokens_of(len(folds), rows)
        word = (folds[fold, 0] + 1) * rows - 1 - step  # the last row's word goes first
        self.weights = Feed(job.columns, job.columns.addresses(word, folds[fold, 1] * cols), cols)
        self.load_copy = np.append((first_fold + fold) % copies, 0)
        self.load_step = np.append(step, -1)
