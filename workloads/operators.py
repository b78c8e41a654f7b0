"""Tensors and operators: the closed vocabulary that every model is lowered to.

Names may contain `{i}`: inside a repeated block (see `graph.Repeat`) it stands for the number of the copy, so
`layers.{i}.q.weight` is a different tensor in each copy and `shared.q.weight` the same one in all. A block of
two layers has `layers.{2i}.…` and `layers.{2i+1}.…`, and one that starts at the fifth layer `layers.{i+4}.…`,
so that a name written out always has its layer's own number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tilewright.workloads.pairs import Pairs

Role = Literal["weight", "activation", "kv_cache", "index"]
Kind = Literal[
    "matmul",
    "softmax",
    "norm",
    "elementwise",
    "reduce",
    "scan",
    "gather",
    "scatter",
    "sort",
    "topk",
]
Primitive = Literal["add", "multiply", "compare", "exp", "divide", "sqrt", "tanh", "move"]

_COPY = re.compile(r"\{(\d*)i(?:\+(\d+))?\}")


def in_copies(name: str) -> bool:
    """Whether a name is another one in each copy of a repeated block."""
    return "{" in name and _COPY.search(name) is not None


def in_copy(name: str, copy: int | str) -> str:
    """The name in one copy; a text stands for its number as it is.

    >>> in_copy("layers.{2i+1}.q", 3), in_copy("layers.{i}.q", 3), in_copy("layers.{2i+1}.q", "shared")
    ('layers.7.q', 'layers.3.q', 'layers.shared.q')
    """

    def number(found: re.Match[str]) -> str:
        if isinstance(copy, str):
            return copy
        return str(int(found[1] or 1) * copy + int(found[2] or 0))

    return _COPY.sub(number, name) if "{" in name else name


def numbered(step: int, offset: int) -> str:
    """What stands in names for `step * i + offset`, i being the number of the copy.

    >>> numbered(1, 0), numbered(2, 0), numbered(2, 1), numbered(1, 4)
    ('{i}', '{2i}', '{2i+1}', '{i+4}')
    """
    return f"{{{step if step > 1 else ''}i{f'+{offset}' if offset else ''}}}"


NATIVE = "native"
"""Element type of a tensor that is stored in the accelerator's own operand type."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named array. `element` is an element type ("int8", "fp16", …) or `native`."""

    name: str
    shape: tuple[int, ...]
    role: Role = "activation"
    element: str = NATIVE
    kept: int | None = None
    """Elements that memory holds, where zeros are left out (sparse weights); None: all."""
    side_bits: int = 0
    """Bits that memory holds beside them: indices of those that are kept, scales."""
    n_m: tuple[int, int] | None = None
    """(n, m) where n of each m elements along a column are kept, at most."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def stored(self) -> int:
        """Elements that memory holds."""
        return self.elements if self.kept is None else self.kept


@dataclass(frozen=True, slots=True)
class MatmulShape:
    """`batch` independent products C[m, n] = A[m, k] B[k, n]."""

    batch: int
    m: int
    k: int
    n: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * self.m * self.k * self.n


@dataclass(frozen=True, slots=True)
class RowsShape:
    """`rows` independent rows of `cols` elements; a vector operator never crosses a row."""

    rows: int
    cols: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return self.rows * self.cols


@dataclass(frozen=True, slots=True)
class Operator:
    """One operation. `inputs` and `outputs` are names of tensors of the graph.

    A matmul's inputs are (A, B) or (A, B, bias); A is what streams as "input" and B what an accelerator calls
    "weight", also where it is an activation or the KV cache. Every other kind works on rows. An operator
    touches at most as many elements of a tensor as its shape has for it: a gather reads `shape.elements` of
    its table, an `append` writes as many into its cache, a matmul over some experts reads their weights only.
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shape: MatmulShape | RowsShape
    function: str = ""
    """What exactly: `gelu`, `add`, `layernorm`, `rmsnorm`, `rope`, … Empty where the kind says it all. A
    matmul with `transpose_b` finds its B stored as [n, k]."""
    primitives: tuple[tuple[Primitive, int], ...] = field(default=())
    """Primitive operations of the vector unit over the whole operator, sorted by name; empty for a matmul
    without bias (a bias counts one add per output element)."""
    useful_macs: int | None = None
    """Of a matmul's multiply-accumulates, those that its definition asks for, where that is fewer than `macs`
    (a blocked kernel, a mask); None: all of them."""
    views: bool = False
    """Whether a matmul reads whole rows of A and B by address: some not at all, some for several matrices
    (overlapping windows of keys). As many are read as its shape has."""
    order: str = ""
    """Of a matmul that computes attention scores: the order in which scores, softmax and context are to run,
    if that is part of the workload (`flash`); else the mapper chooses."""
    pairs: Pairs | None = None
    """Of a matmul that computes attention scores: what says which of them matter."""
    tile: tuple[int, int, int] | None = None
    """Of a matmul: the (m, k, n) that it is to be cut into, if that is part of the workload; else the mapper
    chooses."""

    @property
    def macs(self) -> int:
        """Multiply-accumulates: zero for everything but a matmul."""
        return self.shape.macs if isinstance(self.shape, MatmulShape) else 0
