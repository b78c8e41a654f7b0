"""Integer arithmetic that works alike on Python integers and on numpy arrays of candidates."""

from __future__ import annotations

from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
"""One number per candidate."""
Whole = TypeVar("Whole", int, Ints)
"""One number, or one per candidate."""


def ceil_div(a: Whole, b: Whole | int) -> Whole:
    """Smallest whole number not below a / b."""
    return -(-a // b)


@overload
def larger(a: int, b: int) -> int: ...
@overload
def larger(a: Ints, b: Ints | int) -> Ints: ...
def larger(a: int | Ints, b: int | Ints) -> int | Ints:
    """Element-wise maximum."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return np.maximum(a, b)
