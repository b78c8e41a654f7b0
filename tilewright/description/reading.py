"""Reading a description: YAML text and overrides in, a validated model or all its mistakes out.

text -> parse (positions kept) -> put overrides in -> validate -> model, or InputError with every problem
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from tilewright.description.errors import InputError
from tilewright.description.files import read_text
from tilewright.description.names import closest, nearest, unknown
from tilewright.description.yaml_text import Document, parse

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from tilewright.description.schema import Schema

__all__ = ["closest", "nearest", "read", "read_text", "unknown"]

M = TypeVar("M")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def read(
    model: type[M] | TypeAdapter[M],
    text: str | Document,
    source: str,
    overrides: Sequence[str] = (),
    prefix: str = "arch",
) -> M:
    """Return the description in `text`, a YAML mapping, with `overrides` put in and validated by `model`.

    `text` may be parsed already. `source` names it in messages. An override is `KEY=VALUE`, the key dotted,
    with or without `prefix` in front, the value YAML; later ones win. Raises InputError with every mistake of
    the text and the overrides at once: duplicate, unknown and missing keys and wrong values, each with its
    place and excerpt.
    """
    from pydantic import ValidationError

    from tilewright.description.explain import Explainer, booleans_as_numbers, in_order
    from tilewright.description.overrides import Overridden, apply

    adapter: TypeAdapter[M] = _adapter(model) if isinstance(model, type) else model
    document = parse(text, source) if isinstance(text, str) else text
    changed = Overridden(document.data)
    if overrides:
        changed = apply(document.data, overrides, _schema(adapter), prefix)
    problems = [*document.problems, *changed.problems]
    try:
        value: M = adapter.validate_python(changed.data)
        if not problems:
            problems += booleans_as_numbers(document, changed, value)
    except ValidationError as error:
        problems += Explainer(document, changed, _schema(adapter)).errors(error)
    if problems:
        raise InputError(*in_order(problems))
    return value


def _adapter(model: type[M]) -> TypeAdapter[M]:
    from pydantic import TypeAdapter

    if model not in _ADAPTERS:
        _ADAPTERS[model] = TypeAdapter(model)
    return _ADAPTERS[model]


@lru_cache(maxsize=32)
def _schema(adapter: TypeAdapter[Any]) -> Schema:
    from tilewright.description.schema import Schema

    return Schema(adapter.json_schema())
