"""Technology tables, scaling between nodes, the SRAM grid, users' files, and the published designs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jschon import JSON, JSONSchema, create_catalog

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import ELEMENT_BITS
from tilewright.arch.energy import sources
from tilewright.arch.load import load_accelerator, preset_names, to_yaml
from tilewright.arch.scaling import area_factor, delay_factor, energy_factor, factor, nodes
from tilewright.arch.technology import (
    SourceRow,
    Technology,
    read_technology,
    shipped_figures,
    technology_of,
    technology_schema,
    with_technology_file,
)
from tilewright.arch.technology_published import TOLERANCE, published, render
from tilewright.arch.technology_sram import COLUMNS, port_area_factor, read_grid, sram
from tilewright.arch.technology_tables import Tables, flatten, unit_of
from tilewright.description.errors import InputError
from tilewright.description.reading import read

ROOT = Path(__file__).parent.parent
NODES = st.floats(7, 65)
CAPACITIES = st.floats(64, 2**27)
WIDTHS = st.floats(1, 2**15)
PORTS = st.integers(1, 8)
ACCELERATOR = """\
name: mine
clock_mhz: 500
array: {rows: 8, cols: 4, dataflow: output_stationary}
vector: {lanes: 8}
dram: {kind: flat, bytes_per_cycle: 8}
"""
MULTIPLY = "arithmetic.int8.multiply.energy_pj"


def at(node_nm: float) -> Technology:
    return Technology(node_nm, shipped_figures())


def complaint(text: str, folder: Path) -> str:
    """Return the whole message of reading a bad technology file."""
    file = folder / "tech.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_technology(file)
    return str(caught.value).replace(f"{folder}/", "")


# --- tables


def test_every_figure_has_a_source_and_a_confidence() -> None:
    """A figure without a paper, a tool or a derivation behind it is not shipped, nor one called a user's."""
    for path, figures in shipped_figures().items():
        for figure in figures:
            assert len(figure.source) > 12, path
            assert " " in figure.source, f"{path}: {figure.source} is a key that `sources` lacks"
            assert figure.confidence in ("high", "medium", "low"), path


def test_every_figure_that_the_shape_has_is_shipped() -> None:
    """A user's file can only replace what is there; whole MACs are the one thing that is left to users."""
    every = {path for path in _paths(Tables.model_json_schema(by_alias=True)) if ".mac." not in path}
    steps = {path for path in every if path.startswith("functions.")}
    assert every - steps == set(shipped_figures()) - steps
    assert {path.split(".")[1] for path in shipped_figures() if path in steps} == {
        "exp", "divide", "sqrt", "tanh",
    }  # fmt: skip


def _paths(schema: dict[str, object]) -> list[str]:
    """Dotted paths of every figure that a JSON Schema of tables allows."""
    defs = schema["$defs"]
    assert isinstance(defs, dict)

    def walk(node: dict[str, object], prefix: str) -> list[str]:
        properties = node.get("properties", {})
        assert isinstance(properties, dict)
        found = []
        for name, child in properties.items():
            text = json.dumps(child)
            target = re.search(r"#/\$defs/(\w+)", text)
            if target and target[1] == "Figure":
                found.append(prefix + name)
            elif target:
                found += walk(defs[target[1]], f"{prefix}{name}.")
        return found

    return walk(schema, "")


def test_what_scales_has_a_node_and_what_does_not_has_none() -> None:
    """Energies, areas and leakage of logic hold at a node; DRAM, ratios and operation counts at all of
    them."""
    for path, figures in shipped_figures().items():
        free = path.startswith(("dram.", "functions.", "sram.")) or path.endswith(("_fraction", "_factor"))
        assert all((figure.node_nm is None) == free for figure in figures), path


@pytest.mark.parametrize("kind", ELEMENT_BITS)
@pytest.mark.parametrize("node_nm", [65, 45, 28, 16, 7])
def test_multiplying_costs_more_than_adding(kind: str, node_nm: float) -> None:
    """At every node a multiply takes more energy than an add of its type.

    Areas are not compared: an fp8 multiplier is smaller than the adder that aligns its operands.
    """
    technology = at(node_nm)
    add, multiply = (technology.value(f"arithmetic.{kind}.{op}.energy_pj") for op in ("add", "multiply"))
    assert 0 < add < multiply


