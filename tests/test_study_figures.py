"""What is known of a study: its view, the data of its figures, its page."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tilewright.arch.load import load_accelerator
from tilewright.cli import ExitCode, execute
from tilewright.explore.evaluation.evaluate import Base, Outcome, evaluate_chunk
from tilewright.explore.pages import study_figures
from tilewright.explore.pages.study_report import study_html
from tilewright.explore.study import data as study_data
from tilewright.explore.study import importance as study_importance
from tilewright.explore.study import presets as study_presets
from tilewright.explore.study.compare import comparison
from tilewright.explore.study.opened import open_view, stamp
from tilewright.explore.study.points import (
    point_accelerator,
    point_command,
    point_result,
    point_yaml,
)
from tilewright.explore.study.presets import find_presets
from tilewright.explore.study.study import Study
from tilewright.explore.study.view import (
    POINT,
    Objective,
    StudyView,
    StudyWorkload,
    axis_of,
    text_of,
    title_of,
)
from tilewright.explore.sweep.store import FILE, NO_SPACE
from tilewright.sim.run import Options, simulate
from tilewright.workloads.load import load_workload


@pytest.fixture
def view(study_folder: Path) -> StudyView:
    return open_view(study_folder)


def made_up(costs: list[tuple[float, ...]], **columns: Sequence[Any]) -> StudyView:
    """A study with objectives `latency_s`, `energy_j.total`, … and given parameters."""
    names = ("latency_s", "energy_j.total", "area_mm2.total")[: len(costs[0])]
    frame = pd.DataFrame(costs, columns=names)
    frame[POINT] = [str(n) for n in range(len(costs))]
    frame["fidelity"] = "event"
    for key, values in columns.items():
        frame[key.replace("__", ".")] = list(values)
    parameters = tuple(key.replace("__", ".") for key in columns if key.startswith("arch"))
    work = (StudyWorkload("w", "encoder_block"),)
    return StudyView("s", "gemmini-default", work, parameters, tuple(Objective(n) for n in names), frame)


def test_a_folder_is_read_as_it_was_stored(view: StudyView) -> None:
    """Every point is a row under its number in the store; those that break a constraint are on no front."""
    assert len(view.frame) == 20
    assert view.facts["points_by_status"] == {"analytic done": 20, "analytic pruned": 4}
    assert view.parameters == ("arch.array.rows", "arch.array.cols", "arch.clock_mhz", "arch.array.dataflow")
    assert view.fidelity == "analytic"
    front = view.front_rows
    assert front
    assert all(view.number(row, "area_mm2.total") < 0.42 for row in front)
    assert view.knee in front
    assert [view.row_of(str(view.frame[POINT].iloc[row])) for row in front] == front


def test_the_front_is_the_studys_own(view: StudyView, study_folder: Path) -> None:
    """`Study.front()` and the page agree on what is on it."""
    own = Study(study_folder).front()
    assert sorted(own["point"].astype(str)) == sorted(view.frame[POINT].iloc[view.front_rows])


def test_a_stamp_changes_with_a_row_only(study_folder: Path) -> None:
    """Reading leaves the stamp alone, so that a dashboard does not read again and again."""
    before = stamp(study_folder)
    open_view(study_folder)
    assert stamp(study_folder) == before != ""


def test_bounds_and_excluded_points_are_on_no_front() -> None:
    """Beside an event row, an analytic one is a bound; what breaks a constraint beats nobody."""
    view = made_up([(1.0, 1.0), (2.0, 2.0), (0.5, 0.5)])
    view.frame["fidelity"] = ["analytic", "event", "event"]
    view.frame["feasible"] = [True, True, False]
    assert view.front_rows == [1]
    data = study_data.front_data(view)
    assert (data.bounds.point, data.front.point, data.excluded.point) == (("0",), ("1",), ("2",))


def test_maximized_objectives_count_the_other_way() -> None:
    """More tokens per second is better, and figures keep their sign."""
    view = made_up([(1.0, 5.0), (2.0, 9.0), (3.0, 7.0)])
    view = replace(view, objectives=(Objective("latency_s"), Objective("energy_j.total", maximize=True)))
    assert view.front_rows == [0, 1]
    assert view.best(1) == 1
    assert study_data.front_data(view).front.y == (5.0, 9.0)


def test_many_points_are_thinned_and_the_front_is_not() -> None:
    """A figure of 50,000 points shows all of the front, and says how many others it leaves out."""
    costs = np.random.default_rng(2).random((50_000, 2)) + 0.1
    data = study_data.front_data(made_up([tuple(row) for row in costs.tolist()]))
    assert len(data.others.x) <= study_data.MOST_POINTS
    assert len(data.front.x) + len(data.others.x) + data.left_out == 50_000
    assert list(data.front.x) == sorted(data.front.x)


def test_progress_only_rises_and_ends_at_the_front() -> None:
    """Hypervolume of the points so far, by hand: the corner (0, 0) conquers everything."""
    data = study_data.progress_data(made_up([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0), (0.0, 0.0)]))
    assert data.evaluated == (1, 2, 3, 4)
    assert list(data.share) == sorted(data.share)
    assert data.share[0] == pytest.approx(0.05 * 1.05 / 1.05**2)
    assert data.share[-1] == pytest.approx(1.0)


def test_importance_finds_what_makes_the_difference() -> None:
    """Rows decide latency, columns decide energy, the third parameter nothing: omega squared says so."""
    grid = [(r, c, n) for r in (1, 2, 4, 8) for c in (1, 2, 4, 8) for n in ("x", "y", "z")]
    view = made_up(
        [(float(r), float(c)) for r, c, _ in grid],
        arch__rows=[r for r, _, _ in grid], arch__cols=[c for _, c, _ in grid],
        arch__name=[n for *_, n in grid],
    )  # fmt: skip
    data = study_importance.importance_data(view)
    shares = {
        o: dict(zip(data.parameters, row, strict=True))
        for o, row in zip(data.objectives, data.explained, strict=True)
    }
    assert shares["latency"] == pytest.approx({"rows": 1.0, "cols": 0.0, "name": 0.0})
    assert shares["energy"] == pytest.approx({"rows": 0.0, "cols": 1.0, "name": 0.0})
    assert data.parameters[-1] == "name"
    if data.top is not None:
        assert data.top[-1] == min(data.top)


def test_noise_explains_nothing() -> None:
    """A parameter without influence gets about nothing, however many values it has."""
    rng = np.random.default_rng(3)
    view = made_up([(x,) for x in rng.random(400).tolist()], arch__noise=rng.integers(0, 40, 400).tolist())
    (shares,) = study_importance.importance_data(view).explained
    assert shares[0] < 0.03


def test_swings_are_ratios_to_the_mean() -> None:
    """Latency 1 at one value and 4 at the other: half and twice the geometric mean."""
    view = made_up([(1.0,), (4.0,), (1.0,), (4.0,)], arch__rows=[8, 4, 8, 4])
    (swing,) = study_importance.swing_data(view)
    assert swing.levels == ("4", "8")
    assert swing.ratios == pytest.approx((2.0, 0.5))


def test_many_values_are_grouped() -> None:
    """A random parameter is cut into equally full ranges, which are named by their ends."""
    view = made_up([(float(n),) for n in range(1, 81)], arch__rows=list(range(1, 81)))
    (swing,) = study_importance.swing_data(view)
    assert len(swing.levels) == study_importance.LEVELS
    assert (swing.levels[0], swing.levels[-1]) == ("1 to 10", "71 to 80")


def test_parallel_coordinates_hold_names_and_numbers(view: StudyView) -> None:
    """Names stand at 0, 1, …; what doesn't vary has no axis; the front is there whole."""
    data = study_data.parallel_data(view)
    titles = [axis.title for axis in data.axes]
    assert titles[:4] == ["array.rows", "array.cols", "clock_mhz", "array.dataflow"]
    assert data.axes[3].labels == ("output_stationary", "weight_stationary")
    assert sum(data.front) == len(view.front_rows)
    assert {len(axis.values) for axis in data.axes} == {len(data.front)}


