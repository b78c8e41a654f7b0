"""The shapes of an ONNX graph's values, and which of them are constants.

Values are followed node by node in the graph's order: what depends on shapes and initialisers only is a
constant, as large as it may be, and worked out where it is small (the arithmetic on shapes that exporters
write); of all others the shape is inferred. No weights are multiplied and nothing of the model runs, so that
a long sequence costs no more than a short one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tilewright.workloads.onnx_nodes import title
from tilewright.workloads.onnx_shapes import contributed

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, ValueInfoProto

LARGEST_WORKED_OUT = 2**16
"""Elements of a constant that is worked out; of larger ones the shape is enough."""


@dataclass(frozen=True)
class Value:
    """What is known of one value."""

    shape: tuple[int, ...]
    dtype: int
    """ONNX's number of the element type."""
    constant: bool = False
    data: NDArray[Any] | None = None
    """The elements of a small constant."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def scalar(self) -> bool:
        """Whether it is a constant of one element."""
        return self.constant and self.elements == 1


@dataclass
class Values:
    """What is known of every value of a graph, and what could not be found out."""

    known: dict[str, Value] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """By the operator's type: why its results are unknown."""


def infer(model: ModelProto, bind: Callable[[ValueInfoProto], tuple[int, ...]]) -> Values:
    """The values of `model`; `bind` gives the sizes of an input's axes."""
    import onnx

    values = Values()
    for tensor in model.graph.initializer:
        here = tensor.data_location != onnx.TensorProto.EXTERNAL and prod(tensor.dims) <= LARGEST_WORKED_OUT
        data = onnx.numpy_helper.to_array(tensor) if here else None
        values.known[tensor.name] = Value(tuple(tensor.dims), tensor.data_type, constant=True, data=data)
    for each in model.graph.input:
        if each.name not in values.known:
            values.known[each.name] = Value(bind(each), each.type.tensor_type.elem_type)
    versions = {entry.domain or "": entry.version for entry in model.opset_import}
    for node in model.graph.node:
        _follow(node, values, versions)
    return values


def _follow(node: NodeProto, values: Values, versions: Mapping[str, int]) -> None:
    """Add what is known of the node's results."""
    import onnx

    inputs = {name: values.known.get(name) for name in node.input if name}
    if None in inputs.values() or title(node) in values.problems:
        return  # behind a node that is not understood, which is reported already
    known = {name: value for name, value in inputs.items() if value is not None}
    if any(attribute.g.node or attribute.graphs for attribute in node.attribute):
        values.problems[title(node)] = "has a graph inside"
        return
    if node.op_type in ("Shape", "Size") and not node.domain:
        known = {name: _of_shape(value) for name, value in known.items()}
    elif node.op_type.startswith("Random"):
        values.problems[title(node)] = "is random"
        return
    constant = all(value.constant for value in known.values())
    try:
        types = _inferred(node, known, versions)
    except onnx.defs.SchemaError:
        values.problems[title(node)] = f"is not understood ({node.name or node.output[0]})"
        return
    except (onnx.shape_inference.InferenceError, ValueError):
        sizes = " and ".join(str(value.shape) for value in known.values())
        values.problems[title(node)] = f"does not fit inputs of sizes {sizes} ({node.name or node.output[0]})"
        return
    small = all(value.data is not None for value in known.values())
    for name, (_, shape) in types.items():
        if shape is None and not (constant and small):
            values.problems[title(node)] = f"has a result whose size depends on data ({node.name or name})"
            return
    worked_out: dict[str, NDArray[Any]] = {}
    if (
        constant
        and small
        and node.domain in ("", "ai.onnx")
        and sum(prod(s or ()) for _, s in types.values()) <= LARGEST_WORKED_OUT
    ):
        worked_out = _worked_out(node, known, versions)
    for name, (dtype, shape) in types.items():
        data = worked_out.get(name)
        found = tuple(data.shape) if data is not None else shape or ()
        values.known[name] = Value(found, dtype, constant, data)


def _of_shape(value: Value) -> Value:
    """A constant that has the value's shape, whatever is in it."""
    return Value(value.shape, value.dtype, True, np.broadcast_to(np.int8(0), value.shape))


def _inferred(
    node: NodeProto, known: Mapping[str, Value], versions: Mapping[str, int]
) -> dict[str, tuple[int, tuple[int, ...] | None]]:
    """Element type and shape (None: unknown) of each result, by ONNX's own inference."""
    import onnx

    own = contributed(node, title(node), [known.get(name) for name in node.input])
    if own is not None:
        return {name: (result.dtype, result.shape) for name, result in own.items()}
    schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    types = {n: onnx.helper.make_tensor_type_proto(v.dtype, v.shape) for n, v in known.items()}
    data = {
        name: onnx.numpy_helper.from_array(np.array(value.data), name)
        for name, value in known.items()
        if value.data is not None and node.op_type not in ("Shape", "Size")
    }
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in versions.items()]
    inferred = onnx.shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=opsets)
    found: dict[str, tuple[int, tuple[int, ...] | None]] = {}
    for name, result in inferred.items():
        dims = result.tensor_type.shape.dim
        sized = result.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
        found[name] = (
            result.tensor_type.elem_type,
            tuple(int(dim.dim_value) for dim in dims) if sized else None,
        )
    return found


def _worked_out(
    node: NodeProto, known: Mapping[str, Value], versions: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """The node's results, by ONNX's reference implementation."""
    from onnx.reference import ReferenceEvaluator

    run = ReferenceEvaluator(node, opsets=dict(versions))
    results = run.run(None, {name: value.data for name, value in known.items()})
    return {name: np.asarray(data) for name, data in zip(node.output, results, strict=True) if name}
