"""What each ONNX operator is lowered to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_lowering import VIEWS, Handler, Lowering, NotUnderstoodError, Ref, turned
from tilewright.workloads.onnx_patterns import attribute, operator_name
from tilewright.workloads.operators import MatmulShape

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


def _matmul(it: Lowering, node: NodeProto) -> None:
    a, b = node.input
    left, right, out = it.values[a].shape, it.values[b].shape, it.values[node.output[0]].shape
    if len(left) < 2 or len(right) < 2:
        raise NotUnderstoodError("multiplies a vector")
    m, k, n = left[-2], left[-1], right[-1]
    bias = it.patterns.biases.get(node.output[0])
    if prod(right[:-2]) == 1:
        it.linear(node, it.tensor(a), it.ref(b), MatmulShape(1, prod(left[:-1]), k, n), bias)
        return
    batch = prod(out[:-2])
    top = it.full(replace(it.plain(it.ref(a), a), shape=(*out[:-2], m, k)), a)
    weight = it.plain(it.ref(b), b)
    whole = it.full(replace(weight, shape=(*out[:-2], k, n)), b)
    it.linear(node, top, replace(weight, tensor=whole), MatmulShape(batch, m, k, n), bias)


def _gemm(it: Lowering, node: NodeProto) -> None:
    factors = [attribute(node, name, 1.0) for name in ("alpha", "beta")]
    if attribute(node, "transA", 0) or factors != [1.0, 1.0]:
        raise NotUnderstoodError("has transA, alpha or beta")
    m, k = it.values[node.input[0]].shape
    n = it.values[node.output[0]].shape[1]
    weight = it.ref(node.input[1])
    if attribute(node, "transB", 0):
        weight = turned(weight, (1, 0))
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias and it.ref(bias).tensor.elements != n:
        raise NotUnderstoodError("has a bias that is not of one element per column")
    it.linear(node, it.tensor(node.input[0]), weight, MatmulShape(1, m, k, n), bias)


def _convolution(it: Lowering, node: NodeProto) -> None:
    """Windows side by side, times the weight: what a patch embedding is."""
    if attribute(node, "group", 1) != 1:
        raise NotUnderstoodError("has groups")
    out, kernel = it.values[node.output[0]].shape, it.values[node.input[1]].shape
    k, rows = prod(kernel[1:]), out[0] * prod(out[2:])
    name = it.new(f"{operator_name(node)}.unfold")
    windows = it.b.gather(name, "unfold", (it.tensor(node.input[0]),), (rows, k))
    weight = replace(it.plain(it.ref(node.input[1]), node.input[1]), transposed=True)  # a row per channel out
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    it.linear(node, windows, weight, MatmulShape(1, rows, k, kernel[0]), bias)


def _softmax(it: Lowering, node: NodeProto) -> None:
    rank = len(it.values[node.output[0]].shape)
    if attribute(node, "axis", -1) not in (-1, rank - 1):
        raise NotUnderstoodError("is not along the last axis")
    it.set(node, it.b.softmax(it.name(node), it.tensor(node.input[0])))


def _norm(function: str) -> Handler:
    def lower(it: Lowering, node: NodeProto) -> None:
        shape = it.values[node.output[0]].shape
        weights = [name for name in node.input[1:] if name]
        if attribute(node, "axis", -1) not in (-1, len(shape) - 1):
            raise NotUnderstoodError("is not along the last axis only")
        if len(weights) != (2 if function == "layernorm" else 1):
            raise NotUnderstoodError("has no bias")
        if not all(it.values[name].constant and it.values[name].elements == shape[-1] for name in weights):
            raise NotUnderstoodError("has weights that are computed or of another size")
        it.set(node, it.b.norm(it.name(node), it.tensor(node.input[0]), function))

    return lower


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
        "MatMul": _matmul,
        "Gemm": _gemm,
        "Conv": _convolution,
        "Softmax": _softmax,
        "LayerNormalization": _norm("layernorm"),
        "RMSNormalization": _norm("rmsnorm"),
        "ReduceSum": _reduce("sum"),
        "ReduceMean": _reduce("mean"),
        "ReduceMax": _reduce("max"),
        "ReduceMin": _reduce("max"),
        "Gather": _gather,
        "GatherND": _moved("select", 2),
        "GatherElements": _moved("select", 2),
        "Slice": _moved("slice", 1),
        "Split": _moved("slice", 1),
        "Concat": _moved("concat"),
    }
)
"""What each operator is lowered by."""
