"""Shapes of the results of ONNX Runtime's own operators, which the `onnx` package does not know.

Definitions: ONNX Runtime's docs/ContribOperators.md (inputs by number, attributes by name). A rule takes the
node and its inputs (None where one is left out) and gives element type and shape of each result that it
knows, None for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from tilewright.workloads.onnx_nodes import attribute

if TYPE_CHECKING:
    from onnx import NodeProto

    from tilewright.workloads.onnx_values import Value

Shape = tuple[int, ...]
FLOAT, UINT8, INT32 = 1, 2, 6
"""ONNX's numbers of element types."""


class Result(NamedTuple):
    """What is known of one result."""

    dtype: int
    shape: Shape


Inputs = Sequence["Value | None"]
Rule = Callable[["NodeProto", Inputs], list[Result | None]]


def _need(inputs: Inputs, index: int) -> Value:
    found = inputs[index] if index < len(inputs) else None
    if found is None:
        raise ValueError(f"input {index} is left out")
    return found


def optional(inputs: Inputs, index: int) -> Value | None:
    """An input, if the node has it."""
    return inputs[index] if index < len(inputs) else None


def _same(*results: int) -> Rule:
    """These results are as large as the first input."""

    def rule(_: NodeProto, inputs: Inputs) -> list[Result | None]:
        x = _need(inputs, 0)
        made = Result(x.dtype, x.shape)
        return [made if each in results else None for each in range(max(results) + 1)]

    return rule


def product_shape(left: Shape, right: Shape) -> Shape:
    """The shape of a matrix product with broadcast batches. Raises `ValueError` if there is none."""
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise ValueError(f"{left} and {right} are no product")
    rank = max(len(left), len(right)) - 2
    batches = [(1,) * (rank + 2 - len(each)) + each[:-2] for each in (left, right)]
    pairs = list(zip(*batches, strict=True))
    if any(x != y and 1 not in (x, y) for x, y in pairs):
        raise ValueError(f"{left} and {right} can't be broadcast")
    return (*(max(pair) for pair in pairs), left[-2], right[-1])


def operand_order(rank: int, *, transpose: bool, transpose_batch: bool) -> tuple[int, ...]:
    """The order of axes in which a FusedMatMul reads an operand: `transBatchA` takes the first axis behind
    the batch, `transA` swaps the last two."""
    order = list(range(rank))
    if transpose_batch:
        order = [*order[1:-1], order[0], order[-1]]
    if transpose:
        order[-2:] = order[:-3:-1]
    return tuple(order)


def _fused_matmul(node: NodeProto, inputs: Inputs) -> list[Result | None]:
    shapes = []
    for index, side in enumerate("AB"):
        shape = _need(inputs, index).shape
        order = operand_order(
            len(shape),
            transpose=bool(attribute(node, f"trans{side}", 0)),
            transpose_batch=bool(attribute(node, f"transBatch{side}", 0)),
        )
        shapes.append(tuple(shape[axis] for axis in order))
    return [Result(_need(inputs, 0).dtype, product_shape(shapes[0], shapes[1]))]


def _product(_: NodeProto, inputs: Inputs) -> list[Result | None]:
    return [Result(FLOAT, product_shape(_need(inputs, 0).shape, _need(inputs, 1).shape))]


def _matmul_n_bits(node: NodeProto, inputs: Inputs) -> list[Result | None]:
    a = _need(inputs, 0)
    if a.shape[-1] != attribute(node, "K", 0):
        raise ValueError("A has not K columns")
    return [Result(a.dtype, (*a.shape[:-1], attribute(node, "N", 0)))]


def _embedding(node: NodeProto, inputs: Inputs) -> list[Result | None]:
    ids, table = _need(inputs, 0), _need(inputs, 2)
    made = Result(FLOAT if node.op_type.startswith("Q") else table.dtype, (*ids.shape, table.shape[1]))
    return [made, Result(INT32, ids.shape[:1]), made]


def _quantise(_: NodeProto, inputs: Inputs) -> list[Result | None]:
    zero = optional(inputs, 2)
    return [Result(UINT8 if zero is None else zero.dtype, _need(inputs, 0).shape)]


def _dequantise(_: NodeProto, inputs: Inputs) -> list[Result | None]:
    return [Result(_need(inputs, 1).dtype, _need(inputs, 0).shape)]


def qkv_widths(node: NodeProto, weight: Shape) -> tuple[int, int, int]:
    """Widths of queries, keys and values in the merged weight of an Attention or QAttention."""
    third = weight[-1] // 3
    query, key, value = attribute(node, "qkv_hidden_sizes", [third] * 3)
    if query + key + value != weight[-1]:
        raise ValueError("the widths of queries, keys and values are not the weight's")
    return int(query), int(key), int(value)


