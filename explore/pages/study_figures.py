"""The figures of a study, drawn with Plotly from the plain data of `study_data` and its neighbours.

As in `figures`, colours of text and grid lines are the page's, which knows light from dark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import floor, isnan, log10

import plotly.graph_objects as go

from tilewright.explore.pages.figures import blank_figure
from tilewright.explore.study.compare import Breakdown
from tilewright.explore.study.data import FrontData, Mark, ParallelData, Points, ProgressData, TradeoffData
from tilewright.explore.study.importance import ImportanceData, Swing
from tilewright.explore.study.view import axis_of, text_of
from tilewright.sim.quantities import percent
from tilewright.sim.render import (
    BUSY_COLOR,
    CAUSE_COLORS,
    IDLE_COLOR,
    component_colors,
    component_name,
    state_colors,
    state_name,
)

FRONT_COLOR = CAUSE_COLORS[0]
KNEE_COLOR = CAUSE_COLORS[1]
PRESET_COLOR = CAUSE_COLORS[2]
CHOSEN_COLORS = (CAUSE_COLORS[3], CAUSE_COLORS[5])
"""Of the points A and B that a reader chose."""
_DOT = 8
"""Of every point alike: of those under a click, Plotly takes the smallest, and of equal ones the last drawn,
which is the front's."""
SERIES = (BUSY_COLOR, *CAUSE_COLORS)


def front_figure(data: FrontData, chosen: Sequence[tuple[str, str]] = ()) -> go.Figure:
    """Every point over two objectives, the front as a line; `chosen` are (name, point) to ring."""
    figure = blank_figure(height=460)
    # Presets first: a point in the same place lies on them, and is what a click means.
    _add_marks(figure, "presets", PRESET_COLOR, "diamond", [mark for mark in data.marks if not mark.point])
    for name, points, marker in (
        ("infeasible", data.excluded, {"color": IDLE_COLOR, "symbol": "x-thin", "size": _DOT,
                                                "line": {"width": 1, "color": IDLE_COLOR}}),
        ("bound only", data.bounds, {"color": "rgba(0,0,0,0)", "size": _DOT,
                                     "line": {"width": 1, "color": IDLE_COLOR}}),
        ("dominated", data.others, {"color": "#5f90d3", "size": _DOT, "opacity": 0.5}),
    ):  # fmt: skip
        if points.x:
            figure.add_scatter(name=name, mode="markers", marker=marker, **_places(points))
    line = {"shape": "hv", "width": 1.5, "color": FRONT_COLOR}
    figure.add_scatter(
        name="front", mode="lines+markers" if data.steps else "markers", line=line,
        marker={"color": FRONT_COLOR, "size": _DOT, "line": {"width": 1, "color": "white"}},
        **_places(data.front),
    )  # fmt: skip
    _add_marks(figure, "knee", KNEE_COLOR, "star", [mark for mark in data.marks if mark.point])
    _add_rings(figure, data, chosen)
    figure.update_layout(hovermode="closest", clickmode="event", dragmode="zoom", uirevision="front")
    for axis, title, log in (("xaxis", data.x_title, data.log[0]), ("yaxis", data.y_title, data.log[1])):
        style: dict[str, object] = {"title": {"text": title}, "exponentformat": "none"}
        if log:
            values = [
                v for p in (data.front, data.others, data.bounds) for v in (p.x if axis == "xaxis" else p.y)
            ]
            style |= log_ticks(values)
        figure.update_layout({axis: style})
    return figure


def log_ticks(values: Sequence[float]) -> dict[str, object]:
    """A logarithmic axis with a label at 1, 2 and 5 of each decade: plotly's own are bare digits."""
    positive = [value for value in values if value > 0] or [1.0]
    first, last = floor(log10(min(positive))) - 1, floor(log10(max(positive))) + 1
    ticks = [float(f"{digit}e{decade}") for decade in range(first, last + 1) for digit in (1, 2, 5)]
    return {"type": "log", "tickvals": ticks, "ticktext": [f"{tick:,g}" for tick in ticks]}


