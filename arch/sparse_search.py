"""Sparse-attention units that search for what matters, or prune what does not.

The method of each is in `tilewright.dataflows.sparse`, in the module of its kind; docs/sparse-units.md says
what is from the papers and what is a guess.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tilewright.arch.block import Count
from tilewright.arch.sparse_unit import Unit


class A3(Unit):
    """Searches sorted columns of K for candidate keys and drops candidates that score too low (Ham et al.,
    "A3", HPCA 2020, arXiv:2002.10941)."""

    kind: Literal["a3"]
    iterations: Annotated[float, Field(gt=0)] | None = 0.5
    """Iterations of the candidate search, as a share of the keys; the paper's conservative choice is 0.5, its
    aggressive one 0.125. `null`: no search, every key is a candidate."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Least weight that is kept, as a share of the largest; 0.05 is the conservative choice, 0.1 the
    aggressive one, 0 keeps all."""
    sorters: Count = 64
    """Merge sorters, which take an element a cycle and pass, a column of K each."""
    queries: Count = 16
    """Queries that are worked on as a piece."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """An iteration refills one largest and one smallest product."""
        return (0 if self.iterations is None else 2), 8


class Elsa(Unit):
    """Estimates angles from hashes (signs of random projections) and keeps keys that look likely (Ham et al.,
    "ELSA", ISCA 2021, doi:10.1109/ISCA52012.2021.00060)."""

    kind: Literal["elsa"]
    degree: Annotated[float, Field(ge=0)] = 1.0
    """How much is left out: keys that matter have a weight of more than `degree` over the number of keys."""
    threshold: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Least likeness of a key that is kept; left out, it is learned with `degree`."""
    angle_correction: Annotated[float, Field(ge=0)] = 0.127
    """Radians taken off the estimated angle, so that it is seldom too large; for 64 elements."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the random directions."""
    modules: Count = 4
    """Attention modules, among which keys are dealt out."""
    selectors: Count = 8
    """Keys that a module compares with the query in a cycle."""
    hash_macs: Count = 256
    """Multiplications of the hash unit in a cycle."""
    dividers: Count = 16
    """Elements of the output that are divided by the sum of weights in a cycle."""
    queries: Count = 16
    """Queries that are worked on as a piece."""

    @property
    def predictor_size(self) -> tuple[int, int]:
        """The hash unit's multipliers, and one for the likeness in each selector."""
        return self.hash_macs + self.modules * self.selectors, 8


class SpAtten(Unit):
    """Prunes tokens and heads, layer after layer, by the importance that they had in the layers before, and
    values by their weight; looks at the lower bits of keys only where the upper ones leave it undecided (Wang
    et al., "SpAtten", HPCA 2021, arXiv:2012.09852)."""

    kind: Literal["spatten"]
    token_keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the tokens that are kept, mean over the layers."""
    token_front: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Share of the layers, rounded up, that keep all tokens: the first ones, at least one."""
    head_keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the heads that are kept, mean over the layers."""
    head_front: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the layers, rounded up, that keep all heads: the first ones, at least one."""
    fall: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """How far the shares of the layers after those fall, in a line around their mean: 0 not at all, 1 as far
    as shares between 0 and 1 allow."""
    value_keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the weights of each query whose values are fetched and added up."""
    msb_bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Upper bits of keys, which are fetched first."""
    lsb_bits: Annotated[int, Field(ge=0, le=16)] = 4
    """Lower bits."""
    requantize_below: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Largest weight of a query below which the lower bits are fetched and scores are computed anew."""
    comparators: Count = 16
    """Elements that the top-k engine compares with its pivot in a cycle."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the top-k engine's pivots."""
    queries: Count = 64
    """Queries that are worked on as a piece."""


class AccelTran(Unit):
    """Sets activations below a threshold to zero (DynaTran) and multiplies only what is left (Tuli and Jha,
    "AccelTran", IEEE TCAD 2023, arXiv:2302.14705)."""

    kind: Literal["acceltran"]
    threshold: Annotated[float, Field(ge=0)] = 0.01
    """Magnitude below which queries, keys, values and weights become zero."""
    tile: Count = 16
    """Rows and columns of the tiles that lanes work on."""
    lane_macs: Count = 16
    """Multipliers of a lane; the array's are divided into such lanes."""
    pruners: Count = 64
    """Tiles that are compared with the threshold in a cycle."""
    queries: Count = 256
    """Queries that are worked on as a piece."""
