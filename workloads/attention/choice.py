"""Which mechanism a model's attention layers use: `attention: {kind: longformer, window: 256}`.

Mechanisms are found by their kind: the built-in ones in the modules of this package, a user's through entry
points of the group `tilewright.attention` (each names a `Mechanism`) or by calling `register` before loading.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Annotated, Any, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from tilewright.description.errors import InputError, Problem
from tilewright.description.reading import unknown
from tilewright.workloads import attention
from tilewright.workloads.attention.base import Mechanism, Parameters, Site, register, registered
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import Attend, AttentionBias, Heads, encoder_attention
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step

_HELPERS = frozenset(
    {"base", "choice", "core", "eviction", "kernel", "patterns", "scores", "segments", "sublayer"}
)
GROUP = "tilewright.attention"


def mechanisms() -> dict[str, Mechanism]:
    """Every mechanism by kind, sorted."""
    for module in iter_modules(attention.__path__):
        if module.name not in _HELPERS:
            import_module(f"{attention.__name__}.{module.name}")
    for point in entry_points(group=GROUP):
        register(point.load())
    return dict(sorted(registered().items()))


def mechanism(kind: str) -> Mechanism:
    """The mechanism of a kind. Raises `InputError` if there is none."""
    if kind in registered():
        return registered()[kind]
    known = mechanisms()
    if kind not in known:
        raise unknown("attention", kind, known)
    return known[kind]


class AttentionChoice(BaseModel):
    """A mechanism by its `kind`, and its parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    kind: str
    """One of those that `tilewright list attention` prints."""

    @model_validator(mode="after")
    def _has_that_mechanisms_parameters(self) -> AttentionChoice:
        self.parameters  # noqa: B018 - reading it checks it
        return self

    @property
    def parameters(self) -> Parameters:
        """The parameters as the mechanism describes them."""
        described = mechanism(self.kind).parameters
        try:
            return described.model_validate(self.model_dump())
        except ValidationError as error:
            raise InputError(*(_problem(each, described) for each in error.errors())) from None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """One of the mechanisms' parameters, told apart by `kind`."""
        choices: Any = Union[tuple(each.parameters for each in mechanisms().values())]  # noqa: UP007
        return handler(TypeAdapter(Annotated[choices, Field(discriminator="kind")]).core_schema)


def _problem(error: ErrorDetails, described: type[Parameters]) -> Problem:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return Problem(f"unknown key, not one of {', '.join(described.model_fields)}", key=key)
    return Problem(str(error["msg"]).removeprefix("Value error, "), key=key)


def lower_attention(b: GraphBuilder, x: Tensor, site: Site, choice: AttentionChoice) -> Tensor:
    """The chosen mechanism's sublayer on x, in scope `attention`.

    Raises `InputError` if the mechanism can't stand at this site, saying why.
    """
    chosen = mechanism(choice.kind)
    if site.causal and not chosen.causal:
        raise InputError(
            f"attention.kind: {choice.kind} can't be causal, as this model's attention is; {chosen.title} "
            "looks at the whole sequence"
        )
    if not site.causal and not chosen.encode:
        raise InputError(f"attention.kind: {choice.kind} is causal, this model's attention looks both ways")
    if site.decode and not chosen.decode:
        raise InputError(
            f"attention.kind: {choice.kind} has no decode step (no way to take one token against a cache)"
        )
    with b.scope("attention"):
        return chosen.lower(b, x, site, choice.parameters)


def encoder_attend(choice: AttentionChoice | None, *, causal: bool = False) -> Attend:
    """How an encoder layer attends: with the chosen mechanism, or dense where none was chosen."""
    if choice is None:
        return encoder_attention

    def attend(b: GraphBuilder, x: Tensor, heads: Heads, bias: AttentionBias) -> Tensor:
        return lower_attention(b, x, Site(heads, bias, causal=causal, context=x.shape[1]), choice)

    return attend


def decoder_attend(
    choice: AttentionChoice | None,
    b: GraphBuilder,
    x: Tensor,
    heads: Heads,
    step: Step,
    bias: AttentionBias,
    rope: Tensor | None = None,
) -> Tensor | None:
    """A decoder layer's attention with the chosen mechanism; None where none was chosen."""
    if choice is None:
        return None
    site = Site(heads, bias, causal=True, context=step.context, decode=step.decode, rope=rope)
    return lower_attention(b, x, site, choice)
