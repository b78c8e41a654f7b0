"""The dashboard's page: what stands where. `dashboard_callbacks` fills it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from dash import dcc, html

from tilewright.explore.pages import study_figures
from tilewright.explore.pages.dashboard_fpga import fpga_parts, fpga_section
from tilewright.explore.pages.figures import blank_figure
from tilewright.explore.pages.study_page import READINGS, STUDY_CSS
from tilewright.explore.pages.study_report import key_figures
from tilewright.explore.study import data as study_data
from tilewright.explore.study import importance as study_importance
from tilewright.explore.study.compare import Comparison
from tilewright.explore.study.view import StudyView, title_of

CONFIG: Any = {"responsive": True, "displaylogo": False, "displayModeBar": False}
_CSS = (
    STUDY_CSS
    + """
.controls { display: flex; flex-wrap: wrap; gap: 8px 18px; align-items: end; margin: 0 0 10px;
  font-size: 0.86rem; color: var(--soft); }
.controls > label { flex: 0 1 210px; }
.controls input { accent-color: #3b6fb6; }
.choices label { margin-right: 12px; }
:root { --Dash-Fill-Inverse-Strong: var(--card); --Dash-Text-Strong: var(--fg);
  --Dash-Text-Primary: var(--fg);
  --Dash-Text-Weak: var(--soft); --Dash-Stroke-Strong: var(--line); --Dash-Stroke-Weak: var(--line);
  --Dash-Fill-Primary-Hover: var(--grid); --Dash-Fill-Interactive-Strong: #3b6fb6;
  --Dash-Fill-Weak: var(--grid); --Dash-Fill-Disabled: var(--grid); --Dash-Text-Disabled: var(--soft); }
"""
)
INDEX = (
    """<!DOCTYPE html>
<html lang="en"><head>{%metas%}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{%title%}</title>{%css%}<style>"""
    + _CSS
    + """</style></head>
<body>{%app_entry%}<footer>{%config%}{%scripts%}{%renderer%}</footer></body></html>"""
)


def layout(view: StudyView, refresh_s: float) -> Any:  # noqa: ANN401 - Dash has no types
    """The page as it first is."""
    return html.Main([
        dcc.Interval(id="tick", interval=round(1000 * refresh_s)),
        dcc.Store(id="version"), dcc.Store(id="chosen", data={}), dcc.Download(id="download"),
        html.Header([html.H1(view.name), html.P(id="lead")]),
        html.Dl(id="cards"),
        section("front", *READINGS["front"], [
            _controls(view), graph("front-plot", 460), html.P(id="front-remarks", className="reading"),
        ]),
        html.Section(id="panel", children=html.P("Click on a point to see what it is.", className="reading")),
        dcc.Loading(html.Div(id="run"), type="dot", delay_show=200),
        html.Div(id="compare"),
        html.Div(id="overview"),
    ])  # fmt: skip


def _controls(view: StudyView) -> Any:  # noqa: ANN401
    options = [{"label": title_of(o.name), "value": n} for n, o in enumerate(view.objectives)]
    last = min(1, len(options) - 1)
    work = [{"label": workload.label, "value": n} for n, workload in enumerate(view.workloads)]
    return html.Div([
        html.Label(["across", dcc.Dropdown(options, 0, id="x", clearable=False, searchable=False)]),
        html.Label(["upwards", dcc.Dropdown(options, last, id="y", clearable=False, searchable=False)]),
        html.Label(["workload of the timeline",
                    dcc.Dropdown(work, 0, id="workload", clearable=False, searchable=False)]),
        html.Div(["a click chooses ", dcc.RadioItems(
            [{"label": "point A", "value": "A"}, {"label": "point B, to compare", "value": "B"}], "A",
            id="slot", inline=True, className="choices")]),
    ], className="controls")  # fmt: skip


def section(id_: str, title: str, reading: str, body: Sequence[Any]) -> Any:  # noqa: ANN401
    """A card with its heading and a line on how to read it."""
    return html.Section([html.H2(title), html.P(reading, className="reading"), *body], id=id_)


def graph(id_: str, height: int, figure: go.Figure | None = None) -> Any:  # noqa: ANN401
    """A figure of a height in pixels that the window does not change."""
    return dcc.Graph(
        id=id_, figure=figure or blank_figure(height=height), config=CONFIG,
        responsive=True, style={"height": f"{height}px"},
    )  # fmt: skip


def drawn(id_: str, figure: go.Figure) -> Any:  # noqa: ANN401
    """A finished figure at its own height."""
    return graph(id_, int(figure.layout.height), figure)


def cards(view: StudyView) -> list[Any]:
    """The headline numbers."""
    return [
        html.Div([html.Dt(name), html.Dd([text, html.Small(note)])]) for name, text, note in key_figures(view)
    ]


def overview(view: StudyView) -> list[Any]:
    """The figures about all points together."""
    parts = []
    parallel = study_data.parallel_data(view)
    if parallel.front:
        plot = drawn("parallel-plot", study_figures.parallel_figure(parallel))
        wide = html.Div(plot, style={"minWidth": f"{110 * len(parallel.axes)}px"})
        parts.append(section("parallel", *READINGS["parallel"], [html.Div(wide, className="scroll")]))
    importance = study_importance.importance_data(view)
    figures = {}
    if importance.parameters:
        figures["importance"] = study_figures.importance_figure(importance)
        figures["swing"] = study_figures.swing_figure(study_importance.swing_data(view))
    figures["progress"] = study_figures.progress_figure(study_data.progress_data(view))
    tradeoffs = study_data.tradeoff_data(view)
    if tradeoffs.workloads and tradeoffs.points:
        figures["tradeoffs"] = study_figures.tradeoff_figure(tradeoffs)
    parts += [section(id_, *READINGS[id_], [drawn(f"{id_}-plot", f)]) for id_, f in figures.items()]
    return [*parts, *fpga_section(view)]


def point_panel(facts: dict[str, Any], yaml: str) -> list[Any]:
    """What a point is, ready to paste."""
    return [
        html.Div([
            html.Div([html.H3(f"Point {facts['point']}"), _pairs(facts["figures"])]),
            html.Div([html.H3("Parameters"), _pairs(facts["parameters"])]),
        ], className="pair"),
        *fpga_parts(facts),
        html.H3("Run it again"), html.Pre("\n".join(facts["commands"]), className="command"),
        html.H3("Its accelerator"),
        html.Div([
            html.Button(["copy YAML ", dcc.Clipboard(target_id="yaml", style={"display": "inline-block"})]),
            html.Button("download YAML", id="save"),
        ], className="bar"),
        html.Pre(yaml, id="yaml"),
    ]  # fmt: skip


def _pairs(rows: dict[str, str]) -> Any:  # noqa: ANN401
    cells = [html.Tr([html.Td(k, className="wrap"), html.Td(v, className="n")]) for k, v in rows.items()]
    return html.Table(html.Tbody(cells))


def breakdown_parts(data: Comparison, id_: str) -> list[Any]:
    """Time, energy and area in parts, a bar per point."""
    parts: list[Any] = []
    for each in data.breakdowns:
        legend = [
            html.Span([html.I(style={"background": color}), name])
            for name, color in study_figures.breakdown_legend(each)
        ]
        plot = drawn(f"{id_}-{each.quantity}", study_figures.breakdown_figure(each))
        parts += [html.H3(title_of(each.quantity)), html.P(legend, className="legend"), plot]
    return parts


def comparison_section(data: Comparison) -> Any:  # noqa: ANN401
    """Two points beside each other, and why they differ."""
    head = html.Tr([html.Th(""), *(html.Th(name, className="n") for name in data.names)])
    rows = [
        html.Tr([html.Td(title, className="wrap"), *(html.Td(text, className="n") for text in texts)])
        for title, texts in (*data.objectives, *data.parameters)
    ]
    reasons = html.Ul([html.Li(reason) for reason in data.reasons], className="reasons")
    table = html.Div(html.Table([html.Thead(head), html.Tbody(rows)]), className="scroll")
    title = " against ".join(data.names)
    return section("comparison", title, "What differs, and where it comes from.",
                   [table, reasons, *breakdown_parts(data, "compare")])  # fmt: skip
