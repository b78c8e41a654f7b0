"""The shipped accelerators, the DRAM standards, and the way between YAML and `Accelerator`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jschon import JSON, JSONSchema, create_catalog

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import ELEMENT_BITS
from tilewright.arch.dram import BankedDram, FlatDram, IdealDram
from tilewright.arch.dram_standards import complete_from_standard, standards
from tilewright.arch.load import accelerator_schema, load_accelerator, preset_names, preset_text, to_yaml
from tilewright.description.errors import InputError
from tilewright.description.reading import read
from tilewright.description.yaml_text import parse

ROOT = Path(__file__).parent.parent
SCHEMA_FILE = ROOT / "docs" / "schema" / "accelerator.schema.json"
IDEAL = ("bare-array", "attention-unit", "attention-unit-8x8")
TEXTBOOK = (*IDEAL, "teaching-4x4", "flat", "fusemax", "fsa")
"""Those of papers' models, with as much bandwidth as these take for granted, and those for learning."""
REAL = tuple(name for name in preset_names() if name not in TEXTBOOK)
JSCHON = pytest.mark.filterwarnings("ignore:Please use rfc3986:DeprecationWarning")
"""jschon's own use of a library."""

GOOD = """\
name: mine
clock_mhz: 500
array: {rows: 8, cols: 4, dataflow: output_stationary}
vector: {lanes: 8}
dram: {kind: flat, bytes_per_cycle: 8}
"""


def complaint(source: str | Path, *overrides: str) -> str:
    """Return the whole message of loading a bad accelerator."""
    with pytest.raises(InputError) as caught:
        load_accelerator(source, overrides)
    return str(caught.value)


@pytest.fixture(scope="module")
def schema() -> JSONSchema:
    """The JSON Schema of an accelerator, ready to judge descriptions."""
    create_catalog("2020-12")
    return JSONSchema(accelerator_schema())


def _accepts(schema: JSONSchema, data: object) -> bool:
    assert isinstance(data, dict)
    return schema.evaluate(JSON(data)).valid


def test_the_presets() -> None:
    """These are shipped; a name that is taken away breaks somebody's script."""
    assert set(preset_names()) >= {
        "bare-array",
        "edge-npu-large",
        "edge-npu-small",
        "gemmini-default",
        "many-core-server",
        "teaching-4x4",
        "tpu-v1",
        "tpu-v3-core",
    }
    assert list(preset_names()) == sorted(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_bears_its_name_and_comes_back(name: str) -> None:
    """Each preset is an accelerator of its own name, described, and its resolved YAML is the same machine."""
    accelerator = load_accelerator(name)

    assert (accelerator.name, bool(accelerator.description)) == (name, True)
    assert read(Accelerator, to_yaml(accelerator), "resolved.yaml") == accelerator


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_where_its_figures_come_from(name: str) -> None:
    """Each preset starts with the editor's schema and a comment on its sources."""
    first, *rest = preset_text(name).splitlines()
    comment = "\n".join(line for line in rest if line.startswith("#"))
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)

    assert schema is not None
    assert (ROOT / "arch" / "presets" / schema[1]).resolve() == SCHEMA_FILE
    assert len(comment.split()) > 30


