"""What the dashboard tells of FPGAs: below a point that was chosen, and of the front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import html

from tilewright.explore.study.fpga_text import front_fpga
from tilewright.explore.study.points import arch_overrides
from tilewright.explore.study.view import POINT, StudyView, text_of, title_of

_TITLE = "The front on FPGAs"
_READING = "Best in the first objective first: what each point's attention unit takes."
_ROWS = 60


def fpga_parts(facts: Mapping[str, Any]) -> list[Any]:
    """Of one point, by `point_facts`; nothing in a study without units."""
    fpga = facts.get("fpga")
    if fpga is None:
        return []
    tables = [
        html.Div([html.H3(device), _table([], rows.items())]) for device, rows in fpga["tables"].items()
    ]
    notes = [html.P(note, className="reading") for note in fpga["notes"]]
    command = [html.Pre(fpga["command"], className="command")] if fpga["command"] else []
    return [html.H3("On FPGAs"), html.Div(tables, className="pair"), *notes, *command]


def fpga_section(view: StudyView) -> list[Any]:
    """The front's points, beside their objectives; nothing in a study without units or without a front."""
    rows = view.front_rows
    fpga = front_fpga(view.fpga, [arch_overrides(view, row) for row in rows])
    if fpga is None or not rows:
        return []
    parts: list[Any] = [html.H2(_TITLE), html.P(_READING, className="reading")]
    if fpga.heads:
        heads = ["point", *(title_of(o.name) for o in view.objectives), *fpga.heads]
        lines = [
            (str(view.frame[POINT].iloc[row]),
             *(text_of(o.name, view.number(row, o.name)) for o in view.objectives), *cells)
            for row, cells in zip(rows[:_ROWS], fpga.rows, strict=False)
        ]  # fmt: skip
        parts.append(html.Div(_table(heads, lines), className="scroll"))
    parts += [html.P(note, className="reading") for note in fpga.notes]
    parts += [html.Pre("\n".join(fpga.commands), className="command")] * bool(fpga.commands)
    return [html.Section(parts, id="fpga")]


def _table(heads: list[str], lines: Any) -> Any:  # noqa: ANN401 - Dash has no types
    """The first column to the left, and the others to the right."""
    head = [html.Tr([html.Th(text, className="n" if place else "") for place, text in enumerate(heads)])]
    body = [
        html.Tr([html.Td(text, className="n" if place else "wrap") for place, text in enumerate(line)])
        for line in lines
    ]
    return html.Table([*([html.Thead(head)] if heads else []), html.Tbody(body)])
