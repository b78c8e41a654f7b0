"""Candidate tile sizes, and what a tiling is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from tilewright.dataflows.arith import ceil_div

Order = Literal["mn", "nm"]
Split = Literal["batch", "m", "n", "k"]

_SPLITS_BY_EFFORT = (0, 0, 0, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a matmul is cut. `m`, `k`, `n` are a tick's sizes over all cores; `split` says which dimension the
    cores share out; `order` names the outer, then the inner loop over output tiles (k is always innermost, so
    sums never leave the chip half done).

    Where k is cut, the outer loop's operand (A where m is outer) is loaded anew for each inner tile unless
    `outer_stays`: then all of it along k stays while the inner tiles pass. With `inner_stays`, the whole of
    the inner loop's operand stays while the outer tiles pass."""

    m: int
    k: int
    n: int
    order: Order
    split: Split
    outer_stays: bool = False
    inner_stays: bool = False

    def __str__(self) -> str:
        outer, inner = ("A", "B") if self.order == "mn" else ("B", "A")
        stays = f", {outer} stays" if self.outer_stays else ""
        stays += f", all {inner} stays" if self.inner_stays else ""
        shared = f", cores share {self.split}" if self.split != "m" else ""
        return f"{self.m} x {self.k} x {self.n}, {self.order[0]} outer{stays}{shared}"


@lru_cache(maxsize=4096)
def sizes(dimension: int, quantum: int, effort: int) -> tuple[int, ...]:
    """Tile sizes to try for a dimension of which the array holds `quantum`, in rising order.

    Each effort's set contains those of the lower ones, whatever the dimension: a larger search is never
    worse.
    """
    found: set[int] = {dimension}
    found.update(_powers(quantum, 4 if effort == 0 else 2, dimension))
    if effort >= 2:
        found.update(_powers(3 * quantum, 2, dimension))
    if effort >= 4:
        found.update(_powers(5 * quantum, 2, dimension), _powers(7 * quantum, 2, dimension))
    for parts in range(2, _SPLITS_BY_EFFORT[effort] + 1):
        found.add(min(dimension, ceil_div(ceil_div(dimension, parts), quantum) * quantum))
    return tuple(sorted(found))


def _powers(start: int, factor: int, limit: int) -> Iterator[int]:
    size = start
    while size < limit:
        yield size
        size *= factor


def spans(dimension: int, tile: int) -> Iterable[tuple[int, int]]:
    """(how many, of which size): full tiles, then the ragged last one; empty entries left out."""
    full, rest = divmod(dimension, tile)
    return [(count, size) for count, size in ((full, tile), (1, rest)) if count and size]


def pieces(extent: int, step: int) -> Iterator[tuple[bool, bool, int, int]]:
    """(first, last, size, how many) of the pieces of a dimension."""
    count = ceil_div(extent, step)
    if count == 1:
        yield True, True, extent, 1
        return
    yield True, False, step, 1
    if count > 2:
        yield False, False, step, count - 2
    yield False, True, extent - (count - 1) * step, 1
