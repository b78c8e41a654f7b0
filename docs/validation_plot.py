"""Draws docs/validation.svg from the tables of docs/validation.md, which CI holds against the commands.

    python docs/validation_plot.py [--check]

`--check` writes nothing and exits with 1 if the picture is not that of the tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tilewright.explore.validation.plot import Point, svg

DOCS = Path(__file__).resolve().parent


def points(markdown: str) -> dict[str, list[Point]]:
    """Measured and predicted of each case above zero, by suite, as they stand in the tables."""
    found: dict[str, list[Point]] = {}
    suite = ""
    for line in markdown.splitlines():
        if line.startswith("## "):
            suite = line.removeprefix("## ").strip()
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) >= 7 and cells[0].isdigit():
            measured, predicted = (float(cell.split()[0].replace(",", "")) for cell in cells[3:5])
            if min(measured, predicted) > 0:  # a share of nothing has no place on a logarithmic axis
                found.setdefault(suite, []).append((measured, predicted))
    return found


def main() -> int:
    """Draw or check; the exit code."""
    picture, made = DOCS / "validation.svg", svg(points((DOCS / "validation.md").read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        return 0 if picture.is_file() and picture.read_text(encoding="utf-8") == made else 1
    picture.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