def test_tradeoffs_are_against_each_workloads_best(view: StudyView) -> None:
    """Nobody is better than the best, and a study of one workload has none."""
    data = study_data.tradeoff_data(view)
    assert data.workloads == ("short", "long")
    assert all(times >= 1 for row in data.times_best for times in row)
    assert min(data.times_best[1]) == 1
    assert study_data.tradeoff_data(made_up([(1.0, 1.0)])).workloads == ()


def test_a_comparison_adds_up_and_gives_reasons(view: StudyView) -> None:
    """Parts of time, energy and area add up to the objectives' figures; the reasons name both points."""
    a, b = view.front_rows[0], view.front_rows[-1]
    data = comparison(view, [a, b], ["fast", "small"])
    totals = {each.quantity: each.totals for each in data.breakdowns}
    for quantity, key in (
        ("latency_s", "latency_s"),
        ("energy_j", "energy_j.total"),
        ("area_mm2", "area_mm2.total"),
    ):
        assert totals[quantity] == pytest.approx([view.number(row, key) for row in (a, b)])
    assert len(data.reasons) == 3
    ratio = totals["latency_s"][1] / totals["latency_s"][0]
    assert data.reasons[0].startswith(f"small takes {ratio:.2f} times the time of fast: busy +")
    assert all(len(set(texts)) > 1 for _, texts in data.parameters)


