"""Adapters (Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", arXiv:1902.00751, section 2.1).

before -> after: the output y of each sublayer, before its residual, becomes y + W_up act(W_down y):
2 d m + m + d parameters and 2 n d m MACs each, two per layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import linears, rebuilt
from tilewright.workloads.description import Activation, Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor


class Adapters(Technique):
    """Bottlenecks behind the sublayers."""

    kind: Literal["adapters"] = "adapters"
    width: Size = 64
    """Of the bottleneck (m)."""
    act: Activation = "gelu"
    where: tuple[str, ...] = ("*attention.output", "*ffn.down")
    """Patterns of the names of the dense layers that end a sublayer."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with adapters. Raises `InputError` where no layer matches."""
        instead: dict[int, tuple[Operator, ...]] = {}
        tensors: list[Tensor] = []
        for index, op, shape in linears(graph, self.where):
            instead[index], made = self._behind(op, shape, graph)
            tensors += made
        if not instead:
            raise InputError(f"adapters: no dense layer of {graph.name} matches {' or '.join(self.where)}")
        return rebuilt(graph, instead, tensors)

    def _behind(
        self, op: Operator, shape: MatmulShape, graph: OperatorGraph
    ) -> tuple[tuple[Operator, ...], list[Tensor]]:
        """The sublayer's end, its adapter, and their sum, which bears the old name."""
        y, weight = graph.tensors[op.outputs[0]], graph.tensors[op.inputs[1]]
        base = replace(y, name=f"{y.name}.base")
        prefix, stem = f"{op.name}.adapter", f"{weight.name.removesuffix('.weight')}.adapter"
        hidden = replace(y, name=f"{prefix}.down", shape=(*y.shape[:-1], self.width))
        active = replace(hidden, name=f"{prefix}.act")
        term = replace(y, name=f"{prefix}.up")
        m, d = shape.m, shape.n
        down, weights_down = _linear(base, hidden, MatmulShape(1, m, d, self.width), f"{stem}.down", weight)
        up, weights_up = _linear(active, term, MatmulShape(1, m, self.width, d), f"{stem}.up", weight)
        inner, outer = RowsShape(m, self.width), RowsShape(m, d)
        work = primitives.elementwise(self.act, inner.elements)
        act = Operator(active.name, "elementwise", (hidden.name,), (active.name,), inner, self.act, work)
        work = primitives.elementwise("add", outer.elements, 2)
        total = Operator(
            f"{prefix}.sum", "elementwise", (term.name, base.name), (y.name,), outer, "add", work
        )
        operators = (replace(op, outputs=(base.name,)), down, act, up, total)
        return operators, [base, hidden, active, term, *weights_down, *weights_up]


def _linear(
    x: Tensor, y: Tensor, shape: MatmulShape, stem: str, like: Tensor
) -> tuple[Operator, tuple[Tensor, Tensor]]:
    """x W + b, with weights stored as those of a layer that is there."""
    weight = Tensor(f"{stem}.weight", (shape.k, shape.n), "weight", like.element)
    bias = Tensor(f"{stem}.bias", (shape.n,), "weight", like.element)
    work = primitives.bias(shape.m * shape.n)
    inputs = (x.name, weight.name, bias.name)
    return Operator(y.name, "matmul", inputs, (y.name,), shape, primitives=work), (weight, bias)


COMPRESSION = register(
    Compression(
        kind="adapters",
        title="Adapters",
        changes="parameters, MACs: two small dense layers behind each sublayer",
        citation="Houlsby et al., arXiv:1902.00751",
        hardware="None; they cannot be merged into the weights.",
        oracle="tests/oracles/test_added_weights.py: torch 2.13.0",
        technique=Adapters,
    )
)
