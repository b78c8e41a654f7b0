"""Sparse-attention units that predict, with little arithmetic, which scores will matter.

The method of each is in `tilewright.dataflows.sparse`, in the module of its kind; docs/sparse-units.md says
what is from the papers and what is a guess.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tilewright.arch.block import Count
from tilewright.arch.sparse_unit import Unit

Share = Annotated[float, Field(gt=0, le=1)]
Alpha = Annotated[float, Field(ge=-1, lt=1)]


class Sanger(Unit):
    """Predicts the attention weights from low-precision queries and keys, keeps those above a threshold, and
    packs what is left of each row, split into pieces, into full rows of a score-stationary array (Lu et al.,
    "Sanger", MICRO 2021, doi:10.1145/3466752.3480125). A row of PEs holds as many scores as the array has
    columns."""

    kind: Literal["sanger"]
    bits: Literal[4, 8] = 4
    """Of the predictor's queries and keys."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.002
    """Least predicted weight that is kept."""
    normalized: bool = True
    """Whether queries and keys are rounded with their lengths divided out, and the products multiplied by
    them."""
    predictor_macs: Count = 64 * 64
    """Low-precision multiply-accumulates of the predictor in a cycle."""
    rows: Count = 64
    """Queries that are predicted and packed together."""
    split: Count = 64
    """Keys whose scores with a query may share a row of PEs."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """Multiply-accumulators of the predictor and their bits."""
        return self.predictor_macs, self.bits


class Energon(Unit):
    """Filters the keys of each query in rounds of growing precision, each with a threshold between the mean
    and the extremes of what is left (Zhou et al., "Energon", TCAD 2023, arXiv:2110.09310)."""

    kind: Literal["energon"]
    query_bits: Literal[2, 4, 8] = 4
    """Upper bits of the queries' 16 that the filter works with."""
    key_bits: Annotated[tuple[Annotated[int, Field(ge=2, le=8)], ...], Field(min_length=1)] = (2, 4)
    """Upper bits of the keys' 16, by round; growing."""
    alphas: Annotated[tuple[Alpha, ...], Field(min_length=1)] = (0.0, 0.0)
    """Where each round's threshold lies: 0 at the mean of the scores that are left, towards 1 at their
    maximum, -1 at their minimum."""
    predictor_macs: Count = 512
    """Products of a query's element and two bits of a key's that the filter takes up in a cycle."""
    selector: Count = 8
    """Scores that are compared with the threshold in a cycle."""
    rows: Count = 8
    """Queries that are filtered before the array works on them."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """Multiply-accumulators of the filter and the bits of their wider operand."""
        return self.predictor_macs, self.query_bits

    @model_validator(mode="after")
    def _rounds_agree(self) -> Energon:
        if len(self.key_bits) != len(self.alphas):
            raise ValueError(
                f"a round has one of `key_bits` and one of `alphas`; there are {len(self.key_bits)} and "
                f"{len(self.alphas)}"
            )
        if list(self.key_bits) != sorted(set(self.key_bits)):
            raise ValueError(f"`key_bits` must grow from round to round, not be {list(self.key_bits)}")
        return self


class Dota(Unit):
    """Detects the strong pairs from low-rank, low-precision queries and keys, and works on several queries in
    parallel, which share the keys that they have in common (Qu et al., "DOTA", ASPLOS 2022,
    doi:10.1145/3503222.3507738)."""

    kind: Literal["dota"]
    rank: Count = 16
    """Width of the detector's queries and keys."""
    bits: Literal[2, 4, 8] = 4
    """Of their elements."""
    keep: Share | None = None
    """Share of the keys, the strongest, that each query keeps: equal work for all. Or else `threshold`."""
    threshold: float | None = None
    """Least estimated logit (score over the root of the head's width) that is kept."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the random projection."""
    predictor_macs: Count = 512
    """Low-precision multiply-accumulates of the detector in a cycle, or additions of the projection."""
    selector: Count = 32
    """Estimates that are compared in a cycle."""
    rows: Count = 64
    """Queries that are looked at before the array works on them."""
    parallel: Count = 4
    """Queries that the array works on at a time."""
    keys_per_cycle: Count = 4
    """Keys, or values, that the array is given in a cycle; each serves all the parallel queries that keep
    it."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """Multiply-accumulators of the detector and their bits."""
        return self.predictor_macs, self.bits

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Dota:
        if (self.keep is None) == (self.threshold is None):
            raise ValueError(f"exactly one of `keep` and `threshold` says what is kept, not {_which(self)}")
        return self


def _which(unit: Dota) -> str:
    return "neither" if unit.keep is None else "both"


class Fact(Unit):
    """Estimates scores with additions only, from the signs and leading ones of queries and keys, and keeps
    each query's strongest keys (Qin et al., "FACT", ISCA 2023, doi:10.1145/3579371.3589057)."""

    kind: Literal["fact"]
    bits: Literal[4, 8] = 8
    """Of the integers whose leading one is taken."""
    keep: Share = 0.2
    """Share of the keys, the strongest, that each query keeps."""
    predictor_adds: Count = 2048
    """Powers of two that the predictor adds up in a cycle."""
    selector: Count = 32
    """Estimates that the top-k unit takes in a cycle."""
    rows: Count = 16
    """Queries that are predicted before the array works on them."""
