"""Conditions over a point's figures: `area_mm2.total < 20`, `arch.array.rows * arch.array.cols <= 1024`.

A condition is read once into a small tree of known operations and then worked out for one point's figures or
for columns of many points; nothing else of Python can be said in it.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Any

import numpy as np

from tilewright.description.errors import InputError

Figures = Mapping[str, Any]
"""Numbers, texts, or columns of them, by key."""
_TEXT = r"'[^']*'|\"[^\"]*\""
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"({_TEXT}|{_NUMBER})|([A-Za-z_][\w-]*(?:[.:][\w-]+)*)")
_WORDS = {"and", "or", "not", "True", "False", "min", "max", "true", "false"}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_CALLS: dict[str, Callable[[Any, Any], Any]] = {"min": np.minimum, "max": np.maximum}
_JOIN: dict[type[ast.boolop], Callable[[Any, Any], Any]] = {ast.And: np.logical_and, ast.Or: np.logical_or}


@dataclass(frozen=True)
class Condition:
    """A condition that was read."""

    text: str
    keys: frozenset[str]
    """Dotted keys that it asks for."""
    _tree: ast.expr
    _names: Mapping[str, str]

    def holds(self, figures: Figures) -> Any:  # noqa: ANN401 - a truth value or a column of them
        """Whether it is met. Raises `KeyError` with the key that `figures` lack; what can't be compared or
        divides by zero does not meet it."""
        try:
            if not self._divisors:
                return self._value(self._tree, figures)
            with np.errstate(divide="ignore", invalid="ignore"):  # columns divide by zero without an error
                met = self._value(self._tree, figures)
                defined = [self._value(each, figures) != 0 for each in self._divisors]
            return reduce(np.logical_and, defined, met)
        except (TypeError, ZeroDivisionError):
            return False

    @cached_property
    def _divisors(self) -> list[ast.expr]:
        return [each.right for each in ast.walk(self._tree) if _is_division(each)]  # type: ignore[attr-defined]

    def check(self) -> None:
        """Raise `InputError` where its constants alone decide that it is never met."""
        for each in self._divisors:
            if not _names(each) and self._constant(each) == 0:
                raise InputError(f"{self.text!r} divides by zero")
        for part in self._tree.values if _is_and(self._tree) else [self._tree]:  # type: ignore[attr-defined]
            if not _names(part) and not self._constant(part):
                raise InputError(f"{self.text!r} is never met, whatever the point")

    def _constant(self, node: ast.expr) -> Any:  # noqa: ANN401 - a value
        try:
            return self._value(node, {})
        except (TypeError, ZeroDivisionError):
            return None

    def limits(self, key: str, figures: Figures, *, from_above: bool) -> list[float]:
        """Numbers that a figure can't exceed (or, not `from_above`, fall below) where the condition is met,
        as far as it compares the key itself with what `figures` are enough to work out."""
        parts = self._tree.values if _is_and(self._tree) else [self._tree]  # type: ignore[attr-defined]
        found: list[float] = []
        for part in parts:
            if isinstance(part, ast.Compare):
                sides = [part.left, *part.comparators]
                for op, (left, right) in zip(part.ops, pairwise(sides), strict=True):
                    found += self._limit(key, left, op, right, figures, from_above)
        return found

    def _limit(
        self, key: str, left: ast.expr, op: ast.cmpop, right: ast.expr, figures: Figures, from_above: bool
    ) -> list[float]:
        small, large = (left, right) if isinstance(op, ast.Lt | ast.LtE) else (right, left)
        if not isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            return []
        named, other = (small, large) if from_above else (large, small)
        if not (isinstance(named, ast.Name) and self._names[named.id] == key):
            return []
        try:
            limit = self._value(other, figures)
        except (KeyError, TypeError, ZeroDivisionError):
            return []
        return [float(limit)] if isinstance(limit, int | float) else []

    def _value(self, node: ast.expr, figures: Figures) -> Any:  # noqa: ANN401 - a value or a column
        match node:
            case ast.Name(id=name):
                return figures[self._names[name]]
            case ast.Constant(value=value):
                return value
            case ast.BinOp(left=left, op=op, right=right):
                return _BINARY[type(op)](self._value(left, figures), self._value(right, figures))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -self._value(inner, figures)
            case ast.UnaryOp(operand=inner):
                return np.logical_not(self._value(inner, figures))
            case ast.BoolOp(op=join, values=parts):
                return reduce(_JOIN[type(join)], [self._value(part, figures) for part in parts])
            case ast.Call(func=ast.Name(id=name), args=arguments):
                return reduce(_CALLS[name], [self._value(each, figures) for each in arguments])
            case ast.Compare(left=left, ops=ops, comparators=others):
                values = [self._value(each, figures) for each in (left, *others)]
                pairs = zip(ops, pairwise(values), strict=True)
                return reduce(np.logical_and, [_COMPARE[type(op)](a, b) for op, (a, b) in pairs])
        raise AssertionError(f"{ast.dump(node)} was let through")


def condition(text: str) -> Condition:
    """Read a condition: dotted keys, numbers and quoted texts, `+ - * /` (with blanks, as keys may hold a
    `-`), comparisons, `and`, `or`, `not`, `min(…)`, `max(…)` and brackets. Raises `InputError`, also for one
    that no figures could meet."""
    names: dict[str, str] = {}

    def named(found: re.Match[str]) -> str:
        literal, key = found.groups()
        if literal is not None or key in _WORDS:
            return {"true": "True", "false": "False"}.get(found.group(), found.group())
        return names.setdefault(key, f"k{len(names)}")

    code = _TOKEN.sub(named, text)
    try:
        tree = ast.parse(code.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(_unreadable(text)) from None
    if not (isinstance(tree, ast.Compare | ast.BoolOp) or _is_negation(tree)) or not _allowed(tree):
        raise InputError(_unreadable(text))
    found = Condition(text, frozenset(names), tree, {short: key for key, short in names.items()})
    found.check()
    return found


def _is_and(node: ast.expr) -> bool:
    return isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And)


def _is_division(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)


def _names(node: ast.expr) -> bool:
    """Whether it asks for any figure."""
    names = (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
    return any(name not in _CALLS for name in names)


def _is_negation(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _allowed(node: ast.expr) -> bool:
    match node:
        case ast.Name() | ast.Constant(value=bool() | int() | float() | str()):
            return True
        case ast.BinOp(left=left, op=op, right=right):
            return type(op) in _BINARY and _allowed(left) and _allowed(right)
        case ast.UnaryOp(op=ast.USub() | ast.Not(), operand=inner):
            return _allowed(inner)
        case ast.BoolOp(values=parts):
            return all(map(_allowed, parts))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            return name in _CALLS and len(arguments) > 0 and all(map(_allowed, arguments))
        case ast.Compare(left=left, ops=ops, comparators=others):
            return all(type(op) in _COMPARE for op in ops) and all(map(_allowed, (left, *others)))
    return False


def _unreadable(text: str) -> str:
    return (
        f"{text!r} is no condition; compare dotted keys and numbers, as in `area_mm2.total < 20` or "
        "`arch.array.rows * arch.array.cols <= 1024` (also: `and`, `or`, `not`, `min(…)`, `max(…)`)"
    )
