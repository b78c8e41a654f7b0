"""What the sources of the streaming attention unit send, beat by beat (docs/attention-unit.md, Streams)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.dataflows.attention_jobs import WORD_TILES, Job
from tilewright.sim.attention_numbers import Ints


@dataclass(frozen=True, eq=False)
class Tensors:
    """A head's integers: q [queries, D], k [keys, D], v [keys, D], and the command's scale."""

    q: Ints
    k: Ints
    v: Ints
    scale: int


class Beats:
    """What the sources send, in order; where the contract says `anything`, the least number there is."""

    def __init__(self, sizes: UnitSizes, jobs: Sequence[Job], tensors: Sequence[Tensors]) -> None:
        self.sizes, self.jobs, self.tensors = sizes, jobs, tensors
        self.anything = -(2 ** (sizes.operand_bits - 1))

    def q(self) -> Iterator[tuple[int, int, Ints]]:
        """(slot, column, elements)."""
        number = 0
        for job, data in zip(self.jobs, self.tensors, strict=True):
            for start in range(0, job.queries, self.sizes.rows):
                tile = self._padded(data.q[start : start + self.sizes.rows], self.sizes.rows)
                yield from ((number % 2, j, tile[:, j]) for j in range(self.sizes.head_dim))
                number += 1

    def k(self) -> Iterator[Ints]:
        """Chunk by chunk, key by key."""
        cols = self.sizes.cols
        for data, start in self._visits():
            tile = self._padded(data.k[start : start + cols], cols)
            wide = np.full((cols, self.sizes.score_beats), self.anything, dtype=np.int64)
            wide[:, : tile.shape[1]] = tile
            for h in range(self.sizes.chunks):
                yield from wide[:, h * cols : (h + 1) * cols]

    def v(self) -> Iterator[Ints]:
        """Column by column."""
        for data, start in self._visits():
            yield from self._padded(data.v[start : start + self.sizes.cols], self.sizes.cols).T

    def words(self) -> Iterator[int]:
        """Of all Q tiles."""
        for job in self.jobs:
            words = ceil(ceil(job.keys / self.sizes.cols) / WORD_TILES)
            for bits in job.bitmap or ():
                yield from (bits >> WORD_TILES * w & 0xFFFF for w in range(words))

    def _visits(self) -> Iterator[tuple[Tensors, int]]:
        rows, cols = self.sizes.rows, self.sizes.cols
        for job, data in zip(self.jobs, self.tensors, strict=True):
            for number, start in enumerate(range(0, job.queries, rows)):
                end = min(start + rows, job.queries)
                low, high = max(0, start + job.low) // cols, -(-min(job.keys, end - 1 + job.high) // cols)
                bits = -1 if job.bitmap is None else job.bitmap[number]
                tiles = [tile for tile in range(low, high) if bits >> tile & 1]
                yield from ((data, tile * cols) for tile in tiles or [0])

    def _padded(self, part: Ints, rows: int) -> Ints:
        padded = np.full((rows, part.shape[1]), self.anything, dtype=np.int64)
        padded[: len(part)] = part
        return padded
