"""The HTML report: the data of its figures, and the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.explore.pages import energy_data, energy_figures, figure_data, figures
from tilewright.explore.pages.report import report_html, sections, write_report
from tilewright.sim.result import OperatorRow, Result


def _row(name: str, start: int, end: int, **changes: int) -> OperatorRow:
    blank = OperatorRow(name, "matmul", start, end, end - start, 0, 0, 0, 0, 0, 0, 0, "")
    useful = changes.get("macs", 0)
    return replace(blank, **{"useful_macs": useful, **changes})  # type: ignore[arg-type]


def test_timeline_shows_each_operator_where_there_is_room(result_of: Callable[..., Result]) -> None:
    """Few operators: one bar each, from start to end, on the row of its kind."""
    result = result_of(layers=2)
    data = figure_data.timeline_data(result)
    assert data.kinds == ("gather", "matmul", "softmax")
    bars = {(bar.name, bar.kind, bar.start, bar.end) for bar in data.bars}
    assert bars == {(row.name, row.kind, row.start, row.end) for row in result.operators}


def test_timeline_of_thousands_of_operators_stays_small(result_of: Callable[..., Result]) -> None:
    """Bars that would share a pixel are joined; every operator is counted in exactly one bar."""
    result = result_of(layers=5000)
    data = figure_data.timeline_data(result)
    assert sum(bar.count for bar in data.bars) == len(result.operators) == 15001
    for kind in data.kinds:
        assert sum(bar.kind == kind for bar in data.bars) <= 2 * figure_data.RESOLUTION + 1
    for kind in data.kinds:
        lengths = sum(row.end - row.start for row in result.operators if row.kind == kind)
        assert sum(bar.running_cycles for bar in data.bars if bar.kind == kind) == lengths
    joined = next(bar for bar in data.bars if bar.count > 1)
    assert re.fullmatch(r"layers\.0\.attention\.query … layers\.\d+\.\S+", joined.name)


def test_utilization_over_time_averages_to_the_run(result: Result) -> None:
    """The mean over the bins is MACs over peak MACs, and busy over all cycles for the other units."""
    data = figure_data.utilization_data(result)
    bins = len(data.array)
    assert len(data.edges) == bins + 1
    assert (data.edges[0], data.edges[-1]) == (0, result.cycles)
    assert sum(data.array) / bins == pytest.approx(result.utilization)
    assert sum(data.vector) / bins == pytest.approx(result.units["vector"]["busy"] / result.cycles)
    assert sum(data.dram) / bins == pytest.approx(result.units["dram"]["busy"] / result.cycles)
    assert data.average == result.utilization


def test_utilization_is_where_the_work_is(result: Result) -> None:
    """An array that works in the first half only is full there and empty in the second half."""
    rows = (
        _row("a", 0, 500, macs=500 * 256, array_busy_cycles=500),
        _row("b", 500, 1000, vector_busy_cycles=250),
    )
    run = replace(result, operators=rows, cycles=1000, macs=500 * 256, useful_macs=500 * 256)
    data = figure_data.utilization_data(run, bins=10)
    assert data.array == pytest.approx([1.0] * 5 + [0.0] * 5)
    assert data.vector == pytest.approx([0.0] * 5 + [0.5] * 5)


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 10), st.integers(0, 10)), max_size=8))
def test_utilization_never_leaves_0_to_1(spans: list[tuple[int, int, int]]) -> None:
    """Whatever overlaps whatever, no unit is shown as more than fully used."""
    rows = tuple(_row("x", s, s + n, macs=2 * min(busy, n)) for s, n, busy in sorted(spans))
    run = Result("a", "w", "event", 100, 1.0, 0, 0, 0, 0, 2, {}, {}, {}, rows, {})
    data = figure_data.utilization_data(run, bins=7)
    assert all(0 <= value <= 1 for value in data.array)


def test_stall_shares_of_a_unit_add_up_to_one(result: Result) -> None:
    """Busy and all causes of each unit are the whole run."""
    data = figure_data.stall_data(result)
    assert data.units == ("array", "vector", "dram")
    assert data.states[0] == "busy"
    for number in range(len(data.units)):
        assert sum(data.shares[state][number] for state in data.states) == pytest.approx(1)
        assert sum(data.cycles[state][number] for state in data.states) == result.cycles


def test_roofline_points_have_their_intensity_and_lie_under_the_roof(result: Result) -> None:
    """MACs per DRAM byte and per cycle of the group's own time; never above what the machine can do."""
    data = figure_data.roofline_data(result)
    points = {point.label: point for point in data.points}
    assert set(points) == {"layers.*.attention.query x12", "layers.*.ffn.up x12"}
    query = points["layers.*.attention.query x12"]
    assert query.macs_per_dram_byte == pytest.approx(160_000 / (300 * 16))
    assert query.macs_per_cycle == pytest.approx(160_000 / 800)
    for point in data.points:
        assert point.macs_per_dram_byte is not None
        assert point.macs_per_cycle <= data.roof(point.macs_per_dram_byte)


