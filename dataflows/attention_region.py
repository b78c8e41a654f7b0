"""A layer's attention on the streaming unit: its heads as jobs, and what its streams move.

Sequences and heads are jobs one after another. K and V are streamed anew for every Q tile, and for every
query head that shares them. A blocked kernel's blocks (`Operator.views`) are jobs of their own, with all
their tiles visited.
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import ceil

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.array import Array
from tilewright.arch.streaming_unit import Streaming, UnitSizes, unit_sizes
from tilewright.dataflows.attention_jobs import WORD_TILES, Job
from tilewright.dataflows.attention_unit import k_tiles, q_tiles, visits
from tilewright.dataflows.specs import StreamSpec
from tilewright.description.errors import InputError
from tilewright.workloads.attention.mask_file import load
from tilewright.workloads.pairs import Pairs

Mask = NDArray[np.bool_]
COMMAND_BYTES = 16
WORD_BYTES = WORD_TILES // 8


def sizes_of(spec: StreamSpec, array: Array) -> UnitSizes:
    """The unit's. Raises `InputError` if the layer's heads do not fit it."""
    assert isinstance(spec.unit, Streaming)
    sizes = unit_sizes(spec.unit, array)
    wide = max(spec.first.shape.k, spec.second.shape.n)
    if wide > sizes.head_dim:
        raise InputError(
            f"attention_unit.head_dim: the workload's heads are {wide} wide, the unit is built for "
            f"{sizes.head_dim}; set arch.attention_unit.head_dim={wide}, and output_columns at least as large"
        )
    most = max(spec.pairs.queries, spec.pairs.keys)
    if most > sizes.max_keys:
        raise InputError(
            f"attention_unit.max_keys: a head has {most} queries or keys, the unit is built for "
            f"{sizes.max_keys}; set arch.attention_unit.max_keys={1 << (most - 1).bit_length()}"
        )
    return sizes


@lru_cache(maxsize=64)
def jobs_of(spec: StreamSpec, array: Array) -> tuple[Job, ...]:
    """A job for each query head of each sequence. Raises `InputError` as `sizes_of`, and for masks that the
    unit can't apply."""
    sizes, pairs = sizes_of(spec, array), spec.pairs
    shape = spec.first.shape
    sequences = max(1, shape.batch * shape.m // (pairs.queries * pairs.heads.heads))
    return tuple(_heads(sizes, pairs)) * sequences


def _heads(sizes: UnitSizes, pairs: Pairs) -> list[Job]:
    heads, queries, keys = pairs.heads.heads, pairs.queries, pairs.keys
    if pairs.masks is None:
        return [Job(queries, keys, *pairs.bounds)] * heads
    masks = load(pairs.masks, heads, keys)
    made = [masked(sizes, mask[-queries:], head) for head, mask in enumerate(masks)]
    return made if len(made) == heads else made * heads


def masked(sizes: UnitSizes, seen: Mask, head: int = 0) -> Job:
    """The job whose window and bitmap let through just these pairs, [queries, keys].

    Raises `InputError` if there is none: within a tile, the unit masks by a window alone.
    """
    queries, keys = seen.shape
    places = np.argwhere(seen)
    distance = places[:, 1] - places[:, 0]
    low, high = (int(distance.min()), int(distance.max()) + 1) if len(places) else (-queries, keys)
    i, j = np.arange(queries)[:, None], np.arange(keys)
    window = (i + low <= j) & (j < i + high)
    if len(places) and (window == seen).all():
        return Job(queries, keys, low, high)
    tiles = _by_tile(sizes, seen)
    allowed = window & tiles.repeat(sizes.rows, 0).repeat(sizes.cols, 1)[:queries, :keys]
    if (allowed != seen).any():
        at = tuple(int(n) for n in np.argwhere(allowed != seen)[0])
        raise InputError(
            f"attention_unit: head {head}'s mask hides key {at[1]} from query {at[0]} within a tile of "
            f"{sizes.rows} x {sizes.cols} that other pairs need; a streaming unit masks by one window "
            "(low <= key - query < high) and by whole tiles; use blocks of the tile's size, or "
            "`attention_unit.kind: block_skip`"
        )
    bits = tuple(sum(1 << int(tile) for tile in row.nonzero()[0]) for row in tiles)
    return Job(queries, keys, low, high, bits)


def _by_tile(sizes: UnitSizes, seen: Mask) -> Mask:
    """Which tiles hold a pair, [Q tiles, K tiles]."""
    queries, keys = seen.shape
    rows, cols = ceil(queries / sizes.rows), ceil(keys / sizes.cols)
    whole = np.zeros((rows * sizes.rows, cols * sizes.cols), dtype=bool)
    whole[:queries, :keys] = seen
    return np.asarray(whole.reshape(rows, sizes.rows, cols, sizes.cols).any(axis=(1, 3)))


def tiles_of(sizes: UnitSizes, jobs: tuple[Job, ...]) -> tuple[int, int]:
    """(Q tiles, visits of K tiles) of all jobs."""
    kinds = Counter(jobs)
    return (
        sum(times * q_tiles(sizes, job) for job, times in kinds.items()),
        sum(times * visits(sizes, job) for job, times in kinds.items()),
    )


def streamed_bytes(sizes: UnitSizes, jobs: tuple[Job, ...]) -> tuple[int, int]:
    """Bytes that go in (Q, K, V, commands, bitmaps) and out (O), padding included."""
    queries, tiles = tiles_of(sizes, jobs)
    column = sizes.rows * sizes.head_dim
    keys = sizes.cols * (sizes.score_beats + sizes.head_dim)
    words = sum(
        times * q_tiles(sizes, job) * ceil(k_tiles(sizes, job) / WORD_TILES)
        for job, times in Counter(jobs).items()
        if job.bitmap is not None
    )
    into = ceil((queries * column + tiles * keys) * sizes.operand_bits / 8)
    out = ceil(queries * column * sizes.operand_bits / 8)
    return into + COMMAND_BYTES * len(jobs) + WORD_BYTES * words, out
