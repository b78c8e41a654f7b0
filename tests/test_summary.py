"""What a person reads of a result: quantities, the summary, the terminal table, the notebook view."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import tilewright as tw
from tilewright.description.errors import InputError
from tilewright.sim.quantities import binary_bytes, count, fractional, percent, short
from tilewright.sim.render import component_colors, plain_text, stall_bar, state_colors
from tilewright.sim.result import Result
from tilewright.sim.saved import load_result
from tilewright.sim.summary import operator_groups, own_cycles, summary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (count(1234567), "1,234,567"),
        (percent(0.1234), "12.3 %"),
        (percent(0.0001), "<0.1 %"),
        (percent(0.0), "0.0 %"),
        (percent(1.0), "100.0 %"),
        (binary_bytes(0), "0 B"),
        (binary_bytes(1023), "1,023 B"),
        (binary_bytes(1024), "1.00 KiB"),
        (binary_bytes(1024 * 1024 - 1), "1.00 MiB"),
        (binary_bytes(81 * 2**20), "81.0 MiB"),
        (short(999), "999"),
        (short(999_999), "1.00 M"),
        (short(11_174_215_680), "11.2 G"),
        (fractional(0.0012345, "s"), "1.234 ms"),
        (fractional(56.7e-6, "J"), "56.7 µJ"),
        (fractional(12.0, "s"), "12 s"),
        (fractional(0.0, "s"), "0 s"),
    ],
)
def test_quantities_are_written_with_separators_and_units(text: str, expected: str) -> None:
    """Each number reads as its docstring says, also where rounding carries into the next unit."""
    assert text == expected


@given(st.integers(0, 10**18))
def test_a_scaled_quantity_never_shows_more_than_four_digits(number: int) -> None:
    """No unit shows 1024 or more of itself, so that quantities can be compared by their unit first."""
    value = float(binary_bytes(number).split()[0].replace(",", ""))
    assert value < 1024
    assert float(short(number).split()[0]) < 1000


def test_layers_and_decode_steps_are_folded_and_nothing_is_lost(result_of: Callable[..., Result]) -> None:
    """Groups carry `*` for layer and step numbers, and their sums are the run's."""
    result = result_of(layers=3)
    decoded = tuple(replace(row, name=f"decode{i}.{row.name}") for i, row in enumerate(result.operators))
    groups = operator_groups((*result.operators, *decoded), result.cycles)
    assert {group.label for group in groups} == {
        "embeddings.gather",
        "decode0.embeddings.gather",
        "layers.*.attention.query x3",
        "layers.*.attention.softmax x3",
        "layers.*.ffn.up x3",
        "decode*.layers.*.attention.query x3",
        "decode*.layers.*.attention.softmax x3",
        "decode*.layers.*.ffn.up x3",
    }
    assert sum(group.cycles for group in groups) == 2 * result.cycles
    assert sum(group.macs for group in groups) == 2 * result.macs
    assert [group.cycles for group in groups] == sorted((g.cycles for g in groups), reverse=True)


def test_numbers_inside_a_word_are_not_folded(result: Result) -> None:
    """`conv1` and `conv2` are two operators, and so are shapes that differ only in their kind."""
    row = result.operators[0]
    rows = [replace(row, name=name) for name in ("conv1", "conv2", "h.0.x", "h.1.x")]
    assert [group.label for group in operator_groups(rows, 1)] == ["h.*.x x2", "conv1", "conv2"]


def test_a_shape_that_differs_within_a_group_is_left_out(result: Result) -> None:
    """A group shows a shape only if all its members have it."""
    row = result.operators[0]
    rows = [replace(row, name=f"decode{i}.scores", shape=f"1 x 64 x {i}") for i in range(2)]
    assert operator_groups(rows, 1)[0].shape == ""


def test_the_array_table_adds_up_to_all_cycles(result: Result) -> None:
    """Busy and the stall causes are all of the cycles, and so are the shown operators with the others."""
    figures = summary(result, slowest=2)
    assert sum(share.cycles for share in figures.array) == result.cycles
    assert sum(share.share for share in figures.array) == pytest.approx(1)
    assert figures.array[0].name == "busy"
    assert sum(group.cycles for group in figures.slowest) + figures.others.cycles == result.cycles
    assert len(figures.slowest) == 2


def test_own_cycles_count_what_a_neighbour_hid(result: Result) -> None:
    """An operator that adds nothing to the run still took its array's or DRAM's time."""
    hidden = replace(result.operators[1], cycles=0)
    assert own_cycles(hidden) == hidden.array_busy_cycles == 700


