"""One self-contained HTML page about a study: works offline; the same study gives the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from pathlib import Path

import plotly.graph_objects as go

from tilewright.description.errors import InputError
from tilewright.explore.pages import figure_data, figures, study_figures
from tilewright.explore.pages.page import READINGS as RUN_READINGS
from tilewright.explore.pages.pieces import cells, key_figures_html, plot_html
from tilewright.explore.pages.study_page import PAGE, POINT_PANEL, PRESETS, READINGS, SCRIPT, STUDY_CSS
from tilewright.explore.study import data as study_data
from tilewright.explore.study import importance as study_importance
from tilewright.explore.study.compare import Comparison, comparison
from tilewright.explore.study.fpga_text import FrontFpga, front_fpga
from tilewright.explore.study.points import (
    arch_overrides,
    point_facts,
    point_yaml,
)
from tilewright.explore.study.presets import Presets, find_presets
from tilewright.explore.study.runs import Tell, kept_result
from tilewright.explore.study.view import POINT, StudyView, text_of, title_of
from tilewright.sim.result import Result

MOST_YAML = 200
"""Points of the front whose YAML the page carries."""
_TABLE_ROWS = 60


def write_study_report(view: StudyView, path: str | Path, tell: Tell = lambda _: None) -> None:
    """Write the page of `view` to `path` (HTML, about 5 MB: it carries plotly.js).

    Shipped machines are simulated beside the front, and the knee once more for its timeline and roofline;
    what came of it is kept in the study's folder. `tell` hears of each run before it begins.
    """
    Path(path).write_text(study_html(view, tell), encoding="utf-8", newline="\n")


def study_html(view: StudyView, tell: Tell = lambda _: None) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    presets = find_presets(view, tell=tell)
    fronts = front_panels(view, presets.figures)
    shown = [front for _, front in fronts]
    parts = [
        _front_html(fronts, presets), _table_html(view), _overview_html(view), _comparison_section(view),
        _knee_html(view, tell), _failures_html(view),
    ]  # fmt: skip
    work = (" or " if view.choices else ", ").join(view.labels)
    return PAGE.format(
        title=escape(view.name), css=STUDY_CSS, plotlyjs=get_plotlyjs(),
        lead=escape(f"{work} on changes of {Path(view.accelerator).name}, {view.fidelity} fidelity"),
        key_figures=key_figures_html(key_figures(view)), sections="".join(parts),
        provenance=_facts_html(view), points=_points_json(view, shown), script=SCRIPT,
    )  # fmt: skip


def front_panels(
    view: StudyView, presets: Mapping[str, Mapping[str, float]]
) -> list[tuple[str, study_data.FrontData]]:
    """A front for each pair of objectives, at most three, with the ends of their ids."""
    pairs = list(combinations(range(len(view.objectives)), 2))[:3] or [(0, 0)]
    return [(f"{x}-{y}", study_data.front_data(view, x, y, presets)) for x, y in pairs]


def key_figures(view: StudyView) -> list[tuple[str, str, str]]:
    """The headline numbers: name, figure, remark."""
    bounds = int((~view.confirmed).sum())
    spare = [f"{bounds:,} bounds"] * bool(bounds) + [f"{len(view.failures):,} failed"] * bool(view.failures)
    cards = [
        ("points", f"{int(view.confirmed.sum()):,}", ", ".join(spare)),
        ("on the front", f"{int(view.on_front.sum()):,}", ""),
    ]
    for number, objective in enumerate(view.objectives):
        row = view.best(number)
        if row is not None:
            knee = (
                ""
                if view.knee is None
                else f"{text_of(objective.name, view.number(view.knee, objective.name))} at the knee"
            )
            cards.append(
                (
                    f"best {title_of(objective.name)}",
                    text_of(objective.name, view.number(row, objective.name)),
                    knee,
                )
            )
    return cards


def _section(id_: str, title: str, reading: str, body: str, css: str = "") -> str:
    return (
        f'<section id="{id_}" class="{css}"><h2>{escape(title)}</h2>'
        f'<p class="reading">{escape(reading)}</p>{body}</section>\n'
    )


def _front_html(fronts: Sequence[tuple[str, study_data.FrontData]], presets: Presets) -> str:
    plots = "".join(plot_html(study_figures.front_figure(data), f"front-{id_}") for id_, data in fronts)
    remarks = front_remarks([data for _, data in fronts], presets)
    notes = f'<p class="reading">{escape(remarks)}</p>' if remarks else ""
    return _section("front", *READINGS["front"], plots + notes + POINT_PANEL, "front")


def front_remarks(fronts: Sequence[study_data.FrontData], presets: Presets) -> str:
    """What stands below the front: which machines there are, which there are not, what is not drawn."""
    work = f" ({presets.work}; other points run other work)" if presets.work else ""
    remarks = [PRESETS.format(work=work)] * any(not mark.point for data in fronts for mark in data.marks)
    beyond = list(dict.fromkeys(text for data in fronts for text in data.beyond))
    remarks += [f"Off the figure: {', '.join(beyond)}."] * bool(beyond)
    remarks += [f"Without {name}, which can't run it: {why}." for name, why in presets.refused.items()]
    remarks += ["Shipped machines are being run for comparison."] * presets.missing
    left_out = max(data.left_out for data in fronts)
    remarks += [f"{left_out:,} dominated points that lie on others are left out."] * bool(left_out)
    return " ".join(remarks)


def _table_html(view: StudyView) -> str:
    rows = view.front_rows
    fpga = front_fpga(view.fpga, [arch_overrides(view, row) for row in rows])
    heads = [
        "point",
        *(title_of(o.name) for o in view.objectives),
        *(title_of(key) for key in view.parameters),
        *(fpga.heads if fpga else ()),
    ]
    numbers = ["", *["n"] * (len(heads) - 1)]
    lines = []
    for place, row in enumerate(rows[:_TABLE_ROWS]):
        values = view.values(row)
        point = str(view.frame[POINT].iloc[row])
        name = f"{point} (knee)" if row == view.knee else point
        texts = [name, *(text_of(o.name, view.number(row, o.name)) for o in view.objectives)]
        texts += [str(values.get(key, "")) for key in view.parameters]
        texts += fpga.rows[place] if fpga else ()
        lines.append(f'<tr data-point="{escape(point)}">{cells("td", texts, numbers)}</tr>')
    more = len(rows) - _TABLE_ROWS
    note = f'<p class="reading">{more:,} more are in the figure.</p>' if more > 0 else ""
    table = f'<div class="scroll"><table><tr>{cells("th", heads, numbers)}</tr>{"".join(lines)}</table></div>'
    return _section(
        "table",
        "Points on the front",
        "Best in the first objective first. Click on a row to see it above.",
        table + note + _fpga_notes(fpga),
    )


def _fpga_notes(fpga: FrontFpga | None) -> str:
    if fpga is None:
        return ""
    notes = "".join(f'<p class="reading">{escape(note)}</p>' for note in fpga.notes)
    commands = "\n".join(fpga.commands)
    return notes + (f'<pre class="command">{escape(commands)}</pre>' if commands else "")


def _overview_html(view: StudyView) -> str:
    importance = study_importance.importance_data(view)
    parallel = study_data.parallel_data(view)
    tradeoffs = study_data.tradeoff_data(view)
    parts = [
        ("progress", plot_html(study_figures.progress_figure(study_data.progress_data(view)), "progress"))
    ]
    if importance.parameters:
        swings = study_figures.swing_figure(study_importance.swing_data(view))
        parts = [
            ("importance", plot_html(study_figures.importance_figure(importance), "importance")),
            ("swing", plot_html(swings, "swing")), *parts,
        ]  # fmt: skip
    if parallel.front:
        plot = plot_html(study_figures.parallel_figure(parallel), "parallel")
        least = 110 * len(parallel.axes)
        parts = [
            (
                "parallel",
                f'<div class="scroll"><div class="wide" style="--least:{least}px">{plot}</div></div>',
            ),
            *parts,
        ]
    if tradeoffs.workloads and tradeoffs.points:
        parts.append(("tradeoffs", plot_html(study_figures.tradeoff_figure(tradeoffs), "tradeoffs")))
    return "".join(_section(id_, *READINGS[id_], body) for id_, body in parts)


def _comparison_section(view: StudyView) -> str:
    """The knee against the best in each objective."""
    if view.knee is None:
        return ""
    chosen = {view.knee: "knee"}
    for number, objective in enumerate(view.objectives):
        row = view.best(number)
        if row is not None and row not in chosen:
            chosen[row] = f"best {title_of(objective.name)}"
    if len(chosen) < 2:
        return ""
    body = comparison_html(comparison(view, list(chosen), list(chosen.values())), "compare")
    return _section(
        "compare",
        "Why one is better than another",
        "The knee beside the best in each objective: where their cycles, joules and square millimetres go.",
        body,
    )


def comparison_html(data: Comparison, id_: str) -> str:
    """Tables of what differs, a sentence for each difference, a stacked bar for each quantity."""
    numbers = ["", *["n"] * len(data.names)]
    heads = cells("th", ["", *data.names], numbers)
    rows = "".join(
        f"<tr>{cells('td', [title, *texts], numbers)}</tr>"
        for title, texts in (*data.objectives, *data.parameters)
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in data.reasons)
    plots = "".join(
        f"<h3>{escape(title_of(each.quantity))}</h3>{legend_html(study_figures.breakdown_legend(each))}"
        + plot_html(study_figures.breakdown_figure(each), f"{id_}-{each.quantity}")
        for each in data.breakdowns
    )
    table = f'<div class="scroll"><table><tr>{heads}</tr>{rows}</table></div>'
    return f'{table}<ul class="reasons">{reasons}</ul>{plots}'


def legend_html(entries: Sequence[tuple[str, str]]) -> str:
    """A legend that wraps on a phone."""
    items = (f'<span><i style="background:{color}"></i>{escape(name)}</span>' for name, color in entries)
    return f'<p class="legend">{"".join(items)}</p>'


def _knee_html(view: StudyView, tell: Tell) -> str:
    """Timeline and roofline of the knee, on the workload that takes most of its time."""
    if view.knee is None or not view.workloads:
        return ""
    workload = max(view.workloads, key=lambda w: w.weight)
    try:
        result = kept_result(view, view.knee, workload, tell)
    except InputError as error:
        reason = "; ".join(str(problem) for problem in error.problems)
        return _section("knee", "The knee by itself", f"It could not be run again: {reason}", "")
    drawn, label = run_figures(result), view.run_by(view.knee, workload).label
    return "".join(
        _section(
            f"knee-{id_}", f"The knee: {RUN_READINGS[id_][0].lower()}",
            f"{label}. {RUN_READINGS[id_][1]}", plot_html(figure, f"knee-{id_}"),
        )
        for id_, figure in drawn.items()
    )  # fmt: skip


def run_figures(result: Result) -> dict[str, go.Figure]:
    """The figures of one run that a point shows."""
    return {
        "timeline": figures.timeline_figure(figure_data.timeline_data(result)),
        "roofline": figures.roofline_figure(figure_data.roofline_data(result)),
    }


def _failures_html(view: StudyView) -> str:
    if not view.failures:
        return ""
    rows = "".join(
        f'<tr><td class="wrap">{escape(point)}</td><td class="wrap error">{escape(error)}</td></tr>'
        for point, error in view.failures[:_TABLE_ROWS]
    )
    return _section(
        "failures", "Points that failed", f"{len(view.failures):,} in all.", f"<table>{rows}</table>"
    )


def _facts_html(view: StudyView) -> str:
    facts = {
        "accelerator": Path(view.accelerator).name,
        "workloads": "\n".join(
            f"{w.weight:g} x {' | '.join(view.choices) or w.workload} {' '.join(w.overrides)}".strip()
            for w in view.workloads
        ),
        "objectives": ", ".join(f"{o.goal} {o.name}" for o in view.objectives),
        **view.facts,
    }
    parts = []
    for key, value in facts.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        body = f"<pre>{escape(text)}</pre>" if "\n" in text else f"<code>{escape(text)}</code>"
        parts.append(f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{body}</dd>")
    return f'<dl class="provenance">{"".join(parts)}</dl>'


def _points_json(view: StudyView, fronts: Sequence[study_data.FrontData]) -> str:
    """What the page tells of each point that can be clicked, as JSON that is safe within a script element."""
    groups = [g for data in fronts for g in (data.front, data.others, data.bounds, data.excluded)]
    names = dict.fromkeys(name for group in groups for name in group.point)
    with_yaml = set(view.front_rows[:MOST_YAML])
    told = {}
    for name in names:
        row = view.row_of(name)
        if row is not None:
            told[name] = point_facts(view, row)
            if row in with_yaml:
                told[name]["yaml"] = point_yaml(view, row)
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