def test_the_roof_has_its_ridge_where_both_limits_meet(result: Result) -> None:
    """Slanted below 256 MACs/cycle over 16 bytes/cycle, flat above; all flat with ideal memory."""
    data = figure_data.roofline_data(result)
    assert [data.roof(x) for x in (1, 16, 17)] == [16, 256, 256]
    assert figure_data.roofline_data(replace(result, peak_dram_bytes_per_cycle=None)).roof(0.001) == 256


def test_operators_without_dram_traffic_are_still_on_the_roofline(result: Result) -> None:
    """Their intensity has no number; they are drawn at the right edge with a sign of their own."""
    rows = tuple(replace(row, dram_read_bytes=0, dram_write_bytes=0) for row in result.operators)
    data = figure_data.roofline_data(replace(result, operators=rows))
    assert [point.macs_per_dram_byte for point in data.points] == [None, None]
    markers = figures.roofline_figure(data).data[1]
    assert set(markers.marker.symbol) == {"triangle-right"}


def test_time_by_kind_adds_up_to_the_run(result: Result) -> None:
    """Largest first, every operator counted."""
    data = figure_data.kind_data(result)
    assert data.kinds == ("matmul", "softmax", "gather")
    assert sum(data.cycles) == result.cycles
    assert data.counts == (24, 12, 1)


def test_traffic_is_the_results(result: Result) -> None:
    """Each memory's bytes, in the result's order."""
    data = figure_data.traffic_data(result)
    assert data.memories == ("dram", "scratchpad")
    assert data.read_bytes == (result.traffic_bytes["dram"].read, 3_000_000)
    assert data.write_bytes == (result.traffic_bytes["dram"].write, 1_000_000)


def test_energy_and_area_by_component_are_the_results(result: Result) -> None:
    """Most first, parts add up to the total, shares to 1; what has nothing is left out."""
    data = energy_data.energy_data(replace(result, energy_j={**result.energy_j, "clock": 0.0}))
    assert data.components == ("dram", "array", "leakage")
    assert data.total == result.energy_j["total"] == pytest.approx(sum(data.amounts))
    assert sum(data.shares) == pytest.approx(1)
    area = energy_data.area_data(result)
    assert (area.components, area.amounts, area.total) == (("scratchpad", "array"), (1.5, 0.5), 2.0)


def test_energy_by_kind_and_by_layer_add_up_to_the_run(result: Result) -> None:
    """Component by component; kinds with most first, layers in program order."""
    kinds, layers = energy_data.energy_kind_data(result), energy_data.energy_layer_data(result)
    assert kinds.groups == ("matmul", "softmax", "gather")
    assert layers.groups == ("embeddings", *(f"layers.{i}" for i in range(12)))
    for data in (kinds, layers):
        assert data.components == ("dram", "array", "leakage")
        for component in data.components:
            assert sum(data.energy_j[component]) == pytest.approx(result.energy_j[component])
        assert sum(data.totals_j) == pytest.approx(result.energy_j["total"])
    assert layers.energy_j["array"][1] == pytest.approx(800_000 / 2 * 1e-12)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("layers.3.ffn.up", "layers.3"),
        ("decode12.layers.3.ffn.up", "layers.3"),
        ("decoder.layers.0.cross.query", "decoder.layers.0"),
        ("decode2.head", "head"),
        ("embeddings.word", "embeddings"),
        ("gemm", "gemm"),
        ("conv1.bias", "conv1"),
        ("gemms.7", "gemms.7"),
    ],
)
def test_the_layer_of_an_operator_is_in_its_name(name: str, layer: str) -> None:
    """Up to the first number, without the decode step; else the first word."""
    assert energy_data.layer_of(name) == layer


def test_the_energy_figures_draw_their_data(result: Result) -> None:
    """Bars are shares of the whole; stacks hold each component's energy, in the unit that the axis names."""
    energy = energy_figures.energy_figure(energy_data.energy_data(result)).data[0]
    assert sum(energy.x) == pytest.approx(1)
    assert energy.text == ("20.53 µJ", "4.8 µJ", "232.8 nJ")
    area = energy_figures.area_figure(energy_data.area_data(result)).data[0]
    assert list(area.text) == ["1.5 mm²", "0.5 mm²"]
    kinds = energy_figures.energy_kind_figure(energy_data.energy_kind_data(result))
    assert kinds.layout.xaxis.title.text == "µJ"
    assert sum(sum(bar.x) for bar in kinds.data) == pytest.approx(1e6 * result.energy_j["total"])
    layers = energy_figures.energy_layer_figure(energy_data.energy_layer_data(result))
    assert layers.layout.yaxis.title.text == "µJ"
    assert sum(sum(bar.y) for bar in layers.data) == pytest.approx(1e6 * result.energy_j["total"])