GOLDEN = """\
toy-bert on toy, event fidelity

cycles       58,200
latency      116.4 µs at 500 MHz
utilization  64.4 % of 256 MACs/cycle
MACs         9,600,000 (9.60 M)
parameters   1,234,567 (1.23 M)
peak memory  3.00 MiB
energy       25.56 µJ (219.6 mW on average, 2.663 pJ/MAC)
area         2 mm²

array         cycles    share
busy          39,600   68.0 %
weight stall  13,950   24.0 %
non matrix     4,650    8.0 %
total         58,200  100.0 %

traffic         read  written  bytes/cycle
dram         470 KiB  157 KiB        11.02
scratchpad  2.86 MiB  977 KiB        68.73

component     energy    share  area mm²    share
dram        20.53 µJ   80.3 %
array         4.8 µJ   18.8 %       0.5   25.0 %
leakage     232.8 nJ    0.9 %
scratchpad                          1.5   75.0 %
total       25.56 µJ  100.0 %         2  100.0 %

slowest operators               cycles   share  kind     bound by  shape
layers.*.ffn.up x12             36,000  61.9 %  matmul   dram      64 x 50 x 200
layers.*.attention.softmax x12  12,000  20.6 %  softmax  vector    64 x 64
layers.*.attention.query x12     9,600  16.5 %  matmul   array     64 x 50 x 50
embeddings.gather                  600   1.0 %  gather   dram      64 x 50
"""


def test_the_piped_table_is_this_text(result: Result) -> None:
    """The whole table, to the letter."""
    assert plain_text(summary(result)) == GOLDEN


