"""An output-stationary grid of PEs."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from tilewright.arch.array import Array
from tilewright.sim.pe_grids import BUBBLE, Feed, Job, Sequencer, Values, Wave, own, tokens_of


class OutputStationaryGrid:
    """Rows hold M, columns hold N, A streams in from the left and B from the top (see `Grid`).

    Finished sums leave at once (`ideal`), shift down and out of the accumulators themselves (`exposed`), or
    are copied to a second register in each PE which shifts down while the next fold accumulates (`shadow`).
    A drain begins in column 0 when its last row is done, and in column c as many clocks later as that is
    done later.
    """

    def __init__(self, array: Array, dtype: np.dtype[Any]) -> None:
        rows, cols = array.rows, array.cols
        self._overlap, self._drain_kind = array.fold_overlap, array.output_drain
        self._parts: deque[_Part] = deque()  # whose sums have not all left
        self._to_stream: deque[_Part] = deque()
        self._first_folds = [0]  # of each job, and of the next
        self._begun_ending = 0  # folds whose first PE has done its last MAC
        self._ripe = 0  # folds whose column 0 has
        self._accumulated = 0  # folds whose last PE has
        self._drained = 0  # folds whose sums have left
        self._issued = False  # any operand in the last clock
        self._stream, self._drain = Sequencer(), Sequencer()
        self._left, self._top, self._bottom = Wave(rows), Wave(cols), Wave(cols)
        self._row, self._lane = np.arange(rows)[:, None], np.arange(cols)
        self._from_west = np.zeros((3, rows, cols), dtype)  # value, 1 if not padding, ending
        self._from_north = np.zeros((2, rows, cols), dtype)
        self._sums = np.zeros((rows, cols), dtype)
        self._shadow = np.zeros((rows, cols), dtype)

    def queue(self, job: Job) -> int:
        """See `Grid`."""
        part = _Part(job, self._sums.shape, self._first_folds[-1])
        part.stream_tokens = self._stream.queue(len(job.folds), job.streamed.height)
        part.drain_tokens = self._drain.queue(len(job.folds), self._sums.shape[0])
        self._parts.append(part)
        self._to_stream.append(part)
        self._first_folds.append(part.end_fold)
        return len(self._first_folds) - 2

    def shifted(self, number: int) -> bool:
        """See `Grid`; nothing but sums is stationary."""
        return number < len(self._first_folds)

    def streamed(self, number: int) -> bool:
        """See `Grid`."""
        return self._free_for(self._first_folds[number + 1], self._drain.begun)

    def done(self, number: int) -> bool:
        """See `Grid`; with an ideal drain, whether the last MAC is done."""
        return self._finished >= self._first_folds[number + 1]

    @property
    def moving(self) -> bool:
        """See `Grid`."""
        return self._issued or self._stream.begun > self._finished

    @property
    def _finished(self) -> int:
        return self._accumulated if self._drain_kind == "ideal" else self._drained

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
        if self._parts and self._parts[0].end_fold <= self._finished:
            self._parts.popleft()
        return macs

    def _issue(self) -> None:
        drain, stream = self._drain, self._stream
        drains_begun = drain.begun
        may_drain = self._drain_kind != "ideal" and (not drain.at_first or self._ripe > drain.run)
        self._bottom.shift(drain.issue(may_drain))
        token = stream.issue(self._may_stream(drains_begun))
        if stream.at_first and self._to_stream and stream.issued == self._to_stream[0].stream_tokens.stop:
            self._to_stream.popleft()
        self._issued = token != BUBBLE
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
        permitted = bool(self._to_stream) and self._to_stream[0].permits.stream
        return permitted and self._free_for(fold, drains_begun)

    def _free_for(self, fold: int, drains_begun: int) -> bool:
        """Whether the registers that a fold's first token needs are free."""
        if not self._overlap:
            return fold <= (self._drained if self._drain_kind == "exposed" else self._accumulated)
        return fold <= (drains_begun if self._drain_kind == "exposed" else self._stream.run)

    def _multiply(self) -> int:
        west, north = self._from_west, self._from_north
        west[:, :, 1:] = west[:, :, :-1]
        west[:, :, 0] = 0
        north[:, 1:] = north[:, :-1]
        north[:, 0] = 0
        for part in self._parts:
            mine = own(self._left.tokens, part.stream_tokens)
            west[:2, :, 0] += part.from_left.read(mine)
            west[2, :, 0] += part.ending[mine]
            north[:, 0] += part.from_top.read(own(self._top.tokens, part.stream_tokens))
        products = west[:2] * north
        self._sums += products[0]
        return int(np.count_nonzero(products[1]))

    def _release(self) -> None:
        """Ideal drain: a PE's sum is in the tile's accumulators as soon as its last MAC is done."""
        ending, sums = self._from_west[2].ravel(), self._sums.ravel()
        pes = np.flatnonzero(ending)
        fold = ending[pes].astype(np.int64) - 1
        for part in self._parts:
            mine = (part.first_fold <= fold) & (fold < part.end_fold)
            block = part.blocks[fold[mine] - part.first_fold]
            part.out[block + part.in_block[pes[mine]]] += sums[pes[mine]]
        sums[pes] = 0

    def _copy_to_shadow(self) -> None:
        ending = self._from_west[2] != 0
        np.copyto(self._shadow, self._sums, where=ending)
        np.copyto(self._sums, 0, where=ending)

    def _shift_sums(self, sums: Values) -> None:
        """At step j of a column's drain its rows j and below shift down; those above may be in use again."""
        first = np.full(len(self._lane), len(self._row))
        for part in self._parts:
            mine = own(self._bottom.tokens, part.drain_tokens)
            part.out[part.targets[mine] + self._lane] += sums[-1]  # others' go where nobody looks
            first = np.minimum(first, part.drain_step[mine])
        np.copyto(sums[1:], sums[:-1].copy(), where=self._row[1:] > first)
        np.copyto(sums, 0, where=self._row == first)


class _Part:
    """A job with its tables: an entry per token, and one for bubbles at the end."""

    stream_tokens: range
    drain_tokens: range

    def __init__(self, job: Job, shape: tuple[int, ...], first_fold: int) -> None:
        rows, cols = shape
        folds, product = job.folds, job.product
        self.permits = job.permits
        self.first_fold, self.end_fold = first_fold, first_fold + len(folds)
        fold, index = tokens_of(len(folds), job.streamed.height)
        self.from_left = Feed(job.streamed, job.streamed.addresses(index, folds[fold, 0] * rows), rows)
        self.from_top = Feed(job.columns, job.columns.addresses(index, folds[fold, 1] * cols), cols)
        last = np.where(index == job.streamed.height - 1, first_fold + fold + 1, 0)
        self.ending = np.append(last, 0)  # 1 + fold for the token that ends it
        self.blocks = product.addresses(folds[:, 0] * rows, folds[:, 1] * cols)
        self.in_block = np.add.outer(np.arange(rows) * product.values.shape[1], np.arange(cols)).ravel()
        fold, step = tokens_of(len(folds), rows)
        row = (folds[fold, 0] + 1) * rows - 1 - step  # the bottom row leaves first
        self.targets = product.addresses(row, folds[fold, 1] * cols)
        self.drain_step = np.append(step, rows)
        self.out = product.values.reshape(-1)
