"""Attention in one ONNX operator: scores, softmax and context, with KV caches and masks.

Definition: ONNX's `Attention` (opset 23 to 25). Masks are worked in after the scores, densely; the products
know how many of their MACs a causal mask or a window leaves useful.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from tilewright.workloads.onnx_lowering import Lowering, NotUnderstoodError, Ref
from tilewright.workloads.onnx_nodes import attribute, input_name, output_name
from tilewright.workloads.operators import MatmulShape, Tensor

if TYPE_CHECKING:
    from onnx import NodeProto


@dataclass(frozen=True)
class Call:
    """One use of attention: its sizes, what limits it, and its caches by the names of values."""

    scope: str
    batch: int
    heads: int
    kv_heads: int
    tokens: int
    head: int
    value_head: int
    context: int
    """Tokens that are attended to, with those of the cache."""
    left: int = -1
    """Tokens that each one sees before itself; -1: all."""
    right: int = -1
    scaled: bool = True
    softcap: bool = False
    masks: tuple[str, ...] = ()
    lengths: str = ""
    """Tokens of each sequence, by which its padding is masked together with later tokens."""
    past: tuple[str, str] = ("", "")
    present: tuple[str, str] = ("", "")


def seen_pairs(tokens: int, context: int, left: int, right: int) -> int:
    """Pairs of a query and a key that a window leaves, the queries being the last tokens of the context.

    >>> seen_pairs(4, 4, -1, 0), seen_pairs(4, 4, 1, 0), seen_pairs(2, 5, -1, 0), seen_pairs(2, 5, -1, -1)
    (10, 7, 9, 10)
    """
    place = np.arange(context - tokens, context)
    low = np.maximum(place - left, 0) if left >= 0 else 0
    high = np.minimum(place + right, context - 1) if right >= 0 else np.full(tokens, context - 1)
    return int(np.maximum(high - low + 1, 0).sum())


def attend(it: Lowering, call: Call, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T, masked) value, [batch, tokens, heads * value_head]; keys and values that a cache
    remembers are written there. `query`, `key`, `value`: those of the new tokens."""
    b, scope = it.b, call.scope
    keys = _remembered(it, call, 0, key, call.head)
    values = _remembered(it, call, 1, value, call.value_head)
    matrices, rows = call.batch * call.kv_heads, call.heads // call.kv_heads * call.tokens
    limited = call.left >= 0 or call.right >= 0
    pairs = call.batch * call.heads * seen_pairs(call.tokens, call.context, call.left, call.right)
    useful = [pairs * width if limited else None for width in (call.head, call.value_head)]
    first = MatmulShape(matrices, rows, call.head, call.context)
    second = MatmulShape(matrices, rows, call.context, call.value_head)
    scores = b.matmul(
        it.new(f"{scope}.scores"),
        query,
        keys,
        first,
        (matrices, rows, call.context),
        transpose_b=True,
        useful_macs=useful[0],
    )
    weights = b.softmax(it.new(f"{scope}.softmax"), _masked(it, call, scores, limited=limited))
    out = (call.batch, call.tokens, call.heads * call.value_head)
    it.macs["activation"] += first.macs + second.macs
    return b.matmul(it.new(f"{scope}.context"), weights, values, second, out, useful_macs=useful[1])


def _masked(it: Lowering, call: Call, scores: Tensor, *, limited: bool) -> Tensor:
    """The scores scaled, capped and masked."""
    b, scope = it.b, call.scope
    scale = {(True, True): "scale_mask", (True, False): "scale", (False, True): "minus_infinity_mask"}.get(
        (call.scaled, limited)
    )
    if scale:
        lengths = (it.tensor(call.lengths),) if call.lengths else ()
        scores = b.elementwise(it.new(f"{scope}.{scale}"), scale, scores, *lengths)
    if call.softcap:  # c tanh(s / c), the division in the scale
        scores = b.elementwise(it.new(f"{scope}.softcap"), "tanh", scores)
        scores = b.elementwise(it.new(f"{scope}.softcap_scale"), "scale", scores)
    for name in call.masks:
        mask = it.tensor(name)
        if scores.elements % mask.elements:
            raise NotUnderstoodError(f"has a mask of shape {it.values[name].shape}")
        function = "where" if it.counted(name) else "add"
        scores = b.elementwise(it.new(f"{scope}.mask"), function, scores, mask)
    return scores


