"""Points spread over a space, none twice, in memory that does not grow with their number.

`Numbered` numbers a space's points, `Shuffled` is a permutation of numbers that is computed place by place,
so that who takes its places in turn meets nothing twice and need not remember anything. For sequences that do
come back (Sobol's on a grid) `Seen` remembers in an area of fixed size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from tilewright.explore.evaluation.points import Axis, Point, Value, override_text

ROUNDS = 6
"""Of the Feistel network; four make a permutation that can't be told from a random one where halves are wide
(Luby and Rackoff, SIAM J. Comput. 17(2), 1988)."""
LEAST_BITS = 10
"""Of the network: few bits make few permutations, so that small spaces walk through a larger one."""
SEEN_BYTES = 2**24
_MARKS = 4
"""Bits that each point sets among those."""


class Numbered:
    """The points of some axes, numbered from 0; what an interval's axis is left open, and counts as one."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._axes = axes
        self._known: dict[tuple[int, str], int] = {}
        named = [{key for key, _ in axis.when} for axis in axes]
        self._asked = [set[str]().union(*named[place:]) for place in range(len(axes) + 1)]
        """By place: keys that the axes from there on depend on."""
        self.size = self._count(0, {})

    def _count(self, place: int, chosen: dict[str, Value]) -> int:
        """How many ways there are to choose from an axis on, given what was chosen before it."""
        if place == len(self._axes):
            return 1
        asked = {key: chosen[key] for key in sorted(self._asked[place]) if key in chosen}
        name = (place, override_text(asked) if asked else "")
        if name not in self._known:
            axis = self._axes[place]
            if not axis.is_there(chosen) or axis.is_interval:
                self._known[name] = self._count(place + 1, chosen)
            elif axis.key not in self._asked[place + 1]:
                self._known[name] = len(axis.values) * self._count(place + 1, chosen)
            else:
                each = (self._count(place + 1, chosen | {axis.key: value}) for value in axis.values)
                self._known[name] = sum(each)
        return self._known[name]

    def at(self, number: int) -> dict[str, Value]:
        """The choice with a number; None for an interval's axis."""
        chosen: dict[str, Value] = {}
        for place, axis in enumerate(self._axes):
            if not axis.is_there(chosen):
                continue
            if axis.is_interval:
                chosen[axis.key] = None
            elif axis.key not in self._asked[place + 1]:
                digit, number = divmod(number, self._count(place + 1, chosen))
                chosen[axis.key] = axis.values[digit]
            else:
                for value in axis.values:
                    chosen[axis.key] = value
                    below = self._count(place + 1, chosen)
                    if number < below:
                        break
                    number -= below
        return chosen


class Shuffled:
    """The numbers below `size` in an order that a seed decides, each once: a Feistel network over the least
    number of bits that holds them, walked on from what lies beyond (Black and Rogaway, CT-RSA 2002)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        bits = max(LEAST_BITS, (size - 1).bit_length())
        self._widths = (bits // 2, bits - bits // 2)
        self._bytes = -(-self._widths[1] // 8)
        self._rounds = [
            blake2b(f"{seed} {number}".encode(), digest_size=min(64, self._bytes + 4))
            for number in range(ROUNDS)
        ]

    def __getitem__(self, place: int) -> int:
        if not 0 <= place < self._size:
            raise IndexError(place)
        while True:
            place = self._permuted(place)
            if place < self._size:
                return place

    def _permuted(self, number: int) -> int:
        low, high = self._widths
        left, right = number >> low, number & ((1 << low) - 1)
        for keyed in self._rounds:  # halves change places, so that each takes its turn at either width
            state = keyed.copy()
            state.update(right.to_bytes(self._bytes, "little"))
            mixed = int.from_bytes(state.digest(), "little")
            left, right = right, (left ^ mixed) & ((1 << high) - 1)
            low, high = high, low
        return left << low | right


class Seen:
    """Which points there were, by a few bits of each (Bloom, CACM 13(7), 1970). What was there is known for
    certain; what was not is taken for known once in a million times after a million points, once in two
    hundred times after ten million."""

    def __init__(self) -> None:
        self._bits = np.zeros(SEEN_BYTES, dtype=np.uint8)  # pages that are not written to take no memory

    def add(self, name: str) -> bool:
        """Note a name; whether it is new."""
        digest = blake2b(name.encode(), digest_size=4 * _MARKS).digest()
        new = False
        for start in range(0, len(digest), 4):
            where = int.from_bytes(digest[start : start + 4], "little") % (8 * SEEN_BYTES)
            place, bit = where >> 3, 1 << (where & 7)
            old = int(self._bits[place])
            if not old & bit:
                self._bits[place] = old | bit
                new = True
        return new


def shuffled_points(axes: Sequence[Axis], seed: int) -> Iterator[Point]:
    """Points at random, each of the finite choices as likely as any other and none twice. Where axes are
    intervals, a choice comes back, with other numbers, once all have had their turn. Without an end, then."""
    numbered = Numbered(axes)
    intervals = {axis.key: axis for axis in axes if axis.is_interval}
    generator = np.random.default_rng(seed)
    turn = 0
    while True:
        order = Shuffled(numbered.size, seed + (turn << 32))  # a seed has 32 bits
        filled = 0
        for place in range(numbered.size):
            chosen = numbered.at(order[place])
            open_keys = [key for key in chosen if key in intervals]
            for key in open_keys:
                chosen[key] = intervals[key].at(float(generator.random()))
            filled += bool(open_keys)
            if open_keys or not turn:
                yield Point(tuple(chosen.items()))
        if not filled:
            return
        turn += 1


def point_at(axes: Sequence[Axis], shares: Sequence[float]) -> Point:
    """The point at some shares (0 to 1, without 1) of the way along each axis."""
    chosen: dict[str, Value] = {}
    for axis, share in zip(axes, shares, strict=True):
        if axis.is_there(chosen):
            chosen[axis.key] = axis.at(float(share))
    return Point(tuple(chosen.items()))