@pytest.mark.parametrize("op", ["add", "multiply"])
@pytest.mark.parametrize("figure", ["energy_pj", "area_um2"])
def test_wider_arithmetic_costs_more(op: str, figure: str) -> None:
    """Among integers, and among floating-point types, more bits never cost less at any node."""
    for node_nm in (65, 45, 40, 28, 22, 14, 7):
        technology = at(node_nm)
        for family in (("int4", "int8", "int16", "int32"), ("fp8", "bf16", "fp16", "fp32")):
            costs = [technology.value(f"arithmetic.{kind}.{op}.{figure}") for kind in family]
            assert costs == sorted(costs)


def test_a_figure_at_its_own_node_is_the_published_one() -> None:
    """Horowitz's int8 multiply is 0.2 pJ at 45 nm and Jouppi's 0.07 pJ at 7 nm, untouched by any scaling."""
    assert at(45).value(MULTIPLY) == 0.2
    assert at(7).value(MULTIPLY) == 0.07
    technology = at(45)
    technology.value(MULTIPLY)
    assert technology.used[MULTIPLY].scaled_from == ""


@given(node_nm=NODES)
def test_between_two_nodes_a_figure_lies_between_its_values(node_nm: float) -> None:
    """Interpolation stays inside; above 45 nm, the last node with a figure, the equations alone scale it."""
    value = at(node_nm).value(MULTIPLY)
    if node_nm <= 45:
        assert 0.07 <= value <= 0.2
    else:
        assert value == pytest.approx(0.2 * energy_factor(45, node_nm))


def test_an_unknown_constant_is_an_input_error() -> None:
    """The tables say what they lack instead of taking it for free."""
    with pytest.raises(InputError) as caught:
        at(28).value("arithmetic.int8.mac.int32.energy_pj")
    assert str(caught.value) == (
        "technology: no figure for arithmetic.int8.mac.int32.energy_pj in the technology tables; give one in "
        "a technology file"
    )


# --- scaling


def test_the_scaling_equations_give_the_papers_table() -> None:
    """From 65 nm the area factors are those of Stillmaker and Baas's area table, to its two digits."""
    table = {45: 0.66, 32: 0.31, 20: 0.14, 16: 0.13, 14: 0.12, 10: 0.068, 7: 0.039}
    for node, expected in table.items():
        assert area_factor(65, node) == pytest.approx(expected, rel=0.06)


def test_the_energy_polynomial_at_nominal_supply() -> None:
    """At 1.0 V the paper's 45 nm polynomial is 1.018 - 0.3107 + 0.1539; at 0.7 V the 7 nm one is 0.0478."""
    at_45, at_7 = 1.018 - 0.3107 + 0.1539, 0.1776 * 0.49 - 0.09097 * 0.7 + 0.02447
    assert energy_factor(45, 7) == pytest.approx(at_7 / at_45)
    assert delay_factor(45, 45) == 1.0


@given(a=NODES, b=NODES, c=NODES, quantity=st.sampled_from(["energy", "delay", "area"]))
def test_scaling_is_transitive_and_identical_at_one_node(a: float, b: float, c: float, quantity: str) -> None:
    """By way of a third node the factor is the same, and there and back is 1."""
    for kind in nodes().relative:
        if kind == quantity:
            assert factor(kind, a, b) * factor(kind, b, c) == pytest.approx(factor(kind, a, c))
            assert factor(kind, a, a) == 1.0
            assert factor(kind, a, b) * factor(kind, b, a) == pytest.approx(1.0)


@given(a=NODES, b=NODES)
def test_a_smaller_node_never_takes_more_energy_or_area(a: float, b: float) -> None:
    """Energy and area fall monotonically from 65 to 7 nm (delay, in the paper's table, does not)."""
    large, small = max(a, b), min(a, b)
    assert energy_factor(large, small) <= 1.0
    assert area_factor(large, small) <= 1.0


@pytest.mark.parametrize("node_nm", [90, 65.001, 6.999, 5, 3])
def test_outside_the_range_nothing_is_extrapolated(node_nm: float) -> None:
    """A node beyond the equations' is refused by name, for logic and for SRAM."""
    expected = (
        f"technology.node_nm: {node_nm:g} nm is outside the 65 to 7 nm of the scaling equations (Stillmaker "
        "and Baas 2017), and nothing is extrapolated: choose a node within them"
    )
    for scale, ends in ((energy_factor, (45, node_nm)), (area_factor, (node_nm, 45))):
        with pytest.raises(InputError) as caught:
            scale(*ends)
        assert str(caught.value) == expected
    with pytest.raises(InputError):
        sram(node_nm, 8192, 64)


