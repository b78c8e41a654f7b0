"""Rotary position embeddings of ONNX graphs (Su et al., "RoFormer", arXiv:2104.09864)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from tilewright.workloads.onnx_lowering import Handler, Lowering, Ref
from tilewright.workloads.onnx_nodes import attribute, input_name
from tilewright.workloads.operators import Tensor

if TYPE_CHECKING:
    from onnx import NodeProto


class Angles(NamedTuple):
    """Names of the values that a rotation reads."""

    cos: str
    sin: str
    positions: str
    """Empty where the tokens' rows are the first ones."""


def rotate(it: Lowering, name: str, x: Tensor, angles: Angles, tokens: int, head: int) -> Tensor:
    """x, heads of `head` elements, with as many of each head rotated as there are angles for."""
    tables = [_angles(it, table, angles.positions, tokens) for table in (angles.cos, angles.sin)]
    rotated = 2 * tables[0].shape[-1]
    if rotated == head:
        return it.b.elementwise(name, "rope", x, *tables)
    rows = (x.elements // head, rotated)
    part = it.b.gather(it.new(f"{name}.part"), "slice", (x,), rows)
    turned = it.b.elementwise(it.new(f"{name}.rotated"), "rope", part, *tables)
    return it.b.place(name, x, (turned,), x.shape)


def _angles(it: Lowering, table: str, positions: str, tokens: int) -> Tensor:
    """The rows of a table of cosines or sines for the tokens, looked up once for all that read them. The
    table is a constant, but nothing that was learned: it is no parameter of the model."""
    key = f"{table}[{positions}]"
    if key not in it.refs:
        if table not in it.refs and it.values[table].constant:
            it.refs[table] = it.outside(table)
        source, width = it.tensor(table), it.values[table].shape[-1]
        place = it.values.get(positions) if positions else None
        if place is not None and not place.constant and place.elements % tokens == 0:
            rows = (*place.shape, width)
            made = it.b.gather(it.new(f"{source.name}.rows"), "lookup", (source, it.tensor(positions)), rows)
        elif source.elements > tokens * width and len(source.shape) == 2:
            made = it.b.gather(it.new(f"{source.name}.rows"), "slice", (source,), (tokens, width))
        else:
            made = source
        it.refs[key] = Ref(made, made.shape)
    return it.refs[key].tensor


def _rotary(*, positions_at: int, tables_at: int) -> Handler:
    def lower(it: Lowering, node: NodeProto) -> None:
        shape, cos = it.values[node.input[0]].shape, node.input[tables_at]
        tokens = shape[2] if len(shape) == 4 else shape[1]
        heads = shape[1] if len(shape) == 4 else attribute(node, "num_heads", 0)
        partly = attribute(node, "rotary_embedding_dim", 0)
        width = prod(shape) // (shape[0] * tokens)
        head = width // heads if heads else 2 * it.values[cos].shape[-1]
        head = max(head, partly)
        angles = Angles(cos, node.input[tables_at + 1], input_name(node, positions_at))
        it.set(node, rotate(it, it.name(node), it.tensor(node.input[0]), angles, tokens, head))

    return lower


ROTARY: Mapping[str, Handler] = MappingProxyType(
    {
        "RotaryEmbedding": _rotary(positions_at=3, tables_at=1),
        "com.microsoft.RotaryEmbedding": _rotary(positions_at=1, tables_at=2),
    }
)
"""What each of these operators is lowered by."""
