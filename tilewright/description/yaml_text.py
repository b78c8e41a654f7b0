"""YAML text to plain data, with the place of every key kept.

Scalars follow YAML 1.2's core schema: `no`, `on` and `yes` are strings, `1e-3` and `2400e6` are numbers.
There are no tags, no merge keys and no dates; every key is a string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml

from tilewright.description.errors import InputError, Problem

if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:  # libyaml's parser is 10 times faster, where PyYAML was built with it
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path = tuple[str | int, ...]

DEEPEST = 100
"""Nesting beyond which a text is refused (libyaml's composer would run out of stack)."""
LONGEST_EXCERPT = 160
_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
}


class _Loader(_Base):
    """A loader that resolves plain scalars as YAML 1.2's core schema does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's form


for _name, (_pattern, _first) in _SCALARS.items():
    _starts = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _starts)


@dataclass(frozen=True)
class Document:
    """A YAML text as plain data, with where each part of it stands."""

    source: str
    lines: tuple[str, ...]
    data: object
    root: yaml.Node
    problems: tuple[Problem, ...]
    """Mistakes that leave the rest readable: duplicate keys, tags."""

    def problem(self, message: str, path: Path, key: str, *, at_key: bool) -> Problem:
        """Return the problem at the deepest part of `path` that the text has: at its key, or at its value."""
        entry, node = None, self.root
        for part in path:
            found = _child(node, part)
            if found is None:
                at_key = True
                break
            entry, node = found
        return self.mark(message, (entry if at_key and entry else node).start_mark, key)

    def mark(self, message: str, mark: yaml.Mark, key: str = "") -> Problem:
        """Return the problem at `mark`."""
        return _at(message, self.source, self.lines, mark.line, mark.column, key)


def parse(text: str, source: str) -> Document:
    """Parse a YAML text whose top level is a mapping. Raises InputError on a syntax error."""
    lines = tuple(text.splitlines())
    root = _compose(text, source)
    if root is None:
        raise InputError(Problem("the file is empty: expected a mapping of keys to values", source))
    builder = _Builder()
    data = builder.build(root)
    found = Document(source, lines, data, root, ())
    problems = tuple(found.mark(message, mark, key) for message, mark, key in builder.mistakes)
    if not isinstance(root, yaml.MappingNode):
        what = "a list" if isinstance(root, yaml.SequenceNode) else "a single value"
        raise InputError(found.mark(f"expected a mapping of keys to values, not {what}", root.start_mark))
    return Document(source, lines, data, root, problems)


def parse_value(text: str) -> object:
    """Return the value that `text` is as YAML. Raises InputError if it is none."""
    root = _compose(text, "")
    if root is None:
        return None
    builder = _Builder()
    data = builder.build(root)
    if builder.mistakes:
        raise InputError(builder.mistakes[0][0])
    return data


def _child(node: yaml.Node, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return the nodes of the entry's key (a list's item stands for its own) and value."""
    if isinstance(node, yaml.MappingNode):
        found = [(key, value) for key, value in node.value if key.value == str(part)]
        return found[-1] if found else None
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _at(message: str, source: str, lines: tuple[str, ...], line: int, column: int, key: str = "") -> Problem:
    """Return the problem at a 0-based line and column."""
    excerpt = lines[line].replace("\t", " ") if line < len(lines) else ""
    if len(excerpt) > LONGEST_EXCERPT:
        excerpt = ""
    return Problem(message, source, line + 1, column + 1, key, excerpt)


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        _refuse_depth(text, source)
        return yaml.compose(text, Loader=_Loader)
    except yaml.reader.ReaderError as error:
        position = error.position
        line, start = text.count("\n", 0, position), text.rfind("\n", 0, position) + 1
        message = f"character {error.character!r} is not allowed in YAML"
        if isinstance(error.character, int):
            message = f"character U+{error.character:04X} is not allowed in YAML"
        raise InputError(_at(message, source, (), line, position - start)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark else (0, 0)
        lines = tuple(text.splitlines())
        raise InputError(_at(_syntax(error, lines, line, column), source, lines, line, column)) from None
    except UnicodeEncodeError as error:  # a lone surrogate: what Python makes of a bad byte in an argument
        raise InputError(Problem(f"not UTF-8 text: {error.object[error.start]!r}", source)) from None
    except yaml.YAMLError as error:
        raise InputError(Problem(f"not valid YAML: {error}", source)) from None


def _refuse_depth(text: str, source: str) -> None:
    if sum(text.count(sign) for sign in "[{-?") < DEEPEST:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line, column = (event.start_mark.line, event.start_mark.column) if event.start_mark else (0, 0)
            raise InputError(_at(f"nested more than {DEEPEST} deep", source, (), line, column))


def _syntax(error: yaml.MarkedYAMLError, lines: tuple[str, ...], line: int, column: int) -> str:
    """Return what is wrong with the syntax, without the parser's jargon where a plain word is known."""
    if line < len(lines) and lines[line][column : column + 1] == "\t":
        return "not valid YAML: a tab can't indent; use spaces"
    end = (len(lines) - 1, len(lines[-1])) if lines else (0, 0)
    if (line, column) >= end:
        return "not valid YAML: the text ends too early (cut off, or a quote or bracket left open?)"
    if "another document" in (error.problem or ""):
        return "more than one YAML document: keep one per file"
    if "mapping values are not allowed" in (error.problem or ""):
        return "not valid YAML: a second ':' here; check the indentation, or quote the value"
    context = f"{error.context}, " if error.context else ""
    where = ""
    if error.context and error.context_mark and error.context_mark.line != line:
        where = f" (line {error.context_mark.line + 1})"
    return f"not valid YAML: {context.rstrip(', ')}{where}{': ' if context else ''}{error.problem}"


@dataclass
class _Builder:
    """Nodes to plain data. A node that an alias repeats is built once."""

    mistakes: list[tuple[str, yaml.Mark, str]] = field(default_factory=list)
    """What is wrong, where, and the dotted key."""
    _built: dict[int, object] = field(default_factory=dict)
    _open: set[int] = field(default_factory=set)

    def build(self, node: yaml.Node, path: str = "") -> object:
        """Return the data of `node`, noting mistakes."""
        if id(node) in self._built:
            return self._built[id(node)]
        if id(node) in self._open:
            self.mistakes.append(("an alias that holds itself", node.start_mark, path))
            return None
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._built[id(node)] = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            self._built[id(node)] = self._sequence(node, path)
        else:
            self._built[id(node)] = self._scalar(node, path)
        return self._built[id(node)]

    def _mapping(self, node: yaml.Node, path: str) -> object:
        self._expect_tag(node, path, "map")
        first: dict[str, int] = {}
        data: dict[str, object] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.mistakes.append(("a key must be a plain word", key.start_mark, path))
                continue
            name = key.value
            if name == "<<":
                message = "merge keys are not understood: write the keys out, or repeat a value by its alias"
                self.mistakes.append((message, key.start_mark, path))
                continue
            inner = f"{path}.{name}" if path else name
            if name in first:
                message = f"duplicate key {name!r}, first on line {first[name]}"
                self.mistakes.append((message, key.start_mark, inner))
            first.setdefault(name, key.start_mark.line + 1)
            data[name] = self.build(value, inner)
        return data

    def _sequence(self, node: yaml.Node, path: str) -> object:
        self._expect_tag(node, path, "seq")
        return [self.build(item, f"{path}.{index}") for index, item in enumerate(node.value)]

    def _scalar(self, node: yaml.Node, path: str) -> object:
        kind = self._expect_tag(node, path, "str", *_SCALARS)
        try:
            return _scalar(kind, node.value)
        except ValueError:  # `!!int x`, or more digits than Python turns into an int
            return node.value

    def _expect_tag(self, node: yaml.Node, path: str, *allowed: str) -> str:
        kind = str(node.tag).removeprefix(_TAG)
        if kind not in allowed:
            written = str(node.tag).replace(_TAG, "!!")
            self.mistakes.append((f"tag {written} means nothing here", node.start_mark, path))
        return kind


def _scalar(kind: str, text: str) -> object:
    """Return the value of a scalar of the core schema. Raises ValueError if the text is not of its kind."""
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)
    return float(text) if kind == "float" else text


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` reads: a string that it would take for something else is quoted."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's signature
        """Return that equal parts are written out each."""
        return True


def dump(data: object) -> str:
    """Return plain data as YAML that reads back as the same data."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
