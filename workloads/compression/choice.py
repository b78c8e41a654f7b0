"""Which compressions a model has had: `compression: [{kind: quantise, weights: int4}, {kind: prune_layers}]`.

Techniques are found by their kind: the built-in ones in the modules of this package, a user's through entry
points of the group `tilewright.compression` (each names a `Compression`) or by calling `register` before
loading.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from tilewright.description.names import closest
from tilewright.workloads import compression
from tilewright.workloads.compression.base import Compression, Technique, register, registered
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.rules import check

_HELPERS = frozenset({"base", "choice", "quality", "rewrite", "spaces"})
GROUP = "tilewright.compression"


def compressions() -> dict[str, Compression]:
    """Every technique by kind, sorted."""
    for module in iter_modules(compression.__path__):
        if module.name not in _HELPERS:
            import_module(f"{compression.__name__}.{module.name}")
    for point in entry_points(group=GROUP):
        register(point.load())
    return dict(sorted(registered().items()))


def find(kind: str) -> Compression:
    """The technique of a kind. Raises `InputError` if there is none."""
    if kind in registered():
        return registered()[kind]
    known = compressions()
    if kind not in known:
        hint = closest(kind, known)
        raise InputError(
            f"unknown compression kind {kind!r}{hint and ', ' + hint} (known: {', '.join(known)})"
        )
    return known[kind]


class CompressionChoice(BaseModel):
    """A technique by its `kind`, and its parameters."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    kind: str
    """Which technique."""

    @model_validator(mode="after")
    def _has_that_techniques_parameters(self) -> CompressionChoice:
        self.technique  # noqa: B018 - reading it checks it
        return self

    @property
    def technique(self) -> Technique:
        """The technique with its parameters."""
        described = find(self.kind).technique
        try:
            return described.model_validate(self.model_dump())
        except ValidationError as error:
            raise InputError(*(_problem(each, described) for each in error.errors())) from None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """One of the techniques' descriptions, told apart by `kind`."""
        choices: Any = Union[tuple(each.technique for each in compressions().values())]  # noqa: UP007 - a tuple
        return handler(TypeAdapter(Annotated[choices, Field(discriminator="kind")]).core_schema)


def _problem(error: ErrorDetails, described: type[Technique]) -> Problem:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return Problem(f"unknown key, not one of {', '.join(described.model_fields)}", key=key)
    return Problem(str(error["msg"]).removeprefix("Value error, "), key=key)


def compress(graph: OperatorGraph, choices: Iterable[CompressionChoice]) -> OperatorGraph:
    """The graph after each of the techniques, in order; checked against `workloads.rules` after each.

    Raises `InputError` where a technique can't work on what the ones before it left.
    """
    for choice in choices:
        graph = choice.technique.transform(graph)
        check(graph)
    return graph
