"""One self-contained HTML page about a result: works offline; the same result gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from tilewright.explore.pages import energy_data, energy_figures, figures
from tilewright.explore.pages import figure_data as data
from tilewright.explore.pages.page import CHOICES, CSS, PAGE, READINGS
from tilewright.explore.pages.pieces import cells, key_figures_html, plot_html
from tilewright.sim.quantities import fractional, percent
from tilewright.sim.render import (
    CHOICE_COLUMNS,
    choice_cells,
    component_colors,
    component_name,
    key_figures,
    state_colors,
    state_name,
)
from tilewright.sim.result import Result
from tilewright.sim.sources import SOURCE_COLUMNS, citations, source_cells
from tilewright.sim.summary import OperatorGroup, choices, operator_groups, summary

if TYPE_CHECKING:
    import plotly.graph_objects as go

_TABLE_ROWS = 40
_COLUMNS = (
    ("operator", ""), ("kind", ""), ("cycles", "n"), ("share", "n"), ("MACs", "n"), ("useful", "n"),
    ("energy", "n"), ("bound by", ""), ("shape", ""),
)  # fmt: skip
"""Headings of the table of operators, and the class of their cells (`n` for numbers)."""


@dataclass(frozen=True, slots=True)
class Section:
    """A figure with its heading and a line on how to read it."""

    id: str
    title: str
    reading: str
    figure: go.Figure
    legend: tuple[tuple[str, str], ...] = ()
    """(name, colour), where the page writes the legend: unlike Plotly's it wraps on a phone."""


def write_report(result: Result, path: str | Path) -> None:
    """Write the report on `result` to `path` (HTML, about 5 MB: it carries plotly.js)."""
    Path(path).write_text(report_html(result), encoding="utf-8", newline="\n")


def report_html(result: Result) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    title = escape(f"{result.workload} on {result.accelerator}")
    figures_html = "".join(_section_html(section) for section in sections(result)) + _choices_html(result)
    return PAGE.format(
        title=title,
        css=CSS,
        plotlyjs=get_plotlyjs(),
        lead=escape(f"{result.fidelity} fidelity, tilewright {result.provenance.get('version', '')}".strip()),
        key_figures=_key_figures_html(result),
        sections=figures_html,
        operators=_operators_html(result),
        sources=_sources_html(result),
        provenance=_provenance_html(result),
    )


def sections(result: Result) -> list[Section]:
    """The figures of the report, in reading order."""
    drawn = {
        "timeline": figures.timeline_figure(data.timeline_data(result)),
        "utilization": figures.utilization_figure(data.utilization_data(result)),
        "stalls": figures.stall_figure(data.stall_data(result)),
        "roofline": figures.roofline_figure(data.roofline_data(result)),
        "traffic": figures.traffic_figure(data.traffic_data(result)),
        "kinds": figures.kind_figure(data.kind_data(result)),
        **_energy_figures(result),
    }
    states = data.stall_data(result).states
    parts = energy_data.energy_data(result).components
    components = tuple(zip(map(component_name, parts), component_colors(parts), strict=True))
    legends = {
        "stalls": tuple(zip(map(state_name, states), state_colors(states), strict=True)),
        "energy-kinds": components,
        "energy-layers": components,
    }
    return [Section(id_, *READINGS[id_], figure, legends.get(id_, ())) for id_, figure in drawn.items()]


def _energy_figures(result: Result) -> dict[str, go.Figure]:
    return {
        "energy": energy_figures.energy_figure(energy_data.energy_data(result)),
        "energy-kinds": energy_figures.energy_kind_figure(energy_data.energy_kind_data(result)),
        "energy-layers": energy_figures.energy_layer_figure(energy_data.energy_layer_data(result)),
        "area": energy_figures.area_figure(energy_data.area_data(result)),
    }


