"""Tensors and operators: the closed vocabulary that every model is lowered to.

Names may contain `{i}`: inside a repeated block (see `graph.Repeat`) it stands for the number of the copy, so
`layers.{i}.q.weight` is a different tensor in each copy and `shared.q.weight` the same one in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal

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

    @property
    def macs(self) -> int:
        """Multiply-accumulates: zero for everything but a matmul."""
        return self.shape.macs if isinstance(self.shape, MatmulShape) else 0