def test_a_node_outside_the_range_is_marked_in_the_description(tmp_path: Path) -> None:
    """The message of a YAML file points at the number."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"{ACCELERATOR}technology: {{node_nm: 90}}\n")
    with pytest.raises(InputError) as caught:
        load_accelerator(file)
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "mine.yaml:6:23: technology.node_nm: 90 nm is outside the 65 to 7 nm of the scaling equations "
        "(Stillmaker and Baas 2017), and nothing is extrapolated: choose a node within them\n"
        "    technology: {node_nm: 90}\n"
        "                          ^"
    )


# --- SRAM


def test_the_sram_is_cactis_on_the_grid() -> None:
    """On a grid point the figure is CACTI's own, or that of a larger macro that CACTI found cheaper."""
    grid = read_grid()
    exact = dict.fromkeys(COLUMNS, 0)
    for (node, size, width), row in grid.items():
        ours = sram(node, size, width)
        larger = [r for (n, s, w), r in grid.items() if n == node and s >= size and w >= width]
        for column in COLUMNS:
            value = getattr(ours, column)
            assert value == pytest.approx(min(other[column] for other in larger), rel=1e-9)
            exact[column] += value == pytest.approx(row[column], rel=1e-9)
    assert len(grid) == 356
    assert exact["read_pj"] == 350
    assert exact["write_pj"] == 356
    assert exact["area_mm2"] == 356 - 79
    assert exact["leak_mw"] > 100


@given(node_nm=NODES, capacity=CAPACITIES, width=WIDTHS, ports=PORTS, more=st.floats(1, 16))
def test_the_sram_is_monotone(node_nm: float, capacity: float, width: float, ports: int, more: float) -> None:
    """A larger, a wider or a more-ported bank never costs less in anything, on and off the grid."""
    small = sram(node_nm, capacity, width, ports)
    for large in (
        sram(node_nm, capacity * more, width, ports),
        sram(node_nm, capacity, width * more, ports),
        sram(node_nm, capacity, width, ports + 1),
    ):
        for column in COLUMNS:
            assert getattr(large, column) >= getattr(small, column) * (1 - 1e-12)
            assert getattr(small, column) > 0


@given(capacity=CAPACITIES, width=WIDTHS)
def test_the_sram_between_nodes_lies_between_them(capacity: float, width: float) -> None:
    """At 28 nm every figure is between 22 and 32 nm; at 14 nm energy and area are below 22 nm by the
    equations."""
    small, large, middle, below = (sram(node, capacity, width) for node in (22, 32, 28, 14))
    for column in COLUMNS:
        ends = sorted((getattr(small, column), getattr(large, column)))
        assert ends[0] * (1 - 1e-9) <= getattr(middle, column) <= ends[1] * (1 + 1e-9)
    assert below.read_pj == pytest.approx(small.read_pj * energy_factor(22, 14))
    assert below.area_mm2 == pytest.approx(small.area_mm2 * area_factor(22, 14))
    assert below.leak_mw == small.leak_mw


def test_ports_widen_the_cell_as_in_cacti() -> None:
    """A second port adds 5 F to the 10 F x 14.6 F cell each way: 15 x 19.6 / 146 = 2.01 times the area."""
    assert port_area_factor(1) == 1.0
    assert port_area_factor(2) == pytest.approx(15 * 19.6 / 146)
    one, two = sram(45, 8192, 64), sram(45, 8192, 64, ports=2)
    assert two.area_mm2 == pytest.approx(one.area_mm2 * 15 * 19.6 / 146)


# --- a user's own figures

TECHNOLOGY = """\
sources: {pdk: "our PDK, post-layout, 2024"}
arithmetic:
  int8:
    mac:
      int32: {energy_pj: {value: 0.125, unit: pJ, node_nm: 28, source: pdk}}
wire:
  energy_pj_per_bit_mm: {value: 0.08, unit: pJ/bit/mm, node_nm: 28, source: measured, confidence: high}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an accelerator that names the technology file beside it."""
    (tmp_path / "tech.yaml").write_text(TECHNOLOGY)
    (tmp_path / "mine.yaml").write_text(f"{ACCELERATOR}technology: {{node_nm: 28, file: tech.yaml}}\n")
    return tmp_path


