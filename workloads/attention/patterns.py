"""Static attention patterns, held as runs of keys, and the one lowering of all of them.

A pattern is a set of trapezoids: from query to query the ends of a run of keys stand still or move on by one.
A band over a million tokens is one trapezoid, a block-diagonal pattern one a block; nothing here is ever
n x n, except `dense`, for tests. `pattern_attention` cuts the runs into blocks of queries by blocks of keys
and charges every block that holds a pair, as a blocked kernel does; the pairs themselves are its useful work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import MatmulShape, Tensor

Ints = NDArray[np.int64]

LEVELS = 32
"""Counts of key blocks up to which data may tell blocks of queries apart: more make a run too long."""
IN_PLACE = 3
"""Stretches of neighbouring key blocks (a beginning, a middle, an end) that a matmul reads where they are."""


class Blocked(Parameters):
    """Base of mechanisms that a blocked kernel computes."""

    block: Annotated[int, Field(gt=0)] = 64
    """Queries and keys of a block of the kernel: it computes whole blocks."""


@dataclass(frozen=True)
class Runs:
    """Arrays with an entry per trapezoid: query `row + r`, r < `count`, sees the keys from
    max(start + start_step r, floor) up to, not including, min(stop + stop_step r, ceiling)."""

    row: Ints
    count: Ints
    start: Ints
    stop: Ints
    start_step: Ints
    stop_step: Ints
    floor: Ints
    ceiling: Ints

    def __len__(self) -> int:
        return len(self.row)

    def pairs(self) -> Ints:
        """Pairs of a query and a key that it sees, in each trapezoid."""
        rectangle = (self.start_step == 0) & (self.stop_step == 0)
        width = np.minimum(self.stop, self.ceiling) - np.maximum(self.start, self.floor)
        made = np.maximum(width, 0) * self.count
        slanted = np.flatnonzero(~rectangle)
        made[slanted] = _map(self, lambda values: values[slanted])._lengths().sum(axis=1)
        return np.asarray(made)

    def _lengths(self) -> Ints:
        """Keys seen, [trapezoids, most queries of one]."""
        r = np.arange(self.count.max(initial=0))
        low = np.maximum(self.start[:, None] + self.start_step[:, None] * r, self.floor[:, None])
        high = np.minimum(self.stop[:, None] + self.stop_step[:, None] * r, self.ceiling[:, None])
        return np.where(r < self.count[:, None], np.maximum(high - low, 0), 0)

    def cut(self, rows: int) -> Runs:
        """The same, cut where a multiple of `rows` queries stands."""
        first = self.row // rows
        pieces = (self.row + self.count - 1) // rows - first + 1
        index = np.repeat(np.arange(len(self)), pieces)
        within = np.arange(len(index)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        old = _map(self, lambda values: values[index])
        row = np.maximum(old.row, (first[index] + within) * rows)
        end = np.minimum(old.row + old.count, (first[index] + within + 1) * rows)
        moved = row - old.row
        return replace(
            old,
            row=row,
            count=end - row,
            start=old.start + old.start_step * moved,
            stop=old.stop + old.stop_step * moved,
        )


def _map(runs: Runs, function: object) -> Runs:
    return Runs(*(function(getattr(runs, f.name)) for f in fields(Runs)))  # type: ignore[operator]


@dataclass(frozen=True)
class Blocks:
    """A pattern as a blocked kernel sees it; arrays with an entry per block of queries."""

    rows: Ints
    """Queries; the last block may be shorter."""
    key_blocks: Ints
    """Blocks of keys with at least one pair."""
    stretches: Ints
    """Stretches of neighbouring blocks of keys that they form."""
    nnz: Ints
    """Pairs."""


@dataclass(frozen=True)
class Pattern:
    """Which keys each query sees; no pair is in two runs.

    With a `stride` above 1 queries and keys are numbered in the order (i mod stride, i // stride), so that
    those of one residue are neighbours.
    """

    queries: int
    keys: int
    runs: Runs
    stride: int = 1

    def nnz(self) -> int:
        """Pairs of a query and a key that it sees."""
        return int(self.runs.cut(256).pairs().sum())

    def blocks(self, block: int) -> Blocks:
        """Cut into blocks of `block` queries by `block` keys."""
        runs = self.runs.cut(block)
        owner, number = runs.row // block, -(-self.queries // block)
        nnz = np.bincount(owner, runs.pairs(), number).astype(np.int64)
        low = np.maximum(runs.start, runs.floor)
        high = np.minimum(runs.stop + runs.stop_step * (runs.count - 1), runs.ceiling)
        seen = high > low
        # All blocks of queries on one axis, one behind the other: a union of intervals then needs no loop.
        base = owner[seen] * -(-self.keys // block)
        first, last = base + low[seen] // block, base - (-high[seen] // block)
        order = np.argsort(first, kind="stable")
        first, last, owner = first[order], last[order], owner[seen][order]
        reached = np.concatenate(([-1], np.maximum.accumulate(last)[:-1]))
        fresh = np.maximum(last - np.maximum(first, reached), 0)
        opens = (first > reached) | np.concatenate(([True], owner[1:] != owner[:-1]))
        return Blocks(
            rows=np.minimum(block, self.queries - np.arange(number) * block),
            key_blocks=np.bincount(owner, fresh, number).astype(np.int64),
            stretches=np.bincount(owner, opens, number).astype(np.int64),
            nnz=nnz,
        )

    def blocked_keys(self, block: int) -> Ints:
        """Keys that each block of queries works on, whole blocks, none beyond the last key."""
        return np.minimum(self.blocks(block).key_blocks * block, self.keys)

    def dense(self) -> NDArray[np.bool_]:
        """The mask [queries, keys]; for small ones. Raises ValueError if a pair is in two runs."""
        mask = np.zeros((self.queries, self.keys), dtype=np.int64)
        runs = self.runs.cut(1)
        for row, start, stop in zip(
            runs.row,
            np.maximum(runs.start, runs.floor),
            np.minimum(runs.stop, runs.ceiling),
            strict=True,
        ):
            mask[row, start : max(start, stop)] += 1
        if mask.max(initial=0) > 1:
            raise ValueError("a pair is in two runs")
        seen = np.empty_like(mask, dtype=bool)
        seen[np.ix_(_order(self.queries, self.stride), _order(self.keys, self.stride))] = mask == 1
        return seen


def _order(tokens: int, stride: int) -> Ints:
    return np.argsort(np.arange(tokens) % stride, kind="stable")


def runs(
    row: ArrayLike,
    count: ArrayLike,
    start: ArrayLike,
    stop: ArrayLike,
    *,
    steps: tuple[int, int] = (0, 0),
    floor: ArrayLike = 0,
    ceiling: ArrayLike = 1 << 60,
) -> Runs:
    """Trapezoids from whatever broadcasts; `steps` are those of start and stop. Empty ones are left out."""
    given = (row, count, start, stop, *steps, floor, ceiling)
    parts = np.broadcast_arrays(*(np.atleast_1d(values) for values in given))
    made = Runs(*(part.astype(np.int64) for part in parts))
    return _map(made, lambda values: values[made.count > 0])


def joined(*parts: Runs) -> Runs:
    """All of them."""
    return Runs(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Runs)))


def segments(lengths: ArrayLike, back: int, ahead: int, stride: int = 1) -> Pattern:
    """Tokens in segments of the given lengths; each sees `back` tokens before and `ahead` after it, of its
    own segment."""
    sizes = np.atleast_1d(lengths).astype(np.int64)
    first = np.cumsum(sizes) - sizes
    made = runs(
        first, sizes, first - back, first + ahead + 1, steps=(1, 1), floor=first, ceiling=first + sizes
    )
    total = int(sizes.sum())
    return Pattern(total, total, made, stride)


def full(queries: int, keys: int) -> Pattern:
    """Every query sees every key."""
    return Pattern(queries, keys, runs(0, queries, 0, keys))


def band(tokens: int, back: int, ahead: int) -> Pattern:
    """Query i sees i - back … i + ahead."""
    return segments(tokens, back, ahead)


def block_diagonal(tokens: int, length: int, *, causal: bool = False) -> Pattern:
    """Query i sees the keys of its own block of `length` tokens, with `causal` those up to itself."""
    sizes = np.minimum(length, tokens - np.arange(0, tokens, length))
    return segments(sizes, length, 0 if causal else length)


def strided(tokens: int, stride: int, back: int, ahead: int) -> Pattern:
    """Query i sees i + t stride for -back <= t <= ahead."""
    residues = np.arange(min(stride, tokens))
    return segments((tokens - residues + stride - 1) // stride, back, ahead, stride)


def band_with_globals(tokens: int, back: int, ahead: int, first: int, *, rows: bool = True) -> Pattern:
    """A band; besides, the `first` tokens are seen by all and, with `rows`, see all."""
    start = first if rows else 0
    columns = runs(start, tokens - start, 0, first)
    rest = runs(
        start,
        tokens - start,
        start - back,
        start + ahead + 1,
        steps=(1, 1),
        floor=first,
        ceiling=tokens,
    )
    top = [runs(0, first, 0, tokens)] if rows else []
    return Pattern(tokens, tokens, joined(*top, columns, rest))


def from_blocks(tokens: int, block: int, query_blocks: ArrayLike, key_blocks: ArrayLike) -> Pattern:
    """The given pairs of a block of `block` queries and one of as many keys, each pair once."""
    row, column = np.asarray(query_blocks) * block, np.asarray(key_blocks) * block
    made = runs(row, np.minimum(block, tokens - row), column, column + block, ceiling=tokens)
    return Pattern(tokens, tokens, made)


def from_mask(mask: NDArray[np.bool_]) -> Pattern:
    """A mask [queries, keys], True where seen. Raises InputError if a query sees nothing."""
    queries, keys = mask.shape
    blind = np.flatnonzero(~mask.any(axis=1))
    if len(blind):
        raise InputError(
            f"the mask hides every key from query {blind[0]}; let it see one, itself for instance"
        )
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    row, start = np.nonzero(edges == 1)
    _, stop = np.nonzero(edges == -1)
    return Pattern(queries, keys, runs(row, 1, start, stop))


class Blockable(Protocol):
    """What `pattern_attention` asks of a pattern."""

    @property
    def keys(self) -> int:
        """How many keys there are."""
        ...

    def blocks(self, block: int) -> Blocks:
        """The pattern cut into blocks of `block` queries by `block` keys."""
        ...


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks of queries that work on equally many keys: one batched matmul."""

    rows: int
    keys: int
    blocks: int
    """Over all patterns; each counts once for every sequence and head (or KV head) that it serves."""
    nnz: int
    scattered: bool
    """Whether the keys of any of them lie in more than `IN_PLACE` stretches: they are gathered first."""

    @property
    def full(self) -> bool:
        """Whether nothing in it is masked."""
        return self.nnz == self.blocks * self.rows * self.keys


def groups(patterns: Sequence[Blockable], block: int, *, of_data: bool = False) -> list[Group]:
    """The batched matmuls that the patterns take, the one with the most queries first; `of_data`: with
    exact counts of key blocks, or `LEVELS` of them."""
    cut = [pattern.blocks(block) for pattern in patterns]
    rows, nnz = (np.concatenate([getattr(c, name) for c in cut]) for name in ("rows", "nnz"))
    taken, stretches = (np.concatenate([getattr(c, n) for c in cut]) for n in ("key_blocks", "stretches"))
    made = []
    for size in np.unique(rows):
        mine = rows == size
        padded = (_levelled if of_data else _padded)(taken[mine])
        for count in np.unique(padded):
            member = padded == count
            made.append(
                Group(
                    rows=int(size),
                    keys=min(int(count) * block, patterns[0].keys),
                    blocks=int(member.sum()),
                    nnz=int(nnz[mine][member].sum()),
                    scattered=bool((stretches[mine][member] > IN_PLACE).any()),
                )
            )
    return sorted(made, key=lambda group: (-group.rows * group.blocks, group.keys))


def _levelled(counts: Ints) -> Ints:
    """The counts themselves; if more than `LEVELS` differ, rounded up to as many parts of the largest."""
    if len(np.unique(counts)) <= LEVELS:
        return counts
    step = -(-int(counts.max()) // LEVELS)
    return np.asarray(np.minimum(-(-counts // step) * step, counts.max()))


def _padded(counts: Ints) -> Ints:
    """Counts of key blocks, some rounded up to another's, so that few differ: from the largest down those
    within an eighth, then from the smallest up while all that adds is at most 1/32 of the whole."""
    distinct, members = np.unique(counts, return_counts=True)
    target = distinct.copy()
    for i in range(len(distinct) - 2, -1, -1):
        if distinct[i] * 8 >= target[i + 1] * 7:
            target[i] = target[i + 1]
    spare = int(counts.sum()) // 32
    for level, above in zip(np.unique(target), np.unique(target)[1:], strict=False):
        spare -= int(members[target == level].sum() * (above - level))
        if spare < 0:
            break
        target[target == level] = above
    return target[np.searchsorted(distinct, counts)]


def pattern_attention(
    b: GraphBuilder,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: Heads,
    patterns: Sequence[Blockable],
    block: int,
    labels: Tensor | None = None,
    chosen: Tensor | None = None,
    *,
    position_bias: Tensor | None = None,
) -> Tensor:
    """softmax(scale Q K^T + mask) V over the blocks of `block` x `block` that hold a pair.

    `query` [batch, queries, heads * head_dim], `key` and `value` [batch, keys, kv_heads * head_dim];
    `patterns`: one for all heads, or one for each. Blocks of queries with equally many key blocks (a little
    padding allowed) make one batched matmul. Keys in few stretches are read in place, scattered ones are
    gathered first. `labels`: scores of each query with each relative position, of which every pair gets one.
    `chosen`: the list of pairs of blocks, where they are known at run time only; all keys are then gathered,
    and little is padded (see `groups`). `position_bias`: a table of biases by relative position in place of
    the scale, for patterns whose blocks are alike, so that they share theirs. Returns [batch, queries,
    heads * head_dim].
    """
    batch, tokens, _ = query.shape
    units = heads.kv_heads if len(patterns) == 1 else heads.heads
    work = _Work(
        query,
        key,
        value,
        position_bias,
        labels,
        chosen,
        units=units,
        times=batch * units // len(patterns),
        share=heads.heads // units,
        width=heads.head_dim,
    )
    made = groups(patterns, block, of_data=chosen is not None)
    out = (batch, tokens, heads.width)
    if len(made) == 1:
        return _attend(b, work, made[0], out)
    parts = []
    for group in made:
        tail = "tail_" if group.rows < min(block, tokens) else ""
        with b.scope(f"{tail}keys{group.keys}", ""):
            shape = (work.times * group.blocks, work.share * group.rows, work.width)
            parts.append(_attend(b, work, group, shape))
    return b.place("place", parts[0], tuple(parts[1:]), out)


@dataclass(frozen=True, slots=True)
class _Work:
    """What all groups of an attention layer have in common."""

    query: Tensor
    key: Tensor
    value: Tensor
    position_bias: Tensor | None
    labels: Tensor | None
    chosen: Tensor | None
    units: int
    """KV heads, or heads where each has a pattern of its own."""
    times: int
    """Sequences and KV heads that each block of a group stands for."""
    share: int
    """Query heads on the same keys."""
    width: int


def _attend(b: GraphBuilder, work: _Work, group: Group, out: tuple[int, ...]) -> Tensor:
    """One batched matmul over the blocks of a group."""
    matrices, rows, keys = work.times * group.blocks, work.share * group.rows, group.keys
    key, value = work.key, work.value
    if group.scattered or work.chosen is not None:
        shape, by = (matrices, keys, work.width), () if work.chosen is None else (work.chosen,)
        key = b.gather("gathered_keys", "blocks", (key, *by), shape)
        value = b.gather("gathered_values", "blocks", (value, *by), shape)
    useful = work.times * work.share * group.nnz * work.width
    size = MatmulShape(matrices, rows, work.width, keys)
    shape = (matrices, rows, keys)
    scores = b.matmul(
        "scores", work.query, key, size, shape, transpose_b=True, useful_macs=useful, views=True
    )
    if work.labels is not None:
        relative = b.gather("relative", "blocks", (work.labels,), shape)
        scores = b.elementwise("relative_scores", "add", scores, relative)
    weights = b.softmax("softmax", _masked(b, work, group, scores))
    size = MatmulShape(matrices, rows, keys, work.width)
    return b.matmul("context", weights, value, size, out, useful_macs=useful, views=True)


def _masked(b: GraphBuilder, work: _Work, group: Group, scores: Tensor) -> Tensor:
    """The scores scaled, or with their bias, and masked where the group has something to mask."""
    if work.position_bias is None:
        function = "scale" if group.full else "scale_mask"
        return b.elementwise(function, function, scores)
    shape = (work.units, work.share * group.rows, group.keys)
    table = b.gather("score_bias_table", "lookup", (work.position_bias,), shape)
    scores = b.elementwise("score_bias", "add", scores, table)
    return scores if group.full else b.elementwise("mask", "minus_infinity_mask", scores)
