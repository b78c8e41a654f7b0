"""The attention operators of ONNX Runtime's optimiser (docs/ContribOperators.md of ONNX Runtime)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING

from tilewright.workloads.onnx_attention import (
    Call,
    attend,
    heads_of,
    lower_standard,
    past_tokens,
    refuse,
)
from tilewright.workloads.onnx_lowering import ONE, Handler, Lowering, NotUnderstoodError, Ref, element_of
from tilewright.workloads.onnx_nodes import attribute, input_name, output_name, plain_name
from tilewright.workloads.onnx_products import operand, product
from tilewright.workloads.onnx_rotary import Angles, rotate
from tilewright.workloads.onnx_shapes import qkv_widths
from tilewright.workloads.operators import MatmulShape, Tensor

if TYPE_CHECKING:
    from onnx import NodeProto

PARTS = ("query", "key", "value")


def _third(it: Lowering, name: str, which: int, widths: Sequence[int]) -> Tensor:
    """The columns of a merged weight (or bias, or scales) that make queries (0), keys (1) or values (2)."""
    value, key = it.values[name], f"{name}[{PARTS[which]}]"
    maker = it.makers.get(name)
    if not value.constant or (maker is not None and maker.op_type == "DequantizeLinear"):
        raise NotUnderstoodError(f"has weights that are computed ({name})")
    if key not in it.refs:
        shape = (*value.shape[:-1], widths[which])
        label = it.new(f"{plain_name(name)}.{PARTS[which]}")
        it.refs[key] = Ref(it.b.weight(label, shape, element=element_of(value)), shape)
    return it.refs[key].tensor


def _projected(it: Lowering, node: NodeProto, which: int, a: Ref, scale: str, *, offset: bool) -> Tensor:
    """Queries, keys or values: a product of their own, as the kernels write them."""
    weight, bias = node.input[1], input_name(node, 2)
    widths = qkv_widths(node, it.values[weight].shape)
    batch, tokens, k = it.values[node.input[0]].shape
    tensor = _third(it, weight, which, widths)
    b = Ref(tensor, tensor.shape, stored=True, offset=offset)
    if scale:
        scales = ONE if it.values[scale].scalar else _third(it, scale, which, widths)
        b = replace(b, scale=Ref(scales, (1, scales.elements)))
    return product(
        it,
        it.new(f"{it.label(node)}.{PARTS[which]}"),
        a,
        b,
        MatmulShape(1, batch * tokens, k, widths[which]),
        (batch, tokens, widths[which]),
        bias=_third(it, bias, which, widths) if bias else None,
    )


def _merged(it: Lowering, node: NodeProto, a: Ref, scale: str, ins: Mapping[str, int]) -> None:
    """Projections by a merged weight, and attention."""
    for name in ("do_rotary", "past_present_share_buffer"):
        if attribute(node, name, 0):
            raise NotUnderstoodError(f"has {name}")
    batch, tokens, _ = it.values[node.input[0]].shape
    query, key, value = qkv_widths(node, it.values[node.input[1]].shape)
    if query != key:
        raise NotUnderstoodError("has queries and keys of different widths")
    heads, past = attribute(node, "num_heads", 0), input_name(node, ins["past"])
    before = it.values[past].shape[3] if past else 0
    present = output_name(node, 1)
    call = Call(
        scope=it.label(node),
        batch=batch,
        heads=heads,
        kv_heads=heads,
        tokens=tokens,
        head=query // heads,
        value_head=value // heads,
        context=before + tokens,
        right=0 if attribute(node, "unidirectional", 0) else -1,
        masks=tuple(name for name in (input_name(node, ins["mask"]), input_name(node, ins["bias"])) if name),
        past=(past, past),
        present=(present, present),
    )
    offset = it.offset(node, ins["zero"])
    made = [_projected(it, node, which, a, scale, offset=offset) for which in range(3)]
    it.set(node, attend(it, call, made[0], made[1], made[2]))


_NONE = 1000
"""The number of an input that an operator has not."""


def _attention(it: Lowering, node: NodeProto) -> None:
    refuse(it, node, {6: "past_sequence_length"}, {})
    a = operand(it, node.input[0])
    _merged(it, node, a, "", {"mask": 3, "past": 4, "bias": 5, "zero": _NONE})


def _q_attention(it: Lowering, node: NodeProto) -> None:
    a = operand(it, node.input[0])
    a = replace(a, scale=Ref(ONE, ()), offset=it.offset(node, 6))
    _merged(it, node, a, node.input[4], {"mask": 5, "past": 8, "bias": _NONE, "zero": 7})


def _unpacked(it: Lowering, name: str, scope: str, widths: Mapping[str, int], tokens: int) -> list[Tensor]:
    """The parts of a tensor that lie side by side, each copied out."""
    whole = it.tensor(name)
    batch = it.values[name].shape[0]
    return [
        it.b.gather(it.new(f"{scope}.{part}"), "slice", (whole,), (batch, tokens, width))
        for part, width in widths.items()
    ]


def _multi_head(it: Lowering, node: NodeProto) -> None:
    refuse(it, node, {8: "past_sequence_length", 9: "cache_indirection"}, {3: "its scores"})
    scope, heads = it.label(node), attribute(node, "num_heads", 0)
    q, k, v = (input_name(node, index) for index in range(3))
    made = _multi_head_operands(it, scope, (q, k, v))
    batch, tokens = it.values[q].shape[:2]
    width, value_width = made[0].elements // (batch * tokens), it.values[node.output[0]].shape[2]
    fresh = made[1].elements // (batch * width)
    bias = input_name(node, 3)
    if bias:
        widths = (width, width, value_width)
        offsets = [_third(it, bias, which, widths) for which in range(3)]
        count = 1 if len(it.values[k].shape if k else ()) == 4 else 3  # keys that lie in a cache have theirs
        for which in range(count):
            label = it.new(f"{scope}.{PARTS[which]}.bias")
            made[which] = it.b.elementwise(label, "add", made[which], offsets[which])
    past = (input_name(node, 6), input_name(node, 7))
    call = Call(
        scope=scope,
        batch=batch,
        heads=heads,
        kv_heads=heads,
        tokens=tokens,
        head=width // heads,
        value_head=value_width // heads,
        context=fresh + past_tokens(it, past[0]),
        right=0 if attribute(node, "unidirectional", 0) else -1,
        scaled=attribute(node, "scale", 0.0) != 1.0,
        masks=tuple(name for name in (input_name(node, 4), input_name(node, 5)) if name),
        past=past,
        present=(output_name(node, 1), output_name(node, 2)),
    )
    it.set(node, attend(it, call, *made))


def _multi_head_operands(it: Lowering, scope: str, names: tuple[str, str, str]) -> list[Tensor]:
    """Queries, keys and values, which may lie in one tensor, or keys and values in another."""
    q, k, v = names
    if not k:
        shape = it.values[q].shape
        width = prod(shape[2:]) // 3
        return _unpacked(it, q, scope, dict.fromkeys(PARTS, width), shape[1])
    if not v:
        shape = it.values[k].shape
        width = prod(shape[2:]) // 2
        pair = _unpacked(it, k, scope, dict.fromkeys(PARTS[1:], width), shape[1])
        return [it.whole(q), *pair]
    return [it.whole(name) for name in names]


_REFUSED = MappingProxyType({11: "head_sink", 12: "k_scale", 13: "v_scale", 16: "query_seqlens"})


def _grouped(it: Lowering, node: NodeProto) -> None:
    refuse(it, node, dict(_REFUSED), {3: "its scores"})
    for name in ("smooth_softmax", "kv_cache_bit_width", "sliding_window_cache"):
        if attribute(node, name, 0):
            raise NotUnderstoodError(f"has {name}")
    scope, q, k, v = it.label(node), *(input_name(node, index) for index in range(3))
    heads, kv_heads = attribute(node, "num_heads", 0), attribute(node, "kv_num_heads", 0)
    batch, tokens, width = it.values[q].shape
    if k:
        head = heads_of(it, k, kv_heads)[2]
        made = [it.whole(name) for name in (q, k, v)]
    else:
        head = width // (heads + 2 * kv_heads)
        sizes = (heads * head, kv_heads * head, kv_heads * head)
        made = _unpacked(it, q, scope, dict(zip(PARTS, sizes, strict=True)), tokens)
    made[:2] = _positioned(it, node, scope, made[:2], tokens, head)
    window = attribute(node, "local_window_size", -1)
    mask = input_name(node, 10)
    past = (input_name(node, 3), input_name(node, 4))
    call = Call(
        scope=scope,
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        tokens=tokens,
        head=head,
        value_head=head,
        context=_total(it, node, past[0], tokens),
        left=window - 1 if window > 0 else -1,  # the runtime counts the token itself
        right=0,
        scaled=attribute(node, "scale", 0.0) != 1.0,
        softcap=attribute(node, "softcap", 0.0) != 0.0,
        masks=(mask,) if mask else (),
        lengths=node.input[5],
        past=past,
        present=(output_name(node, 1), output_name(node, 2)),
    )
    it.set(node, attend(it, call, *made))


def _total(it: Lowering, node: NodeProto, past: str, tokens: int) -> int:
    """Tokens attended to: what the node is told, or those of the past and the new ones."""
    name = input_name(node, 6)
    told = it.values[name].data if name else None
    return int(told.reshape(-1)[0]) if told is not None else tokens + past_tokens(it, past)


def _positioned(
    it: Lowering, node: NodeProto, scope: str, parts: list[Tensor], tokens: int, head: int
) -> list[Tensor]:
    """Queries and keys normalised head by head and rotated, where the node does so."""
    made = []
    for which, x in enumerate(parts):
        weight, name = input_name(node, 14 + which), f"{scope}.{PARTS[which]}"
        if weight:
            x = it.b.norm(it.new(f"{name}_norm"), x, "rmsnorm", head, given=(it.ref(weight).tensor,))
        if attribute(node, "do_rotary", 0):
            angles = Angles(input_name(node, 7), input_name(node, 8), input_name(node, 9))
            x = rotate(it, it.new(f"{name}_rope"), x, angles, tokens, head)
        made.append(x)
    return made


ATTENTION: Mapping[str, Handler] = MappingProxyType(
    {
        "Attention": lower_standard,
        "com.microsoft.Attention": _attention,
        "com.microsoft.QAttention": _q_attention,
        "com.microsoft.MultiHeadAttention": _multi_head,
        "com.microsoft.GroupQueryAttention": _grouped,
    }
)
"""What each of these operators is lowered by."""