def test_a_users_figures_replace_the_shipped_ones_and_show(folder: Path) -> None:
    """The user's MAC and wire are charged; each says so in its source and its confidence, and the rest
    stays."""
    accelerator = load_accelerator(folder / "mine.yaml")
    rows = {row.constant: row for row in sources(accelerator)}
    assert rows["arithmetic.int8.mac.int32.energy_pj"] == SourceRow(
        constant="arithmetic.int8.mac.int32.energy_pj", value=0.125, unit="pJ", node_nm=28.0, scaled_from="",
        source="tech.yaml: our PDK, post-layout, 2024", confidence="user",
    )  # fmt: skip
    assert rows["wire.energy_pj_per_bit_mm"].source == "tech.yaml: measured"
    assert rows["wire.energy_pj_per_bit_mm"].confidence == "user"
    users = {row.constant for row in rows.values() if row.confidence == "user"}
    assert users == {"arithmetic.int8.mac.int32.energy_pj", "wire.energy_pj_per_bit_mm"}
    assert MULTIPLY not in rows


def test_a_users_figure_is_scaled_to_the_accelerators_node(folder: Path) -> None:
    """A figure given at 28 nm alone follows the equations to 14 nm, and its row says so."""
    accelerator = load_accelerator(folder / "mine.yaml", ["technology.node_nm=14"])
    row = {row.constant: row for row in sources(accelerator)}["arithmetic.int8.mac.int32.energy_pj"]
    assert row.value == pytest.approx(0.125 * energy_factor(28, 14))
    assert row.scaled_from == "28 nm"
    assert "Stillmaker" in row.source


def test_the_description_holds_the_figures_after_reading(folder: Path) -> None:
    """Hash, YAML and JSON carry the content and not the path, so that the file is not needed again."""
    accelerator = load_accelerator(folder / "mine.yaml")
    assert accelerator.technology.file is None
    assert read(Accelerator, to_yaml(accelerator), "again") == accelerator
    assert Accelerator.model_validate_json(accelerator.model_dump_json()) == accelerator
    (folder / "tech.yaml").write_text(TECHNOLOGY.replace("0.125", "0.126"))
    assert load_accelerator(folder / "mine.yaml").model_dump_json() != accelerator.model_dump_json()