def test_equal_points_have_equal_reasons(view: StudyView) -> None:
    """A point beside itself differs in nothing."""
    data = comparison(view, [0, 0], ["a", "b"])
    assert data.parameters == ()
    assert data.reasons[0] == "b takes the same time as a."


def test_a_point_leads_back_to_its_machine(view: StudyView, tmp_path: Path) -> None:
    """Its YAML is an accelerator with the point's values; its run gives the figures of its row."""
    row = view.front_rows[0]
    file = tmp_path / "point.yaml"
    file.write_text(point_yaml(view, row))
    machine = load_accelerator(file)
    assert machine == point_accelerator(view, row)
    assert machine.array.rows == view.values(row)["arch.array.rows"]
    for workload in view.workloads:
        again = point_result(view, row, workload)
        assert again.latency_s == pytest.approx(view.number(row, f"{workload.label}:latency_s"))


def test_the_command_of_a_point_runs_it(view: StudyView, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page says to type gives the row's latency."""
    row = view.front_rows[-1]
    words = point_command(view, row, view.workloads[0]).split()[1:]
    assert execute([*words, "--format", "json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["latency_s"] == pytest.approx(
        view.number(row, "short:latency_s")
    )


def test_presets_of_the_knees_size_are_beside_the_front(view: StudyView) -> None:
    """The nearest machine to a change of Gemmini is no server; its figures are those of running the study's
    own work, weighted, at the study's fidelity."""
    found = find_presets(replace(view, folder=None), 2).figures
    assert len(found) == 2
    assert "many-core-server" not in found
    data = study_data.front_data(view, presets=found)
    shown = [mark.name for mark in data.marks] + [text.partition(" (")[0] for text in data.beyond]
    assert sorted(shown) == sorted(["knee", *found])
    for name, figures in found.items():
        machine, latency_s = load_accelerator(name), 0.0
        for each in view.workloads:
            graph = load_workload(each.workload, each.overrides)
            latency_s += each.weight * simulate(graph, machine, Options("analytic")).latency_s
        assert figures["latency_s"] == pytest.approx(latency_s, rel=1e-12)


def test_presets_are_run_once(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept in the study, as no point of it, refusals included."""
    shutil.copytree(study_folder, tmp_path / "study")
    with sqlite3.connect(tmp_path / "study" / FILE) as db:  # what other tests had run
        db.execute("DELETE FROM points WHERE space = ?", (NO_SPACE,))
    view = open_view(tmp_path / "study")
    assert find_presets(view, run=False).missing
    failing = study_presets.nearest_presets(view)[0]

    def tried(base: Base, *rest: Any) -> list[Outcome]:  # noqa: ANN401
        if base.accelerator == failing:
            return [Outcome("failed", None, "no tile fits", 0.0)]
        return evaluate_chunk(base, *rest)

    monkeypatch.setattr(study_presets, "evaluate_chunk", tried)
    first = find_presets(view)
    assert first.refused == {failing: "no tile fits"}
    assert failing not in first.figures
    monkeypatch.setattr(study_presets, "evaluate_chunk", None)
    assert find_presets(view) == find_presets(view, run=False) == first
    assert len(open_view(tmp_path / "study").frame) == len(view.frame)
    assert f"Without {failing}, which can&#x27;t run it: no tile fits." in study_html(view)


def test_presets_need_a_front(view: StudyView) -> None:
    """Where no point is on the front, there is nothing to compare with."""
    nothing = study_presets.Presets({}, {}, missing=False)
    assert find_presets(replace(view, frame=view.frame.iloc[:0])) == nothing


def test_a_preset_far_away_does_not_own_the_figure() -> None:
    """It is told in words; one that is near is drawn."""
    view = made_up([(1.0, 2.0), (2.0, 1.0)])
    near, far = {"latency_s": 2.4, "energy_j.total": 1.0}, {"latency_s": 9.0, "energy_j.total": 1.0}
    data = study_data.front_data(view, presets={"near": near, "far": far})
    assert [mark.name for mark in data.marks] == ["knee", "near"]
    assert data.beyond == ("far (9 s, 1 J)",)


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("latency_s", "latency"), ("energy_j.total", "energy"), ("area_mm2.total", "area"),
        ("arch.array.rows", "array.rows"), ("workload.attention.kind", "attention.kind"),
        ("edp_js", "energy-delay product"), ("tokens_per_s", "tokens per second"),
        ("long:latency_s", "latency of long"), ("energy_j.dram", "energy.dram"), ("cycles", "cycles"),
    ],
)  # fmt: skip
def test_keys_have_titles(key: str, title: str) -> None:
    """What people read in the place of a key."""
    assert title_of(key) == title


def test_figures_have_units() -> None:
    """Numbers are written in the unit that fits them."""
    assert text_of("latency_s", 0.00123) == "1.23 ms"
    assert text_of("area_mm2.total", 0.42) == "0.42 mm²"
    assert text_of("utilization", 0.5) == "50.0 %"
    assert text_of("cycles", 1_234_567) == "1.23 M"
    assert text_of("latency_s", float("nan")) == "none"
    assert axis_of("latency_s", np.array([0.001, 0.004])) == (1e-3, "latency (ms)")


def test_ticks_of_logarithmic_axes_are_whole_numbers() -> None:
    """1, 2 and 5 of every decade around the values."""
    ticks = study_figures.log_ticks([3.0, 60.0])["ticktext"]
    assert ticks == ["0.1", "0.2", "0.5", "1", "2", "5", "10", "20", "50", "100", "200", "500"]


def test_the_page_is_the_same_each_time(view: StudyView, study_folder: Path) -> None:
    """Byte for byte, from the same folder."""
    assert study_html(view) == study_html(open_view(study_folder))


class _Page(HTMLParser):
    """What a page asks for, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.asked += [f"{tag} {found[name]}" for name in ("src", "href") if found.get(name)]
        self.ids += [found["id"] or ""] if "id" in found else []


def test_the_page_asks_for_nothing_and_escapes_names(view: StudyView) -> None:
    """No address is fetched, ids are unique, markup in a name is text, every clickable point is told."""
    page = study_html(replace(view, name="<script>alert(1)</script>"))
    parser = _Page()
    parser.feed(page)
    assert parser.asked == ["link data:,"]
    assert len(parser.ids) == len(set(parser.ids))
    assert "<script>alert" not in page
    found = re.search(r'<script type="application/json" id="points">(.*?)</script>', page, re.DOTALL)
    assert found
    points = json.loads(found[1])
    assert points.keys() == set(view.frame[POINT])
    best = points[str(view.frame[POINT].iloc[view.front_rows[0]])]
    assert "rows: " in best["yaml"]
    assert best["commands"][0].startswith("tilewright run gemmini-default encoder_block arch.array.rows=")


def test_an_empty_study_has_a_page(view: StudyView) -> None:
    """A sweep that has only begun, or of which all failed, is a page without a front, not an error."""
    page = study_html(replace(view, frame=view.frame.iloc[:0], failures=(("arch.array.rows=0", "too few"),)))
    assert "too few" in page
    assert "on the front" in page


def test_report_takes_a_folder(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tilewright report DIR`; a folder without a study is told, and no page appears."""
    page = tmp_path / "page.html"
    assert execute(["report", str(study_folder), "-o", str(page)]) == ExitCode.OK
    assert "Pareto front" in page.read_text()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert execute(["report", str(empty), "-o", str(tmp_path / "none.html")]) == ExitCode.BAD_INPUT
    assert re.search(
        rf"^error: {re.escape(str(empty))}: no study here", capsys.readouterr().err, re.MULTILINE
    )
    assert not (tmp_path / "none.html").exists()


def test_every_figure_can_be_drawn(view: StudyView) -> None:
    """Each drawing holds the data that it was given."""
    front = study_data.front_data(view)
    drawn = {
        trace.name: trace for trace in study_figures.front_figure(front, [("A", front.front.point[0])]).data
    }
    assert tuple(drawn["front"].customdata) == front.front.point
    assert tuple(drawn["A"].x) == front.front.x[:1]
    assert len(study_figures.swing_figure(study_importance.swing_data(view)).data) == len(view.objectives)
    assert (
        study_figures.folded("buffers.scratchpad.capacity_bytes")
        == "buffers.<br>scratchpad.<br>capacity_bytes"
    )
