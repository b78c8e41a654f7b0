"""What the dashboard does when something is clicked, or the study has grown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dash import Input, Output, State, ctx, html, no_update

from tilewright.description.errors import InputError
from tilewright.explore.pages import dashboard_layout as page
from tilewright.explore.pages import study_figures
from tilewright.explore.pages.page import READINGS
from tilewright.explore.pages.study_report import front_remarks, run_figures
from tilewright.explore.study import data as study_data
from tilewright.explore.study.compare import comparison
from tilewright.explore.study.points import point_facts, point_yaml
from tilewright.explore.study.view import POINT, StudyView

if TYPE_CHECKING:
    import dash

    from tilewright.explore.pages.dashboard import LiveStudy

SLOTS = ("A", "B")
Chosen = dict[str, str]


def connect(app: dash.Dash, study: LiveStudy) -> None:
    """Register the callbacks."""
    _connect_study(app, study)
    _connect_points(app, study)


def _connect_study(app: dash.Dash, study: LiveStudy) -> None:
    @app.callback(Output("version", "data"), Input("tick", "n_intervals"), State("version", "data"))
    def _look(_ticks: int | None, seen: str | None) -> Any:  # noqa: ANN401
        version = study.version
        return no_update if version == seen else version

    @app.callback(
        Output("cards", "children"), Output("lead", "children"), Output("overview", "children"),
        Input("version", "data"),
    )  # fmt: skip
    def _refresh(_version: str | None) -> Any:  # noqa: ANN401
        view = study.view()
        failed = f", {len(view.failures):,} failed" if view.failures else ""
        lead = f"{len(view.frame):,} points so far{failed}, {view.fidelity} fidelity"
        return page.cards(view), lead, page.overview(view)

    @app.callback(
        Output("front-plot", "figure"), Output("front-remarks", "children"),
        Input("version", "data"), Input("x", "value"), Input("y", "value"), Input("chosen", "data"),
    )  # fmt: skip
    def _front(_version: str | None, x: int, y: int, chosen: Chosen) -> Any:  # noqa: ANN401
        view = study.view()
        known = range(len(view.objectives))
        presets = study.presets()
        data = study_data.front_data(view, x if x in known else 0, y if y in known else 0, presets.figures)
        rings = [(slot, chosen[slot]) for slot in SLOTS if slot in chosen]
        return study_figures.front_figure(data, rings), front_remarks([data], presets)


def _connect_points(app: dash.Dash, study: LiveStudy) -> None:
    @app.callback(
        Output("chosen", "data"),
        Input("front-plot", "clickData"), State("slot", "value"), State("chosen", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    def _choose(click: dict[str, Any] | None, slot: str, chosen: Chosen) -> Any:  # noqa: ANN401
        name = clicked(click)
        if slot not in SLOTS or study.view().row_of(name) is None:
            return no_update
        return {**chosen, slot: name}

    @app.callback(
        Output("panel", "children"), Output("compare", "children"), Input("chosen", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    def _panel(chosen: Chosen) -> Any:  # noqa: ANN401
        rows = chosen_rows(study.view(), chosen)
        return (
            (_point(study.view(), rows), _comparison(study.view(), rows)) if rows else (no_update, no_update)
        )

    @app.callback(
        Output("run", "children"), Input("chosen", "data"), Input("workload", "value"),
        prevent_initial_call=True,
    )  # fmt: skip
    def _run(chosen: Chosen, workload: int) -> Any:  # noqa: ANN401
        name = chosen.get("A") or chosen.get("B")
        if name is None or workload not in range(len(study.view().workloads)):
            return no_update
        return _runs(study, name, workload)

    @app.callback(
        Output("download", "data"), Input("save", "n_clicks"), State("chosen", "data"),
        prevent_initial_call=True,
    )  # fmt: skip
    def _save(clicks: int | None, chosen: Chosen) -> Any:  # noqa: ANN401
        rows = chosen_rows(study.view(), chosen)
        if not clicks or not rows or ctx.triggered_id != "save":
            return no_update
        view, row = study.view(), next(iter(rows.values()))
        name = f"point-{view.frame[POINT].iloc[row]}.yaml"
        return {"content": point_yaml(view, row), "filename": name, "type": "application/yaml"}


def clicked(click: dict[str, Any] | None) -> str:
    """The point of a click; empty where there is none (a preset, the background)."""
    points = (click or {}).get("points") or [{}]
    name = points[0].get("customdata", "")
    return name if isinstance(name, str) else ""


def chosen_rows(view: StudyView, chosen: Chosen) -> dict[str, int]:
    """Rows of the chosen points that the study has, A first."""
    found = {slot: view.row_of(str(chosen[slot])) for slot in SLOTS if slot in chosen}
    return {slot: row for slot, row in found.items() if row is not None}


def _point(view: StudyView, rows: dict[str, int]) -> list[Any]:
    slot, row = next(iter(rows.items()))
    try:
        yaml = point_yaml(view, row)
    except InputError as error:
        yaml = "\n".join(f"# {problem}" for problem in error.problems)
    parts = (
        page.breakdown_parts(comparison(view, [row], [f"point {slot}"]), "point") if len(rows) == 1 else []
    )
    return [html.H2("The point"), *page.point_panel(point_facts(view, row), yaml), *parts]


def _comparison(view: StudyView, rows: dict[str, int]) -> list[Any]:
    if len(rows) < 2:
        return []
    return [page.comparison_section(comparison(view, list(rows.values()), list(rows)))]


def _runs(study: LiveStudy, name: str, workload: int) -> list[Any]:
    try:
        result = study.result(name, workload)
    except InputError as error:
        told = "; ".join(str(problem) for problem in error.problems)
        return [page.section("run-error", "Not run again", "", [html.P(told, className="error")])]
    if result is None:
        return []
    view = study.view()
    row = view.row_of(name)
    label = "" if row is None else view.run_by(row, view.workloads[workload]).label
    return [
        page.section(
            f"run-{id_}", f"Point {name}: {READINGS[id_][0].lower()}", f"{label}. {READINGS[id_][1]}",
            [page.drawn(f"run-{id_}-plot", figure)],
        )
        for id_, figure in run_figures(result).items()
    ]  # fmt: skip