def test_the_file_is_looked_for_beside_the_description_then_here(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Presets and Python users have no folder: theirs is the current one."""
    monkeypatch.chdir(folder)
    preset = load_accelerator("teaching-4x4", ["technology.file=tech.yaml"])
    assert technology_of(preset).value("wire.energy_pj_per_bit_mm") == 0.08
    bare = load_accelerator("teaching-4x4")
    choice = bare.technology.model_copy(update={"file": "tech.yaml"})
    named = bare.model_copy(update={"technology": choice})
    assert technology_of(named).value("wire.energy_pj_per_bit_mm") == 0.08
    assert with_technology_file(named, tmp_path).technology.file is None


def test_figures_in_the_description_win_over_the_files(folder: Path) -> None:
    """What stands in the accelerator itself is nearest."""
    inline = "{wire: {energy_pj_per_bit_mm: {value: 0.5, unit: pJ/bit/mm, node_nm: 28, source: guess}}}"
    accelerator = load_accelerator(folder / "mine.yaml", [f"technology.figures={inline}"])
    technology = technology_of(accelerator)
    assert technology.value("wire.energy_pj_per_bit_mm") == 0.5
    assert technology.value("arithmetic.int8.mac.int32.energy_pj") == 0.125


def test_a_missing_technology_file_says_where_it_was_looked_for(folder: Path) -> None:
    """Both places are named."""
    with pytest.raises(InputError) as caught:
        load_accelerator(folder / "mine.yaml", ["technology.file=lost.yaml"])
    assert str(caught.value).replace(f"{folder}/", "") == (
        "technology.file: no such technology file: lost.yaml or lost.yaml (looked for beside the "
        "accelerator's file, then here)"
    )


def test_mistakes_in_a_technology_file_are_placed(tmp_path: Path) -> None:
    """Unknown keys get the nearest known one; a negative value and a missing source are named; all at
    once."""
    text = """\
arithmetic:
  int8:
    ad: {energy_pj: {value: 0.1, unit: pJ, node_nm: 28, source: ours}}
wire:
  energy_pj_per_bit_mm:
    - {value: -0.1, unit: pJ/bit/mm, node_nm: 28, source: ours}
    - {value: 0.1, unit: pJ/bit/mm, node_nm: 14}
"""
    assert complaint(text, tmp_path) == (
        "tech.yaml:3:5: arithmetic.int8.ad: unknown key 'ad', did you mean 'add'?\n"
        "        ad: {energy_pj: {value: 0.1, unit: pJ, node_nm: 28, source: ours}}\n"
        "        ^\n"
        "tech.yaml:6:15: wire.energy_pj_per_bit_mm.0.value: must be at least 0, not -0.1\n"
        "        - {value: -0.1, unit: pJ/bit/mm, node_nm: 28, source: ours}\n"
        "                  ^\n"
        "tech.yaml:7:7: wire.energy_pj_per_bit_mm.1.source: required key is missing\n"
        "        - {value: 0.1, unit: pJ/bit/mm, node_nm: 14}\n"
        "          ^"
    )


def test_a_wrong_unit_is_refused(tmp_path: Path) -> None:
    """0.1 fJ is not taken for 0.1 pJ."""
    text = "wire: {energy_pj_per_bit_mm: {value: 80, unit: fJ/bit/mm, node_nm: 28, source: ours}}\n"
    assert "wire.energy_pj_per_bit_mm: its unit is 'pJ/bit/mm', not 'fJ/bit/mm'" in complaint(text, tmp_path)


def test_two_figures_for_one_node_are_refused(tmp_path: Path) -> None:
    """Which of them holds would be anybody's guess."""
    one = "{value: 1, unit: pJ/bit/mm, node_nm: 28, source: ours}"
    text = f"wire: {{energy_pj_per_bit_mm: [{one}, {one}]}}\n"
    assert "two figures for the same node" in complaint(text, tmp_path)


def test_a_figure_of_a_node_beyond_the_equations_cannot_be_scaled(tmp_path: Path) -> None:
    """A user's 90 nm figure is refused by its own name, at another node."""
    (tmp_path / "tech.yaml").write_text(
        "wire: {energy_pj_per_bit_mm: {value: 1, unit: pJ/bit/mm, node_nm: 90, source: ours}}\n"
    )
    (tmp_path / "mine.yaml").write_text(f"{ACCELERATOR}technology: {{file: tech.yaml}}\n")
    with pytest.raises(InputError, match=r"wire\.energy_pj_per_bit_mm: 90 nm is outside the 65 to 7 nm"):
        sources(load_accelerator(tmp_path / "mine.yaml"))


def test_a_buffer_may_not_take_another_components_name() -> None:
    """Energy and area are listed by component; two of one name would be taken for one."""
    with pytest.raises(InputError) as caught:
        read(Accelerator, f"{ACCELERATOR}buffers: {{dram: {{capacity_bytes: 1024, width_bytes: 4,"
             " holds: [input, weight, output]}}\n", "mine.yaml")  # fmt: skip
    assert "buffers.dram: 'dram' is the name of another component; call the buffer something else" in str(
        caught.value
    )


@pytest.mark.filterwarnings("ignore:Please use rfc3986:DeprecationWarning")
def test_the_schema_of_a_technology_file_takes_the_shipped_ones() -> None:
    """An editor shows no mistake in the shipped tables, single figures and lists of them alike."""
    create_catalog("2020-12")
    schema = JSONSchema(technology_schema())
    for name in ("arithmetic", "memory"):
        file = ROOT / "arch" / "technology" / f"{name}.yaml"
        tables = read_technology(file)
        data = json.loads(tables.model_dump_json(by_alias=True))
        assert schema.evaluate(JSON(data)).valid
    single = {"wire": {"energy_pj_per_bit_mm": {"value": 1, "unit": "pJ/bit/mm", "source": "x"}}}
    assert schema.evaluate(JSON(single)).valid
    assert not schema.evaluate(JSON({"wires": {}})).valid


# --- sources


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_lists_the_constants_it_uses(name: str) -> None:
    """Only what it is charged with: its own element types, its own memory, and each with unit and source."""
    accelerator = load_accelerator(name)
    rows = sources(accelerator)
    assert [row.constant for row in rows] == sorted({row.constant for row in rows})
    array = accelerator.array
    kinds = {row.constant.split(".")[1] for row in rows if row.constant.startswith("arithmetic.")}
    unit = load_accelerator(name).attention_unit
    predicted = {"int4", "int8", "int16"} if unit is not None and unit.predictor_size[0] else set()
    assert kinds <= {array.operand, array.accumulator} | predicted
    assert len({row.constant.split(".")[1] for row in rows if row.constant.startswith("dram.")}) <= 1
    assert all(row.source and row.unit for row in rows)
    banks = {row.constant.rpartition(".")[0] for row in rows if row.constant.endswith("_ports.read_pj")}
    shapes = {(b.capacity_bytes // b.banks, b.width_bytes, b.ports) for b in accelerator.buffers.values()}
    assert banks == {f"sram.{size}_bytes.{8 * width}_bits.{ports}_ports" for size, width, ports in shapes}


def test_an_sram_says_which_grid_it_was_taken_from() -> None:
    """On a node of the grid as it is, between two nodes from both, below 22 nm scaled from there."""
    for node_nm, expected in ((45, ""), (28, "22, 32 nm"), (14, "22 nm")):
        accelerator = load_accelerator("gemmini-default", [f"technology.node_nm={node_nm}"])
        rows = [row for row in sources(accelerator) if row.constant.startswith("sram.65536_bytes")]
        assert {row.constant.rpartition(".")[2] for row in rows} == set(COLUMNS)
        assert {row.scaled_from for row in rows} == {expected}
        assert all(("Stillmaker" in row.source) == (node_nm < 22) for row in rows)


def test_units_follow_the_longest_ending() -> None:
    """`energy_pj_per_bit_mm` is in pJ/bit/mm and not in pJ."""
    assert unit_of("wire.energy_pj_per_bit_mm") == "pJ/bit/mm"
    assert unit_of("arithmetic.int8.add.energy_pj") == "pJ"
    tables = read_technology(ROOT / "arch" / "technology" / "memory.yaml")
    assert all(figure.unit == unit_of(path) for path, figures in flatten(tables) for figure in figures)


# --- published designs


def test_the_published_designs_are_all_there() -> None:
    """Area and power of AccelTran's modules, TPU v1, Eyeriss, SpAtten, A3 and ELSA."""
    for design in ("AccelTran", "TPU v1", "Eyeriss", "SpAtten", "A3", "ELSA"):
        quantities = {row.quantity.split("_")[0] for row in published() if row.system.startswith(design)}
        assert quantities == {"area", "power"}, design


def test_a_row_that_is_far_off_says_why() -> None:
    """More than 30 % off without an explanation, or an explanation without the need for one, is a mistake."""
    for row in published():
        assert bool(row.why) == (abs(row.error) > TOLERANCE), row.system
        assert row.source
        assert row.modelled > 0


def test_the_rows_can_be_worked_out_by_hand() -> None:
    """AccelTran's multiplier: 20 bits are (20 / 16)^2 of the 45 nm int16 one, scaled to 14 nm."""
    row = next(row for row in published() if row.system == "AccelTran mul" and row.quantity == "area_um2")
    assert row.modelled == pytest.approx((20 / 16) ** 2 * 3495 / 4 * 2.9 / 17)


def test_the_document_shows_the_table_as_it_is() -> None:
    """docs/energy.md holds the output of `python -m tilewright.arch.technology_published`."""
    text = (ROOT / "docs" / "energy.md").read_text()
    assert render(published()) in text, "run: python docs/regenerate.py docs/energy.md"


def test_the_documents_example_of_a_technology_file_works(tmp_path: Path) -> None:
    """What docs/energy.md shows can be copied and used."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "energy.md").read_text(), re.DOTALL)
    accelerator, technology = blocks
    (tmp_path / "my-tech.yaml").write_text(technology)
    (tmp_path / "mine.yaml").write_text(ACCELERATOR + accelerator)
    rows = sources(load_accelerator(tmp_path / "mine.yaml"))
    assert {row.confidence for row in rows} >= {"user"}


def test_the_nodes_table_is_in_order() -> None:
    """Interpolation needs ascending nodes and positive values."""
    table = nodes()
    assert all(one < other for one, other in pairwise(table.nodes_nm))
    assert all(value > 0 for values in table.relative.values() for value in values)
