"""Stacks of layers and how each layer attends: what the model families and the choice have in common."""

from __future__ import annotations

from collections.abc import Callable

from tilewright.workloads.attention.base import Parameters, Site
from tilewright.workloads.attention.choice import layer_choices, lower_attention, mechanism, runs
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Attend, AttentionBias, Heads, encoder_attention
from tilewright.workloads.operators import Tensor, numbered
from tilewright.workloads.steps import Step

Layer = Callable[[Tensor, Parameters | None], Tensor]
"""One layer on the residual stream, with the attention chosen for it (None: the model's own)."""


def stack(
    b: GraphBuilder,
    x: Tensor,
    layers: int,
    choice: Parameters | None,
    layer: Layer,
    field: str = "attention",
) -> Tensor:
    """`layers` layers, each in scope `layers.<number>`, as few blocks as the choice allows.

    Equal layers in a row are one block; a cycle of unequal ones that comes again is one block of as many
    layers. Whichever holds fewer layers is taken.
    """
    cycle = layer_choices(choice, layers, field)
    times = layers // len(cycle)
    in_a_row = runs(cycle * times)
    if len(in_a_row) <= len(cycle):
        first = 0
        for chosen, count in in_a_row:
            x = b.repeat(count, f"layers.{numbered(1, first)}", x, _bound(layer, chosen))
            first += count
        return x

    def body(y: Tensor) -> Tensor:
        for number, chosen in enumerate(cycle):
            with b.scope(f"layers.{numbered(len(cycle), number)}"):
                y = layer(y, chosen)
        return y

    return b.repeat(times, "", x, body)


def _bound(layer: Layer, chosen: Parameters | None) -> Callable[[Tensor], Tensor]:
    return lambda x: layer(x, chosen)


def encoder_attend(choice: Parameters | None, position_bias: Tensor | None = None) -> Attend:
    """How an encoder layer attends: with the chosen mechanism, or dense where none was chosen.

    `position_bias`: a table of biases for the mechanism (see `Site`).
    """
    if choice is None:
        return encoder_attention

    def attend(b: GraphBuilder, x: Tensor, heads: Heads, bias: AttentionBias) -> Tensor:
        return lower_attention(
            b, x, Site(heads, bias, causal=False, context=x.shape[1], position_bias=position_bias), choice
        )

    return attend


def causal_site(
    heads: Heads,
    bias: AttentionBias,
    step: Step,
    *,
    rope: Tensor | None = None,
    qk_norm: bool = False,
    position_bias: Tensor | None = None,
    field: str = "attention",
) -> Site:
    """Where a decoder layer attends to itself in a step."""
    return Site(
        heads, bias, causal=True, context=step.context, decode=step.decode,
        rope=rope, qk_norm=qk_norm, position_bias=position_bias, field=field,
    )  # fmt: skip


def block_attend(choice: Parameters | None, step: Step) -> Attend:
    """How a lone causal layer attends in a step: with the chosen mechanism, by default `dense`."""
    chosen = mechanism("dense").parameters() if choice is None else choice

    def attend(b: GraphBuilder, x: Tensor, heads: Heads, bias: AttentionBias) -> Tensor:
        return lower_attention(b, x, causal_site(heads, bias, step), chosen)

    return attend
