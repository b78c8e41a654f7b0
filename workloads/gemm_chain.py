"""The bare workload of two matrix products, one of which works on what the other made."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size, Workload
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape

MicroTile = Annotated[tuple[Size, Size, Size], Field(json_schema_extra={"examples": [[64, 256, 16]]})]
"""[m, n, k] of a matrix product's tile, in the order of TileFlow's tables."""


class GemmChain(Workload):
    """E[m, n2] = (A[m, k1] B[k1, n1]) D[n1, n2]; B and D are weights.

    `micro1` and `micro2` prescribe the tiles of both products, for machines that fuse chains: for each block
    of rows the first product runs tile by tile (k outer, n inner), then the second, which finds the first
    one's result on chip. Without them the mapper chooses.
    """

    family: Literal["gemm_chain"] = "gemm_chain"
    m: Size = 512
    n1: Size = 512
    """Columns of the first product, which the second one sums over."""
    k1: Size = 64
    n2: Size = 64
    micro1: MicroTile | None = None
    """[m, n, k] of a tile of the first product."""
    micro2: MicroTile | None = None
    """The same of the second product, whose k lies along `n1` and whose m is that of `micro1`."""

    @field_validator("micro1", "micro2")
    @classmethod
    def _within_its_product(cls, tile: MicroTile | None, info: ValidationInfo) -> MicroTile | None:
        names = ("m", "n1", "k1") if info.field_name == "micro1" else ("m", "n2", "n1")
        for size, name in zip(tile or (), names, strict=False):
            if name in info.data and size > info.data[name]:
                raise ValueError(f"{size} is more than `{name}` ({info.data[name]})")
        return tile

    @field_validator("micro2")
    @classmethod
    def _on_the_rows_of_the_first(cls, tile: MicroTile | None, info: ValidationInfo) -> MicroTile | None:
        if "micro1" not in info.data:
            return tile
        first = info.data["micro1"]
        if (first is None) != (tile is None):
            raise ValueError("prescribe both tiles, `micro1` and `micro2`, or none")
        if first is not None and tile is not None and first[0] != tile[0]:
            raise ValueError(
                f"its m ({tile[0]}) must be that of `micro1` ({first[0]}): both work on the same rows"
            )
        return tile

    def lower(self) -> OperatorGraph:
        """Two matmuls."""
        b = GraphBuilder(self.title, self.element)
        first = MatmulShape(1, self.m, self.k1, self.n1)
        a, weight = b.input("a", (self.m, self.k1)), b.weight("b", (self.k1, self.n1))
        made = b.matmul("first", a, weight, first, (self.m, self.n1), tile=_m_k_n(self.micro1))
        second = MatmulShape(1, self.m, self.n1, self.n2)
        weight = b.weight("d", (self.n1, self.n2))
        result = b.matmul("second", made, weight, second, (self.m, self.n2), tile=_m_k_n(self.micro2))
        return b.finish(result, family=self.family)


def _m_k_n(tile: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
    return None if tile is None else (tile[0], tile[2], tile[1])
