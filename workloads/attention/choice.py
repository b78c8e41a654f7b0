"""Which mechanism a model's attention layers use: `attention: {kind: longformer, window: 256}`.

Mechanisms are found by their kind (see `workloads.registry`): the built-in ones in the modules of this
package, a user's through entry points of the group `tilewright.attention` (each is called as its kind and
names a `Mechanism`) or by calling `register` before loading. Two kinds are no mechanisms but choices of
several: `per_layer` goes through a list of them layer by layer, `per_head` gives each group of heads its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import groupby
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, create_model

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import MECHANISMS, Mechanism, Parameters, Site
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Size
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import Tensor
from tilewright.workloads.registry import KindField, kind_of

PER_LAYER, PER_HEAD = "per_layer", "per_head"


def mechanisms() -> dict[str, Mechanism]:
    """Every mechanism by kind, sorted."""
    return MECHANISMS.all()


def mechanism(kind: str) -> Mechanism:
    """The mechanism of a kind. Raises `InputError` if there is none."""
    return MECHANISMS.find(kind)


@cache
def _in_group(kind: str) -> type[BaseModel]:
    """A mechanism's parameters, and how many heads have it."""
    if kind in (PER_LAYER, PER_HEAD):
        raise InputError(f"a group of heads has one mechanism, not `{kind}`")
    heads = Annotated[Size, Field(description="Query heads of the group.")]
    return _with(mechanism(kind).parameters, "heads", heads, ...)


@cache
def _in_cycle(kind: str) -> type[BaseModel]:
    """A mechanism's parameters, and how many layers in a row have it."""
    if kind == PER_LAYER:
        raise InputError("a layer has one mechanism or `per_head`, not `per_layer` again")
    base = PerHead if kind == PER_HEAD else mechanism(kind).parameters
    count = Annotated[Size, Field(description="Layers in a row that have it.")]
    return _with(base, "count", count, 1)


def _with(base: type[Parameters], name: str, field: object, default: object) -> type[BaseModel]:
    """The parameters with one key more, which must be free."""
    if name in base.model_fields:
        raise InputError(f"attention {base.__name__} has a `{name}` of its own; it can't stand here")
    return create_model(f"{base.__name__}With{name.title()}", __base__=base, **{name: (field, default)})  # type: ignore[call-overload, no-any-return]


def _without(value: Parameters, name: str) -> Parameters:
    """The mechanism's own parameters."""
    plain = type(value).__mro__[1]
    assert issubclass(plain, Parameters)
    return plain.model_validate(value.model_dump(exclude={name}))


def _kinds_in_cycle() -> list[str]:
    return sorted((*mechanisms(), PER_HEAD))


def _kinds() -> list[str]:
    return sorted((*mechanisms(), PER_HEAD, PER_LAYER))


def _not_empty(value: tuple[Parameters, ...]) -> tuple[Parameters, ...]:
    if not value:
        raise ValueError("must name at least one mechanism")
    return value


GroupChoice = Annotated[Parameters, KindField("attention.group", _in_group, lambda: list(mechanisms()))]
LayerChoice = Annotated[Parameters, KindField("attention.layer", _in_cycle, _kinds_in_cycle)]


class PerHead(Parameters):
    """Groups of heads, each with its own mechanism; their results are added up.

    Every group has its own projections, as wide as its heads. Adding up the groups' output projections is
    one projection of all heads side by side, and costs an addition per element and group more.
    """

    kind: Literal["per_head"] = "per_head"
    groups: Annotated[tuple[GroupChoice, ...], AfterValidator(_not_empty)]
    """A mechanism each with its parameters, and `heads`: how many query heads have it."""

    def of_layer(self, number: int) -> PerHead:
        """Each group as it is in that layer."""
        return self.model_copy(update={"groups": tuple(each.of_layer(number) for each in self.groups)})


class PerLayer(Parameters):
    """A list of mechanisms that the layers of a stack go through again and again."""

    kind: Literal["per_layer"] = "per_layer"
    layers: Annotated[tuple[LayerChoice, ...], AfterValidator(_not_empty)]
    """A mechanism each with its parameters, and `count`: how many layers in a row have it, by default 1. The
    counts' sum must divide the number of layers."""

    def cycle(self) -> list[Parameters]:
        """The mechanism of each layer until they begin again."""
        return [
            _without(each, "count") for each in self.layers for _ in range(int(getattr(each, "count", 1)))
        ]


_CHOICES: dict[str, type[Parameters]] = {PER_LAYER: PerLayer, PER_HEAD: PerHead}

