"""The report's figures, drawn with Plotly from the plain data of `figure_data`.

Colours of text and grid lines are left to the page's style sheet, which knows light from dark.
"""

from __future__ import annotations

import plotly.graph_objects as go

from tilewright.explore.pages.figure_data import (
    Bar,
    KindData,
    RooflineData,
    StallData,
    TimelineData,
    TrafficData,
    UtilizationData,
)
from tilewright.sim.quantities import binary_bytes, count, percent
from tilewright.sim.render import BUSY_COLOR, CAUSE_COLORS, IDLE_COLOR, state_colors, state_name

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
_KINDS = ("matmul", "softmax", "norm", "elementwise", "gather", "scatter", "reduce", "scan", "sort", "topk")
_KIND_COLORS = dict(zip(_KINDS, (BUSY_COLOR, *CAUSE_COLORS, "#5b8c3e"), strict=True))
_ROW_PX = 34
_AXIS: dict[str, object] = {
    "automargin": True, "zeroline": False, "showgrid": True, "ticks": "", "exponentformat": "SI",
    "title_font_size": 13, "minexponent": 2,
}  # fmt: skip


def timeline_figure(data: TimelineData) -> go.Figure:
    """A Gantt chart with a row per operator kind, in order of first appearance from the top."""
    figure = blank_figure(rows=len(data.kinds), legend=False)
    for kind in data.kinds:
        bars = [bar for bar in data.bars if bar.kind == kind]
        figure.add_bar(
            name=kind,
            orientation="h",
            base=[bar.start for bar in bars],
            x=[bar.end - bar.start for bar in bars],
            y=[kind] * len(bars),
            marker={"color": kind_color(kind), "line": {"width": 0}, "opacity": [_strength(b) for b in bars]},
            text=[bar.name if bar.count == 1 else f"{bar.count} operators: {bar.name}" for bar in bars],
            textposition="none",
            customdata=[f"{bar.start:,} to {bar.end:,}" for bar in bars],
            hovertemplate="%{text}<br>cycles %{customdata} (%{x:,})<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.25)
    figure.update_xaxes(title_text="cycles", range=[0, data.total_cycles], rangemode="tozero")
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=list(data.kinds))
    return figure


def _strength(bar: Bar) -> float:
    """How opaque: full for one operator, paler the less of a joined bar's time its operators run."""
    return 0.15 + 0.85 * min(1.0, bar.running_cycles / (bar.end - bar.start))


