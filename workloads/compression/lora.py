"""LoRA (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv:2106.09685).

before -> after: y = x W becomes y = x W + (x A) B with A [k, rank] and B [rank, n]: rank (k + n) parameters
and m rank (k + n) MACs more per layer; the factor alpha / rank is in B. Merged into W it costs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import linears, rebuilt
from tilewright.workloads.description import Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor


class Lora(Technique):
    """Low-rank terms beside dense layers."""

    kind: Literal["lora"] = "lora"
    rank: Size = 8
    merged: bool = False
    """Whether A B is added to W beforehand."""
    where: tuple[str, ...] = ("*attention.query", "*attention.value")
    """Patterns of the names of the dense layers that have one (the paper's: queries and values)."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with the terms. Raises `InputError` where no layer matches."""
        found = list(linears(graph, self.where))
        if not found:
            raise InputError(f"lora: no dense layer of {graph.name} matches {' or '.join(self.where)}")
        if self.merged:
            return graph
        instead: dict[int, tuple[Operator, ...]] = {}
        tensors: list[Tensor] = []
        for index, op, shape in found:
            instead[index], made = self._beside(op, shape, graph)
            tensors += made
        return rebuilt(graph, instead, tensors)

    def _beside(
        self, op: Operator, shape: MatmulShape, graph: OperatorGraph
    ) -> tuple[tuple[Operator, ...], list[Tensor]]:
        """The dense layer, its term, and their sum, which bears the layer's name."""
        y, weight = graph.tensors[op.outputs[0]], graph.tensors[op.inputs[1]]
        stem = weight.name.removesuffix(".weight")
        a = replace(weight, name=f"{stem}.lora_a.weight", shape=(shape.k, self.rank), kept=None, side_bits=0)
        b = replace(weight, name=f"{stem}.lora_b.weight", shape=(self.rank, shape.n), kept=None, side_bits=0)
        base = replace(y, name=f"{y.name}.base")
        low = replace(y, name=f"{op.name}.lora_a", shape=(*y.shape[:-1], self.rank))
        term = replace(y, name=f"{op.name}.lora_b")
        narrow, wide = replace(shape, n=self.rank), replace(shape, k=self.rank)
        rows = RowsShape(shape.m, shape.n)
        work = primitives.elementwise("add", rows.elements, 2)
        operators = (
            replace(op, outputs=(base.name,)),
            Operator(low.name, "matmul", (op.inputs[0], a.name), (low.name,), narrow),
            Operator(term.name, "matmul", (low.name, b.name), (term.name,), wide),
            Operator(f"{op.name}.lora", "elementwise", (term.name, base.name), (y.name,), rows, "add", work),
        )
        return operators, [a, b, base, low, term]


COMPRESSION = register(
    Compression(
        kind="lora",
        title="Low-rank adaptation",
        changes="parameters, MACs: a low-rank term beside dense layers, unless merged",
        citation="Hu et al., arXiv:2106.09685",
        hardware="None; matrices of a few columns leave most of a wide array idle.",
        oracle="tests/oracles/test_added_weights.py: torch 2.13.0",
        technique=Lora,
    )
)