FIELD = KindField("attention", lambda kind: _CHOICES.get(kind) or mechanism(kind).parameters, _kinds)

AttentionChoice = Annotated[Parameters, FIELD]
"""A mechanism's parameters, described by its `kind` and those; or `per_layer` or `per_head`."""

Run = tuple[Parameters | None, int]
"""A choice, and how many layers in a row have it."""


def layer_choices(
    choice: Parameters | None, layers: int, field: str = "attention"
) -> list[Parameters | None]:
    """The choice of each of `layers` layers until they begin again: the shortest cycle.

    Raises `InputError`, naming the `field`, if the choice does not go into so many layers.
    """
    if choice is None:
        return [None]
    cycle = choice.cycle() if isinstance(choice, PerLayer) else [choice]
    size = len(cycle)
    if layers % size:
        stack = "1 layer" if layers == 1 else f"{layers} layers"
        raise InputError(
            f"{field}.layers: are {size} layers, counts included, which do not go into the {stack} of this "
            f"stack; make their number a divisor of {layers}"
        )
    every: list[Parameters | None] = [cycle[number % size].of_layer(number) for number in range(layers)]
    periods = (n for n in range(1, layers + 1) if layers % n == 0 and every[n:] == every[: layers - n])
    return every[: next(periods)]


def only_causal(choice: Parameters) -> bool:
    """Whether a mechanism, or one in a group of heads, can't look both ways."""
    if isinstance(choice, PerHead):
        return any(only_causal(group) for group in choice.groups)
    return not mechanism(kind_of(choice)).encode


def runs(choices: Sequence[Parameters | None]) -> list[Run]:
    """Equal choices in a row together."""
    return [(choice, len(list(same))) for choice, same in groupby(choices)]


def lower_attention(b: GraphBuilder, x: Tensor, site: Site, choice: Parameters) -> Tensor:
    """The chosen mechanism's sublayer on x, or those of its groups of heads, in scope `attention`.

    Raises `InputError` if a mechanism can't stand at this site, saying why.
    """
    with b.scope("attention"):
        if isinstance(choice, PerHead):
            return _lower_groups(b, x, site, choice)
        return _lower_mechanism(b, x, site, choice)


def _lower_groups(b: GraphBuilder, x: Tensor, site: Site, choice: PerHead) -> Tensor:
    """Each group in scope `heads.<number>`; the first has the output's bias."""
    heads = site.heads
    sizes = [int(getattr(group, "heads", 0)) for group in choice.groups]
    if sum(sizes) != heads.heads:
        raise InputError(
            f"{site.field}.groups: have {sum(sizes)} heads together, this model's layers have {heads.heads}"
        )
    parts = []
    for number, (group, size) in enumerate(zip(choice.groups, sizes, strict=True)):
        if size * heads.kv_heads % heads.heads:
            raise InputError(
                f"{site.field}.groups.{number}.heads: {size} query heads can't be a group, "
                f"{heads.heads // heads.kv_heads} of them share a key and value head"
            )
        part = Heads(size, size * heads.kv_heads // heads.heads, heads.head_dim)
        bias = replace(site.bias, output=site.bias.output and not number)
        with b.scope(f"heads.{number}"):
            own = _without(group, "heads")
            parts.append(_lower_mechanism(b, x, replace(site, heads=part, bias=bias), own))
    return parts[0] if len(parts) == 1 else b.elementwise("sum", "add", *parts)


def _lower_mechanism(b: GraphBuilder, x: Tensor, site: Site, parameters: Parameters) -> Tensor:
    kind = kind_of(parameters)
    chosen = mechanism(kind)
    for reason in _misfits(chosen, site):
        raise InputError(f"{site.field}.kind: {kind} {reason}")
    return chosen.lower(b, x, site, parameters)


def _misfits(chosen: Mechanism, site: Site) -> Iterable[str]:
    """Why a mechanism can't stand at a site."""
    if site.causal and not chosen.causal:
        yield f"can't be causal, as this model's attention is; {chosen.title} looks at the whole sequence"
    if not site.causal and not chosen.encode:
        yield "is causal, this model's attention looks both ways"
    if site.decode and not chosen.decode:
        yield "has no decode step (no way to take one token against a cache)"
    if site.position_bias is not None and not chosen.position_bias:
        yield (
            "can't take this model's bias of each score by relative position; those with a `position_bias` "
            f"can: {', '.join(kind for kind, each in mechanisms().items() if each.position_bias)}"
        )
    if site.qk_norm and chosen.own_projections:
        yield "makes queries and keys in its own way, which leaves out this model's norms on them (`qk_norm`)"