def test_the_useful_share_of_the_macs_stands_beside_them_where_some_are_not(result: Result) -> None:
    """Utilization counts useful MACs only; the table says how many are, and nothing where all are."""
    blocked = replace(result, useful_macs=result.macs * 3 // 4)
    assert blocked.utilization == pytest.approx(result.utilization * 3 / 4)
    assert "MACs         9,600,000 (9.60 M, 75.0 % useful)\n" in plain_text(summary(blocked))
    assert "useful" not in plain_text(summary(result))


def test_the_piped_table_has_no_control_codes_and_cuts_no_name(result: Result) -> None:
    """However long a name is, it stands there whole, and on one line."""
    name = "encoder." + "very_long_module_name." * 10 + "out"
    rows = (replace(result.operators[0], name=name), *result.operators[1:])
    text = plain_text(summary(replace(result, operators=rows)))
    assert re.search(rf"^{re.escape(name)} ", text, re.MULTILINE)
    assert "\x1b" not in text
    assert "…" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_narrow_terminal_folds_names_and_cuts_none(result: Result) -> None:
    """At 60 columns no line is longer, and the characters of every name are all there."""
    sink = StringIO()
    Console(file=sink, width=60, color_system=None).print(result)
    text = sink.getvalue()
    assert max(map(len, text.splitlines())) <= 60
    assert "…" not in text


def test_power_and_energy_per_mac_are_the_totals_over_time_and_macs(result: Result) -> None:
    """Average power times the latency, and pJ/MAC times the MACs, are the run's energy."""
    figures = summary(result)
    assert figures.energy_j == result.energy_j["total"]
    assert figures.average_power_w * result.latency_s == pytest.approx(figures.energy_j)
    assert figures.energy_per_mac_pj is not None
    assert figures.energy_per_mac_pj * 1e-12 * result.macs == pytest.approx(figures.energy_j)
    assert summary(replace(result, macs=0)).energy_per_mac_pj is None


def test_components_are_all_of_the_energy_and_the_area(result: Result) -> None:
    """Most energy first, then what has area only; shares add up to 1, what has neither is left out."""
    energy = {**result.energy_j, "clock": 0.0}
    parts = summary(replace(result, energy_j=energy)).components
    assert [part.name for part in parts] == ["dram", "array", "leakage", "scratchpad"]
    assert sum(part.energy_share for part in parts) == pytest.approx(1)
    assert sum(part.area_share for part in parts) == pytest.approx(1)


def test_groups_add_up_to_the_runs_energy(result: Result) -> None:
    """Folding layers loses no energy."""
    groups = operator_groups(result.operators, result.cycles)
    assert sum(group.energy_pj for group in groups) == pytest.approx(1e12 * result.energy_j["total"])


def test_a_component_has_one_colour_in_every_figure() -> None:
    """Fixed components keep theirs whatever stands beside them; buffers are told apart."""
    names = ["dram", "array", "leakage", "scratchpad", "accumulator"]
    colors = component_colors(names)
    assert len(set(colors)) == len(names)
    assert component_colors(["array", "scratchpad", "accumulator"]) == [colors[1], *colors[3:]]


def test_a_run_of_no_cycles_has_a_table(result: Result) -> None:
    """Nothing is divided by zero."""
    empty = replace(
        result, cycles=0, macs=0, useful_macs=0, operators=(), units={"array": {"busy": 0}}, stalls={},
        traffic_bytes={},
    )  # fmt: skip
    assert "utilization  0.0 %" in plain_text(summary(empty))


def test_the_notebook_view_is_well_formed_and_its_bar_is_full(result: Result) -> None:
    """The fragment parses as XML, shows the figures, and the pieces of its bar fill its width."""
    fragment = result._repr_html_()
    root = ElementTree.fromstring(re.sub(r"&(?:ensp|#9632);", " ", fragment))
    bars = [element for element in root.iter() if element.tag == "svg"]
    assert [bar.attrib["aria-label"] for bar in bars] == [
        "cycles of the array by state",
        "energy by component",
    ]
    for bar in bars:
        assert sum(float(piece.attrib["width"]) for piece in bar.iter("rect")) == pytest.approx(560, abs=0.02)
    assert "58,200" in fragment
    assert "<script" not in fragment


def test_names_are_escaped_in_html(result: Result) -> None:
    """A name with markup in it shows as text."""
    fragment = replace(result, workload="<script>alert(1)</script>")._repr_html_()
    assert "<script>" not in fragment
    assert "&lt;script&gt;" in fragment
    assert stall_bar(()).count("<rect") == 0


def test_each_stall_cause_has_its_own_colour() -> None:
    """The array's causes can be told apart, eight unknown ones too, and keep their colours everywhere."""
    machine = ["attention_unit={kind: lsh}", "array.rows=8", "array.cols=8"]
    result = tw.simulate(
        tw.load_accelerator("edge-npu-large", machine), tw.load_workload("attention", ["seq=16"])
    )
    states = ["busy", "idle", *result.stalls, "unattributed"]
    assert "prediction_stall" in states
    assert len(set(state_colors(states))) == len(states)
    assert state_colors(states[::-1]) == state_colors(states)[::-1]
    assert len(set(state_colors(["busy", "idle", *"abcdefgh"]))) == 10


def test_what_a_sparse_unit_kept_is_shown_with_its_layers_folded(result: Result) -> None:
    """Means over layers; a unit that predicts nothing has no recall."""
    found: dict[str, dict[str, float]] = {
        "layers.{i}.attention.scores": {
            "pairs": 8,
            "kept": 4,
            "recall": 0.5,
            "kept_mass": 0.75,
            "imbalance": 1.5,
        },
        "layers.7.attention.scores": {
            "pairs": 8,
            "kept": 2,
            "recall": 1.0,
            "kept_mass": 0.25,
            "imbalance": 2.5,
        },
        "scores": {"pairs": 8, "kept": 8, "recall": 0, "kept_mass": 0, "imbalance": 1},
    }
    text = plain_text(summary(replace(result, sparse_attention=found)))
    table = [
        line.split("  ")
        for line in text.splitlines()
        if re.match(r"sparse|layers\.\*\.attention\.sc|scores", line)
    ]
    assert [[cell.strip() for cell in line if cell.strip()] for line in table] == [
        ["sparse attention", "kept", "recall", "kept weight", "imbalance"],
        ["layers.*.attention.scores", "37.5 %", "75.0 %", "50.0 %", "2.00"],
        ["scores", "100.0 %", "1.00"],
    ]
    assert "sparse attention" not in plain_text(summary(result))


def test_what_is_fused_into_an_operator_stands_behind_its_shape() -> None:
    """Matmuls and row operators do; element-wise tails, which always ride along, do not."""
    machine = tw.load_accelerator("edge-npu-large", ["mapper.attention=[flash]"])
    result = tw.simulate(machine, tw.load_workload("encoder_block", ["d=64", "heads=1", "ffn=64", "seq=32"]))
    by_name = {group.name: group.extent for group in operator_groups(result.operators, result.cycles)}
    assert by_name["attention.scores"] == "32 x 64 x 32 + softmax + context"
    assert by_name["ffn.up"] == "32 x 64 x 64"


def test_a_saved_result_comes_back_equal(result: Result) -> None:
    """JSON and back: the same object, the same JSON."""
    back = load_result(json.dumps(result.to_dict()), "r.json")
    assert back == result
    assert back.to_dict() == result.to_dict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"r.json:1:2: not JSON: Expecting property name enclosed in double quotes"),
        (
            "[]",
            "r.json: not a saved result; write one with `tilewright run ACCELERATOR WORKLOAD --format json`",
        ),
        (
            '{"operators": []}',
            "r.json: peak_dram_bytes_per_cycle: the key is missing; save the result again with",
        ),
    ],
)
def test_what_is_no_saved_result_is_refused(text: str, message: str) -> None:
    """The message names the file, the place and the way out."""
    with pytest.raises(InputError) as caught:
        load_result(text, "r.json")
    assert str(caught.value).startswith(message)


def test_a_saved_result_with_a_wrong_type_is_refused(result: Result) -> None:
    """A number that is a text is named with its value."""
    data = {**result.to_dict(), "cycles": "many"}
    with pytest.raises(
        InputError, match=r"^r\.json: not a saved result \(cycles is 'many'\); write one with"
    ):
        load_result(json.dumps(data), "r.json")
