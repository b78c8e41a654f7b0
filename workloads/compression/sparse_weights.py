"""Sparse weights: zeros that memory does not hold.

- `block`: whole blocks of `block` x `block`; a 32-bit index per kept block (Gray et al., "GPU Kernels for
  Block-Sparse Weights", 2017; Lagunas et al., "Block Pruning For Faster Transformers", arXiv:2109.04838).
- `n_m`: `n` of each `m` weights along a column; ceil(log2 m) index bits per kept weight (Mishra et al.,
  "Accelerating Sparse Deep Neural Networks", arXiv:2104.08378: 2:4).
- `unstructured`: any weights (Han et al., arXiv:1506.02626); indexed by a `bitmap` of 1 bit per weight, or as
  `csr`: a column index of `index_bits` per kept weight and a 32-bit pointer per row and one more.

before -> after: weights are stored with `kept` elements and their index. A matmul's shape stays: an array
multiplies zeros, unless it packs N:M weights (`array.structured`); `useful_macs` says how many MACs count.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tilewright.description.errors import InputError
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import linears, more_work, rebuilt
from tilewright.workloads.description import Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, Tensor

POINTER_BITS = 32
_MEANT_FOR = {
    "density": "n_m",
    "block": "n_m unstructured",
    "n": "block unstructured",
    "m": "block unstructured",
}


class SparseWeights(Technique):
    """Zeros in weight matrices, and how what is left is stored."""

    kind: Literal["sparse_weights"] = "sparse_weights"
    pattern: Literal["block", "n_m", "unstructured"]
    density: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Part of the blocks or weights that is kept, in each matrix (`block`, `unstructured`)."""
    block: Size = 32
    """Height and width of a block (`block`)."""
    n: Size = 2
    """Weights kept of each `m` (`n_m`)."""
    m: Size = 4
    index: Literal["bitmap", "csr"] = "bitmap"
    """How kept weights are found (`unstructured`)."""
    index_bits: Annotated[int, Field(ge=1, le=32)] = 16
    """Of a column's number (`unstructured`, `csr`)."""
    unpack: Literal["load", "vector"] = "load"
    """Who puts weights in their places: the load path on its way to the array, at its own rate, or the vector
    unit with 1 move per kept weight."""
    where: tuple[str, ...] = ("*attention.*", "*ffn.*")
    """Patterns of the names of the dense layers that are sparse."""

    @model_validator(mode="after")
    def _fits_together(self) -> SparseWeights:
        for name, others in _MEANT_FOR.items():
            if name in self.model_fields_set and self.pattern in others.split():
                raise ValueError(f"sparse_weights: `{name}` means nothing with pattern {self.pattern!r}")
        if self.n > self.m:
            raise ValueError(f"sparse_weights: `n` ({self.n}) of `m` ({self.m}) weights can't be kept")
        return self

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph on sparse weights. Raises `InputError` where no layer matches, or blocks do not fit."""
        instead: dict[int, tuple[Operator]] = {}
        sparse: list[Tensor] = []
        for index, op, shape in linears(graph, self.where):
            weight = graph.tensors[op.inputs[1]]
            kept, side_bits = self._stored(op.name, shape)
            n_m = (self.n, self.m) if self.pattern == "n_m" else None
            sparse.append(replace(weight, kept=kept, side_bits=weight.side_bits + side_bits, n_m=n_m))
            work = more_work(op, "move", kept) if self.unpack == "vector" else op.primitives
            instead[index] = (replace(op, useful_macs=shape.m * kept, primitives=work),)
        if not sparse:
            raise InputError(
                f"sparse_weights: no dense layer of {graph.name} matches {' or '.join(self.where)}"
            )
        return rebuilt(graph, instead, sparse)

    def _stored(self, name: str, shape: MatmulShape) -> tuple[int, int]:
        """Kept weights and bits of their index, of a matrix [k, n]."""
        k, n = shape.k, shape.n
        if self.pattern == "n_m":
            groups, rest = divmod(k, self.m)
            kept = (groups * self.n + min(rest, self.n)) * n
            return kept, kept * (self.m - 1).bit_length()
        if self.pattern == "block":
            if k % self.block or n % self.block:
                raise InputError(
                    f"sparse_weights: {k} x {n} weights of {name} can't be cut into blocks of {self.block}"
                )
            blocks = max(1, round(self.density * (k // self.block) * (n // self.block)))
            return blocks * self.block**2, blocks * POINTER_BITS
        kept = ceil(self.density * k * n)
        if self.index == "bitmap":
            return kept, k * n
        if n > 2**self.index_bits:
            raise InputError(
                f"sparse_weights: {self.index_bits} index bits can't number the {n} columns of {name}"
            )
        return kept, kept * self.index_bits + (k + 1) * POINTER_BITS


COMPRESSION = register(
    Compression(
        kind="sparse_weights",
        title="Sparse weights (block, N:M, unstructured)",
        changes="bytes, useful MACs: weights that are zero are not stored",
        citation="Lagunas et al., arXiv:2109.04838; Mishra et al., arXiv:2104.08378; Han et al., "
        "arXiv:1506.02626",
        hardware="For N:M an array with `array.structured`, which takes n/m of the cycles. On the others "
        "DRAM bytes shrink, array cycles do not.",
        oracle="tests/oracles/test_sparse_masks.py: torch 2.13.0",
        technique=SparseWeights,
    )
)