def _attention(past_at: int, dtype_at: int) -> Rule:
    """Attention and QAttention: the past is one tensor [2, batch, heads, tokens, head_dim]."""

    def rule(node: NodeProto, inputs: Inputs) -> list[Result | None]:
        x, weight, heads = _need(inputs, 0), _need(inputs, 1), attribute(node, "num_heads", 0)
        batch, tokens, _ = x.shape
        query, _, value = qkv_widths(node, weight.shape)
        past, dtype = optional(inputs, past_at), _need(inputs, dtype_at).dtype
        total = tokens + (past.shape[3] if past else 0)
        present = (2, batch, heads, total, query // heads)
        return [Result(dtype, (batch, tokens, value)), Result(dtype, present)]

    return rule


def _multi_head(node: NodeProto, inputs: Inputs) -> list[Result | None]:
    query, key, value, past = (optional(inputs, index) for index in (0, 1, 2, 6))
    if query is None:
        raise ValueError("there is no query")
    heads, batch, tokens = attribute(node, "num_heads", 0), query.shape[0], query.shape[1]
    if len(query.shape) == 5:
        width = value_width = prod(query.shape[2:]) // 3
        new = tokens
    elif key is None or len(key.shape) == 5:
        width = value_width = query.shape[2]
        new = key.shape[1] if key else tokens
    else:
        width, lying = query.shape[2], len(key.shape) == 4
        new = key.shape[2 if lying else 1]
        value_width = width if value is None else prod(value.shape) // (batch * new)
    total = new + (past.shape[2] if past else 0)
    kept = [(batch, heads, total, each // heads) for each in (width, value_width)]
    return [Result(query.dtype, shape) for shape in ((batch, tokens, value_width), *kept)]


def _grouped(node: NodeProto, inputs: Inputs) -> list[Result | None]:
    query, key, past, total = (optional(inputs, index) for index in (0, 1, 3, 6))
    if query is None:
        raise ValueError("there is no query")
    heads, kv_heads = attribute(node, "num_heads", 0), attribute(node, "kv_num_heads", 0)
    batch, tokens, width = query.shape
    head = width // heads if key is not None else width // (heads + 2 * kv_heads)
    before = past.shape[2] if past else 0
    told = None if total is None else total.data
    context = before + tokens if told is None else max(before, int(told.reshape(-1)[0]))
    present = Result(query.dtype, (batch, kv_heads, context, head))
    return [Result(query.dtype, (batch, tokens, heads * head)), present, present]


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "SimplifiedLayerNormalization": _same(0),
        "com.microsoft.Attention": _attention(4, 0),
        "com.microsoft.QAttention": _attention(8, 3),
        "com.microsoft.MultiHeadAttention": _multi_head,
        "com.microsoft.GroupQueryAttention": _grouped,
        "com.microsoft.RotaryEmbedding": _same(0),
        "com.microsoft.SkipLayerNormalization": _same(0, 3),
        "com.microsoft.SkipSimplifiedLayerNormalization": _same(0, 3),
        "com.microsoft.EmbedLayerNormalization": _embedding,
        "com.microsoft.QEmbedLayerNormalization": _embedding,
        "com.microsoft.Gelu": _same(0),
        "com.microsoft.FastGelu": _same(0),
        "com.microsoft.QuickGelu": _same(0),
        "com.microsoft.BiasGelu": _same(0),
        "com.microsoft.FusedMatMul": _fused_matmul,
        "com.microsoft.TransposeMatMul": _fused_matmul,
        "com.microsoft.MatMulNBits": _matmul_n_bits,
        "com.microsoft.DynamicQuantizeMatMul": _product,
        "com.microsoft.MatMulIntegerToFloat": _product,
        "com.microsoft.QuantizeLinear": _quantise,
        "com.microsoft.DequantizeLinear": _dequantise,
    }
)


def contributed(node: NodeProto, title: str, inputs: Inputs) -> dict[str, Result] | None:
    """What is known of a node's results by name; None if the operator is not one of these. Raises
    `ValueError` if the inputs do not fit."""
    rule = _RULES.get(title)
    if rule is None:
        return None
    try:
        results = rule(node, inputs)
    except (IndexError, ZeroDivisionError) as error:
        raise ValueError("an input has too few axes, or an attribute is missing") from error
    named = zip(node.output, results, strict=False)
    return {name: result for name, result in named if name and result is not None}