@pytest.mark.parametrize("name", REAL)
def test_a_real_machine_overlaps_and_its_buffers_feed_its_array(name: str) -> None:
    """The ports move what a weight-stationary array takes each cycle: inputs, weights, sums in and out.

    An output-stationary array takes inputs and weights, and lets one row of sums out.
    """
    machine = load_accelerator(name)
    array = machine.array
    stationary_sums = array.dataflow == "output_stationary"
    operand, total = (ELEMENT_BITS[kind] // 8 for kind in (array.operand, array.accumulator))
    need = {
        "input": array.rows * operand,
        "weight": array.cols * operand,
        "output": array.cols * total * (1 if stationary_sums else 2),
    }

    overlaps = (array.fold_overlap, array.stationary_buffers, array.output_drain) == (True, 2, "shadow")
    assert overlaps or array.flexible is not None
    for buffer in machine.buffers.values():
        assert buffer.bytes_per_cycle >= array.count * sum(need[held] for held in buffer.holds)


def test_the_bare_array_is_ideal() -> None:
    """The bare array has free memories, one core, and hides nothing."""
    bare = load_accelerator("bare-array")

    assert (bare.cores, bare.array.rows, bare.array.cols, bare.array.count) == (1, 32, 32, 1)
    assert (bare.buffers, bare.dram) == ({}, IdealDram(kind="ideal"))
    assert (bare.array.fold_overlap, bare.array.stationary_buffers, bare.array.output_drain) == (
        False,
        1,
        "ideal",
    )


@pytest.mark.parametrize(
    ("name", "tops", "gigabytes_per_second"),
    [
        ("edge-npu-small", 0.256, 3.75),  # 256 MACs at 500 MHz
        ("tpu-v1", 91.8, 34),  # "92 TOPS", Jouppi et al., ISCA 2017
        ("tpu-v3-core", 61.6, 450),  # half of the chip's 123 TFLOPS, Jouppi et al., CACM 2020
        ("many-core-server", 314.6, 2048),
        ("edge-npu-large", 8.19, 25.6),
    ],
)
def test_peaks_are_those_of_the_source(name: str, tops: float, gigabytes_per_second: float) -> None:
    """Peak operations (two a MAC) and DRAM bandwidth are the published ones."""
    machine = load_accelerator(name)
    hertz = machine.clock_mhz * 1e6
    dram = machine.dram
    if isinstance(dram, FlatDram):
        bandwidth = dram.bytes_per_cycle * hertz
    else:
        assert isinstance(dram, BankedDram)
        bandwidth = dram.channels * dram.bus_bytes * dram.transfers_per_second

    assert 2 * machine.macs_per_cycle * hertz == pytest.approx(tops * 1e12, rel=2e-3)
    assert bandwidth == pytest.approx(gigabytes_per_second * 1e9, rel=2e-3)


@pytest.mark.parametrize("size", [32, 128])
def test_gemmini_takes_larger_arrays(size: int) -> None:
    """Overriding the array's size leaves the rest of the machine as it is."""
    machine = load_accelerator("gemmini-default", [f"arch.array.rows={size}", f"arch.array.cols={size}"])

    assert machine.macs_per_cycle == size * size
    assert machine.buffers == load_accelerator("gemmini-default").buffers


def test_another_kind_of_dram_by_override() -> None:
    """A banked preset becomes flat or ideal, a flat one banked by its standard's name."""
    flat = ["dram.kind=flat", "dram.bytes_per_cycle=64", "dram.latency_cycles=100"]

    assert load_accelerator("edge-npu-large", flat).dram == FlatDram(
        kind="flat", bytes_per_cycle=64, latency_cycles=100
    )
    assert load_accelerator("edge-npu-large", ["dram.kind=ideal"]).dram == IdealDram(kind="ideal")
    banked = load_accelerator("gemmini-default", ["dram.standard=ddr4-2400", "dram.kind=banked"]).dram
    assert isinstance(banked, BankedDram)
    assert (banked.bus_bytes, banked.transfers_per_second) == (8, 2400e6)


def test_an_override_of_a_standards_figure_wins() -> None:
    """A figure that the standard would fill in can be overridden though the file doesn't have it."""
    dram = load_accelerator("edge-npu-large", ["dram.t_cl_ns=31", "dram.interleave=row"]).dram

    assert isinstance(dram, BankedDram)
    assert (dram.t_cl_ns, dram.interleave, dram.t_rcd_ns) == (31, "row", 18.75)


def test_an_unknown_standard_is_reported_where_it_stands(tmp_path: Path) -> None:
    """A standard that isn't shipped gets the closest, at its own line or in its override."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("kind: flat, bytes_per_cycle: 8", "kind: banked, standard: ddr5-2400"))

    assert complaint(path) == (
        f"{path}:5:32: dram.standard: unknown DRAM standard 'ddr5-2400', did you mean 'ddr4-2400'?\n"
        "    dram: {kind: banked, standard: ddr5-2400}\n"
        "                                   ^"
    )
    assert complaint("edge-npu-large", "dram.standard=sram") == (
        "command line: dram.standard: unknown DRAM standard 'sram'; known: ddr4-2400, ddr4-3200, "
        "lpddr4-3200, lpddr4x-4266, lpddr5-6400, hbm2-1800, hbm2-2000, hbm2e-3200\n"
        "    dram.standard=sram\n"
        "                  ^"
    )


@pytest.mark.parametrize("name", standards())
def test_a_standard_is_complete_and_has_its_source(name: str) -> None:
    """A standard's name alone describes a memory whose figures are sensible and have a source."""
    standard = standards()[name]
    dram = BankedDram.model_validate({"kind": "banked", "standard": name})

    assert standard.source
    assert standard.confidence in ("high", "medium", "low")
    assert set(standard.fields) <= set(BankedDram.model_fields)
    assert dram.transfers_per_second == float(name.rpartition("-")[2]) * 1e6
    assert dram.t_ras_ns >= dram.t_rcd_ns
    assert dram.t_refi_ns > 10 * dram.t_rfc_ns
    assert dram.row_bytes % (dram.bus_bytes * dram.burst_length) == 0


@pytest.mark.parametrize(
    ("name", "nanoseconds"),
    [
        ("ddr4-2400", (16, 16, 16, 39, 0.833)),
        ("ddr4-3200", (22, 22, 22, 52, 0.625)),
        ("lpddr4-3200", (29, 29, 28, 68, 0.625)),
        ("lpddr5-6400", (15, 15, 20, 34, 1.25)),
        ("hbm2-2000", (14, 14, 14, 34, 1.0)),
    ],
)
def test_timing_is_the_sources_cycles_times_its_clock(name: str, nanoseconds: tuple[float, ...]) -> None:
    """tRCD, tRP, CL and tRAS are the cycle counts of the cited model file times its clock period."""
    *cycles, period = nanoseconds
    fields = standards()[name].fields
    stated = [fields[key] for key in ("t_rcd_ns", "t_rp_ns", "t_cl_ns", "t_ras_ns")]

    assert stated == pytest.approx([count * period for count in cycles], rel=1e-3)


@pytest.mark.parametrize("data", [{"kind": "banked"}, {"standard": 3}, {"standard": None}, 7, None, "text"])
def test_data_without_a_standard_is_left_to_the_schema(data: object) -> None:
    """Completing leaves alone what names no standard."""
    assert complete_from_standard(data) is data


def test_a_banked_dram_without_a_standard_needs_every_figure(tmp_path: Path) -> None:
    """Without a standard, each figure that is left out is missing."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("kind: flat, bytes_per_cycle: 8", "kind: banked, channels: 2"))
    missing = re.findall(r"^\S+:5:1: dram\.(\w+): required key is missing$", complaint(path), re.MULTILINE)

    assert missing == [name for name, field in BankedDram.model_fields.items() if field.is_required()][2:]


def test_a_file_loads_by_its_path(tmp_path: Path) -> None:
    """A YAML file is read by path, relative names and overrides included."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)

    for source in (path, str(path)):
        assert load_accelerator(source, ["clock_mhz=1e3"]).clock_mhz == 1000


def test_a_name_that_is_nothing_gets_the_closest_preset() -> None:
    """A name that is neither preset nor file says both."""
    assert complaint("gemini-default") == (
        "unknown accelerator 'gemini-default', did you mean 'gemmini-default'? "
        "(tilewright list accelerators shows them all); it is no file either"
    )
    assert complaint("nowhere/mine.yaml") == "nowhere/mine.yaml: no such file"
    assert complaint("mine.yaml") == "mine.yaml: no such file"
    with pytest.raises(
        InputError, match=r"^unknown accelerator 'zzz' \(tilewright list accelerators shows them all\)$"
    ):
        preset_text("zzz")


def test_all_mistakes_of_a_file_at_once(tmp_path: Path) -> None:
    """An accelerator file's mistakes are all reported, in the file's order."""
    path = tmp_path / "mine.yaml"
    path.write_text("""\
clock_mhz: -1
clock_mhz: .inf
array: {row: 8, cols: 4, dataflow: weight-stationary, operand: int9}
vector: {lanes: 8, cycles: {exp: 0}}
buffers:
  sram: {capacity_bytes: 1e3, holds: [], width_bytes: 0, banks: two}
dram: {kind: flat}
""")

    assert (
        complaint(path).replace(str(path), "mine.yaml")
        == """\
mine.yaml:1:1: name: required key is missing
    clock_mhz: -1
    ^
mine.yaml:2:1: clock_mhz: duplicate key 'clock_mhz', first on line 1
    clock_mhz: .inf
    ^
mine.yaml:2:12: clock_mhz: must be a number, not '.inf'
    clock_mhz: .inf
               ^
mine.yaml:3:9: array.row: unknown key 'row', did you mean 'rows'?
    array: {row: 8, cols: 4, dataflow: weight-stationary, operand: int9}
            ^
mine.yaml:3:36: array.dataflow: must be 'weight_stationary', 'output_stationary' or 'input_stationary', \
not 'weight-stationary', did you mean 'weight_stationary'?
    array: {row: 8, cols: 4, dataflow: weight-stationary, operand: int9}
                                       ^
mine.yaml:3:64: array.operand: must be 'int4', 'int8', 'int16', 'int32', 'fp8', 'fp16', 'bf16' or 'fp32', \
not 'int9', did you mean 'int8'?
    array: {row: 8, cols: 4, dataflow: weight-stationary, operand: int9}
                                                                   ^
mine.yaml:4:34: vector.cycles.exp: must be greater than 0, not 0
    vector: {lanes: 8, cycles: {exp: 0}}
                                     ^
mine.yaml:6:38: buffers.sram.holds: must have at least 1 item(s), not 0
      sram: {capacity_bytes: 1e3, holds: [], width_bytes: 0, banks: two}
                                         ^
mine.yaml:6:55: buffers.sram.width_bytes: must be greater than 0, not 0
      sram: {capacity_bytes: 1e3, holds: [], width_bytes: 0, banks: two}
                                                          ^
mine.yaml:6:65: buffers.sram.banks: must be an integer, not 'two'
      sram: {capacity_bytes: 1e3, holds: [], width_bytes: 0, banks: two}
                                                                    ^
mine.yaml:7:1: dram.bytes_per_cycle: required key is missing
    dram: {kind: flat}
    ^"""
    )


def test_an_operand_without_a_home_is_refused() -> None:
    """Buffers that leave an operand out, or hold it twice, are no machine."""
    line = preset_text("gemmini-default").splitlines().index("buffers:") + 1

    assert complaint("gemmini-default", "buffers.accumulator.holds=[input, output]") == (
        f"gemmini-default:{line}:1: buffers: exactly one of them must hold 'input'; "
        "scratchpad, accumulator do\n"
        "    buffers:\n"
        "    ^"
    )
    assert complaint(
        "bare-array", "buffers={a: {capacity_bytes: 1, holds: [input, weight], width_bytes: 1}}"
    ) == (
        "command line: buffers: exactly one of them must hold 'output'; none does\n"
        "    buffers={a: {capacity_bytes: 1, holds: [input, weight], width_bytes: 1}}\n"
        "            ^"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("array.row=32", "unknown key arch.array.row, did you mean arch.array.rows?"),
        (
            "buffers.scratchpd.banks=2",
            "unknown key arch.buffers.scratchpd.banks, did you mean arch.buffers.scratchpad.banks?",
        ),
        ("dram.t_cl_ns=3", "unknown key arch.dram.t_cl_ns: kind 'flat' does not have it, 'banked' has"),
        ("array.rows=0", "array.rows: must be greater than 0, not 0"),
        ("clock_mhz=1e999", "clock_mhz: must be a finite number, not inf"),
        ("mapper.effort=9", "mapper.effort: must be at most 6, not 9"),
        ("name=7", "name: must be text, not 7; put it in quotes"),
    ],
)  # fmt: skip
def test_a_bad_override_of_a_preset_is_told(override: str, message: str) -> None:
    """An override's mistake is reported with the command line as its place."""
    assert complaint("gemmini-default", override).splitlines()[0] == f"command line: {message}"


