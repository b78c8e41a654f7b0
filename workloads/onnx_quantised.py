"""Quantised products of ONNX graphs, and what quantises and dequantises.

A DequantizeLinear is no work by itself: what reads its result multiplies by the scale where it must, a
product only after it has been summed up (see `onnx_products`), so that pairs of QuantizeLinear and
DequantizeLinear around a product make it one of integers, as runtimes fuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil, prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_lowering import (
    ONE,
    Handler,
    Lowering,
    NotUnderstoodError,
    Ref,
    element_of,
)
from tilewright.workloads.onnx_nodes import attribute, input_name, output_name, plain_name
from tilewright.workloads.onnx_products import matrices, product
from tilewright.workloads.operators import MatmulShape, Tensor

if TYPE_CHECKING:
    from onnx import NodeProto

_BITS = MappingProxyType({4: "int4", 8: "int8"})


def _quantise(it: Lowering, node: NodeProto) -> None:
    """One rounding of each element, by a scale that is given."""
    if attribute(node, "block_size", 0):
        raise NotUnderstoodError("has scales by block")
    value = it.values[node.output[0]]
    element = element_of(value)
    if element is None:
        raise NotUnderstoodError("rounds to a type that is not known here")
    x, by = it.plain(it.ref(node.input[0]), node.input[0]), _vectors(it, node.input[1])
    made = it.b.rounded(it.name(node), it.full(x, node.input[0]), element, by)
    it.refs[node.output[0]] = Ref(made, value.shape, transposed=x.transposed)


def _vectors(it: Lowering, *names: str) -> tuple[Tensor, ...]:
    """The scales among these that have to be read: a constant of one element is not."""
    return tuple(it.ref(name).tensor for name in names if not it.values[name].scalar)


def _dequantise(it: Lowering, node: NodeProto) -> None:
    if attribute(node, "block_size", 0):
        raise NotUnderstoodError("has scales by block")
    x, shape = it.ref(node.input[0]), it.values[node.output[0]].shape
    scale = it.scale(node, node.input[1], shape)
    it.refs[node.output[0]] = replace(x, shape=shape, scale=scale, offset=it.offset(node, 2))


def _dynamic(it: Lowering, name: str, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x in 8 bits by its own range, with the scale and the zero point: largest and smallest element, their
    difference, and a rounding of each element."""
    largest = it.b.reduce(it.new(f"{name}.largest"), "max", x, (1,))
    smallest = it.b.reduce(it.new(f"{name}.smallest"), "max", x, (1,))
    scale = it.b.elementwise(it.new(f"{name}.scale"), "add", largest, smallest)
    return it.b.rounded(name, x, "int8", (scale, smallest)), scale, smallest


def _dynamic_quantise(it: Lowering, node: NodeProto) -> None:
    made, scale, zero = _dynamic(it, it.name(node), it.tensor(node.input[0]))
    it.set(node, made)
    for index, tensor in ((1, scale), (2, zero)):
        it.refs[output_name(node, index)] = Ref(tensor, ())


def _integers(
    it: Lowering, node: NodeProto, name: str, at: tuple[int, int, int, int], scales: tuple[Tensor, ...] = ()
) -> Tensor:
    """The product of two integer operands, `at` being the inputs A, its zero point, B and its zero point."""
    first, second = node.input[at[0]], node.input[at[2]]
    left = replace(it.ref(first), offset=it.offset(node, at[1]))
    right = replace(it.ref(second), offset=it.offset(node, at[3]))
    a, b, shape, out = matrices(it, (first, second), left, right)
    b = replace(b, stored=it.values[second].constant)
    return product(it, name, a, b, shape, out, scales=scales)


def _matmul_integer(it: Lowering, node: NodeProto) -> None:
    it.set(node, _integers(it, node, it.name(node), (0, 2, 1, 3)))


