"""SCALE-Sim topology files (comma-separated layers) to a list of matrix products.

Two forms, told apart by their headers: GEMM (`Layer, M, N, K,`) and convolution (`Layer name, IFMAP Height,
IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,`), whose layers become M = output
pixels, K = filter size x channels, N = filters, as SCALE-Sim does it (github.com/scalesim-project/SCALE-Sim).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tilewright.description.errors import InputError, Problem
from tilewright.description.reading import read_text

_CONVOLUTION_SIZES = 7


def read_topology(path: str | Path) -> dict[str, Any]:
    """The description (before validation) of the layers in the topology file at `path`."""
    source = str(path)
    rows = _rows(read_text(Path(path)))
    if not rows:
        raise InputError(Problem("holds no header line", source))
    (line, header), *layers = rows
    sizes = _kind(header, source, line)
    problems: list[Problem] = []
    gemms: list[dict[str, Any]] = []
    for line, cells in layers:
        try:
            gemms.append(_layer(cells, sizes, header))
        except ValueError as error:
            problems.append(_problem(str(error), source, line, cells))
    if problems:
        raise InputError(*problems)
    if not gemms:
        raise InputError(Problem("holds a header, but no layer", source))
    return {"name": Path(path).stem, "family": "gemms", "gemms": _with_unique_names(gemms)}


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank, without the empty cells at its end."""
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = [cell.strip() for cell in line.split(",")]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            rows.append((number, cells))
    return rows


def _kind(header: list[str], source: str, line: int) -> int:
    """How many sizes a layer has: 3 (GEMM) or 7 (convolution)."""
    names = [cell.lower() for cell in header]
    if [name.split()[0] if name else "" for name in names[1:4]] == ["m", "n", "k"]:
        return 3
    if len(names) > _CONVOLUTION_SIZES and names[1].startswith("ifmap"):
        return _CONVOLUTION_SIZES
    forms = "`Layer, M, N, K,` or `Layer name, IFMAP Height, …`"
    raise InputError(_problem(f"no SCALE-Sim topology: its header must be {forms}", source, line, header))


def _layer(cells: list[str], sizes: int, header: list[str]) -> dict[str, Any]:
    """One layer; raises ValueError with what is wrong."""
    if len(cells) < sizes + 1:
        raise ValueError(f"layer {cells[0]!r} has {len(cells) - 1} of {sizes} sizes")
    numbers = [_size(cell, name) for cell, name in zip(cells[1 : sizes + 1], header[1:], strict=False)]
    if sizes == 3:
        m, n, k = numbers
        return {"name": cells[0], "m": m, "k": k, "n": n}
    height, width, filter_height, filter_width, channels, filters, stride = numbers
    if filter_height > height or filter_width > width:
        raise ValueError(f"layer {cells[0]!r}: the filter is larger than its input")
    out_height = -(-(height - filter_height + stride) // stride)
    out_width = -(-(width - filter_width + stride) // stride)
    k = filter_height * filter_width * channels
    return {"name": cells[0], "m": out_height * out_width, "k": k, "n": filters}


def _problem(message: str, source: str, line: int, cells: list[str]) -> Problem:
    return Problem(message, source, line, 1, excerpt=", ".join(cells))


def _size(cell: str, name: str) -> int:
    try:
        size = int(cell)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {cell!r}") from None
    if size <= 0:
        raise ValueError(f"{name} must be greater than 0, not {size}")
    return size


def _with_unique_names(gemms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Later layers of the same name get a number behind it: results need names that differ."""
    taken: set[str] = set()
    for gemm in gemms:
        name, number = gemm["name"], 1
        while gemm["name"] in taken:
            number += 1
            gemm["name"] = f"{name}_{number}"
        taken.add(gemm["name"])
    return gemms