def utilization_figure(data: UtilizationData) -> go.Figure:
    """A panel per unit over one time axis; the run's average is a dotted line across the array's."""
    figure = blank_figure(height=400, legend=False)
    panels = (
        ("array", data.array, BUSY_COLOR),
        ("vector", data.vector, CAUSE_COLORS[0]),
        ("DRAM", data.dram, CAUSE_COLORS[3]),
    )
    for number, (name, values, color) in enumerate(panels, start=1):
        axis = "y" if number == 1 else f"y{number}"
        figure.add_scatter(
            x=list(data.edges), y=[*values, values[-1]], yaxis=axis, mode="lines", fill="tozeroy",
            line={"shape": "hv", "width": 1, "color": color}, fillcolor=_faded(color),
            hovertemplate=f"{name} %{{y:.1%}} at cycle %{{x:,.0f}}<extra></extra>",
        )  # fmt: skip
        top = 1 - (number - 1) * 0.365
        style = {"title_text": name, "domain": [top - 0.27, top], "range": [0, 1.02], "tickformat": ".0%"}
        axis_name = "yaxis" if number == 1 else f"yaxis{number}"
        figure.update_layout({axis_name: {**_AXIS, **style, "tickvals": [0, 0.5, 1]}})
    figure.add_scatter(
        x=[data.edges[0], data.edges[-1]], y=[data.average, data.average], mode="lines",
        line={"dash": "dot", "width": 1.5, "color": BUSY_COLOR},
        hovertemplate=f"array, average of the run {percent(data.average)}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="cycles", range=[0, data.edges[-1]], anchor="y3")
    return figure


def stall_figure(data: StallData) -> go.Figure:
    """One bar per unit over all cycles: busy, then the stall causes."""
    figure = blank_figure(rows=len(data.units), legend=False)
    for state, color in zip(data.states, state_colors(data.states), strict=True):
        shares = data.shares[state]
        figure.add_bar(
            name=state_name(state),
            orientation="h",
            y=list(data.units),
            x=list(shares),
            marker={"color": color},
            text=[percent(share) if share >= 0.06 else "" for share in shares],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"color": "white"},
            textangle=0,
            customdata=list(data.cycles[state]),
            hovertemplate=f"{state_name(state)}<br>%{{customdata:,}} cycles, %{{x:.2%}}<extra>%{{y}}</extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(tickformat=".0%", range=[0, 1])
    figure.update_yaxes(autorange="reversed")
    return figure


def roofline_figure(data: RooflineData) -> go.Figure:
    """Log-log: the two roofs, and a point per operator group whose area is its share of the cycles."""
    figure = blank_figure(height=400)
    xs = _intensities(data)
    roof_name = f"roof: {count(data.peak_macs_per_cycle)} MACs/cycle"
    if data.peak_dram_bytes_per_cycle is not None:
        roof_name += f", {data.peak_dram_bytes_per_cycle:,.4g} bytes/cycle"
    figure.add_scatter(
        name=roof_name, x=xs, y=[data.roof(x) for x in xs], mode="lines", hoverinfo="skip",
        line={"color": "#8a929c", "width": 2},
    )  # fmt: skip
    for kind in dict.fromkeys(point.kind for point in data.points):
        points = [point for point in data.points if point.kind == kind]
        placed = [xs[-1] if p.macs_per_dram_byte is None else p.macs_per_dram_byte for p in points]
        figure.add_scatter(
            name=kind,
            x=placed,
            y=[p.macs_per_cycle for p in points],
            mode="markers",
            marker={
                "size": [8 + 32 * p.share**0.5 for p in points],
                "color": kind_color(kind),
                "opacity": 0.75,
                "line": {"width": 1, "color": "white"},
                "symbol": [
                    "circle" if p.macs_per_dram_byte is not None else "triangle-right" for p in points
                ],
            },
            text=[p.label for p in points],
            customdata=[
                f"{'no DRAM traffic' if p.macs_per_dram_byte is None else f'{x:,.4g} MACs per DRAM byte'}"
                f"<br>{p.macs_per_cycle:,.4g} MACs/cycle<br>{percent(p.share)} of the cycles"
                for p, x in zip(points, placed, strict=True)
            ],
            hovertemplate="%{text}<br>%{customdata}<extra></extra>",
        )
    figure.update_xaxes(title_text="MACs per DRAM byte", type="log", dtick=1)
    figure.update_yaxes(title_text="MACs per cycle", type="log", dtick=1)
    return figure


def _intensities(data: RooflineData) -> list[float]:
    """Three points of the roof: left of every operator, the ridge, right of every operator."""
    known = [p.macs_per_dram_byte for p in data.points if p.macs_per_dram_byte is not None]
    if data.peak_dram_bytes_per_cycle is not None:
        known.append(data.peak_macs_per_cycle / data.peak_dram_bytes_per_cycle)
    known = known or [1.0]
    ends = [min(known) / 3, max(known) * 3]
    ridge = known[-1:] if data.peak_dram_bytes_per_cycle is not None else []
    return [ends[0], *ridge, ends[1]]


def traffic_figure(data: TrafficData) -> go.Figure:
    """Read and written bytes of each memory, side by side."""
    figure = blank_figure(rows=2 * len(data.memories))
    for name, amounts, color in (
        ("read", data.read_bytes, BUSY_COLOR),
        ("written", data.write_bytes, CAUSE_COLORS[0]),
    ):
        figure.add_bar(
            name=name,
            orientation="h",
            y=list(data.memories),
            x=list(amounts),
            marker={"color": color},
            text=[binary_bytes(amount) for amount in amounts],
            textposition="outside",
            textangle=0,
            cliponaxis=False,
            hovertemplate=f"{name} %{{x:,}} bytes<extra>%{{y}}</extra>",
        )
    largest = max((*data.read_bytes, *data.write_bytes, 1))
    figure.update_layout(barmode="group", bargap=0.25)
    # No ticks: plotly counts in thousands, the bars' labels in powers of 1,024.
    figure.update_xaxes(showticklabels=False, range=[0, 1.3 * largest])
    figure.update_yaxes(autorange="reversed")
    return figure


def kind_figure(data: KindData) -> go.Figure:
    """A bar per operator kind with its cycles and share."""
    figure = blank_figure(rows=len(data.kinds), legend=False)
    whole = max(1, data.total_cycles)
    figure.add_bar(
        orientation="h",
        y=list(data.kinds),
        x=list(data.cycles),
        marker={"color": [kind_color(kind) for kind in data.kinds]},
        text=[percent(cycles / whole) for cycles in data.cycles],
        textposition="outside",
        cliponaxis=False,
        customdata=list(data.counts),
        hovertemplate="%{x:,} cycles in %{customdata:,} operators<extra>%{y}</extra>",
    )
    figure.update_layout(bargap=0.25)
    figure.update_xaxes(title_text="cycles", range=[0, 1.18 * max((*data.cycles, 1))])
    figure.update_yaxes(autorange="reversed")
    return figure


def _faded(color: str) -> str:
    """`#rrggbb` at a quarter of its strength."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.25)"


def kind_color(kind: str) -> str:
    """The colour of an operator kind, the same in every figure."""
    return _KIND_COLORS.get(kind, IDLE_COLOR)


def blank_figure(*, height: int = 0, rows: int = 0, legend: bool = True) -> go.Figure:
    """An empty figure in the report's style: `height` pixels, or as many as `rows` bars need."""
    below = 46 + (26 if legend else 0)
    total = height or _ROW_PX * max(rows, 2) + below + 12
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=total,
        margin={"l": 8, "r": 12, "t": 8, "b": 8, "pad": 4},
        font={"family": FONT, "size": 13},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=legend,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.0,
            "yanchor": "bottom",
            "xanchor": "left",
            "traceorder": "normal",
        },
        dragmode="zoom",
        hoverlabel={"font": {"family": FONT, "size": 13}, "align": "left"},
    )
    figure.update_xaxes(_AXIS, nticks=8, tickangle=0)
    figure.update_yaxes(_AXIS)
    if rows:
        figure.update_yaxes(showgrid=False)
    return figure
