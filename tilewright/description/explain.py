"""Pydantic's validation errors, said in the words of the file that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import closest, nearest
from tilewright.description.overrides import Overridden
from tilewright.description.schema import Schema, entry
from tilewright.description.yaml_text import Document, Path

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails, ValidationError

_WORDS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be a smaller integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} character(s)",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
    "too_short": "must have at least {min_length} item(s)",
    "too_long": "must have at most {max_length} item(s)",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "literal_error": "must be {expected}",
}
"""What was expected, by pydantic's error type; the offending value is added."""


@dataclass(frozen=True)
class Explainer:
    """Turns what validation says of `changed.data` into problems placed in the file or the override."""

    document: Document
    changed: Overridden
    schema: Schema

    def errors(self, error: ValidationError) -> list[Problem]:
        """Return a problem for each of the validation's errors; a misspelt key is one problem, not two."""
        details = error.errors(include_url=False)
        misspelt = {
            (*path[:-1], meant)
            for path in (self._path(item) for item in details if item["type"] == "extra_forbidden")
            if (meant := self._meant(path))
        }
        left = (d for d in details if not (d["type"] == "missing" and self._path(d) in misspelt))
        left = (d for d in left if not _follows(d))
        return [problem for item in left for problem in self._problems(item)]

    def _problems(self, item: ErrorDetails) -> list[Problem]:
        kind, path, context = item["type"], self._path(item), item.get("ctx", {})
        if kind == "extra_forbidden":
            return [self._place(self._unknown(path), path, at_key=True)]
        if kind == "missing" and isinstance(path[-1], int):
            return [self._place(f"entry {path[-1] + 1} is missing", path[:-1])]
        if kind == "missing":
            return [self._place("required key is missing", path, at_key=True)]
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            return [self._kind(path, context)]
        if kind == "value_error":
            return self._value_error(path, context["error"])
        return [self._place(_wrong_value(item), path)]

    def _value_error(self, path: Path, error: Exception) -> list[Problem]:
        """Return what our own validator raised: problems whose keys are relative to the block, or a text."""
        if not isinstance(error, InputError):
            return [self._place_block(str(error), path)]
        return [
            self._place_block(problem.message, (*path, *problem.key.split(".")) if problem.key else path)
            for problem in error.problems
        ]

    def _place_block(self, message: str, path: Path) -> Problem:
        """Return the problem at a value, or at the key of a whole block."""
        _, data = self.schema.at(self.changed.data, path)
        return self._place(message, path, at_key=isinstance(data, Mapping))

    def _kind(self, path: Path, context: Mapping[str, Any]) -> Problem:
        name = context["discriminator"].strip("'")
        known = re.findall(r"'([^']*)'", context.get("expected_tags", ""))
        if not known:
            return self._place("required key is missing", (*path, name), at_key=True)
        choices = ", ".join(map(repr, known))
        hint = closest(str(context["tag"]), known)
        message = f"must be one of {choices}, not {context['tag']!r}{', ' if hint else ''}{hint}"
        return self._place(message, (*path, name))

    def _unknown(self, path: Path) -> str:
        name = str(path[-1])
        message = f"unknown key {name!r}"
        other_kind = self.schema.other_kind(path, self.changed.data)
        if other_kind:
            return f"{message}: {other_kind}"
        meant = self._meant(path)
        if meant:
            return f"{message}, did you mean {meant!r}?"
        elsewhere = self.schema.suggest(self.changed.data, path)
        return f"{message}, did you mean {elsewhere!r}?" if elsewhere else message

    def _meant(self, path: Path) -> str | None:
        """Return the key beside an unknown one that was meant: one that isn't there yet."""
        node, block = self.schema.at(self.changed.data, path[:-1])
        if node is None:
            return None
        present = block if isinstance(block, Mapping) else {}
        return nearest(str(path[-1]), (key for key in self.schema.keys(node, block) if key not in present))

    def _path(self, item: ErrorDetails) -> Path:
        """Return the keys of an error's place, without the union tags that pydantic puts in between."""
        path: list[str | int] = []
        data = self.changed.data
        for part in item["loc"]:
            inside = part in data if isinstance(data, Mapping) else isinstance(part, int)
            if inside:
                path.append(part)
                data = entry(data, part)
        if item["type"] == "missing" and not isinstance(item["loc"][-1], int):
            path.append(item["loc"][-1])
        return tuple(path)

    def _place(self, message: str, path: Path, *, at_key: bool = False) -> Problem:
        return place(self.document, self.changed, message, path, at_key=at_key)


def place(
    document: Document, changed: Overridden, message: str, path: Path, *, at_key: bool = False
) -> Problem:
    """Return the problem with the key or value at `path`, in the override that set it or else in the file."""
    key = ".".join(map(str, path))
    override = changed.origin(path)
    if override is not None:
        return override.problem(message, key)
    return document.problem(message, path, key, at_key=at_key)


def booleans_as_numbers(document: Document, changed: Overridden, value: object) -> list[Problem]:
    """Return a problem for each boolean of the data that validation took for a number in `value`."""
    found = _booleans_as_numbers(value, changed.data)
    return [place(document, changed, f"must be a number, not {_show(given)}", path) for path, given in found]


def _follows(item: ErrorDetails) -> bool:
    """Whether a list is too short only because entries are wrong, each of which is a problem already."""
    return item["type"] == "too_short" and len(item["input"]) >= item["ctx"]["min_length"]


def _wrong_value(item: ErrorDetails) -> str:
    context = item.get("ctx", {})
    words = _WORDS.get(item["type"])
    if words is None:
        return item["msg"][:1].lower() + item["msg"][1:]
    value = item["input"]
    if item["type"] in ("too_short", "too_long"):
        return f"{words.format(**context)}, not {context['actual_length']}"
    message = f"{words.format(**_plain(context))}, not {_show(value)}"
    if item["type"] == "string_type" and isinstance(value, int | float):
        return f"{message}; put it in quotes"
    if item["type"] == "literal_error" and isinstance(value, str):
        hint = closest(value, re.findall(r"'([^']*)'", context["expected"]))
        return f"{message}{', ' if hint else ''}{hint}"
    return message


def _plain(context: Mapping[str, Any]) -> dict[str, Any]:
    """Return an error's limits as people write them: 0, not 0.0."""
    return {key: f"{limit:g}" if isinstance(limit, float) else limit for key, limit in context.items()}


def _show(value: object) -> str:
    """Return a value as YAML would have it, in a few words."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _booleans_as_numbers(value: object, data: object, path: Path = ()) -> Iterator[tuple[Path, bool]]:
    if isinstance(data, bool):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield path, data
    elif isinstance(data, Mapping):
        for name, inner in data.items():
            found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
            yield from _booleans_as_numbers(found, inner, (*path, name))
    elif isinstance(data, list) and isinstance(value, Sequence):
        for index, (found, inner) in enumerate(zip(value, data, strict=False)):
            yield from _booleans_as_numbers(found, inner, (*path, index))


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Return the problems by their place; those of the command line last, as they came, none twice."""
    unique = dict.fromkeys(replace(problem) for problem in problems)
    return sorted(
        unique, key=lambda problem: (not problem.line, problem.line, problem.line and problem.column)
    )
