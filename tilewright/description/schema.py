"""Walking a JSON Schema beside the data that it describes: which keys may stand where.

The schemas are those that pydantic writes: `$ref`s into `$defs`, `anyOf` for optional parts, `oneOf` with a
discriminator for blocks of several kinds. A block whose kinds are many, or not all known, may be *open*: its
node holds but a name, and the schema of a kind is asked for when the data says which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.description.errors import InputError
from tilewright.description.names import nearest

Node = Mapping[str, Any]

DEFINITIONS = "#/$defs/"
_OPEN = "x-open-block"


@dataclass(frozen=True)
class OpenBlock:
    """A block whose kinds are looked up one by one."""

    discriminator: str
    """The key that says of which kind it is."""
    kinds: Callable[[], Iterable[str]]
    """All kinds."""
    schema: Callable[[str], Node]
    """JSON Schema of a kind, its `$defs` beside it; raises InputError for one that there isn't."""


_OFFERED: dict[str, OpenBlock] = {}


def offer(name: str, block: OpenBlock) -> None:
    """Make an open block known by the name that its nodes hold."""
    _OFFERED[name] = block


def open_node(name: str) -> dict[str, Any]:
    """The node of an open block."""
    return {"type": "object", _OPEN: name}


def closed(root: Node) -> dict[str, Any]:
    """The JSON Schema with every open block written out, for readers that know nothing of them."""
    defs: dict[str, Any] = {}
    done = _closed({key: part for key, part in root.items() if key != "$defs"}, defs)
    for name, part in root.get("$defs", {}).items():
        defs[name] = _closed(part, defs)
    return {**done, "$defs": dict(sorted(defs.items()))}


def _closed(part: object, defs: dict[str, Any]) -> Any:  # noqa: ANN401 - as it came
    if isinstance(part, list):
        return [_closed(each, defs) for each in part]
    if not isinstance(part, Mapping):
        return part
    if _OPEN not in part:
        return {key: _closed(each, defs) for key, each in part.items()}
    name = part[_OPEN]
    if name not in defs:
        defs[name] = {}  # a kind may hold the block itself
        refs = {kind: f"{name}.{kind}" for kind in _OFFERED[name].kinds()}
        for kind, ref in refs.items():
            made = dict(_OFFERED[name].schema(kind))
            inner = made.pop("$defs", {})
            defs |= {key: _closed(each, defs) for key, each in inner.items()}
            defs[ref] = _closed(made, defs)
        mapping = {kind: DEFINITIONS + ref for kind, ref in refs.items()}
        defs[name] = {
            "discriminator": {"propertyName": _OFFERED[name].discriminator, "mapping": mapping},
            "oneOf": [{"$ref": ref} for ref in mapping.values()],
        }
    beside = {key: each for key, each in part.items() if key not in (_OPEN, "type")}
    return {**beside, "$ref": DEFINITIONS + name}


