"""Specifications: what a region is to the mapper, and all that its cost depends on.

Two regions with equal specifications take equal times, which is what lets identical layers be simulated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tilewright.arch.sparse import Unit
from tilewright.dataflows.systolic import ByHead
from tilewright.workloads.operators import MatmulShape
from tilewright.workloads.pairs import Pairs


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor as a region touches it."""

    elements: int
    bits: float
    """Of one element; a fraction where a sparse tensor's indices or a quantised one's scales are spread over
    them."""
    resident: bool = False
    """In the buffers already (or to stay there, for a result): no DRAM traffic."""
    early: bool = False
    """Not made by the region before: may be prefetched while that one is running."""
    in_place: bool = False
    """Made and used on the same core."""

    @property
    def bytes(self) -> int:
        """Size in DRAM."""
        return ceil(self.elements * self.bits / 8)


@dataclass(frozen=True, slots=True)
class MatmulSpec:
    """A matmul with its element-wise tail: all that its cost depends on."""

    shape: MatmulShape
    a: Operand
    b: Operand
    out: Operand
    sides: tuple[Operand, ...] = ()
    """Operands of the tail with an element per output element."""
    constants: tuple[Operand, ...] = ()
    """Operands of the tail with an element per output column (biases)."""
    lane_cycles: float = 0.0
    """Vector work per output element."""
    structure: tuple[int, int] | None = None
    """(n, m) where B is N:M sparse and the array packs it."""
    by_head: ByHead | None = None
    """The heads that A was written by, where each has a share of the array."""

    @property
    def structured(self) -> bool:
        """Whether the array packs B."""
        return self.structure is not None

    @property
    def macs(self) -> int:
        """Multiply-accumulates that the array carries out."""
        n, m = self.structure or (1, 1)
        groups, rest = divmod(self.shape.k, m)
        return self.shape.batch * self.shape.m * self.shape.n * (groups * n + min(rest, n))


@dataclass(frozen=True, slots=True)
class RowsSpec:
    """An operator on the vector unit with its element-wise tail: all that its cost depends on."""

    rows: int
    cols: int
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    constants: tuple[Operand, ...] = ()
    """Loaded once, with the first tile."""
    lane_cycles: float = 0.0
    """Vector work per element of the shape."""
    two_passes: bool = False
    """Whether a row that does not fit is loaded twice."""


@dataclass(frozen=True, slots=True)
class SoftmaxWork:
    """Lane cycles of the softmax between two matmuls."""

    whole: float
    """Per score, of rows that are there as a whole."""
    online: float
    """Per score, of tiles with running maximum and sum: not divided by the sum yet."""
    statistics: float
    """Per row and tile, to bring maximum and sum up to date."""
    reciprocal: float
    """Per row at the end, of the sum."""
    rescale: float
    """Per element of the output and tile, to bring what was added up so far to the new maximum."""
    finish: float
    """Per element of the output at the end, to divide by the sum."""
    in_array: bool = False
    """Whether an order may be tried that leaves nothing per score to the vector unit."""

    @property
    def least(self) -> float:
        """Per score, in the order that does with the least."""
        return 0.0 if self.in_array else min(self.whole, self.online)


Sizes = tuple[int, int, int]
"""(m, k, n) of a matmul's tile."""


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """Two matmuls of which the second one's A is made, on chip, of the first one's result: by an element-wise
    tail (`first.lane_cycles`) and by a softmax, if there is one."""

    first: MatmulSpec
    second: MatmulSpec
    softmax: SoftmaxWork | None
    orders: tuple[str, ...]
    """Those of `Mapper.attention` or `Mapper.chains` that may be tried."""
    tiles: tuple[Sizes, Sizes] | None = None
    """(m, k, n) of both matmuls' tiles where the workload prescribes them."""


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """Scores, softmax and context on a sparse-attention unit."""

    first: MatmulSpec
    second: MatmulSpec
    softmax: SoftmaxWork
    unit: Unit
    pairs: Pairs
    """What says which scores matter."""


@dataclass(frozen=True, slots=True)
class StreamSpec(UnitSpec):
    """The same on a streaming unit, which leaves nothing out but whole tiles of masked pairs."""


Spec = MatmulSpec | RowsSpec | ChainSpec | UnitSpec


def operands(spec: Spec) -> tuple[Operand, ...]:
    """What a region may load."""
    if isinstance(spec, RowsSpec):
        return (*spec.inputs, *spec.constants)
    if isinstance(spec, ChainSpec | UnitSpec):
        return (*operands(spec.first), *(o for o in operands(spec.second) if o is not spec.second.a))
    return (spec.a, spec.b, *spec.sides, *spec.constants)


def array_macs(spec: Spec) -> int:
    """Multiply-accumulates that the array carries out in a region, all scores counted."""
    if isinstance(spec, RowsSpec):
        return 0
    if isinstance(spec, ChainSpec | UnitSpec):
        return spec.first.macs + spec.second.macs
    return spec.macs


def vector_work(spec: Spec) -> float:
    """Lane cycles of a region that no order of its loops can spare."""
    if isinstance(spec, RowsSpec):
        return spec.lane_cycles * spec.rows * spec.cols
    if isinstance(spec, UnitSpec):
        return 0.0
    if isinstance(spec, ChainSpec):
        scores = spec.first.shape.batch * spec.first.shape.m * spec.first.shape.n
        softmax = spec.softmax.least if spec.softmax else 0.0
        return vector_work(spec.first) + vector_work(spec.second) + softmax * scores
    return spec.lane_cycles * spec.shape.batch * spec.shape.m * spec.shape.n
