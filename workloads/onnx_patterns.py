"""What stands in several ONNX nodes and is one thing: attention, GELU, a product with its bias."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_nodes import operator_name, plain_name
from tilewright.workloads.onnx_values import Value

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass
class Patterns:
    """What was recognised, by the names of values."""

    names: dict[str, str] = field(default_factory=dict)
    """A node's first result: what to call its operator."""
    biases: dict[str, str] = field(default_factory=dict)
    """A product: the bias that the next node adds."""
    biased: dict[str, str] = field(default_factory=dict)
    """The result of such a node: the product that it is."""
    gelus: dict[str, str] = field(default_factory=dict)
    """The result of the last node of a GELU: its argument."""
    inside: set[str] = field(default_factory=set)
    """Results of nodes that are part of something and not lowered by themselves."""


def find_patterns(
    nodes: Sequence[NodeProto],
    values: Mapping[str, Value],
    makers: Mapping[str, NodeProto],
    outputs: AbstractSet[str],
) -> Patterns:
    """What the nodes (those that run, in order) form; `makers` has the node behind every value, and `outputs`
    are read from outside."""
    finder = _Finder(nodes, values, makers, outputs)
    finder.attention()
    finder.gelu()
    finder.biases()
    finder.layers()
    return finder.found


_PASSED = frozenset(
    {"Add", "Mul", "Div", "Where", "Cast", "Identity", "Dropout", "Reshape"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
"""What may stand between scores, softmax and context."""

_NAMED = frozenset(
    {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"}
    | {"Gemm", "MatMul", "FusedMatMul", "MatMulInteger"}
)
"""Operators whose second input is the weight that they are called after."""

_PRODUCTS = frozenset({"MatMul", "FusedMatMul", "Einsum"})

_BETWEEN = MappingProxyType({"Mul": "scale", "Div": "scale", "Add": "mask", "Where": "mask"})


class _Finder:
    def __init__(
        self,
        nodes: Sequence[NodeProto],
        values: Mapping[str, Value],
        makers: Mapping[str, NodeProto],
        outputs: AbstractSet[str],
    ) -> None:
        self.nodes, self.values, self.makers, self.outputs = nodes, values, makers, outputs
        self.readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.found = Patterns()

    def runs(self, name: str) -> bool:
        """Whether a value is there and no constant."""
        return name in self.values and not self.values[name].constant

    def scalar(self, name: str) -> bool:
        return name in self.values and self.values[name].scalar

    def only_reader(self, name: str) -> NodeProto | None:
        readers = self.readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def attention(self) -> None:
        """MatMul of two activations, …, Softmax, …, MatMul: scores, softmax and context of one scope."""
        number = 0
        for node in self.nodes:
            if node.op_type != "Softmax":
                continue
            above, below = self._scores(node.input[0]), self._context(node.output[0])
            if not above or below is None:
                continue
            scope = operator_name(node).rpartition(".")[0] or f"attention.{number}"
            number += 1
            names = self.found.names
            names[node.output[0]] = f"{scope}.softmax"
            names[above[-1].output[0]] = f"{scope}.scores"
            names[below.output[0]] = f"{scope}.context"
            for between in above[:-1]:
                if between.op_type in _BETWEEN:
                    names[between.output[0]] = f"{scope}.{_BETWEEN[between.op_type]}"

    def _scores(self, name: str) -> list[NodeProto]:
        """The nodes from a softmax's input up to the product that makes the scores; empty if none does."""
        node = self.makers.get(name)
        if node is None or not self.runs(name):
            return []
        if node.op_type in _PRODUCTS:
            return [node] if all(self.runs(each) for each in node.input) else []
        if node.op_type not in _PASSED:
            return []
        paths = (self._scores(each) for each in node.input if each)
        return next(([node, *path] for path in paths if path), [])

    def _context(self, name: str) -> NodeProto | None:
        """The product whose A the softmax's result becomes."""
        for node in self.readers.get(name, []):
            if node.op_type in _PRODUCTS and node.input[0] == name and self.runs(node.input[1]):
                return node
            if node.op_type in _PASSED:
                below = self._context(node.output[0])
                if below is not None:
                    return below
        return None

    def gelu(self) -> None:
        """0.5 x (1 + erf(x / sqrt 2)), the two products in either order, lowered at the last node."""
        for erf in self.nodes:
            if erf.op_type != "Erf":
                continue
            inner = self.makers.get(erf.input[0])
            chain = list(self._chain(erf, 3))
            if inner is None or inner.op_type not in ("Div", "Mul") or len(chain) != 3:
                continue
            x = inner.input[0] if self.runs(inner.input[0]) else inner.input[1]
            plus, *products = chain
            others = [set(node.input) for node in products]
            shape = plus.op_type == "Add" and all(node.op_type == "Mul" for node in products)
            reads_x = sum(x in names for names in others) == 1
            scalars = sum(any(self.scalar(name) for name in names) for names in others) == 1
            if shape and reads_x and scalars and self.only_reader(inner.output[0]) is erf:
                last = products[-1]
                self.found.inside.update(n.output[0] for n in (inner, erf, plus, products[0]))
                self.found.gelus[last.output[0]] = x

    def _chain(self, node: NodeProto, length: int) -> Iterator[NodeProto]:
        """Up to `length` nodes, each the only reader of the one before."""
        for _ in range(length):
            reader = self.only_reader(node.output[0])
            if reader is None:
                return
            yield reader
            node = reader

    def biases(self) -> None:
        """What adds one element per column to a product with a weight that nothing else reads."""
        for node in self.nodes:
            if node.op_type not in ("MatMul", "MatMulNBits") or not self.values[node.input[1]].constant:
                continue
            add = self.only_reader(node.output[0])
            if add is None or add.op_type not in ("Add", "BiasGelu", "FastGelu") or len(add.input) < 2:
                continue
            bias = add.input[1] if add.input[0] == node.output[0] else add.input[0]
            columns = self.values[node.output[0]].shape[-1]
            if bias in self.values and self.values[bias].constant and self.values[bias].shape == (columns,):
                self.found.biases[node.output[0]] = bias
                if add.op_type == "Add":
                    self.found.biased[add.output[0]] = node.output[0]

    def layers(self) -> None:
        """Products and norms take the names of their weights, which are the model's own."""
        for node in self.nodes:
            if node.op_type in _NAMED:
                own = self.found.biases.get(node.output[0], node.input[1])
                layer, _, kind = plain_name(own).rpartition(".")
                if kind in ("weight", "bias") and layer:
                    self.found.names.setdefault(node.output[0], layer)
