"""Parameters of a space file as axes: their values one by one."""

from __future__ import annotations

from typing import Any

from tilewright.explore.evaluation.points import Axis, Value
from tilewright.explore.space.schema import Parameter

MOST_STEPS = 1_000_000
"""Values of one range."""


def axis_of(key: str, parameter: Parameter) -> Axis:
    """The axis that a parameter is."""
    when = tuple((other, listed(allowed)) for other, allowed in (parameter.when or {}).items())
    if parameter.values is not None:
        return Axis(key, tuple(map(plain, parameter.values)), when=when)
    if parameter.log2 is not None:
        low, high = parameter.log2
        return Axis(key, tuple(2**exponent for exponent in range(low, high + 1)), when=when)
    assert parameter.range is not None
    low, high, *step = parameter.range
    if not step and not (isinstance(low, int) and isinstance(high, int)):
        return Axis(key, (), float(low), float(high), when)
    by = step[0] if step else 1
    count = steps(parameter.range)
    return Axis(key, tuple(plain(round(low + by * n, 12)) for n in range(min(count, MOST_STEPS))), when=when)


def steps(ends: tuple[Any, ...]) -> int:
    """How many values a range `[low, high]` or `[low, high, step]` has."""
    low, high, *step = ends
    by = step[0] if step else 1
    return int((high - low) / by + 1e-9) + 1


def plain(value: Any) -> Value:  # noqa: ANN401 - as YAML has it
    """2.0 is 2: one value, one spelling."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_number(value: Value) -> bool:
    """Whether points can be compared by it."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def listed(value: Any) -> tuple[Value, ...]:  # noqa: ANN401 - as YAML has it
    """A value, or the values of a list."""
    return tuple(map(plain, value)) if isinstance(value, list) else (plain(value),)