def folded(name: str, width: int = 18) -> str:
    """A dotted name over several lines, so that it leaves room for the figure on a phone."""
    lines = [""]
    for part in re.findall(r"[^._ ]+[._ ]?", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "<br>".join(lines)


def _places(points: Points) -> dict[str, object]:
    return {
        "x": list(points.x), "y": list(points.y), "customdata": list(points.point), "text": list(points.text),
        "hovertemplate": "%{text}<extra>%{customdata}</extra>",
    }  # fmt: skip


def _add_marks(figure: go.Figure, name: str, color: str, symbol: str, marks: Sequence[Mark]) -> None:
    if marks:
        figure.add_scatter(
            name=name, mode="markers" if marks[0].point else "markers+text", legendrank=2000,
            x=[mark.x for mark in marks], y=[mark.y for mark in marks], customdata=[m.point for m in marks],
            text=[mark.name for mark in marks], textposition="top center", textfont={"size": 11},
            marker={"color": color, "symbol": symbol, "size": 15 if marks[0].point else 11,
                    "line": {"width": 1, "color": "white"}},
            hovertext=[mark.text for mark in marks], cliponaxis=False,
            hovertemplate="%{hovertext}<extra></extra>",
        )  # fmt: skip


def _add_rings(figure: go.Figure, data: FrontData, chosen: Sequence[tuple[str, str]]) -> None:
    groups = (data.front, data.others, data.bounds, data.excluded)
    where = {p: (x, y) for g in groups for p, x, y in zip(g.point, g.x, g.y, strict=True)}
    for (name, point), color in zip(chosen, CHOSEN_COLORS, strict=False):
        if point in where:
            x, y = where[point]
            figure.add_scatter(
                name=name, mode="markers+text", x=[x], y=[y], text=[name], textposition="bottom right",
                textfont={"size": 14}, hoverinfo="skip", cliponaxis=False,
                marker={"symbol": "circle-open", "size": 18, "line": {"width": 3}, "color": color},
            )  # fmt: skip


def progress_figure(data: ProgressData) -> go.Figure:
    """Hypervolume over points, a line that only rises."""
    figure = blank_figure(height=260, legend=False)
    figure.add_scatter(
        x=list(data.evaluated), y=list(data.share), mode="lines", fill="tozeroy",
        line={"shape": "hv", "width": 2, "color": BUSY_COLOR}, fillcolor="rgba(59,111,182,0.2)",
        hovertemplate="%{y:.2%} after %{x:,} points<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="points evaluated", rangemode="tozero", exponentformat="none")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def importance_figure(data: ImportanceData) -> go.Figure:
    """A group of bars per parameter: what it explains of each objective, and its say in the best tenth."""
    series = [*zip(data.objectives, data.explained, strict=True)]
    if data.top is not None:
        series.append(("being among the best tenth", data.top))
    figure = blank_figure(rows=round(0.6 * len(series) * len(data.parameters)) + 1)
    rows = [folded(parameter) for parameter in data.parameters]
    for (name, shares), color in zip(series, SERIES, strict=False):
        figure.add_bar(
            name=name, orientation="h", y=rows, x=list(shares), marker={"color": color},
            text=[percent(share) for share in shares], textposition="outside", cliponaxis=False, textangle=0,
            hovertemplate=f"{name}: %{{x:.1%}}<extra>%{{y}}</extra>",
        )  # fmt: skip
    largest = max((share for _, shares in series for share in shares), default=0.0) or 1.0
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(tickformat=".0%", range=[0, 1.25 * largest], nticks=6)
    figure.update_yaxes(autorange="reversed")
    return figure


def swing_figure(swings: Sequence[Swing]) -> go.Figure:
    """For each parameter, an objective at each of its values against the study's mean: a line of dots, the
    smallest value the palest."""
    parameters = list(dict.fromkeys(swing.parameter for swing in swings))
    objectives = list(dict.fromkeys(swing.objective for swing in swings))
    figure = blank_figure(rows=len(parameters) * len(objectives) + 1)
    rows = [f"{swing.parameter} " + "\u200b" * objectives.index(swing.objective) for swing in swings]
    for objective, color in zip(objectives, SERIES, strict=False):
        chosen = [
            (row, swing) for row, swing in zip(rows, swings, strict=True) if swing.objective == objective
        ]
        figure.add_scatter(
            name=objective, mode="lines+markers",
            x=[x for _, swing in chosen for x in (*swing.ratios, None)],
            y=[row for row, swing in chosen for _ in (*swing.ratios, None)],
            text=[level for _, swing in chosen for level in (*swing.levels, "")],
            line={"color": color, "width": 2},
            marker={"color": color, "size": [s for _, w in chosen for s in (*_sizes(len(w.levels)), 0)],
                    "opacity": 1},
            hovertemplate=f"%{{text}}: {objective} %{{x:.3g}} times the mean<extra></extra>",
        )  # fmt: skip
    order = [row for p in parameters for row, swing in zip(rows, swings, strict=True) if swing.parameter == p]
    labels = ["" if row.endswith("\u200b") else folded(row) for row in order]
    figure.add_vline(x=1, line={"color": IDLE_COLOR, "width": 1, "dash": "dot"})
    ratios = [ratio for swing in swings for ratio in swing.ratios]
    figure.update_xaxes(title_text="times the study's mean", **_ratio_ticks(ratios))
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=order,
        tickvals=order,
        ticktext=labels,
        range=[len(order) - 0.4, -0.6],
    )
    return figure


def _ratio_ticks(ratios: Sequence[float]) -> dict[str, object]:
    """Logarithmic over more than a factor of three, where 1, 2, 5 are labels enough."""
    known = [ratio for ratio in ratios if ratio > 0]
    if known and max(known) > 3 * min(known):
        return log_ticks(known)
    return {"exponentformat": "none", "nticks": 6}


def _sizes(levels: int) -> list[float]:
    """The smallest value has the smallest dot."""
    return [6 + 8 * place / max(1, levels - 1) for place in range(levels)]


def parallel_figure(data: ParallelData) -> go.Figure:
    """A line per point; drag along an axis to keep only what passes there."""
    figure = blank_figure(height=420, legend=False)
    dimensions, lines = [], 1
    for axis in data.axes:
        label = f"\u200b<br>{folded(axis.title, 14)}"  # on the first line lies the axis's smallest value
        lines = max(lines, label.count("<br>"))
        dimension: dict[str, object] = {"label": label, "values": list(axis.values)}
        if axis.labels:
            span = {"tickvals": list(range(len(axis.labels))), "ticktext": list(axis.labels)}
            dimension |= span | {"range": [-0.05, len(axis.labels) - 0.95]}
        dimensions.append(dimension)
    figure.add_parcoords(
        dimensions=dimensions, labelfont={"size": 12}, tickfont={"size": 11},
        labelside="bottom",  # lines after a title's first go down: above, they would lie on the largest value
        line={"color": [int(on) for on in data.front], "cmin": 0, "cmax": 1, "showscale": False,
              "colorscale": [[0, "#9db7da"], [1, FRONT_COLOR]]},
        unselected={"line": {"color": IDLE_COLOR, "opacity": 0.08}},
    )  # fmt: skip
    names = data.axes[0].labels if data.axes else ()  # they stand left of the first axis
    left = max(56, 16 + 6 * max(map(len, names), default=0))
    figure.update_layout(margin={"l": left, "r": 56, "t": 28, "b": 40 + 16 * lines})
    return figure


def tradeoff_figure(data: TradeoffData) -> go.Figure:
    """A row per workload, a dot per point of the front at its times-best; the knee is a star on each row."""
    figure = blank_figure(rows=len(data.workloads) + 1)
    for name, color, symbol, size, chosen in (
        ("front", FRONT_COLOR, "circle", 10, [p != data.knee for p in data.points]),
        ("knee", KNEE_COLOR, "star", 15, [p == data.knee for p in data.points]),
    ):
        places = [i for i, wanted in enumerate(chosen) if wanted]
        figure.add_scatter(
            name=name, mode="markers",
            x=[times[i] for times in data.times_best for i in places],
            y=[workload for workload in data.workloads for _ in places],
            text=[data.text[i] for _ in data.workloads for i in places],
            customdata=[data.points[i] for _ in data.workloads for i in places],
            marker={"color": color, "symbol": symbol, "size": size, "opacity": 0.8,
                    "line": {"width": 1, "color": "white"}},
            hovertemplate="%{x:.3g} times the best of %{y}<br>%{text}<extra>%{customdata}</extra>",
        )  # fmt: skip
    ratios = [ratio for times in data.times_best for ratio in times if not isnan(ratio)]
    figure.update_xaxes(title_text="times the workload's best", **_ratio_ticks(ratios))
    figure.update_yaxes(autorange="reversed")
    return figure


def breakdown_figure(data: Breakdown) -> go.Figure:
    """A stacked bar per point; its total stands behind it. The page writes the legend."""
    import numpy as np

    key = f"{data.quantity}.total" if data.quantity != "latency_s" else data.quantity
    factor, title = axis_of(key, np.array(data.totals))
    figure = blank_figure(rows=len(data.names), legend=False)
    for (label, color), amounts in zip(breakdown_legend(data), data.amounts, strict=True):
        figure.add_bar(
            name=label, orientation="h", y=list(data.names), x=[amount / factor for amount in amounts],
            marker={"color": color}, customdata=[text_of(key, amount) for amount in amounts],
            hovertemplate=f"{label}: %{{customdata}}<extra>%{{y}}</extra>",
        )  # fmt: skip
    figure.add_bar(
        orientation="h", y=list(data.names), x=[0.0] * len(data.names), textposition="outside",
        text=[text_of(key, total) for total in data.totals], cliponaxis=False, hoverinfo="skip",
    )  # fmt: skip
    longest = max(data.totals, default=0.0) / factor or 1.0
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(title_text=title, range=[0, 1.55 * longest], exponentformat="none", nticks=6)
    figure.update_yaxes(autorange="reversed")
    return figure


def breakdown_legend(data: Breakdown) -> list[tuple[str, str]]:
    """Name and colour of each part, as in every other figure."""
    if data.quantity == "latency_s":
        return list(zip(map(state_name, data.parts), state_colors(data.parts), strict=True))
    return list(zip(map(component_name, data.parts), component_colors(data.parts), strict=True))