class Schema:
    """The JSON Schema of a description."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._defs: dict[str, Any] = dict(root.get("$defs", {}))

    def child(self, node: Node, data: object, name: str) -> Node | None:
        """Return the schema of the entry `name` of a block; None if the block can't have it.

        A mapping with free names (`buffers`) and a list have the entries that the data has.
        """
        for part in self._kinds(node, data):
            if name in part.get("properties", {}):
                found: Node = part["properties"][name]
                return found
            if _is_free(part) and isinstance(data, Mapping) and name in data:
                free: Node = part["additionalProperties"]
                return free
            if "items" in part and isinstance(data, Sequence) and name.isdigit() and int(name) < len(data):
                item: Node = part["items"]
                return item
        return None

    def keys(self, node: Node, data: object) -> list[str]:
        """Return the names that a block's entries may have."""
        names = dict.fromkeys(name for part in self._kinds(node, data) for name in part.get("properties", {}))
        if isinstance(data, Mapping) and any(_is_free(part) for part in self._kinds(node, data)):
            names |= dict.fromkeys(data)
        return list(names)

    def discriminator(self, node: Node) -> str | None:
        """Return the key that says of which kind a block is (`kind`, `family`); None if there is but one."""
        node = self._target(node)
        if "discriminator" in node:
            return str(node["discriminator"]["propertyName"])
        if _OPEN in node:
            return _OFFERED[node[_OPEN]].discriminator
        inner = (self.discriminator(option) for option in node.get("anyOf", ()))
        return next((name for name in inner if name), None)

    def other_kind(self, path: Sequence[str | int], data: object) -> str:
        """Return that a block of another kind has the key at `path`; empty if none does."""
        *block_path, name = path
        node, block = self.at(data, block_path)
        discriminator = self.discriminator(node) if node is not None else None
        if node is None or discriminator is None:
            return ""
        mapping = self._target(node).get("discriminator", {}).get("mapping", {})
        for tag, ref in mapping.items():
            if name in self._follow(ref).get("properties", {}):
                return f"{discriminator} {entry(block, discriminator)!r} does not have it, {tag!r} has"
        return ""

    def at(self, data: object, path: Sequence[str | int]) -> tuple[Node | None, object]:
        """Return the schema and the data at `path`; None for the schema if nothing can be there."""
        node: Node | None = self.root
        for part in path:
            node = self.child(node, data, str(part)) if node is not None else None
            data = entry(data, part)
        return node, data

    def suggest(self, data: object, path: Sequence[str | int]) -> str | None:
        """Return the dotted key meant by `path`, whose last part is not known; None if nothing is close.

        A close name beside it comes first, then the same name elsewhere.
        """
        *block, name = path
        node, inner = self.at(data, block)
        match = nearest(str(name), self.keys(node, inner)) if node is not None else None
        if match:
            return ".".join(map(str, [*block, match]))
        same = [found for found in self._paths(self.root, data) if found[-1] == name]
        return ".".join(same[0]) if same else None

    def _paths(self, node: Node, data: object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if len(above) > 6:  # no description is deeper; a schema may refer to itself
            return
        for name in self.keys(node, data):
            yield (*above, name)
        for name in self.keys(node, data):
            inner = self.child(node, data, name)
            if inner is not None:
                yield from self._paths(inner, entry(data, name), (*above, name))

    def _kinds(self, node: Node, data: object) -> list[Node]:
        """Return the schemas that a block may follow: one, unless the data leaves its kind open."""
        node = self._target(node)
        if "discriminator" in node:
            tag = entry(data, node["discriminator"]["propertyName"])
            mapping = node["discriminator"]["mapping"]
            if isinstance(tag, str) and tag in mapping:
                return [self._follow(mapping[tag])]
        if _OPEN in node:
            return [self._of_kind(_OFFERED[node[_OPEN]], data)]
        options = [*node.get("oneOf", ()), *node.get("anyOf", ())]
        return [part for option in options for part in self._kinds(option, data)] or [node]

    def _of_kind(self, block: OpenBlock, data: object) -> Node:
        """Return the schema of an open block; of one without a kind that there is, just that it has one."""
        tag = entry(data, block.discriminator)
        try:
            found = block.schema(tag) if isinstance(tag, str) else {}
        except InputError:
            found = {}
        self._defs |= found.get("$defs", {})
        return found or {"properties": {block.discriminator: {"type": "string"}}}

    def _target(self, node: Node) -> Node:
        while "$ref" in node:
            node = self._follow(node["$ref"])
        return node

    def _follow(self, ref: str) -> Node:
        found: Node = self._defs[ref.removeprefix(DEFINITIONS)]
        return found


def entry(data: object, part: str | int) -> object:
    """Return an entry of a mapping or list; None if there is none."""
    if isinstance(data, Mapping):
        return data.get(str(part))
    if isinstance(data, list) and str(part).isdigit() and int(part) < len(data):
        return data[int(part)]
    return None


def _is_free(part: Node) -> bool:
    return isinstance(part.get("additionalProperties"), Mapping)