def test_the_committed_schema_is_up_to_date() -> None:
    """Editors see the schema of this version (write it again with `tilewright schema accelerator`)."""
    assert json.loads(SCHEMA_FILE.read_text()) == accelerator_schema()


@JSCHON
@pytest.mark.parametrize("name", preset_names())
def test_the_schema_accepts_every_preset(name: str, schema: JSONSchema) -> None:
    """An editor shows no error in a preset, nor in its resolved description."""
    assert _accepts(schema, parse(preset_text(name), name).data)
    assert _accepts(schema, json.loads(load_accelerator(name).model_dump_json()))


@JSCHON
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rows: 8", "row: 8"),
        ("rows: 8", "rows: 0"),
        ("name: mine\n", ""),
        ("kind: flat", "kind: flt"),
        ("kind: flat, bytes_per_cycle: 8", "kind: banked"),
        ("kind: flat, bytes_per_cycle: 8", "kind: banked, standard: ddr5"),
        ("output_stationary", "os"),
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(
    old: str, new: str, schema: JSONSchema, tmp_path: Path
) -> None:
    """An editor shows the mistakes that loading would."""
    assert old in GOOD
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace(old, new))

    assert _accepts(schema, parse(GOOD, "").data)
    assert not _accepts(schema, parse(path.read_text(), "").data)
    assert complaint(path)


def test_the_schema_explains_every_key() -> None:
    """Each block has a description for the editor to show, and the schema names its dialect."""
    schema = accelerator_schema()

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert [name for name, block in schema["$defs"].items() if not block.get("description")] == []
    assert (
        schema["$defs"]["Array"]["properties"]["rows"]["description"] == "Processing elements down a column."
    )


@settings(deadline=None)
@given(
    name=st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12),
    rows=st.integers(1, 2**16),
    clock=st.floats(1e-6, 1e9),
    lanes=st.integers(1, 10**6),
)
def test_any_accelerator_survives_its_yaml(name: str, rows: int, clock: float, lanes: int) -> None:
    """Writing an accelerator out and reading it back loses nothing, whatever its name and numbers."""
    bare = load_accelerator("bare-array")
    machine = bare.model_copy(
        update={
            "name": name,
            "clock_mhz": clock,
            "array": bare.array.model_copy(update={"rows": rows}),
            "vector": bare.vector.model_copy(update={"lanes": lanes}),
        }
    )

    assert read(Accelerator, to_yaml(machine), "resolved.yaml") == machine
