"""What ONNX Runtime's optimiser makes of norms, residuals, embeddings and activations.

Definitions: ONNX Runtime's docs/ContribOperators.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_lowering import ONE, Handler, Lowering, NotUnderstoodError, Ref
from tilewright.workloads.onnx_nodes import attribute, input_name, output_name
from tilewright.workloads.operators import Tensor

if TYPE_CHECKING:
    from onnx import NodeProto


def normed(
    it: Lowering, node: NodeProto, name: str, x: Tensor, function: str, weights: tuple[str, ...]
) -> None:
    """The node's first result: x normalised along its last axis with these weights."""
    if not all(weights):
        raise NotUnderstoodError("has no bias")
    if not all(it.values[each].constant and it.values[each].elements == x.shape[-1] for each in weights):
        raise NotUnderstoodError("has weights that are computed or of another size")
    given = tuple(it.ref(each).tensor for each in weights)  # scales of one row are worked in beforehand
    it.set(node, it.b.norm(name, x, function, given=given))


def norm(function: str) -> Handler:
    """Handles a norm along the last axis."""

    def lower(it: Lowering, node: NodeProto) -> None:
        rank = len(it.values[node.output[0]].shape)
        if attribute(node, "axis", -1) not in (-1, rank - 1):
            raise NotUnderstoodError("is not along the last axis only")
        weights = tuple(input_name(node, each) for each in ((1, 2) if function == "layernorm" else (1,)))
        normed(it, node, it.name(node), it.tensor(node.input[0]), function, weights)

    return lower


def _skip_norm(function: str) -> Handler:
    """The norm of input + skip [+ bias]; the sum may be a result as well."""
    weights_at, bias_at = ((2, 3), 4) if function == "layernorm" else ((2,), 3)

    def lower(it: Lowering, node: NodeProto) -> None:
        name = it.name(node)
        added = [node.input[1], input_name(node, bias_at)]
        terms = (it.plain(it.ref(each), each).tensor for each in added if each)
        total = it.b.elementwise(it.new(f"{name}.sum"), "add", it.tensor(node.input[0]), *terms)
        if output_name(node, 3):
            it.refs[node.output[3]] = Ref(total, it.values[node.input[0]].shape)
        normed(it, node, name, total, function, tuple(input_name(node, each) for each in weights_at))

    return lower


def _embedding_norm(it: Lowering, node: NodeProto) -> None:
    """The norm of the sum of rows for words, positions and segments."""
    shape = it.values[node.output[0]].shape
    tables = {"word": (2, 0), "position": (3, 8), "segment": (4, 1)}
    parts = [
        _rows(it, f"{it.label(node)}.{label}", input_name(node, table), input_name(node, ids), shape)
        for label, (table, ids) in tables.items()
        if input_name(node, table)
    ]
    _embedded(it, node, parts)


def _quantised_embedding_norm(it: Lowering, node: NodeProto) -> None:
    """The same of tables in 8 bits, whose rows are scaled as they come."""
    shape = it.values[node.output[0]].shape
    tables = {"word": (2, 0, 13), "position": (3, -1, 14), "segment": (4, 1, 15)}
    parts = []
    for label, (table, ids, zero) in tables.items():
        if input_name(node, table):
            name = f"{it.label(node)}.{label}"
            at = input_name(node, ids) if ids >= 0 else ""
            rows = _rows(it, name, input_name(node, table), at, shape)
            parts.append(it.dequantised(name, rows, Ref(ONE, ()), offset=it.offset(node, zero)))
    _embedded(it, node, parts)


def _embedded(it: Lowering, node: NodeProto, parts: Sequence[Tensor]) -> None:
    """What both make of the rows: their sum, its norm, and the lengths of the sequences."""
    name, shape = it.name(node), it.values[node.output[0]].shape
    total = it.b.elementwise(it.new(f"{name}.sum"), "add", *parts)
    if output_name(node, 2):
        it.refs[node.output[2]] = Ref(total, shape)
    lengths = output_name(node, 1)
    if lengths in it.wanted - {""}:
        it.refs[lengths] = _lengths(it, f"{name}.mask_index", input_name(node, 7), shape[0])
    normed(it, node, name, total, "layernorm", (input_name(node, 5), input_name(node, 6)))


def _rows(it: Lowering, name: str, table: str, ids: str, shape: tuple[int, ...]) -> Tensor:
    """The table's rows for these ids, or its first ones for tokens in a row."""
    source, name = it.ref(table).tensor, it.new(name)
    if not ids:
        return it.b.gather(name, "slice", (source,), shape[1:])
    return it.b.gather(name, "lookup", (source, it.tensor(ids)), (*it.values[ids].shape, shape[-1]))


def _lengths(it: Lowering, name: str, mask: str, batch: int) -> Ref:
    """How many tokens of each sequence are there: the sums of the mask, or all."""
    if not mask:
        return Ref(it.b.input(it.new(name), (batch,), "index"), (batch,))
    return Ref(it.b.reduce(it.new(name), "sum", it.tensor(mask), (batch,)), (batch,))


def _biased(function: str) -> Handler:
    """The function of x + bias; a bias that the product before has already is not added again."""

    def lower(it: Lowering, node: NodeProto) -> None:
        x, bias, name = node.input[0], input_name(node, 1), it.name(node)
        argument = it.tensor(x)
        if bias and it.patterns.biases.get(x) != bias:
            offset = it.plain(it.ref(bias), bias).tensor
            argument = it.b.elementwise(it.new(f"{name}.bias"), "add", argument, offset)
        it.set(node, it.b.elementwise(name, function, argument))

    return lower


FUSED: Mapping[str, Handler] = MappingProxyType(
    {
        "LayerNormalization": norm("layernorm"),
        "RMSNormalization": norm("rmsnorm"),
        "SimplifiedLayerNormalization": norm("rmsnorm"),
        "com.microsoft.SkipLayerNormalization": _skip_norm("layernorm"),
        "com.microsoft.SkipSimplifiedLayerNormalization": _skip_norm("rmsnorm"),
        "com.microsoft.EmbedLayerNormalization": _embedding_norm,
        "com.microsoft.QEmbedLayerNormalization": _quantised_embedding_norm,
        "com.microsoft.Gelu": _biased("gelu"),
        "com.microsoft.BiasGelu": _biased("gelu"),
        "com.microsoft.FastGelu": _biased("gelu_new"),
        "com.microsoft.QuickGelu": _biased("quick_gelu"),
    }
)
"""What each of these operators is lowered by."""
