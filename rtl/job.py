"""One job of the attention unit: what to attend to, the tiles that visits, and the beats of its streams."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.description.errors import InputError
from tilewright.rtl.parameters import SCALE_BITS, WORD_TILES

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Job:
    """One head: query i attends key j iff `i + low <= j < i + high` (and the bitmap visits the tile)."""

    queries: int
    keys: int
    scale: int
    """Unsigned, 16 bits; see `scale_for`."""
    low: int
    high: int
    bitmap: NDArray[np.bool_] | None = None
    """[Q tiles, K tiles]: the tiles to visit; none means all that hold an attended key."""

    @classmethod
    def full(cls, queries: int, keys: int, scale: int) -> Job:
        """Every query attends every key."""
        return cls(queries, keys, scale, -queries, keys)

    @classmethod
    def causal(cls, queries: int, keys: int, scale: int) -> Job:
        """The last query attends all keys, each one before it one key less."""
        return cls(queries, keys, scale, -queries, keys - queries + 1)

    @classmethod
    def window(cls, queries: int, keys: int, scale: int, before: int, after: int) -> Job:
        """A query attends its own key (the last query's is the last one) and those around it."""
        offset = keys - queries
        return cls(queries, keys, scale, offset - before, offset + after + 1)

    def with_bitmap(self, bitmap: NDArray[np.bool_]) -> Job:
        """The same with only the tiles of `bitmap` [Q tiles, K tiles] visited."""
        return replace(self, bitmap=bitmap)

    @property
    def command(self) -> dict[str, int]:
        """The payload of the command beat."""
        return {
            "queries": self.queries,
            "keys": self.keys,
            "scale": self.scale,
            "low": self.low,
            "high": self.high,
            "use_bitmap": int(self.bitmap is not None),
        }


@dataclass(frozen=True)
class Visit:
    """A K tile that a Q tile visits; a dead one has all its keys masked."""

    tile: int
    dead: bool = False


@dataclass(frozen=True)
class Streams:
    """The beats of a job, one a row; element e of a beat is at bits e · W of the payload."""

    bitmap: Integers
    """[words]; empty without a bitmap."""
    q: Integers
    """[Q tiles · D, R]."""
    k: Integers
    """[visits · H C, C]."""
    v: Integers
    """[visits · D, C]."""


def scale_for(parameters: UnitSizes, factor: float) -> int:
    """The 16-bit scale with which the unit computes `softmax(factor · Q Kᵀ)` of the integers Q and K.

    Raises InputError if it doesn't fit; the largest factor that does is `2^16 / (log2(e) · 2^(F + SB))`.
    """
    unit = 2.0 ** (parameters.exponent_fraction_bits + parameters.score_bits)
    scale = round(factor * math.log2(math.e) * unit)
    if not 0 <= scale < 1 << SCALE_BITS:
        most = ((1 << SCALE_BITS) - 1) / (math.log2(math.e) * unit)
        raise InputError(
            f"factor {factor:g} of the scores does not fit the unit's {SCALE_BITS}-bit scale: "
            f"give one between 0 and {most:g} (scale Q or K down), or fewer exponent_fraction_bits"
        )
    return scale


def check_job(parameters: UnitSizes, job: Job) -> None:
    """Raises InputError with all that the unit can't take about a job."""
    most = parameters.max_keys
    wrong = [
        f"{name} {value} of a job: the unit takes 1 to {most} (max_keys)"
        for name, value in (("queries", job.queries), ("keys", job.keys))
        if not 1 <= value <= most
    ]
    if not 0 <= job.scale < 1 << SCALE_BITS:
        wrong.append(f"scale {job.scale} of a job: give 0 to {(1 << SCALE_BITS) - 1} (see scale_for)")
    shape = (tiles(job.queries, parameters.rows), tiles(job.keys, parameters.cols))
    if job.bitmap is not None and job.bitmap.shape != shape:
        wrong.append(
            f"bitmap of shape {job.bitmap.shape} in a job of {job.queries} queries and {job.keys} keys: "
            f"give {shape}, a bit for each tile of {parameters.rows} queries by {parameters.cols} keys"
        )
    if wrong:
        raise InputError(*wrong)


def tiles(length: int, size: int) -> int:
    """Tiles of `size` that cover `length`."""
    return -(-length // size)


def visited(parameters: UnitSizes, job: Job) -> list[list[Visit]]:
    """The K tiles that each Q tile visits, in order."""
    return [_visits_of(parameters, job, tile) for tile in range(tiles(job.queries, parameters.rows))]


def _visits_of(parameters: UnitSizes, job: Job, q_tile: int) -> list[Visit]:
    first = q_tile * parameters.rows
    last = min(first + parameters.rows, job.queries) - 1
    start = max(0, first + job.low) // parameters.cols
    stop = tiles(min(job.keys, last + job.high), parameters.cols)
    found = [Visit(t) for t in range(start, stop) if job.bitmap is None or job.bitmap[q_tile, t]]
    return found or [Visit(0, dead=True)]


def attended(parameters: UnitSizes, job: Job) -> NDArray[np.bool_]:
    """Whether each query attends each key: [queries, keys]."""
    query = np.arange(job.queries)[:, None]
    key = np.arange(job.keys)[None, :]
    inside = (query + job.low <= key) & (key < query + job.high)
    if job.bitmap is not None:
        inside &= job.bitmap[query // parameters.rows, key // parameters.cols]
    return inside


def bitmap_words(parameters: UnitSizes, job: Job) -> Integers:
    """The beats of the bitmap stream; empty if the job has none."""
    if job.bitmap is None:
        return np.zeros(0, dtype=np.int64)
    words = tiles(tiles(job.keys, parameters.cols), WORD_TILES)
    bits = np.zeros((tiles(job.queries, parameters.rows), words * WORD_TILES), dtype=np.int64)
    bits[:, : job.bitmap.shape[1]] = job.bitmap
    return (bits.reshape(-1, WORD_TILES) << np.arange(WORD_TILES)).sum(axis=1)


def streams(
    parameters: UnitSizes,
    job: Job,
    q: Integers,
    k: Integers,
    v: Integers,
    filler: np.random.Generator | None = None,
) -> Streams:
    """The beats of a job with Q [queries, D], K and V [keys, D].

    Elements that don't matter (past the last query, key or column of the head) are drawn from `filler`, or 0.
    """
    check_job(parameters, job)
    q_tiles, k_tiles = tiles(job.queries, parameters.rows), tiles(job.keys, parameters.cols)
    wide = parameters.score_beats
    q_all = _padded(parameters, q, (q_tiles * parameters.rows, parameters.head_dim), filler)
    k_all = _padded(parameters, k, (k_tiles * parameters.cols, wide), filler)
    v_all = _padded(parameters, v, (k_tiles * parameters.cols, parameters.head_dim), filler)
    order = [visit.tile for visits in visited(parameters, job) for visit in visits]
    k_tile = k_all.reshape(k_tiles, parameters.cols, parameters.chunks, parameters.cols)
    v_tile = v_all.reshape(k_tiles, parameters.cols, parameters.head_dim)
    return Streams(
        bitmap_words(parameters, job),
        q_all.reshape(q_tiles, parameters.rows, -1).transpose(0, 2, 1).reshape(-1, parameters.rows),
        k_tile[order].transpose(0, 2, 1, 3).reshape(-1, parameters.cols),
        v_tile[order].transpose(0, 2, 1).reshape(-1, parameters.cols),
    )


def _padded(
    parameters: UnitSizes, values: Integers, shape: tuple[int, int], filler: np.random.Generator | None
) -> Integers:
    half = 1 << (parameters.operand_bits - 1)
    padded = np.zeros(shape, dtype=np.int64) if filler is None else filler.integers(-half, half, shape)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded


def output(parameters: UnitSizes, job: Job, beats: Integers) -> Integers:
    """O [queries, D] from the beats of the `o` stream [Q tiles · D, R]."""
    by_tile = beats.reshape(-1, parameters.head_dim, parameters.rows).transpose(0, 2, 1)
    return by_tile.reshape(-1, parameters.head_dim)[: job.queries]


def pack(beats: Integers, bits: int) -> list[int]:
    """Each row of `beats` as one payload: element e, modulo 2^bits, at bits e · `bits`."""
    mask = (1 << bits) - 1
    return [sum((int(e) & mask) << (bits * at) for at, e in enumerate(beat)) for beat in beats]


def unpack(payloads: Iterable[int], count: int, bits: int) -> Integers:
    """The inverse of `pack`, for signed elements: [beats, count]."""
    half, mask = 1 << (bits - 1), (1 << bits) - 1
    rows = [[((p >> (bits * at) & mask) ^ half) - half for at in range(count)] for p in payloads]
    return np.array(rows, dtype=np.int64).reshape(-1, count)
