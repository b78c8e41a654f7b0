"""Integer arithmetic that works alike on Python integers and on numpy arrays of candidates."""

from __future__ import annotations

from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Whole = TypeVar("Whole", int, NDArray[np.int64])
"""One number, or one number per candidate."""


def ceil_div(a: Whole, b: Whole | int) -> Whole:
    """Smallest whole number not below a / b."""
    return cast("Whole", -(-a // b))


def larger(a: Whole, b: Whole | int) -> Whole:
    """Element-wise maximum."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return cast("Whole", np.maximum(a, b))
