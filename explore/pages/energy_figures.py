"""The report's figures of energy and area, drawn with Plotly from the plain data of `energy_data`."""

from __future__ import annotations

import plotly.graph_objects as go

from tilewright.explore.pages.energy_data import ComponentData, StackData
from tilewright.explore.pages.figures import blank_figure
from tilewright.sim.quantities import fraction_of, fractional
from tilewright.sim.render import component_colors, component_name


def energy_figure(data: ComponentData) -> go.Figure:
    """A bar per component: its share of the run's energy, and how much that is."""
    return _component_figure(data, [fractional(amount, "J") for amount in data.amounts])


def area_figure(data: ComponentData) -> go.Figure:
    """A bar per component: its share of the area, and how much that is."""
    return _component_figure(data, [f"{amount:,.4g} mm²" for amount in data.amounts])


def _component_figure(data: ComponentData, texts: list[str]) -> go.Figure:
    figure = blank_figure(rows=len(data.components), legend=False)
    figure.add_bar(
        orientation="h",
        y=[component_name(name) for name in data.components],
        x=list(data.shares),
        marker={"color": component_colors(data.components)},
        text=texts,
        textposition="outside",
        textangle=0,
        cliponaxis=False,
        hovertemplate="%{text}, %{x:.1%}<extra>%{y}</extra>",
    )
    figure.update_layout(bargap=0.25)
    # Room for the text of the longest bar, also on a phone.
    figure.update_xaxes(tickformat=".0%", range=[0, 1.5 * max(data.shares, default=1.0)], nticks=6)
    figure.update_yaxes(autorange="reversed")
    return figure


def energy_kind_figure(data: StackData) -> go.Figure:
    """A bar per kind of operator, divided up by component, with its total behind it."""
    factor, unit = fraction_of(max(data.totals_j, default=0.0), "J")
    figure = _stack_figure(data, "h", factor)
    figure.add_bar(
        orientation="h",
        x=[0.0] * len(data.groups),
        y=list(data.groups),
        text=[fractional(total, "J") for total in data.totals_j],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    longest = max(data.totals_j, default=0.0) / factor or 1.0
    figure.update_xaxes(title_text=unit, range=[0, 1.4 * longest], nticks=5)
    figure.update_yaxes(autorange="reversed")
    return figure


def energy_layer_figure(data: StackData) -> go.Figure:
    """A column per layer in program order, divided up by component."""
    factor, unit = fraction_of(max(data.totals_j, default=0.0), "J")
    figure = _stack_figure(data, "v", factor)
    figure.update_layout(height=340)
    figure.update_xaxes(showgrid=False, type="category", tickangle=-60, nticks=24)
    figure.update_yaxes(title_text=unit, showgrid=True)
    return figure


def _stack_figure(data: StackData, orientation: str, factor: float) -> go.Figure:
    """The stacks, drawn in units of `factor` joules."""
    figure = blank_figure(rows=len(data.groups), legend=False)
    for component, color in zip(data.components, component_colors(data.components), strict=True):
        energy = data.energy_j[component]
        name = component_name(component)
        amounts, groups = [part / factor for part in energy], list(data.groups)
        across = orientation == "h"
        figure.add_bar(
            name=name,
            orientation=orientation,
            x=amounts if across else groups,
            y=groups if across else amounts,
            marker={"color": color, "line": {"width": 0}},
            customdata=[
                f"{fractional(part, 'J')} of {fractional(whole, 'J')}"
                for part, whole in zip(energy, data.totals_j, strict=True)
            ],
            hovertemplate=f"{name}<br>%{{customdata}}<extra>%{{{'y' if across else 'x'}}}</extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.25)
    return figure
