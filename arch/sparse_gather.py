"""Sparse-attention units that bring chosen keys together: by a list, or by hashing."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from tilewright.arch.block import Count, Cycles, Rate
from tilewright.arch.sparse_unit import Unit


class Gather(Unit):
    """Gathers the keys that a block of queries needs, row by row, and works on them densely.

    Which keys: those that any of its queries may see, or, with `keep`, of these the likeliest by the block's
    mean query (pooled queries as in MInference, Jiang et al., arXiv:2407.02490; with `rows: 1` the true top
    k of each query: Gupta et al., arXiv:2106.06899). The unit's sizes are no published design's.
    """

    kind: Literal["gather"]
    rows: Count = 16
    """Queries of a block, which share what is gathered."""
    keep: Count | None = None
    """Keys of a block at most; None: all that may be seen."""
    gather_bytes_per_cycle: Rate = 64.0
    """Of the gather engine; a row of K or V takes whole cycles."""
    predictor_macs: Count = 256
    """Multiply-accumulates of the ranking in a cycle (`keep`)."""
    select_keys: Count = 4
    """Ranks that the top-k selection takes in, in a cycle (`keep`)."""
    from_dram: bool = False
    """Whether each block gathers from DRAM, a request a row; else K and V are loaded once and gathered on
    chip."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """See `Unit`."""
        return (self.predictor_macs, 16) if self.keep else (0, 16)


class Lsh(Unit):
    """Hashes queries and keys by random rotations, sorts both by bucket, and attends chunk by chunk (Kitaev
    et al., "Reformer", arXiv:2001.04451, whose rotations these are; queries and keys are not shared, as in
    Daras et al., "SMYRF", arXiv:2010.05315). The unit's sizes are no published design's.
    """

    kind: Literal["lsh"]
    rounds: Annotated[int, Field(gt=0, le=64)] = 4
    """Hashes; what any of them brings together is attended to."""
    buckets: Annotated[int, Field(gt=0, le=2**16)] = 32
    """Of one hash; even, since a rotated axis and its opposite are two."""
    chunk: Count = 64
    """Sorted queries, and sorted keys, that are worked on together."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the rotations."""
    sort_tokens: Count = 1
    """Tokens that the sorter puts in place, in a cycle."""
    gather_bytes_per_cycle: Rate = 64.0
    """To bring sorted queries, keys and values together and to put results back; a row takes whole cycles."""
    switch_cycles: Cycles = 1
    """Of the sorter, per bucket and round, to turn counts into places."""

    @field_validator("buckets")
    @classmethod
    def _even(cls, buckets: int) -> int:
        if buckets % 2:
            raise ValueError(f"must be even, since an axis and its opposite are two buckets; not {buckets}")
        return buckets
