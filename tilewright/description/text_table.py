"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """Cells under one another, columns as wide as they need; to the `right` or to the left.

    >>> print(aligned([["unit", "cycles"], ["array", "12"]], [False, True]), end="")
    unit   cycles
    array      12
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = (
        "  ".join(
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        )
        for line in lines
    )
    return "".join(f"{text.rstrip()}\n" for text in texts)
