"""A `Summary` laid out for the terminal (rich) and for a notebook (HTML with an inline SVG bar)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Literal

from tilewright.sim.quantities import binary_bytes, count, fractional, percent, short
from tilewright.sim.summary import BUSY, Choice, Share, Summary

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

BUSY_COLOR = "#3b6fb6"
IDLE_COLOR = "#9aa3ad"
CAUSE_COLORS = ("#e08a3c", "#c8553d", "#8a6fb0", "#4f9d8f", "#d4b13f", "#b56a8e", "#8c6d52", "#5f7f8f")
"""Colours of categories in order; they read on white and on near-black."""
PREDICTOR_COLOR = "#52b1c9"
STATE_COLORS = {
    BUSY: BUSY_COLOR, "idle": IDLE_COLOR,
    **dict(zip(
        ("weight_stall", "weight_shift", "fill_drain", "input_stall", "output_stall", "non_matrix",
         "sram_port_stall", "unattributed"),
        CAUSE_COLORS, strict=True,
    )),
    "operand_stall": CAUSE_COLORS[3], "vector_stall": "#8fbf5a", "prediction_stall": PREDICTOR_COLOR,
}  # fmt: skip
"""Colours of the states of every unit, the same in every figure of every run."""

COMPONENT_COLORS = {
    "array": BUSY_COLOR, "registers": "#7fa6dc", "vector": "#8a6fb0", "network": "#8c6d52",
    "links": "#b08d6e", "routers": "#5f4636",
    "dram": "#e08a3c", "dram_background": "#edbf93", "leakage": "#9aa3ad", "clock": "#6b7580",
    "control": "#b56a8e", "predictor": PREDICTOR_COLOR,
}  # fmt: skip
"""Colours of what every accelerator has, in energy or in area."""
BUFFER_COLORS = ("#4f9d8f", "#8fbf5a", "#d4b13f", "#2f7f6f", "#b5cf8a", "#5b8c3e")


FPGA_CELLS = {"lut4": "LUT4", "ff": "FF", "dsp": "DSP", "bram": "block RAM"}
"""Names of an FPGA's cells for people."""


def key_figures(summary: Summary) -> list[tuple[str, str]]:
    """The headline numbers, as (name, text)."""
    return [
        ("cycles", count(summary.cycles)),
        ("latency", f"{fractional(summary.latency_s, 's')} at {summary.clock_mhz:,g} MHz"),
        ("utilization", f"{percent(summary.utilization)} of {count(summary.peak_macs_per_cycle)} MACs/cycle"),
        ("MACs", f"{count(summary.macs)} ({short(summary.macs)}{_useful(summary)})"),
        ("parameters", f"{count(summary.parameters)} ({short(summary.parameters)})"),
        ("peak memory", binary_bytes(summary.peak_memory_bytes)),
        ("energy", f"{fractional(summary.energy_j, 'J')} ({_power(summary)})"),
        ("area", f"{summary.area_mm2:,.4g} mm²"),
        *_fpga(summary),
    ]


def _fpga(summary: Summary) -> list[tuple[str, str]]:
    """Cells of a unit on an FPGA."""
    cells = (f"{number:,} {FPGA_CELLS[name]}" for name, number in summary.area_fpga.items())
    return [("FPGA", ", ".join(cells))] if summary.area_fpga else []


def state_name(state: str) -> str:
    """A state or stall cause as people write it: `weight_stall` is `weight stall`."""
    return state.replace("_", " ")


def state_colors(states: Sequence[str]) -> list[str]:
    """A colour for each state; unknown ones take theirs in order."""
    unknown = [state for state in states if state not in STATE_COLORS]
    taken = {state: CAUSE_COLORS[i % len(CAUSE_COLORS)] for i, state in enumerate(unknown)}
    return [STATE_COLORS.get(state) or taken[state] for state in states]


def component_name(component: str) -> str:
    """A component as people write it; a buffer keeps the name that the description gives it."""
    return state_name(component) if component in COMPONENT_COLORS else component


