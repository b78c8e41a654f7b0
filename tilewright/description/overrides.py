"""Dotted overrides, `array.rows=32`, put into a description before it is validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tilewright.description.errors import InputError, Problem
from tilewright.description.schema import Schema, entry
from tilewright.description.yaml_text import Path, parse_value

SOURCE = "command line"


@dataclass(frozen=True)
class Override:
    """One override: what the user wrote, and what it means."""

    text: str
    path: tuple[str, ...]
    value: object
    key_column: int
    """1-based column of the key, behind the prefix."""

    def problem(self, message: str, key: str = "", *, at_key: bool = False) -> Problem:
        """Return a problem with this override: with its key, or with its value."""
        column = self.key_column if at_key else self.text.index("=") + 2
        return Problem(message, SOURCE, 0, column, key, self.text)


@dataclass
class Overridden:
    """A description with its overrides put in."""

    data: object
    origins: dict[Path, Override] = field(default_factory=dict)
    """Which override set a key."""
    problems: list[Problem] = field(default_factory=list)

    def origin(self, path: Path) -> Override | None:
        """Return the override that set the key at `path`, or a block around it."""
        above = (path[:length] for length in range(len(path), 0, -1))
        return next((self.origins[part] for part in above if part in self.origins), None)


def apply(data: object, overrides: Sequence[str], schema: Schema, prefix: str) -> Overridden:
    """Return `data` with the overrides put in, later ones winning.

    A block's kind (`dram.kind`) is set before its other keys, wherever it stands in the list; keys that the
    new kind doesn't have are dropped. Overrides that can't be used are left out and become problems.
    """
    result = Overridden(data)
    parsed = []
    for text in overrides:
        try:
            parsed.append(_parse(text, prefix))
        except InputError as error:
            result.problems += error.problems
    for override in sorted(parsed, key=lambda item: not _sets_kind(item, data, schema)):
        _put(result, override, schema, prefix)
    return result


def _parse(text: str, prefix: str) -> Override:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InputError(Problem(f"expected KEY=VALUE, not {text!r}", SOURCE))
    start = 1 + len(text) - len(text.lstrip())
    path = tuple(key.split("."))
    if path[0] == prefix and len(path) > 1:
        path, start = path[1:], start + len(prefix) + 1
    override = Override(text, path, None, start)
    try:
        return replace(override, value=parse_value(value))
    except InputError as error:
        reason = error.problems[0].message
        raise InputError(override.problem(reason, ".".join((prefix, *path)))) from None


def _sets_kind(override: Override, data: object, schema: Schema) -> bool:
    node, _ = schema.at(data, override.path[:-1])
    return node is not None and schema.discriminator(node) == override.path[-1]


def _put(result: Overridden, override: Override, schema: Schema, prefix: str) -> None:
    for length in range(1, len(override.path) + 1):
        if schema.at(result.data, override.path[:length])[0] is None:
            result.problems.append(_unknown(result.data, override, length, schema, prefix))
            return
    *block_path, name = override.path
    node, block = schema.at(result.data, block_path)
    if node is not None and schema.discriminator(node) == name and entry(block, name) != override.value:
        kept = {name: override.value}
        wanted = schema.keys(node, kept)
        kept |= {key: old for key, old in _items(block) if key in wanted and key != name}
        result.data = _with(result.data, block_path, kept)
        result.origins[tuple(block_path)] = override
    else:
        result.data = _with(result.data, override.path, override.value)
    result.origins[override.path] = override


def _unknown(data: object, override: Override, length: int, schema: Schema, prefix: str) -> Problem:
    """Return the problem of an override whose first `length` parts name nothing."""
    written = ".".join((prefix, *override.path))
    other_kind = schema.other_kind(override.path[:length], data)
    if other_kind:
        return override.problem(f"unknown key {written}: {other_kind}", at_key=True)
    meant = schema.suggest(data, override.path[:length])
    rest = override.path[length:]
    if meant and rest and schema.at(data, (*meant.split("."), *rest))[0] is not None:
        meant = ".".join((meant, *rest))
    hint = (
        f", did you mean {prefix}.{meant}?" if meant else _choices(data, override.path[: length - 1], schema)
    )
    return override.problem(f"unknown key {written}{hint}", at_key=True)


def _choices(data: object, path: Sequence[str], schema: Schema) -> str:
    """Return the keys that the block at `path` has, for a key that resembles none of them."""
    node, block = schema.at(data, path)
    known = schema.keys(node, block) if node is not None else []
    return f"; known here: {', '.join(known)}" if known else ""


def _items(block: object) -> list[tuple[str, object]]:
    return list(block.items()) if isinstance(block, Mapping) else []


def _with(data: object, path: Sequence[str], value: object) -> object:
    """Return `data` with `value` at `path`; the path is copied, what lies beside it is shared."""
    if not path:
        return value
    name, *rest = path
    if isinstance(data, list):
        if not (name.isdigit() and int(name) < len(data)):
            return data  # a list where the schema has a block: the reader reports that
        changed = list(data)
        changed[int(name)] = _with(data[int(name)], rest, value)
        return changed
    block = dict(_items(data))
    block[name] = _with(block.get(name), rest, value)
    return block
