"""What `tilewright show` and `list` say of technology: area, peak power, constants, shipped tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

from tilewright.cli.output import columns_text, csv_text
from tilewright.cli.texts import Format

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator


def cost_facts(accelerator: Accelerator) -> list[tuple[str, str]]:
    """Area and peak power as (name, text)."""
    area, power = _area_and_power(accelerator)
    node = accelerator.technology.node_nm
    return [
        (
            "area",
            f"{sum(area.values()):,.4g} mm² at {node:g} nm: cells and SRAM macros, no pads, no interfaces",
        ),
        ("peak power", f"{sum(power.values()):,.4g} W with everything busy in every cycle: an upper bound"),
    ]


def cost_table(accelerator: Accelerator) -> str:
    """Area and peak power by component; the totals are those of `cost_facts`."""
    area, power = _area_and_power(accelerator)
    names = {**area, **power}
    rows: list[dict[str, object]] = [
        {"component": name, "area_mm2": _short(area.get(name)), "peak_power_w": _short(power.get(name))}
        for name in names
    ]
    return columns_text(rows, right=("area_mm2", "peak_power_w"))


def sources_text(accelerator: Accelerator, output_format: Format) -> str:
    """Every constant that the accelerator is charged with: its value, and where that comes from."""
    from tilewright.arch.energy import sources

    rows = [row.to_dict() for row in sources(accelerator)]
    if output_format is Format.JSON:
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    if output_format is Format.CSV:
        return csv_text(rows, list(rows[0]))
    return _sources_table(rows)


def technology_rows() -> list[dict[str, object]]:
    """The shipped tables: a row per element type, kind of memory and so on, with the nodes it is given at.

    `name` and `figures` make up the dotted keys by which a user's technology file replaces them.
    """
    from tilewright.arch.scaling import nodes, uncovered
    from tilewright.arch.technology import shipped_figures
    from tilewright.arch.technology_sram import grid_nodes_nm

    shipped = shipped_figures()
    groups: dict[str, list[str]] = {}
    for path in shipped:
        depth = 2 if path.partition(".")[0] in _KINDS else 1
        groups.setdefault(".".join(path.split(".")[:depth]), []).append(path)
    rows: list[dict[str, object]] = []
    for name, paths in groups.items():
        given = {figure.node_nm for path in paths for figure in shipped[path] if figure.node_nm}
        keys = ", ".join(path.removeprefix(f"{name}.") for path in paths)
        rows.append(_table_row(name, _KINDS.get(name.partition(".")[0], "circuits"), sorted(given), keys))
    grid = "read, write, leakage and area of a bank by capacity, width and ports (CACTI 7)"
    scaled = [node for node in nodes().nodes_nm if not uncovered(node)]
    rows.append(_table_row("sram.grid", "SRAM", grid_nodes_nm(), grid))
    rows.append(
        _table_row("scaling", "nodes", scaled, "energy and area between nodes; beyond them is an error")
    )
    return rows


_KINDS = {"arithmetic": "element type", "dram": "DRAM", "functions": "function"}


def _table_row(name: str, kind: str, nodes_nm: Sequence[float], figures: str) -> dict[str, object]:
    given = ", ".join(f"{node:g}" for node in nodes_nm) or "any"
    return {"name": name, "kind": kind, "nodes_nm": given, "figures": figures}


def _area_and_power(accelerator: Accelerator) -> tuple[dict[str, float], dict[str, float]]:
    from tilewright.arch.area import area_mm2
    from tilewright.arch.energy import peak_power_w

    return area_mm2(accelerator), peak_power_w(accelerator)


def _short(amount: float | None) -> str:
    return "" if amount is None else f"{amount:,.4g}"


def _sources_table(rows: Sequence[dict[str, object]]) -> str:
    from tilewright.sim.sources import SOURCE_COLUMNS, citations, source_cells

    numbers = citations(rows)
    lines: list[dict[str, object]] = [
        {
            **dict(zip(SOURCE_COLUMNS, source_cells(row), strict=True)),
            "source": f"[{numbers[str(row['source'])]}]",
        }
        for row in rows
    ]
    cited = (
        fill(f"[{number}] {source}", 110, subsequent_indent=" " * len(f"[{number}] "), break_long_words=False)
        for source, number in numbers.items()
    )
    return columns_text(lines, right=("value", "node_nm")) + "\n" + "".join(f"{text}\n" for text in cited)
