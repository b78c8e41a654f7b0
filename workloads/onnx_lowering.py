"""An ONNX graph's values as tensors of ours, node by node; `onnx_operators` says what each operator becomes.

Changes of layout (Reshape, Transpose, Expand, Cast, …) are addressing and no work, as everywhere; what
depends on no input is a constant and no work either. A weight stored in 8 bits or fewer stays so: it is read
as it is, and the results are scaled where the scales allow that, else the weight is scaled before. Each
operator that is not understood is a problem of its own; none is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.onnx_nodes import attribute, input_name, operator_name, plain_name, title
from tilewright.workloads.onnx_patterns import Patterns, find_patterns
from tilewright.workloads.onnx_values import Value, Values
from tilewright.workloads.operators import Tensor

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto

_NARROW = MappingProxyType(
    {
        "INT8": "int8",
        "UINT8": "int8",
        "INT4": "int4",
        "UINT4": "int4",
        "INT16": "int16",
        "UINT16": "int16",
        "FLOAT8E4M3FN": "fp8",
        "FLOAT8E5M2": "fp8",
    }
)
"""ONNX element types that are kept; floats become the workload's element type."""


ONE = Tensor("", ())
"""Stands for a constant of one element, which takes no memory of its own."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A value as it lies in a tensor of ours."""

    tensor: Tensor
    shape: tuple[int, ...]
    """As ONNX sees it; with more elements than the tensor has where it is broadcast."""
    transposed: bool = False
    """Whether its last axis is not the one that is contiguous."""
    scale: Ref | None = None
    """What it must be multiplied by to be what ONNX means (it is quantised)."""
    offset: bool = False
    """Whether a zero point that is not 0 must be taken off it before."""
    copies: int = 1
    """How often each matrix (the last two axes) stands in a row, where it is broadcast over heads."""
    stored: bool = False
    """Whether it is a constant, as an operand of a product."""

    @property
    def elements(self) -> int:
        """Number of elements as ONNX sees it."""
        return prod(self.shape)

    @property
    def even(self) -> bool:
        """Whether one number is all of its scale, if it has one."""
        return self.scale is None or self.scale.elements == 1


class NotUnderstoodError(Exception):
    """A form of an operator that has no lowering here; the message says which."""


Handler = Callable[["Lowering", "NodeProto"], None]
"""Lowers one node and says with `set` or in `refs` where its results lie."""

VIEWS = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand"}
    | {"Identity", "Cast", "CastLike", "Dropout"}
)
"""Operators that change how a tensor is addressed, and no more."""

_PARTS = VIEWS | {"Gather", "Split", "Slice"}
"""Operators whose result is a KV cache if what they read is one."""