def _remembered(it: Lowering, call: Call, which: int, new: Tensor, width: int) -> Tensor:
    """The keys (0) or values (1) to attend to: the new ones alone, or the cache with them at its end."""
    past, present = call.past[which], call.present[which]
    fresh = new.elements // (call.batch * call.kv_heads * width)
    if past and past not in it.caches and it.values[past].elements and not it.from_outside(past):
        raise NotUnderstoodError("has a past that is computed")
    kept = bool(present) and present in it.wanted
    if fresh == call.context and not kept:
        return new
    label = it.new(f"{call.scope}.{('key', 'value')[which]}_cache")
    cache = (call.batch * call.kv_heads, call.context, width)
    made = it.b.append(label, new, new.elements // new.shape[-1], cache)
    if present and it.values[present].elements == made.elements:
        it.refs[present] = Ref(made, it.values[present].shape)
    return new if fresh == call.context else made


def heads_of(it: Lowering, name: str, heads: int) -> tuple[int, int, int]:
    """(batch, tokens, head size) of queries, keys or values [batch, tokens, heads * head] or [batch, heads,
    tokens, head]."""
    shape = it.values[name].shape
    if len(shape) == 4:
        return shape[0], shape[2], shape[3]
    return shape[0], shape[1], shape[2] // heads


def refuse(it: Lowering, node: NodeProto, inputs: dict[int, str], outputs: dict[int, str]) -> None:
    """Raise `NotUnderstoodError` if the node has one of these inputs, or one of these results is read."""
    for index, what in inputs.items():
        if input_name(node, index):
            raise NotUnderstoodError(f"has {what}")
    for index, what in outputs.items():
        if output_name(node, index) in it.wanted - {""}:
            raise NotUnderstoodError(f"puts out {what}")


def past_tokens(it: Lowering, name: str) -> int:
    """Tokens in a cache [batch, heads, tokens, head]; 0 without one."""
    return it.values[name].shape[2] if name else 0


def lower_standard(it: Lowering, node: NodeProto) -> None:
    """ONNX's own `Attention`."""
    refuse(it, node, {6: "nonpad_kv_seqlen"}, {3: "its scores"})
    q, k, v = node.input[:3]
    four = len(it.values[q].shape) == 4
    heads = it.values[q].shape[1] if four else attribute(node, "q_num_heads", 0)
    kv_heads = it.values[k].shape[1] if four else attribute(node, "kv_num_heads", 0)
    batch, tokens, head = heads_of(it, q, heads)
    past = (input_name(node, 4), input_name(node, 5))
    fresh = heads_of(it, k, kv_heads)[1]
    causal = attribute(node, "is_causal", 0)
    call = Call(
        scope=it.label(node),
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        tokens=tokens,
        head=head,
        value_head=prod(it.values[v].shape) // (batch * fresh * kv_heads),
        context=fresh + past_tokens(it, past[0]),
        left=attribute(node, "left_window_size", -1),
        right=0 if causal else attribute(node, "right_window_size", -1),
        scaled=attribute(node, "scale", 0.0) != 1.0,
        softcap=attribute(node, "softcap", 0.0) != 0.0,
        masks=tuple(name for name in (input_name(node, 3),) if name),
        past=past,
        present=(output_name(node, 1), output_name(node, 2)),
    )
    it.set(node, attend(it, call, it.whole(q), it.whole(k), it.whole(v)))