def component_colors(components: Sequence[str]) -> list[str]:
    """A colour for each component of energy or area, the same wherever it is shown.

    Those that every accelerator has have their own, buffers take theirs in order of their names.
    """
    buffers = sorted(set(components) - set(COMPONENT_COLORS))
    taken = {name: BUFFER_COLORS[i % len(BUFFER_COLORS)] for i, name in enumerate(buffers)}
    return [COMPONENT_COLORS.get(name) or taken[name] for name in components]


def terminal(summary: Summary) -> Group:
    """The whole summary as a rich renderable; names are never cut, a narrow terminal folds them."""
    from rich.console import Group
    from rich.text import Text

    title = Text(f"{summary.workload} on {summary.accelerator}, {summary.fidelity} fidelity", style="bold")
    figures = _table(("", "<"), ("", "<"))
    for name, text in key_figures(summary):
        figures.add_row(name, text)
    tables = [figures, _array_table(summary)]
    if summary.traffic:
        tables.append(_traffic_table(summary))
    if summary.components:
        tables.append(_components_table(summary))
    if summary.choices:
        tables.append(_choices_table(summary))
    if summary.slowest:
        tables.append(_operators_table(summary))
    return Group(title, *(part for table in tables for part in (Text(), table)))


def plain_text(summary: Summary) -> str:
    """The terminal layout without colours or control codes, as wide as its longest line."""
    from io import StringIO

    from rich.console import Console

    sink = StringIO()
    Console(file=sink, width=1000, color_system=None, highlight=False, emoji=False).print(terminal(summary))
    return "".join(f"{line.rstrip()}\n" for line in sink.getvalue().splitlines())


def html(summary: Summary) -> str:
    """A fragment for a notebook: key figures, and the array's cycles as a bar (inline SVG, no script)."""
    title = escape(f"{summary.workload} on {summary.accelerator}, {summary.fidelity} fidelity")
    rows = "".join(
        f"<tr><th style='text-align:left'>{name}</th><td style='text-align:left'>{escape(text)}</td></tr>"
        for name, text in key_figures(summary)
    )
    bars = stall_bar(summary.array) + energy_bar(summary)
    return f"<div><b>{title}</b><table>{rows}</table>{bars}</div>"


def stall_bar(shares: Sequence[Share], width: int = 560) -> str:
    """The array's cycles as one SVG bar with a legend below; the pieces fill the bar exactly."""
    colors = state_colors([share.name for share in shares])
    named = [(state_name(share.name), share.share) for share in shares]
    return _bar("cycles of the array by state", named, colors, width)


def energy_bar(summary: Summary, width: int = 560) -> str:
    """The run's energy by component, drawn as `stall_bar`; nothing if there is none."""
    parts = [part for part in summary.components if part.energy_j]
    colors = component_colors([part.name for part in parts])
    shares = [(component_name(part.name), part.energy_share) for part in parts]
    return _bar("energy by component", shares, colors, width) if shares else ""


def _bar(what: str, shares: Sequence[tuple[str, float]], colors: Sequence[str], width: int) -> str:
    pieces, legend, left = [], [], 0.0
    for (name, share), color in zip(shares, colors, strict=True):
        text = escape(f"{name} {percent(share)}")
        size = width * share
        box = f'x="{left:.2f}" y="0" width="{size:.2f}" height="18" fill="{color}"'
        pieces.append(f"<rect {box}><title>{text}</title></rect>")
        legend.append(
            f'<span style="white-space:nowrap"><span style="color:{color}">&#9632;</span> {text}</span>'
        )
        left += size
    return (
        f'<svg viewBox="0 0 {width} 18" width="100%" style="max-width:{width}px" role="img" '
        f'aria-label="{what}">{"".join(pieces)}</svg>'
        f'<div style="font-size:0.9em">{" &ensp; ".join(legend)}</div>'
    )