def test_the_page_lists_every_constant_with_its_source(result: Result) -> None:
    """Name, value, unit and number of the citation; each citation once; markup in them as text."""
    html = report_html(replace(result, sources=(*result.sources, result.sources[0])))
    section = html.partition('<section id="sources">')[2].partition("</section>")[0]
    assert re.sub("<wbr>", "", section).count("<td>0.25</td><td>pJ</td><td>28</td><td>45 nm</td>") == 2
    assert section.count("<td>[1]</td>") == 2
    assert section.count("A &amp; B, table &lt;1&gt;</li>") == 1
    assert "my-tech.yaml: &lt;own&gt; measurement</li>" in section


def test_each_figure_draws_its_data(result: Result) -> None:
    """The numbers that a figure draws are those of its data."""
    stalls = figures.stall_figure(figure_data.stall_data(result))
    assert sum(bar.x[0] for bar in stalls.data) == pytest.approx(1)
    timeline = figures.timeline_figure(figure_data.timeline_data(result))
    assert sum(len(bar.x) for bar in timeline.data) == len(figure_data.timeline_data(result).bars)
    kinds = figures.kind_figure(figure_data.kind_data(result))
    assert sum(kinds.data[0].x) == result.cycles
    traffic = figures.traffic_figure(figure_data.traffic_data(result))
    assert [list(bar.x) for bar in traffic.data] == [[481_200, 3_000_000], [160_400, 1_000_000]]


class _Page(HTMLParser):
    """Collects what the page loads, its ids and how many scripts it has."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.open.append(tag)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        self.loads += [str(found[name]) for name in ("src", "href") if name in found]

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.text.append(data)


def _page(html: str) -> _Page:
    page = _Page()
    page.feed(html)
    return page


def test_the_page_is_self_contained_and_has_every_figure(result: Result) -> None:
    """It loads nothing, carries plotly.js once, and every figure has its fixed id, heading and reading."""
    html = report_html(result)
    page = _page(html)
    assert page.loads == []
    assert html.count("plotly.js v") == 1
    names = ["timeline", "utilization", "stalls", "roofline", "traffic", "kinds"]
    names += ["energy", "energy-kinds", "energy-layers", "area"]
    assert [section.id for section in sections(result)] == names
    assert set(page.ids) >= {
        *names,
        *(f"figure-{name}" for name in names),
        "operators",
        "sources",
        "provenance",
    }
    assert len(page.ids) == len(set(page.ids))
    for section in sections(result):
        assert section.title in page.text
        assert section.reading in page.text


def test_the_page_shows_key_figures_and_provenance(result: Result) -> None:
    """Numbers on top, the configuration below, names with markup in them as text."""
    text = " ".join(_page(report_html(result)).text)
    for expected in ("58,200", "116.4 µs", "64.4 %", "9,600,000", "1,234,567", "abc123", '"name": "<toy>"'):
        assert expected in text
    assert "<toy>" not in report_html(result).partition("</script>")[2]


def test_the_page_shows_what_a_sparse_unit_kept(result: Result) -> None:
    """A row per layer; without a unit no section."""
    found = {"layers.{i}.scores": {"pairs": 8, "kept": 4, "recall": 0.5, "kept_mass": 0.75, "imbalance": 1.5}}
    page = report_html(replace(result, sparse_attention=found))
    assert (
        '<td class="">layers.*.scores</td><td class="n">50.0 %</td><td class="n">50.0 %</td>'
        '<td class="n">75.0 %</td><td class="n">1.50</td>'
    ) in page
    assert 'id="choices"' not in report_html(result)


def test_utilization_of_fused_operators_is_over_their_common_time(result: Result) -> None:
    """Neither bunched up at the end, where the second one would fit, nor more than what was done."""
    first = result.operators[1]
    second = replace(first, name="second", cycles=0, fused_into=first.name)
    both = replace(
        result, operators=(replace(first, start=0, end=4000), replace(second, start=0, end=4000)), cycles=4000
    )
    shares = figure_data.utilization_data(both, bins=4).array
    assert shares == pytest.approx([2 * first.useful_macs / result.peak_macs_per_cycle / 4000] * 4)


def test_fused_matmuls_are_one_point_under_the_roof(result: Result) -> None:
    """Its intensity is that of both, over the traffic that they have together."""
    first = result.operators[1]
    second = replace(
        first, name="second", cycles=0, dram_read_bytes=0, dram_write_bytes=0, fused_into=first.name
    )
    (point,) = figure_data.roofline_data(replace(result, operators=(first, second))).points
    assert point.label == first.name
    assert point.macs_per_dram_byte == 2 * first.macs / (first.dram_read_bytes + first.dram_write_bytes)
    assert point.macs_per_cycle == 2 * first.macs / first.cycles


def test_the_same_result_gives_the_same_bytes(result: Result, tmp_path: Path) -> None:
    """No random ids, no clock."""
    for name in ("a.html", "b.html"):
        write_report(result, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_run_of_nothing_has_a_report(result: Result) -> None:
    """No operators, no units, no traffic: an empty page, not a crash."""
    empty = replace(
        result, cycles=0, macs=0, useful_macs=0, operators=(), units={}, stalls={}, traffic_bytes={},
        energy_j={"total": 0.0, "array": 0.0},
    )  # fmt: skip
    assert "0 s" in " ".join(_page(report_html(empty)).text)
