"""Patterns that data make, counted: what is charged of a mask, without keeping its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.attention.patterns import Blocks, Ints
from tilewright.workloads.attention.scores import SAMPLED, imbalance
from tilewright.workloads.builder import GraphBuilder

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Counted:
    """The counts of a pattern for one size of block: enough to charge it."""

    keys: int
    block: int
    counts: Blocks

    def blocks(self, block: int) -> Blocks:
        """The counts; raises ValueError for another size of block than its own."""
        if block != self.block:
            raise ValueError(f"counted in blocks of {self.block}, not {block}")
        return self.counts

    def nnz(self) -> int:
        """Pairs of a query and a key that it sees."""
        return int(self.counts.nnz.sum())


def counted_mask(mask: Mask, block: int) -> Blocks:
    """The counts of a mask [queries, keys], or of some whole blocks of its queries."""
    queries, keys = mask.shape
    rows, columns = np.arange(0, queries, block), np.arange(0, keys, block)
    # Sums of rows first, one after the other: `reduceat` over a whole mask takes several times as long.
    by_rows = np.stack([mask[row : row + block].sum(axis=0, dtype=np.int32) for row in rows])
    pairs = np.add.reduceat(by_rows, columns, axis=1, dtype=np.int64)
    return _counts(pairs > 0, np.minimum(block, queries - rows), pairs.sum(axis=1))


def counted_blocks(sees: Mask, tokens: int, block: int, *, causal: bool) -> Blocks:
    """The counts of `tokens` of which whole blocks see each other, [blocks of queries, blocks of keys];
    `causal`: those on the diagonal show a query no later key."""
    sizes = np.minimum(block, tokens - np.arange(len(sees)) * block)
    pairs: Ints = sees.astype(np.int64) @ sizes * sizes
    if causal:
        pairs -= np.where(np.diagonal(sees), sizes * (sizes - 1) // 2, 0)
    return _counts(sees, sizes, pairs)


def whole_blocks(sees: Mask, tokens: int, block: int, *, causal: bool) -> Counted:
    """`counted_blocks` of a layer that fills its tokens up to whole blocks and computes all of them."""
    counts = counted_blocks(sees, tokens, block, causal=causal)
    return Counted(len(sees) * block, block, replace(counts, rows=np.full(len(sees), block)))


def pairs_of_blocks(heads: Sequence[Counted]) -> int:
    """Pairs of a block of queries and one of keys that it sees."""
    return sum(int(head.counts.key_blocks.sum()) for head in heads)


def _counts(sees: Mask, rows: Ints, nnz: Ints) -> Blocks:
    opens = np.diff(sees.astype(np.int8), axis=1, prepend=0) == 1
    return Blocks(rows, sees.sum(axis=1), opens.sum(axis=1), nnz)


def stacked(parts: Sequence[Blocks]) -> Blocks:
    """Counts of blocks of queries, one behind the other."""
    return Blocks(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Blocks)))


def note(b: GraphBuilder, heads: Sequence[Counted], kept: Sequence[float]) -> None:
    """Put what was chosen into the graph's metadata: `kept`, the share of the softmax it holds, per head."""
    counts = stacked([head.counts for head in heads])
    mass = sum(kept) / len(kept)
    b.note("chosen_pairs", f"{counts.nnz.sum():d} in all heads of a sequence")
    b.note("chosen_imbalance", f"{imbalance(counts.key_blocks):.3f} (most blocks of keys over mean)")
    b.note("kept_softmax", f"{mass:.4f} (mean over heads and {SAMPLED} evenly spaced queries, or all)")