def _table(*columns: tuple[str, Literal["<", ">"]]) -> Table:
    """A table without lines; a column is its heading and the side it leans to. No headings, no head."""
    from rich.table import Table

    table = Table(
        box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=any(name for name, _ in columns)
    )
    for name, side in columns:
        table.add_column(
            name, justify="left" if side == "<" else "right", overflow="fold", header_style="bold"
        )
    return table


def _array_table(summary: Summary) -> Table:
    table = _table(("array", "<"), ("cycles", ">"), ("share", ">"))
    for share in summary.array:
        table.add_row(state_name(share.name), count(share.cycles), percent(share.share))
    table.add_row("total", count(summary.cycles), percent(1.0 if summary.cycles else 0.0), style="dim")
    return table


def _traffic_table(summary: Summary) -> Table:
    table = _table(("traffic", "<"), ("read", ">"), ("written", ">"), ("bytes/cycle", ">"))
    for memory in summary.traffic:
        table.add_row(
            memory.memory,
            binary_bytes(memory.read_bytes),
            binary_bytes(memory.write_bytes),
            f"{memory.bytes_per_cycle:,.2f}",
        )
    return table


def _components_table(summary: Summary) -> Table:
    table = _table(("component", "<"), ("energy", ">"), ("share", ">"), ("area mm²", ">"), ("share", ">"))
    for part in summary.components:
        energy = (fractional(part.energy_j, "J"), percent(part.energy_share)) if part.energy_j else ("", "")
        area = (f"{part.area_mm2:,.4g}", percent(part.area_share)) if part.area_mm2 else ("", "")
        table.add_row(component_name(part.name), *energy, *area)
    whole_energy, whole_area = (
        percent(1.0 if total else 0.0) for total in (summary.energy_j, summary.area_mm2)
    )
    total = (fractional(summary.energy_j, "J"), whole_energy, f"{summary.area_mm2:,.4g}", whole_area)
    table.add_row("total", *total, style="dim")
    return table


CHOICE_COLUMNS = ("sparse attention", "kept", "recall", "kept weight", "imbalance")


def choice_cells(choice: Choice) -> tuple[str, ...]:
    """One for each of `CHOICE_COLUMNS`; empty where nothing is predicted."""
    judged = (percent(part) if part is not None else "" for part in (choice.recall, choice.kept_weight))
    return (choice.name, percent(choice.kept), *judged, f"{choice.imbalance:.2f}")


def _choices_table(summary: Summary) -> Table:
    first, *rest = CHOICE_COLUMNS
    table = _table((first, "<"), *((name, ">") for name in rest))
    for choice in summary.choices:
        table.add_row(*choice_cells(choice))
    return table


def _operators_table(summary: Summary) -> Table:
    table = _table(
        ("slowest operators", "<"),
        ("cycles", ">"),
        ("share", ">"),
        ("kind", "<"),
        ("bound by", "<"),
        ("shape", "<"),
    )
    for group in summary.slowest:
        table.add_row(
            group.label,
            count(group.cycles),
            percent(group.share),
            group.kind,
            group.bound,
            group.extent,
        )
    if summary.others.cycles:
        table.add_row(
            summary.others.name, count(summary.others.cycles), percent(summary.others.share), style="dim"
        )
    return table


def _useful(summary: Summary) -> str:
    """What is said of the MACs if not all of them are useful."""
    if summary.useful_macs == summary.macs:
        return ""
    return f", {percent(summary.useful_macs / summary.macs)} useful"


def _power(summary: Summary) -> str:
    """What is said beside the energy."""
    power = f"{fractional(summary.average_power_w, 'W')} on average"
    per_mac = summary.energy_per_mac_pj
    return power if per_mac is None else f"{power}, {per_mac:,.4g} pJ/MAC"


def styled_text(summary: Summary) -> str:
    """The terminal layout with its styles, for a terminal."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(terminal(summary))
    return capture.get()
