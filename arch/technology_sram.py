"""Energy, leakage and area of an SRAM from the CACTI 7 grid in `technology/sram_cacti7.csv`.

The grid holds macros of 1 KiB to 16 MiB with one port of 32 to 1,024 bits at 22, 32, 45 and 65 nm. CACTI
optimises each macro on its own, so here and there a larger one comes out cheaper than a smaller one; since
the larger could serve in its place, every entry is taken as the least of itself and all that are larger or
wider. What this gives is monotone in capacity and width. Between grid points logarithms are interpolated over
logarithms, of the node too; below 22 nm energy and area follow `tilewright.arch.scaling`, and leakage stays
that of 22 nm.
"""

from __future__ import annotations

import csv
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product
from math import exp, log, sqrt
from typing import Literal

from tilewright.arch.scaling import area_factor, check_node, energy_factor, interpolate

Column = Literal["read_pj", "write_pj", "leak_mw", "area_mm2"]
COLUMNS: tuple[Column, ...] = ("read_pj", "write_pj", "leak_mw", "area_mm2")

SOURCE = (
    'CACTI 7.0 (R. Balasubramonian et al., "CACTI 7", ACM TACO 14(2), 2017), one bank and one port a macro, '
    "in technology/sram_cacti7.csv"
)
CELL_HEIGHT_F = 10.0
CELL_WIDTH_F = 14.6
"""CACTI's 6T cell: 146 F^2 with an aspect ratio of 1.46."""
LARGEST_BYTES = 16 * 2.0**20
WIDEST_BITS = 1024.0
"""The grid's largest macro and widest port."""
PORT_PITCH_F = 5.0
"""What each further read/write port adds to both sides of the cell: two local wires of 2.5 F pitch (CACTI 7,
subarray.cc and mat.cc: `cell.h = b_h + 2 * wire_local.pitch * (num_rw_ports - 1 + ...)`)."""


@dataclass(frozen=True)
class Sram:
    """One SRAM bank, per access of its whole width on one port."""

    read_pj: float
    write_pj: float
    leak_mw: float
    area_mm2: float


@dataclass(frozen=True)
class Grid:
    """The grid of one node: logarithms by column, rows by capacity, columns by width."""

    log_sizes: tuple[float, ...]
    log_widths: tuple[float, ...]
    logs: Mapping[Column, tuple[tuple[float, ...], ...]]


def sram(node_nm: float, capacity_bytes: float, width_bits: float, ports: int = 1) -> Sram:
    """Return one bank of `capacity_bytes` with `ports` read/write ports of `width_bits`.

    A bank below 1 KiB or 32 bits takes what the smallest of the grid takes. One wider than 1,024 bits is as
    many 1,024-bit arrays side by side as its width asks for, each access paying for the distances of the
    whole. One above 16 MiB is made of macros of 16 MiB, of which an access touches one: area and leakage grow
    in proportion. More ports widen the cell both ways, as CACTI has it: area goes with the cell's, energy and
    leakage with its side.
    """
    check_node(node_nm)
    values = {column: _at(node_nm, column, capacity_bytes, width_bits) for column in COLUMNS}
    macros = max(1.0, capacity_bytes / LARGEST_BYTES)
    across = max(1.0, width_bits / WIDEST_BITS)
    cell = port_area_factor(ports)
    side = sqrt(cell)
    return Sram(
        read_pj=values["read_pj"] * across * side,
        write_pj=values["write_pj"] * across * side,
        leak_mw=values["leak_mw"] * macros * side,
        area_mm2=values["area_mm2"] * macros * cell,
    )


def port_area_factor(ports: int) -> float:
    """Area of a cell with so many read/write ports, relative to one port (CACTI 7's cell geometry)."""
    extra = PORT_PITCH_F * (ports - 1)
    return (CELL_HEIGHT_F + extra) * (CELL_WIDTH_F + extra) / (CELL_HEIGHT_F * CELL_WIDTH_F)


def grid_nodes_nm() -> tuple[float, ...]:
    """Return the nodes of the grid, ascending."""
    return tuple(_grids())


def _at(node_nm: float, column: Column, capacity_bytes: float, width_bits: float) -> float:
    """One macro's figure, at any node of the scaling range."""
    smallest = grid_nodes_nm()[0]
    if node_nm < smallest:
        value = _at(smallest, column, capacity_bytes, width_bits)
        if column == "area_mm2":
            return value * area_factor(smallest, node_nm)
        return value if column == "leak_mw" else value * energy_factor(smallest, node_nm)
    nodes = grid_nodes_nm()
    below = max(index for index, node in enumerate(nodes) if node <= node_nm)
    near = nodes[below : below + 2] if nodes[below] != node_nm else nodes[below : below + 1]
    values = [_on_grid(_grids()[node], column, capacity_bytes, width_bits) for node in near]
    return exp(interpolate([log(node) for node in near], values, log(node_nm)))


def _on_grid(grid: Grid, column: Column, capacity_bytes: float, width_bits: float) -> float:
    """Logarithm of a figure by bilinear interpolation; at the nearest edge outside the grid."""
    rows = grid.logs[column]
    x, y = log(capacity_bytes), log(width_bits)
    upper = min(max(bisect_left(grid.log_sizes, x), 1), len(rows) - 1)
    ends = [interpolate(grid.log_widths, rows[row], y) for row in (upper - 1, upper)]
    return interpolate(grid.log_sizes[upper - 1 : upper + 1], ends, x)


@lru_cache(maxsize=1)
def _grids() -> Mapping[float, Grid]:
    """The grid by node, every entry no dearer than a larger one."""
    raw = read_grid()
    nodes = sorted({node for node, _, _ in raw})
    return {node: _grid({(s, w): row for (n, s, w), row in raw.items() if n == node}) for node in nodes}


def read_grid() -> dict[tuple[float, float, float], Mapping[Column, float]]:
    """The figures as CACTI gave them, by node in nm, capacity in bytes and width in bits."""
    text = (files("tilewright.arch") / "technology" / "sram_cacti7.csv").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {
        (float(row["node_nm"]), float(row["size_bytes"]), float(row["width_bits"])): {
            column: float(row[column]) for column in COLUMNS
        }
        for row in csv.DictReader(lines)
    }


def _grid(raw: Mapping[tuple[float, float], Mapping[Column, float]]) -> Grid:
    sizes = sorted({size for size, _ in raw})
    widths = sorted({width for _, width in raw})
    logs = {column: _least_of_larger(raw, column, sizes, widths) for column in COLUMNS}
    return Grid(tuple(map(log, sizes)), tuple(map(log, widths)), logs)


def _least_of_larger(
    raw: Mapping[tuple[float, float], Mapping[Column, float]],
    column: Column,
    sizes: Sequence[float],
    widths: Sequence[float],
) -> tuple[tuple[float, ...], ...]:
    """Logarithms, each the least of its own and of those with more bytes and more bits; gaps are filled so
    too."""
    table = [[float("inf")] * len(widths) for _ in sizes]
    for row, col in product(reversed(range(len(sizes))), reversed(range(len(widths)))):
        entry = raw.get((sizes[row], widths[col]))
        own = log(entry[column]) if entry else float("inf")
        larger = table[row + 1][col] if row + 1 < len(sizes) else float("inf")
        wider = table[row][col + 1] if col + 1 < len(widths) else float("inf")
        table[row][col] = min(own, larger, wider)
    return tuple(tuple(row) for row in table)
