"""What each ONNX operator is lowered to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_einsum import lower_einsum
from tilewright.workloads.onnx_fused import FUSED
from tilewright.workloads.onnx_lowering import VIEWS, Handler, Lowering, NotUnderstoodError, Ref
from tilewright.workloads.onnx_nodes import attribute
from tilewright.workloads.onnx_products import PRODUCTS
from tilewright.workloads.onnx_quantised import QUANTISED
from tilewright.workloads.onnx_rotary import ROTARY
from tilewright.workloads.onnx_runtime_attention import ATTENTION

if TYPE_CHECKING:
    from onnx import NodeProto


def _elementwise(function: str) -> Handler:
    def lower(it: Lowering, node: NodeProto) -> None:
        it.elementwise(node, function, [name for name in node.input if name])

    return lower


def _multiply(it: Lowering, node: NodeProto) -> None:
    one = any(it.values[name].scalar for name in node.input)
    it.elementwise(node, "scale" if one else "multiply", list(node.input))


def _divide(it: Lowering, node: NodeProto) -> None:
    x, by = node.input
    if it.values[by].scalar:
        it.elementwise(node, "scale", [x])
    elif it.values[x].scalar:
        it.elementwise(node, "reciprocal", [by])
    else:
        shape = it.values[node.output[0]].shape
        top = it.full(replace(it.plain(it.ref(x), x), shape=shape), x)
        it.set(node, it.b.divide(it.name(node), top, it.plain(it.ref(by), by).tensor))


def _power(it: Lowering, node: NodeProto) -> None:
    exponent = it.values[node.input[1]]
    power = float(exponent.data.reshape(-1)[0]) if exponent.scalar and exponent.data is not None else None
    if power not in (2.0, 3.0, 0.5):
        raise NotUnderstoodError("has an exponent that is not 2, 3 or 0.5")
    it.elementwise(node, {2.0: "square", 3.0: "cube", 0.5: "sqrt"}[power], [node.input[0]])


def _gelu(it: Lowering, node: NodeProto) -> None:
    tanh = attribute(node, "approximate", b"none") == b"tanh"
    it.elementwise(node, "gelu_new" if tanh else "gelu", [node.input[0]])


def _softmax(it: Lowering, node: NodeProto) -> None:
    rank = len(it.values[node.output[0]].shape)
    if attribute(node, "axis", -1) not in (-1, rank - 1):
        raise NotUnderstoodError("is not along the last axis")
    it.set(node, it.b.softmax(it.name(node), it.tensor(node.input[0])))


def _reduce(function: str) -> Handler:
    def lower(it: Lowering, node: NodeProto) -> None:
        out = it.values[node.output[0]].shape
        it.set(node, it.b.reduce(it.name(node), function, it.tensor(node.input[0]), out or (1,)))

    return lower


def _view(it: Lowering, node: NodeProto) -> None:
    it.refs[node.output[0]] = it.view(node)


def _gather(it: Lowering, node: NodeProto) -> None:
    it.refs[node.output[0]] = it.looked_up(node)


def _moved(function: str, sources: int | None = None) -> Handler:
    """Copies elements of its first inputs (all, or `sources` of them) and of no constants of indices."""

    def lower(it: Lowering, node: NodeProto) -> None:
        names = [name for name in node.input[:sources] if name and it.values[name].elements]
        tensors = tuple(it.plain(it.ref(name), name).tensor for name in dict.fromkeys(names))
        for name in node.output:
            if name in it.wanted:
                shape = it.values[name].shape
                it.refs[name] = Ref(it.b.gather(it.name(node), function, tensors, shape or (1,)), shape)

    return lower


def _concat(it: Lowering, node: NodeProto) -> None:
    """Parts side by side; new keys or values at the end of a KV cache are written there."""
    names = [name for name in node.input if name]
    if len(names) != 2 or names[0] not in it.caches:
        _moved("concat")(it, node)
        return
    out, new = it.values[node.output[0]].shape, it.plain(it.ref(names[1]), names[1])
    turned = int(attribute(node, "axis", 0)) % len(out) == len(out) - 1
    width, total = (out[-2], out[-1]) if turned else (out[-1], out[-2])
    rows = it.whole(names[1])
    cache = (prod(out) // (width * total), total, width)
    made = it.b.append(it.name(node), rows, rows.elements // rows.shape[-1], cache)
    first = not it.values[names[0]].elements  # all of it is new, and need not be read back
    it.refs[node.output[0]] = replace(new, shape=out) if first else Ref(made, out, transposed=turned)


_COMPARISONS = (
    *("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
    *("And", "Or", "Xor", "Not", "IsNaN", "IsInf"),
)

HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(VIEWS, _view),
        **dict.fromkeys(("Add", "Sub"), _elementwise("add")),
        **dict.fromkeys(("Max", "Min"), _elementwise("extreme")),
        **dict.fromkeys(_COMPARISONS, _elementwise("compare")),
        **dict.fromkeys(("Cos", "Sin"), _elementwise("sine")),
        **dict.fromkeys(("Erf", "Tanh"), _elementwise("tanh")),
        **dict.fromkeys(("Abs", "Neg"), _elementwise("negate")),
        "Where": _elementwise("where"),
        "Clip": _elementwise("clip"),
        "Sqrt": _elementwise("sqrt"),
        "Exp": _elementwise("exp"),
        "Relu": _elementwise("relu"),
        "Sigmoid": _elementwise("sigmoid"),
        "Reciprocal": _elementwise("reciprocal"),
        "Mul": _multiply,
        "Div": _divide,
        "Pow": _power,
        "Gelu": _gelu,
        "Softmax": _softmax,
        "ReduceSum": _reduce("sum"),
        "ReduceMean": _reduce("mean"),
        "ReduceMax": _reduce("max"),
        "ReduceMin": _reduce("max"),
        "Gather": _gather,
        "GatherND": _moved("select", 2),
        "GatherElements": _moved("select", 2),
        "Slice": _moved("slice", 1),
        "Split": _moved("slice", 1),
        "Concat": _concat,
        "Einsum": lower_einsum,
        **PRODUCTS,
        **QUANTISED,
        **FUSED,
        **ROTARY,
        **ATTENTION,
    }
)
"""What each operator is lowered by."""
