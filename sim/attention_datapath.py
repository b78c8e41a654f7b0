"""The streaming attention unit's data path, register by register (docs/attention-unit.md).

Three lines of tokens say what is where: a beat of K or V, or a key of an exponential pass, has age n in the
n-th cycle after it entered, and row r does at age n + r what row 0 does at age n. Registers are stepped from
the last to the first, so that each reads what the one before it held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.sim.attention_numbers import Ints, Numbers, down

PROBABILITY_BANKS = 2
RING = 64
"""Tiles whose description is kept; more than can be under way."""
SHIFT_BANKS = 4
"""A tile's rescaling outlives its probabilities: its last sums leave the array when these are free again."""
Q_DELAY = 2
"""Cycles from a Q beat to its write in row 0, by which time no old key needs what it replaces."""
RECIPROCAL_STAGES = 7


@dataclass(frozen=True, slots=True)
class Tile:
    """What rows must know of a tile under way."""

    ordinal: int
    q_tile: int
    """Over all jobs."""
    first: bool
    last: bool
    query: int
    """First one."""
    key: int
    """First one."""
    low: int
    high: int
    keys: int
    """Of the job; 0 if the tile is dead."""
    scale: int
    ends_job: bool


class Line:
    """Tokens on their way: valid, tile in the ring, and two numbers (key and chunk, or column)."""

    def __init__(self, length: int) -> None:
        self.tokens = np.zeros((length, 4), dtype=np.int64)

    def step(self, token: tuple[int, int, int] | None) -> None:
        """The next cycle, in which this token enters, or none."""
        self.tokens[1:] = self.tokens[:-1]
        self.tokens[0] = (0, 0, 0, 0) if token is None else (1, *token)

    def rows(self, age: int, rows: int) -> tuple[Ints, Ints, Ints, Ints]:
        """(rows that have a token of this age, tile, first and second number)."""
        part = self.tokens[age : age + rows]
        (having,) = part[:, 0].nonzero()
        return having, part[having, 1], part[having, 2], part[having, 3]


class Systolic:
    """An array of R x C multiply-accumulators: beats go down, sums go right."""

    def __init__(self, rows: int, cols: int) -> None:
        self.skew = np.zeros((cols, cols), dtype=np.int64)
        self.beat, self.product, self.sum = (np.zeros((rows, cols), dtype=np.int64) for _ in range(3))
        self.ages = 2 + np.add.outer(np.arange(rows), np.arange(cols))

    def step(self, entering: Ints | None, weights: Ints) -> None:
        """A cycle; `weights` are what the PEs multiply with in it."""
        self.sum[:, 1:] = self.sum[:, :-1] + self.product[:, 1:]
        self.sum[:, 0] = self.product[:, 0]
        np.multiply(self.beat, weights, out=self.product)
        self.beat[1:] = self.beat[:-1]
        self.beat[0] = self.skew.diagonal()
        self.skew[1:] = self.skew[:-1]
        self.skew[0] = 0 if entering is None else entering


