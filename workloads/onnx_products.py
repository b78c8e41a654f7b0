"""Matrix products of ONNX graphs: MatMul, Gemm, Conv, FusedMatMul, and Einsum where it is one.

A product of quantised operands is one of integers; their zero points and scales are worked in afterwards,
where that is possible (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", arXiv:1712.05877, eq. 7):
(A - a)(B - b) = A B - a (sums of B's columns) - b (sums of A's rows) + a b k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_lowering import (
    ONE,
    Handler,
    Lowering,
    NotUnderstoodError,
    Ref,
    turned,
)
from tilewright.workloads.onnx_nodes import attribute, input_name, operator_name
from tilewright.workloads.onnx_shapes import operand_order, product_shape
from tilewright.workloads.operators import MatmulShape, Tensor

if TYPE_CHECKING:
    from onnx import NodeProto


def product(
    it: Lowering,
    name: str,
    a: Ref,
    b: Ref,
    shape: MatmulShape,
    out: tuple[int, ...],
    *,
    bias: Tensor | None = None,
    scales: tuple[Tensor, ...] = (),
) -> Tensor:
    """A B [+ bias] of shape `out`, its operator called `name`.

    Scales that are the same all along k come after the product, together with the further `scales`; others
    come before.
    """
    if not a.even:
        a = it.plain(a, f"{name}.a")
    if b.scale is not None and any(size > 1 for size in b.scale.shape[:-1]):
        b = it.plain(b, f"{name}.b")
    it.macs["weight" if b.tensor.role == "weight" or b.stored else "activation"] += shape.macs
    waiting = [each.scale.tensor for each in (a, b) if each.scale is not None]
    vectors = (*(each for each in waiting if each is not ONE), *scales)
    later = bool(waiting or scales or a.offset or b.offset) or (bias is not None and bias.role != "weight")
    with_bias = None if later else bias
    made = it.b.matmul(name, a.tensor, b.tensor, shape, out, bias=with_bias, transpose_b=b.transposed)
    made = _without_zero_points(it, name, made, a, b, shape)
    if vectors:
        made = it.b.elementwise(it.new(f"{name}.dequantise"), "multiply", made, *vectors)
    elif waiting:
        made = it.scaled(f"{name}.dequantise", made, Ref(ONE, ()))
    if later and bias is not None:
        made = it.b.elementwise(it.new(f"{name}.add_bias"), "add", made, bias)
    return made


def _without_zero_points(it: Lowering, name: str, made: Tensor, a: Ref, b: Ref, shape: MatmulShape) -> Tensor:
    """The product less what the zero points add to it. A sum times the zero point takes what a mean takes;
    sums over a weight's columns are known beforehand."""
    terms = []
    if a.offset:
        columns = b.tensor.elements // shape.k
        label = it.new(f"{name}.column_sums")
        known = b.tensor.role == "weight"
        sums = it.b.input(label, (columns,), "index") if known else None
        terms.append(sums or it.b.reduce(label, "mean", b.tensor, (columns,)))
    if b.offset:
        label = it.new(f"{name}.row_sums")
        terms.append(it.b.reduce(label, "mean", a.tensor, (a.tensor.elements // shape.k,)))
    return it.b.elementwise(it.new(f"{name}.zero_points"), "add", made, *terms) if terms else made


def operand(it: Lowering, name: str) -> Ref:
    """A value as an operand of a product: with all its elements, its scale still to come if it is even."""
    ref = it.ref(name)
    ref = ref if ref.even else it.plain(ref, name)
    return replace(ref, tensor=it.full(ref, name))


def matrices(
    it: Lowering, names: tuple[str, str], a: Ref, b: Ref
) -> tuple[Ref, Ref, MatmulShape, tuple[int, ...]]:
    """The operands of a (batched, broadcast) product as they are read, the sizes of the product, and the
    shape of its result. Raises `NotUnderstoodError` for vectors."""
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise NotUnderstoodError("multiplies a vector")
    out = product_shape(a.shape, b.shape)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    first, second = names
    if prod(b.shape[:-2]) == 1:
        a = a if a.even else it.plain(a, first)
        top = replace(a, tensor=it.full(a, first))
        return top, b, MatmulShape(1, prod(a.shape[:-1]), k, n), out
    a, b = (each if each.even else it.plain(each, name) for each, name in ((a, first), (b, second)))
    shared = b.copies if a.elements == prod(out[:-1]) * k else 1
    if shared > 1:  # heads that share keys and values are read once, their queries stacked
        return (
            replace(a, tensor=it.full(a, first)),
            replace(b, tensor=replace(b.tensor, shape=(prod(out[:-2]) // shared, k, n))),
            MatmulShape(prod(out[:-2]) // shared, shared * m, k, n),
            out,
        )
    a, b = replace(a, shape=(*out[:-2], m, k)), replace(b, shape=(*out[:-2], k, n))
    top, whole = (replace(x, tensor=it.full(x, name)) for x, name in ((a, first), (b, second)))
    return top, whole, MatmulShape(prod(out[:-2]), m, k, n), out


def _matmul(it: Lowering, node: NodeProto) -> None:
    names = (node.input[0], node.input[1])
    a, b, shape, out = matrices(it, names, it.ref(names[0]), before(it, names[1]))
    bias = it.patterns.biases.get(node.output[0])
    name = it.name(node)
    offset = it.ref(bias).tensor if bias else None
    it.set(node, product(it, name, a, b, shape, out, bias=offset))


def before(it: Lowering, name: str) -> Ref:
    """B of a product: what must be scaled before it is, under its own name."""
    ref = it.ref(name)
    along_k = ref.scale is not None and any(size > 1 for size in ref.scale.shape[:-1])
    return replace(it.plain(ref, name) if along_k else ref, stored=it.values[name].constant)


def _fused_matmul(it: Lowering, node: NodeProto) -> None:
    """alpha A' B', with operands whose axes are read in another order."""
    refs = []
    for side, name in zip("AB", node.input, strict=True):
        ref = it.ref(name)
        order = operand_order(
            len(ref.shape),
            transpose=bool(attribute(node, f"trans{side}", 0)),
            transpose_batch=bool(attribute(node, f"transBatch{side}", 0)),
        )
        refs.append(turned(ref, order))
    a, b, shape, out = matrices(it, (node.input[0], node.input[1]), refs[0], refs[1])
    b = replace(b, stored=it.values[node.input[1]].constant)
    name = it.name(node)
    made = product(it, name, a, b, shape, out)
    if attribute(node, "alpha", 1.0) != 1.0:
        made = it.b.elementwise(it.new(f"{name}.alpha"), "scale", made)
    it.set(node, made)


def _gemm(it: Lowering, node: NodeProto) -> None:
    factors = [attribute(node, name, 1.0) for name in ("alpha", "beta")]
    if attribute(node, "transA", 0) or factors != [1.0, 1.0]:
        raise NotUnderstoodError("has transA, alpha or beta")
    m, k = it.values[node.input[0]].shape
    n = it.values[node.output[0]].shape[1]
    weight = it.ref(node.input[1])
    if attribute(node, "transB", 0):
        weight = turned(weight, (1, 0))
    weight = replace(weight, stored=it.values[node.input[1]].constant)
    bias = _column_bias(it, node, n)
    a = operand(it, node.input[0])
    it.set(node, product(it, it.name(node), a, weight, MatmulShape(1, m, k, n), (m, n), bias=bias))


def _column_bias(it: Lowering, node: NodeProto, n: int) -> Tensor | None:
    name = input_name(node, 2)
    if name and it.ref(name).tensor.elements != n:
        raise NotUnderstoodError("has a bias that is not of one element per column")
    return it.ref(name).tensor if name else None


def _convolution(it: Lowering, node: NodeProto) -> None:
    """Windows side by side, times the weight: what a patch embedding is."""
    if attribute(node, "group", 1) != 1:
        raise NotUnderstoodError("has groups")
    out, kernel = it.values[node.output[0]].shape, it.values[node.input[1]].shape
    k, rows = prod(kernel[1:]), out[0] * prod(out[2:])
    name = it.new(f"{operator_name(node)}.unfold")
    windows = Ref(it.b.gather(name, "unfold", (it.tensor(node.input[0]),), (rows, k)), (rows, k))
    weight = it.plain(it.ref(node.input[1]), node.input[1])
    turn = Ref(weight.tensor, (k, kernel[0]), transposed=True, stored=True)  # a row per channel out
    bias = _column_bias(it, node, kernel[0])
    shape = MatmulShape(1, rows, k, kernel[0])
    it.set(node, product(it, it.name(node), windows, turn, shape, out, bias=bias))


PRODUCTS: Mapping[str, Handler] = MappingProxyType(
    {
        "MatMul": _matmul,
        "Gemm": _gemm,
        "Conv": _convolution,
        "com.microsoft.FusedMatMul": _fused_matmul,
        "com.microsoft.TransposeMatMul": _fused_matmul,
    }
)
"""What each operator that is a product is lowered by."""
