"""Dotted keys into the JSON object of a result: `cycles`, `energy_j.total`, `operators.ffn.up.cycles`; and
what is worked out of several: `100 * stalls.weight_stall / cycles`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence

from tilewright.description.errors import InputError
from tilewright.description.names import nearest

_MOST_LISTED = 12
_KEY = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+)*")
"""A dotted key in an expression."""
_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def metric_value(figures: Mapping[str, object], metric: str) -> float:
    """The number at a dotted key, or worked out of several by `+ - * /` and brackets, which have a blank on
    either side, as keys may hold a `-`. An item of a list is called by its name, which
    may have dots itself, or, where it has none, by its index.

    Raises `InputError` if there is no such key, or no number at it.
    """
    if _KEY.fullmatch(metric):
        return _key_value(figures, metric)
    keys: list[str] = []

    def numbered(key: re.Match[str]) -> str:
        keys.append(key.group())
        return f"k{len(keys) - 1}"

    try:
        tree = ast.parse(_KEY.sub(numbered, metric), mode="eval").body
    except SyntaxError:
        raise InputError(_no_expression(metric)) from None
    known = {f"k{number}": key for number, key in enumerate(keys)}
    return _worked_out(tree, lambda name: _key_value(figures, known[name]), metric)


def _worked_out(node: ast.expr, value: Callable[[str], float], metric: str) -> float:
    if isinstance(node, ast.Name):
        return value(node.id)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = (_worked_out(each, value, metric) for each in (node.left, node.right))
        try:
            return float(_OPERATORS[type(node.op)](left, right))
        except ZeroDivisionError:
            raise InputError(f"metric {metric!r} divides by zero here") from None
    raise InputError(_no_expression(metric))


def _no_expression(metric: str) -> str:
    return (
        f"metric {metric!r} can't be read; write a dotted key, or keys and numbers with `+ - * /` and "
        "brackets between them"
    )


def _key_value(figures: Mapping[str, object], metric: str) -> float:
    found: object = figures
    parts, depth = metric.split("."), 0
    while depth < len(parts):
        inner = _entries(found)
        ends = range(len(parts), depth, -1)
        end = next((end for end in ends if ".".join(parts[depth:end]) in inner), None)
        if end is None:
            raise InputError(_unknown(parts, depth, inner))
        found, depth = inner[".".join(parts[depth:end])], end
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise InputError(_no_number(metric, found))
    return found


def _entries(found: object) -> Mapping[str, object]:
    if isinstance(found, Mapping):
        return found
    if isinstance(found, Sequence) and not isinstance(found, str):
        return {_name(item) or str(index): item for index, item in enumerate(found)}
    return {}


def _name(item: object) -> str:
    return str(item.get("name", "")) if isinstance(item, Mapping) else ""


def _unknown(parts: Sequence[str], depth: int, inner: Mapping[str, object]) -> str:
    above, metric = ".".join(parts[:depth]), ".".join(parts)
    if not inner:
        return f"unknown metric {metric!r}: {above!r} holds nothing further"
    meant = nearest(parts[depth], inner)
    if meant:
        suggested = ".".join((*parts[:depth], meant, *parts[depth + 1 :]))
        return f"unknown metric {metric!r}, did you mean {suggested!r}?"
    where = f"in {above!r}" if above else "here"
    return f"unknown metric {metric!r}; known {where}: {_listed(inner)}"


def _no_number(metric: str, found: object) -> str:
    inner = _entries(found)
    if inner:
        return f"metric {metric!r} is no number but holds several: {_listed(inner)}"
    return f"metric {metric!r} is no number here, but {'empty' if found is None else repr(found)}"


def _listed(inner: Mapping[str, object]) -> str:
    names = list(inner)
    more = f", … ({len(names)} in all)" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