class Datapath:
    """Both arrays and the lanes between them."""

    def __init__(self, sizes: UnitSizes) -> None:
        rows, cols, dim, banks = sizes.rows, sizes.cols, sizes.head_dim, sizes.score_banks
        self.sizes, self.numbers = sizes, Numbers(sizes)
        self.k_line, self.v_line = Line(rows + cols + 8), Line(rows + cols + 8)
        self.e_line = Line(rows + RECIPROCAL_STAGES + 6)
        self.scores, self.values = Systolic(rows, cols), Systolic(rows, cols)
        self.ring = np.zeros((RING, 11), dtype=np.int64)

        def lane(*shape: int) -> Ints:
            return np.zeros((*shape, rows), dtype=np.int64)

        self.q_line, self.q_at = lane(rows + Q_DELAY + 1), np.zeros((rows + Q_DELAY + 1, 3), dtype=np.int64)
        self.q = np.zeros((2, rows, sizes.score_beats), dtype=np.int64)
        self.partial = np.zeros((rows, cols), dtype=np.int64)
        self.score, self.scaled, self.x, self.hidden, self.maximum = (lane() for _ in range(5))
        self.bank_x, self.bank_hidden = (np.zeros((banks, rows, cols), dtype=np.int64) for _ in range(2))
        self.bank_maximum, self.bank_rescale = lane(banks), lane(banks)
        self.read_x, self.read_hidden, self.distance, self.distance_hidden = (lane() for _ in range(4))
        self.entry, self.shift, self.p, self.total = (lane() for _ in range(4))
        self.bank_p = np.zeros((PROBABILITY_BANKS, rows, cols), dtype=np.int64)
        self.rescale = lane(SHIFT_BANKS)
        self.totals = lane(RECIPROCAL_STAGES - 1)
        self.length, self.inverse = lane(PROBABILITY_BANKS) + 8, lane(PROBABILITY_BANKS)
        self.out = np.zeros((rows, dim), dtype=np.int64)
        self.added, self.aligned, self.product = (lane() for _ in range(3))
        self.columns = np.zeros((2, rows, dim), dtype=np.int64)

    def describe(self, tile: Tile) -> int:
        """Remember a tile; its place in the ring."""
        place = tile.ordinal % RING
        self.ring[place] = (
            tile.ordinal, tile.q_tile, tile.first, tile.last, tile.query, tile.key, tile.low, tile.high,
            tile.keys, tile.scale, tile.ends_job,
        )  # fmt: skip
        return place

    def step(
        self,
        q: tuple[int, int, Ints] | None,
        k: tuple[int, int, int, Ints] | None,
        e: tuple[int, int] | None,
        v: tuple[int, int, Ints] | None,
    ) -> tuple[Ints, bool] | None:
        """A cycle in which these enter: a Q beat (slot, column, elements), a K beat (tile, key, chunk,
        elements), a key of an exponential pass (tile, key), a V beat (tile, column, elements). Returns the
        column of O that enters the output FIFO, if one does, and whether it is its job's last."""
        self.k_line.step(None if k is None else k[:3])
        self.e_line.step(None if e is None else (*e, 0))
        self.v_line.step(None if v is None else (*v[:2], 0))
        column = self._leaving()
        self._normalise()
        self._accumulate()
        places = self.v_line.tokens[self.values.ages, 1]
        banks = self.ring[places, 0] % PROBABILITY_BANKS
        row, col = np.indices(banks.shape)
        self.values.step(None if v is None else v[2], self.bank_p[banks, row, col])
        self._reciprocal()
        self._exponentials()
        self._maximum()
        self._scale()
        tokens = self.k_line.tokens[self.scores.ages]
        slots = self.ring[tokens[:, :, 1], 1] % 2
        weights = self.q[slots, row, tokens[:, :, 3] * self.sizes.cols + col]
        self.scores.step(None if k is None else k[3], weights)
        self._write_q(q)
        return column

    def _leaving(self) -> tuple[Ints, bool] | None:
        valid, place, col, _ = self.v_line.tokens[self.sizes.cols + self.sizes.rows + 6]
        _, q_tile, _, last = self.ring[place, :4]
        if not (valid and last):
            return None
        ends = bool(self.ring[place, 10]) and col + 1 == self.sizes.head_dim
        return self.columns[q_tile % 2, :, col].copy(), ends

    def _normalise(self) -> None:
        """Round, multiply, align: three stages behind the accumulator."""
        cols, rows, numbers = self.sizes.cols, self.sizes.rows, self.numbers
        at, place, col, _ = self.v_line.rows(cols + 6, rows)
        self.columns[self.ring[place, 1] % 2, at, col] = numbers.rounded(self.product[at])
        at, place, _, _ = self.v_line.rows(cols + 5, rows)
        self.product[at] = self.aligned[at] * self.inverse[self.ring[place, 0] % PROBABILITY_BANKS, at]
        at, place, _, _ = self.v_line.rows(cols + 4, rows)
        lengths = self.length[self.ring[place, 0] % PROBABILITY_BANKS, at]
        self.aligned[at] = numbers.aligned(self.added[at], lengths)

    def _accumulate(self) -> None:
        at, place, col, _ = self.v_line.rows(self.sizes.cols + 3, self.sizes.rows)
        ordinal, _, first, _ = self.ring[place, :4].T
        before = down(self.out[at, col], self.rescale[ordinal % SHIFT_BANKS, at])
        self.out[at, col] = np.where(first, 0, before) + self.values.sum[at, -1]
        self.added[at] = self.out[at, col]
        self._fits(self.added[at], self.sizes.output_bits)

    def _reciprocal(self) -> None:
        """Of the sum that is complete at age 5 of a pass's last key; in seven stages."""
        rows = self.sizes.rows
        at, place, key, _ = self.e_line.rows(4 + RECIPROCAL_STAGES, rows)
        ready = key == self.sizes.cols - 1
        at, bank = at[ready], self.ring[place[ready], 0] % PROBABILITY_BANKS
        self.length[bank, at], self.inverse[bank, at] = self.numbers.reciprocal(self.totals[-1, at])
        self.totals[1:] = self.totals[:-1]
        self.totals[0] = self.total

    def _exponentials(self) -> None:
        """Add up and write, shift, look up, subtract, read."""
        rows, numbers, banks = self.sizes.rows, self.numbers, self.sizes.score_banks
        at, place, key, _ = self.e_line.rows(4, rows)
        ordinal, _, first, _ = self.ring[place, :4].T
        rescale = self.bank_rescale[ordinal % banks, at]
        before = np.where(key > 0, self.total[at], np.where(first, 0, down(self.total[at], rescale)))
        self.total[at] = before + numbers.guarded(self.p[at])
        self._fits(self.total[at], self.sizes.sum_bits + 1)
        self.bank_p[ordinal % PROBABILITY_BANKS, at, key] = self.p[at]
        start = key == 0
        self.rescale[ordinal[start] % SHIFT_BANKS, at[start]] = rescale[start]
        at, _, _, _ = self.e_line.rows(3, rows)
        self.p[at] = numbers.probability(self.entry[at], self.shift[at])
        at, _, _, _ = self.e_line.rows(2, rows)
        entry, self.shift[at] = numbers.split(self.distance[at])
        self.entry[at] = np.where(self.distance_hidden[at], 0, entry)
        at, place, _, _ = self.e_line.rows(1, rows)
        self.distance[at] = numbers.below(self.bank_maximum[self.ring[place, 0] % banks, at], self.read_x[at])
        self.distance_hidden[at] = self.read_hidden[at]
        at, place, key, _ = self.e_line.rows(0, rows)
        bank = self.ring[place, 0] % banks
        self.read_x[at], self.read_hidden[at] = self.bank_x[bank, at, key], self.bank_hidden[bank, at, key]

    def _maximum(self) -> None:
        at, place, key, chunk = self.k_line.rows(self.sizes.cols + 6, self.sizes.rows)
        done = chunk == self.sizes.chunks - 1
        at, place, key = at[done], place[done], key[done]
        ordinal, _, first, _ = self.ring[place, :4].T
        bank, start = ordinal % self.sizes.score_banks, key == 0
        fresh = start & (first == 1)
        before = np.where(fresh, self.numbers.lowest, self.maximum[at])
        here = np.where(self.hidden[at], before, self.numbers.ceiling(self.x[at]))
        risen = np.maximum(before, here)
        already = np.where(start, 0, self.bank_rescale[bank, at])
        self.bank_rescale[bank, at] = already + risen - before
        self.bank_maximum[bank, at] = self.maximum[at] = risen

    def _scale(self) -> None:
        """Round and mask, scale, add chunks."""
        cols, rows, chunks = self.sizes.cols, self.sizes.rows, self.sizes.chunks
        at, place, key, chunk = self.k_line.rows(cols + 5, rows)
        done = chunk == chunks - 1
        at, place, key = at[done], place[done], key[done]
        ordinal, _, _, _, query, start, low, high, keys = self.ring[place, :9].T
        i, j = query + at, start + key
        self.hidden[at] = ~((i + low <= j) & (j < i + high) & (j < keys))
        self.x[at] = self.numbers.logarithm(self.scaled[at])
        bank = ordinal % self.sizes.score_banks
        self.bank_x[bank, at, key], self.bank_hidden[bank, at, key] = self.x[at], self.hidden[at]
        at, place, _, _ = self.k_line.rows(cols + 4, rows)
        self.scaled[at] = self.numbers.scaled(self.score[at], self.ring[place, 9])
        at, _, key, chunk = self.k_line.rows(cols + 3, rows)
        added = np.where(chunk > 0, self.partial[at, key], 0) + self.scores.sum[at, -1]
        self.partial[at, key] = self.score[at] = added
        self._fits(added, self.sizes.score_bits)

    def _write_q(self, q: tuple[int, int, Ints] | None) -> None:
        rows = np.arange(self.sizes.rows)
        at = self.q_at[Q_DELAY - 1 : Q_DELAY - 1 + self.sizes.rows]
        for row in rows[at[:, 0] == 1]:
            self.q[at[row, 1], row, at[row, 2]] = self.q_line[Q_DELAY - 1 + row, row]
        self.q_line[1:], self.q_at[1:] = self.q_line[:-1], self.q_at[:-1]
        self.q_at[0] = (0, 0, 0) if q is None else (1, *q[:2])
        self.q_line[0] = 0 if q is None else q[2]

    @staticmethod
    def _fits(values: Ints, bits: int) -> None:
        if values.size and (values.max() >= 1 << bits - 1 or values.min() < -(1 << bits - 1)):
            raise AssertionError(f"a sum does not fit {bits} bits: {values.min()} to {values.max()}")