def _section_html(section: Section) -> str:
    legend = "".join(
        f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in section.legend
    )
    legend = f'<p class="legend">{legend}</p>' if legend else ""
    plot = plot_html(section.figure, section.id)
    return (
        f'<section id="{section.id}"><h2>{escape(section.title)}</h2>'
        f'<p class="reading">{escape(section.reading)}</p>{legend}{plot}</section>\n'
    )


def _key_figures_html(result: Result) -> str:
    return key_figures_html([(name, *_split_value(text)) for name, text in key_figures(summary(result))])


def _split_value(text: str) -> tuple[str, str]:
    """The figure itself, and what is said about it."""
    for word in (" at ", " of ", " ("):
        if word in text:
            value, _, note = text.partition(word)
            return value, f"{word.strip(' (')} {note.rstrip(')')}".strip()
    return text, ""


def _operators_html(result: Result) -> str:
    groups = operator_groups(result.operators, result.cycles)
    rows = "".join(_operator_row(group) for group in groups[:_TABLE_ROWS])
    head = "".join(f'<th class="{css}">{name}</th>' for name, css in _COLUMNS)
    left_out = len(groups) - _TABLE_ROWS
    more = f'<p class="reading">{left_out:,} shorter ones are left out.</p>' if left_out > 0 else ""
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>{more}'


def _choices_html(result: Result) -> str:
    """What a sparse-attention unit kept; nothing if there is none."""
    found = choices(result.sparse_attention)
    if not found:
        return ""
    classes = ("", *["n"] * (len(CHOICE_COLUMNS) - 1))
    rows = [_row("td", choice_cells(choice), classes) for choice in found]
    table = "".join((_row("th", CHOICE_COLUMNS, classes), *rows))
    return (
        f'<section id="choices"><h2>{CHOICES[0]}</h2><p class="reading">{CHOICES[1]}</p>'
        f'<div class="scroll"><table>{table}</table></div></section>\n'
    )


def _row(tag: str, texts: Sequence[str], classes: Sequence[str]) -> str:
    return f"<tr>{cells(tag, texts, classes)}</tr>"


def _operator_row(group: OperatorGroup) -> str:
    useful = percent(group.useful_macs / group.macs) if group.macs else ""
    texts = (
        group.label, group.kind, f"{group.cycles:,}", percent(group.share), f"{group.macs:,}", useful,
        fractional(1e-12 * group.energy_pj, "J"), group.bound, group.extent,
    )  # fmt: skip
    return _row("td", texts, [css for _, css in _COLUMNS])


def _sources_html(result: Result) -> str:
    """A row per constant, and the citations below, each once."""
    numbers = citations(result.sources)
    head = "".join(f"<th>{name.replace('_nm', ' nm').replace('_', ' ')}</th>" for name in SOURCE_COLUMNS)
    rows = "".join(_source_row(row, numbers) for row in result.sources)
    cited = "".join(f'<li id="source-{number}">{escape(text)}</li>' for text, number in numbers.items())
    table = f'<div class="scroll"><table><tr>{head}<th>source</th></tr>{rows}</table></div>'
    return f'{table}<ol class="citations">{cited}</ol>'


def _source_row(row: Mapping[str, object], numbers: Mapping[str, int]) -> str:
    name, *rest = source_cells(row)
    # A long name may be broken after its dots and underscores: on a phone it would hide its value.
    breakable = escape(name).replace(".", ".<wbr>").replace("_", "_<wbr>")
    others = "".join(f"<td>{escape(text)}</td>" for text in rest)
    return f'<tr><td class="name">{breakable}</td>{others}<td>[{numbers[str(row["source"])]}]</td></tr>'


def _provenance_html(result: Result) -> str:
    parts = []
    for key, value in result.provenance.items():
        text = (
            value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False, default=str)
        )
        body = f"<pre>{escape(text)}</pre>" if "\n" in text else f"<code>{escape(text)}</code>"
        parts.append(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{body}</dd>")
    return f'<dl class="provenance">{"".join(parts)}</dl>'