class Lowering:
    """Lowers one graph whose values are known."""

    def __init__(
        self, builder: GraphBuilder, graph: GraphProto, values: Values, caches: AbstractSet[str] = frozenset()
    ) -> None:
        self.b, self.graph, self.values = builder, graph, values.known
        self.problems: dict[str, str] = dict(values.problems)
        self.makers = {name: node for node in graph.node for name in node.output if name}
        self.stored = {tensor.name for tensor in graph.initializer}
        self.needed, self.wanted = _needed(graph, self.values)
        self.caches = _with_parts(caches, self.needed)
        outputs = {each.name for each in graph.output}
        self.patterns: Patterns = find_patterns(self.needed, self.values, self.makers, outputs)
        self.refs: dict[str, Ref] = {}
        self._plain: dict[Ref, Ref] = {}
        self._taken: set[str] = set()
        self._from_outside: set[str] = set()
        self.macs = {"weight": 0, "activation": 0}

    def lower(self, handlers: Mapping[str, Handler]) -> None:
        """Lower every node that is needed; what is not understood becomes one of the `problems`."""
        for node in self.needed:
            result = node.output[0]
            if result in self.patterns.inside or result in self.caches:
                continue
            try:
                self._lower_one(node, handlers)
            except NotUnderstoodError as error:
                self.problems.setdefault(title(node), f"{error} ({node.name or result})")
                for name in node.output:
                    shape = self.values[name].shape if name in self.values else ()
                    self.refs[name] = Ref(self.b.input(f"unknown {name}", shape or (1,)), shape)

    def _lower_one(self, node: NodeProto, handlers: Mapping[str, Handler]) -> None:
        result, found = node.output[0], self.patterns
        if result in found.biased:
            self.refs[result] = self.refs[found.biased[result]]
        elif result in found.gelus:
            self.elementwise(node, "gelu", [found.gelus[result]])
        elif title(node) in handlers:
            handlers[title(node)](self, node)
        else:
            raise NotUnderstoodError("is not understood")

    def finish(self) -> OperatorGraph:
        """The graph, if there are no problems."""
        made = [self.refs[each.name].tensor for each in self.graph.output if each.name in self.refs]
        made = [each for each in dict.fromkeys(made) if each.name not in self._from_outside]
        made = [each for each in made if each.role != "kv_cache"]  # they are in memory anyway
        unread = self.b.drop_unread(*made)
        if unread:  # lengths and the like, which operators here know already
            self.b.note("unread", ", ".join(unread))
        kinds = {f"{name}_macs": str(count) for name, count in self.macs.items()}
        return self.b.finish(*made, family="onnx", **kinds)

    # Values

    def value(self, name: str) -> Value:
        """What is known of a value."""
        return self.values[name]

    def ref(self, name: str) -> Ref:
        """Where a value lies; constants come to be when they are first asked for."""
        if name in self.caches and name in self.makers and self.makers[name].op_type in VIEWS:
            return self.view(self.makers[name])
        if name not in self.refs:
            constant = self.values[name].constant
            if not constant and name in self.makers and name not in self.caches:
                raise NotUnderstoodError(f"reads {name!r}, a second result of {title(self.makers[name])}")
            self.refs[name] = self._constant(name) if constant else self.outside(name)
        return self.refs[name]

    def from_outside(self, name: str) -> bool:
        """Whether a value is an input, or only a part or another view of one."""
        while name in self.makers and self.makers[name].op_type in _PARTS:
            name = self.makers[name].input[0]
        return name not in self.makers and not self.values[name].constant

    def counted(self, name: str) -> bool:
        """Whether a value is flags, indices or lengths."""
        return _role(self.values[name]) == "index"

    def tensor(self, name: str) -> Tensor:
        """The value as a tensor with all its elements, as ONNX sees it."""
        return self.full(self.plain(self.ref(name), name), name)

    def whole(self, name: str) -> Tensor:
        """The value as a tensor with all its elements, in the shape that it was made with."""
        ref = self.plain(self.ref(name), name)
        return ref.tensor if ref.tensor.elements == ref.elements else self.full(ref, name)

    def full(self, ref: Ref, name: str) -> Tensor:
        """The tensor, seen with the shape that ONNX has for it; copied out where it is broadcast."""
        if ref.tensor.elements == ref.elements:
            return replace(ref.tensor, shape=ref.shape or (1,))
        return self.b.gather(self.new(f"{plain_name(name)}.broadcast"), "slice", (ref.tensor,), ref.shape)

    def plain(self, ref: Ref, name: str) -> Ref:
        """The value with its zero point and scale worked in, once for all that read it."""
        if ref.scale is None and not ref.offset:
            return ref
        if ref not in self._plain:
            stored = replace(ref.tensor, shape=ref.shape or (1,))
            made = self.dequantised(plain_name(name), stored, ref.scale, offset=ref.offset)
            self._plain[ref] = replace(ref, tensor=made, scale=None, offset=False)
        return self._plain[ref]

    def dequantised(self, name: str, x: Tensor, scale: Ref | None, *, offset: bool) -> Tensor:
        """x less its zero point (if it has an `offset`), times the scale."""
        if offset:
            x = self.b.elementwise(self.new(f"{name}.zero_point"), "add", x)
        return x if scale is None else self.scaled(f"{name}.dequantise", x, scale)

    def outside(self, name: str) -> Ref:
        """A value that comes from outside: an input, a KV cache, a constant that is no weight."""
        value = self.values[name]
        own = self.new(plain_name(name))
        if name in self.caches:
            return Ref(self.b.cache(own, value.shape), value.shape)
        self._from_outside.add(own)
        made = self.b.input(own, value.shape or (1,), _role(value))
        return Ref(made, value.shape)

    def _constant(self, name: str) -> Ref:
        """A weight, a view or part of one, or a constant that was worked out beforehand."""
        value, node = self.values[name], self.makers.get(name)
        if _role(value) == "index":
            return self.outside(name)
        if node is not None and node.op_type in VIEWS and not self.values[node.input[0]].scalar:
            return self.view(node)
        if node is not None and node.op_type in ("Mul", "DequantizeLinear"):
            scaled = self._scaled_weight(node)
            if scaled is not None:
                return scaled
        if node is not None and node.op_type == "Gather":
            return self.looked_up(node)
        if name not in self.stored and not self._from_weights(name):
            return self.outside(name)
        weight = self.b.weight(self.new(plain_name(name)), value.shape or (1,), element=element_of(value))
        return Ref(weight, value.shape)

    def _from_weights(self, name: str) -> bool:
        """Whether a constant is a weight, or was worked out from weights."""
        node = self.makers.get(name)
        if name in self.stored or node is None or node.op_type == "Constant":
            return _role(self.values[name]) != "index" and not self.values[name].scalar
        return any(self._from_weights(each) for each in node.input if each)

    def _scaled_weight(self, node: NodeProto) -> Ref | None:
        """A narrow weight and what a node multiplies it with, if that is what the node does."""
        for narrow, scale in ((node.input[0], node.input[1]), (node.input[1], node.input[0])):
            source = narrow
            passed = VIEWS | {"Gather"} if node.op_type == "DequantizeLinear" else VIEWS
            while source in self.makers and self.makers[source].op_type in passed:
                source = self.makers[source].input[0]
            maker = self.makers.get(source)
            made = maker is not None and maker.op_type == "QuantizeLinear"
            if maker is not None and made and maker.input[0] not in self.stored:
                return self.ref(maker.input[0])  # a pair around a part of a weight
            if not (made or source in self.stored) or element_of(self.values[source]) is None:
                continue
            shape = self.values[node.output[0]].shape
            found = replace(self.ref(narrow), shape=shape, scale=self.scale(node, scale, shape))
            return replace(found, offset=node.op_type == "DequantizeLinear" and self.offset(node, 2))
        return None

    def offset(self, node: NodeProto, index: int) -> bool:
        """Whether this input of the node is a zero point that is not known to be 0."""
        name = input_name(node, index)
        data = self.values[name].data if name else None
        return bool(name) and (data is None or bool(data.any()))

    def scale(self, node: NodeProto, name: str, shape: tuple[int, ...]) -> Ref:
        """The scales of something of this shape, with an axis for each of its."""
        value = self.values[name]
        if value.scalar:
            return Ref(ONE, (1,) * len(shape))
        sizes = (1,) * (len(shape) - len(value.shape)) + value.shape
        if node.op_type == "DequantizeLinear" and len(value.shape) == 1:
            axis = int(attribute(node, "axis", 1)) % len(shape)
            sizes = tuple(value.elements if each == axis else 1 for each in range(len(shape)))
        if any(size not in (1, whole) for size, whole in zip(sizes, shape, strict=True)):
            raise NotUnderstoodError("has scales by block")
        return replace(self.ref(name), shape=sizes)

    def view(self, node: NodeProto) -> Ref:
        """The node's input with the shape of its output."""
        source = self.ref(node.input[0])
        shape = self.values[node.output[0]].shape
        if node.op_type == "Transpose":
            order = attribute(node, "perm", list(range(len(shape)))[::-1])
            return turned(source, order)
        if source.scale is not None and source.even:
            source = replace(source, scale=replace(source.scale, shape=(1,) * len(shape)))
        elif source.shape != shape:
            source = self.plain(source, node.input[0])
        return replace(source, shape=shape, copies=_copies(node.op_type, source, shape))

    def looked_up(self, node: NodeProto) -> Ref:
        """Rows of a table, scaled as they come; by constant indices they are a slice of it."""
        table, out = self.ref(node.input[0]), self.values[node.output[0]]
        if attribute(node, "axis", 0) not in (0, -len(table.shape)):
            table = self.plain(table, node.input[0])
        indices = self.values[node.input[1]]
        at = () if indices.constant else (self.ref(node.input[1]).tensor,)
        function = "select" if table.tensor.role != "weight" else "lookup" if at else "slice"
        name = self.name(node)
        made = self.b.gather(name, function, (table.tensor, *at), out.shape or (1,))
        scale = table.scale
        if scale is not None and not table.even and scale.shape[0] > 1:
            rows = (indices.elements, scale.elements // scale.shape[0])
            scales = self.b.gather(self.new(f"{name}.scale"), function, (scale.tensor, *at), rows)
            scale = Ref(scales, scale.shape)
        return Ref(self.dequantised(name, made, scale, offset=table.offset), out.shape)

    def scaled(self, name: str, x: Tensor, scale: Ref) -> Tensor:
        """x times the scales."""
        if scale.tensor is ONE:
            return self.b.elementwise(self.new(name), "scale", x)
        return self.b.elementwise(self.new(name), "multiply", x, scale.tensor)

    # Names and results

    def label(self, node: NodeProto) -> str:
        """What to call the operators that a node becomes."""
        return self.patterns.names.get(node.output[0]) or operator_name(node)

    def name(self, node: NodeProto) -> str:
        """A name of its own for the operator that a node becomes."""
        return self.new(self.label(node))

    def new(self, name: str) -> str:
        """The name, or the first of `name_2`, `name_3`, … that is free."""
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{name}_{number}"
        self._taken.add(free)
        return free

    def set(self, node: NodeProto, tensor: Tensor) -> None:
        """What the node's first result is."""
        self.refs[node.output[0]] = Ref(tensor, self.values[node.output[0]].shape)

    def elementwise(self, node: NodeProto, function: str, inputs: Sequence[str]) -> None:
        """`function` of the inputs, constants of one element left out, in the shape of the node's result."""
        shape = self.values[node.output[0]].shape
        names = [name for name in dict.fromkeys(inputs) if not self.values[name].scalar]
        refs = [self.plain(self.ref(name), name) for name in names]
        first = next((i for i, ref in enumerate(refs) if ref.tensor.elements == prod(shape)), None)
        lead = refs.pop(first or 0)
        whole = self.full(replace(lead, shape=shape), names[first or 0])
        made = self.b.elementwise(self.name(node), function, whole, *(ref.tensor for ref in refs))
        # the result lies in memory as the operand does
        self.refs[node.output[0]] = Ref(made, shape, lead.transposed)


def turned(ref: Ref, order: Sequence[int]) -> Ref:
    """The value with its axes in another order."""
    shape = tuple(ref.shape[axis] for axis in order)
    scale = ref.scale and replace(ref.scale, shape=tuple(ref.scale.shape[axis] for axis in order))
    last = bool(order) and order[-1] == len(order) - 1
    outer = list(order[:-2]) == list(range(len(order) - 2))
    copies = ref.copies if outer else 1
    return replace(ref, shape=shape, scale=scale, transposed=ref.transposed == last, copies=copies)


def _copies(kind: str, source: Ref, shape: tuple[int, ...]) -> int:
    """How often each matrix of a view stands in a row: after an Expand [b, kv, 1, n, e] to [b, kv, g, n, e]
    g times, and as often in the Reshape [b, kv * g, n, e] of that."""
    if kind == "Expand" and len(shape) == len(source.shape) > 2 and source.shape[-3] == 1:
        same = (*shape[:-3], 1, *shape[-2:]) == source.shape
        return shape[-3] if same and source.elements == source.tensor.elements else 1
    return source.copies if source.shape[-2:] == shape[-2:] else 1


def _needed(graph: GraphProto, values: Mapping[str, Value]) -> tuple[list[NodeProto], set[str]]:
    """The nodes that the outputs depend on, constants aside, in order; and the values that are read."""
    wanted = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        results = [name for name in node.output if name in wanted]
        if not results or all(name in values and values[name].constant for name in results):
            continue
        if all(name in values for name in (*node.input, node.output[0]) if name):
            kept.append(node)  # others come after something that is not understood
        wanted.update(name for name in node.input if name)
    return kept[::-1], wanted


def _with_parts(caches: AbstractSet[str], nodes: Sequence[NodeProto]) -> frozenset[str]:
    """The caches and what is only a part or another view of one."""
    found = set(caches)
    for node in nodes:
        if node.op_type in _PARTS and node.input[0] in found:
            found.update(name for name in node.output if name)
    return frozenset(found)


def element_of(value: Value) -> str | None:
    """The element type that is kept; None for floats, and for integers that are no weights."""
    import onnx

    return _NARROW.get(onnx.TensorProto.DataType.Name(value.dtype))


def _role(value: Value) -> Literal["index", "activation"]:
    import onnx

    name = onnx.TensorProto.DataType.Name(value.dtype)
    return "index" if name in ("INT32", "INT64", "BOOL", "UINT32", "UINT64") else "activation"