def _qlinear_matmul(it: Lowering, node: NodeProto) -> None:
    """The product, and a rounding of each result by a scale that the three scales make."""
    name = it.name(node)
    made = _integers(it, node, name, (0, 2, 3, 5))
    element = element_of(it.values[node.output[0]]) or "int8"
    by = _vectors(it, node.input[4])
    it.set(node, it.b.rounded(it.new(f"{name}.requantise"), made, element, by))


def _integer_to_float(it: Lowering, node: NodeProto) -> None:
    name = it.name(node)
    made = _integers(it, node, name, (0, 4, 1, 5), _vectors(it, node.input[2], node.input[3]))
    if it.values[node.input[2]].scalar and it.values[node.input[3]].scalar:
        made = it.scaled(f"{name}.dequantise", made, Ref(ONE, ()))
    it.set(node, _with_bias(it, name, made, input_name(node, 6)))


def _dynamic_matmul(it: Lowering, node: NodeProto) -> None:
    """A is quantised by its own range, B is a weight."""
    name, source = it.name(node), node.input[0]
    made, scale, _ = _dynamic(it, it.new(f"{name}.quantise"), it.tensor(source))
    a = Ref(made, it.values[source].shape, offset=True)
    right = replace(it.ref(node.input[1]), offset=it.offset(node, 3))
    a, b, shape, out = matrices(it, (source, node.input[1]), a, right)
    b = replace(b, stored=it.values[node.input[1]].constant)
    result = product(it, name, a, b, shape, out, scales=(scale, *_vectors(it, node.input[2])))
    it.set(node, _with_bias(it, name, result, input_name(node, 4)))


def _with_bias(it: Lowering, name: str, made: Tensor, bias: str) -> Tensor:
    if not bias:
        return made
    return it.b.elementwise(it.new(f"{name}.add_bias"), "add", made, it.plain(it.ref(bias), bias).tensor)


def _matmul_n_bits(it: Lowering, node: NodeProto) -> None:
    """A product with a weight [N, K] whose elements are scaled block by block as they come in, its scales (16
    bits) and zero points (as wide as an element) beside it in memory."""
    k, n = attribute(node, "K", 0), attribute(node, "N", 0)
    bits, block = attribute(node, "bits", 4), attribute(node, "block_size", 32)
    if bits not in _BITS:
        raise NotUnderstoodError(f"has weights of {bits} bits; 4 and 8 are known")
    blocks, packed = n * ceil(k / block), node.input[1]
    if not it.values[packed].constant:
        raise NotUnderstoodError("has weights that are computed")
    side = blocks * (16 + (bits if input_name(node, 3) else 0))
    if packed not in it.refs:
        label = it.new(plain_name(packed))
        made = it.b.weight(label, (n, k), element=_BITS[bits], side_bits=side)
        it.refs[packed] = Ref(made, (n, k))
    weight = it.refs[packed].tensor
    a, bias = it.tensor(node.input[0]), input_name(node, 5) or it.patterns.biases.get(node.output[0])
    shape = MatmulShape(1, prod(a.shape[:-1]), k, n)
    it.macs["weight"] += shape.macs
    made = it.b.matmul(
        it.name(node),
        a,
        weight,
        shape,
        it.values[node.output[0]].shape,
        bias=it.ref(bias).tensor if bias else None,
        transpose_b=True,
        converted=True,
    )
    it.set(node, made)


QUANTISED: Mapping[str, Handler] = MappingProxyType(
    {
        **dict.fromkeys(("QuantizeLinear", "com.microsoft.QuantizeLinear"), _quantise),
        **dict.fromkeys(("DequantizeLinear", "com.microsoft.DequantizeLinear"), _dequantise),
        "DynamicQuantizeLinear": _dynamic_quantise,
        "MatMulInteger": _matmul_integer,
        "QLinearMatMul": _qlinear_matmul,
        "com.microsoft.MatMulIntegerToFloat": _integer_to_float,
        "com.microsoft.DynamicQuantizeMatMul": _dynamic_matmul,
        "com.microsoft.MatMulNBits": _matmul_n_bits,
    }
)
"""What each of these operators is lowered by."""
