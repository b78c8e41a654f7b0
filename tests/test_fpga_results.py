"""Units on FPGAs: measured clock and cells in descriptions and results, and what is said without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tilewright as tw
from tilewright.arch.fpga_results import shipped_measurements
from tilewright.arch.load import load_accelerator, to_yaml
from tilewright.description.errors import InputError

SMALL = ["array.rows=2", "array.cols=4", "attention_unit.head_dim=8", "attention_unit.output_columns=16"]
PARAMETERS = {
    "rows": 2, "cols": 4, "head_dim": 8, "operand_bits": 8, "probability_bits": 8,
    "exponent_fraction_bits": 6, "max_keys": 65536, "fifo_depth": 4, "output_columns": 16, "score_banks": 2,
}  # fmt: skip
ROW = {
    "target": "lfe5u-85f-8", "parameters": PARAMETERS, "lut": 4321, "ff": 3210, "dsp": 21, "bram": 2,
    "fmax_mhz": 87.5, "tools": {"pyosys": "0.70"}, "source": "made up",
}  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A file like `resources.lfe5u-85f-8.json`."""
    path = tmp_path / "resources.json"
    path.write_text(json.dumps(ROW))
    return path


def test_clock_and_cells_are_the_measured_ones(measured: Path) -> None:
    """Seconds are cycles at the measured fmax; cells stand beside mm2, and sources say whose they are."""
    here = [*SMALL, f"fpga={{target: lfe5u-85f-8, file: {measured}}}"]
    attention = tw.load_workload("attention", ["heads=1", "seq=16", "head_dim=8"])
    modelled = tw.simulate(tw.load_accelerator("attention-unit", SMALL), attention)
    result = tw.simulate(tw.load_accelerator("attention-unit", here), attention)
    assert result.cycles == modelled.cycles
    assert result.clock_mhz == 87.5
    assert result.latency_s == result.cycles / 87.5e6
    said = result.to_dict()
    assert said["area_fpga"] == {"lut4": 4321, "ff": 3210, "dsp": 21, "bram": 2}
    assert modelled.to_dict()["area_fpga"] == {}
    (source,) = [each for each in result.sources if each["constant"] == "fpga.lfe5u-85f-8.fmax_mhz"]
    assert (source["value"], source["source"], source["confidence"]) == (
        87.5,
        "made up (pyosys 0.70)",
        "user",
    )


def test_a_file_is_found_beside_the_description(measured: Path) -> None:
    """`fpga.file` is relative to the YAML file's folder, wherever the command runs."""
    yaml = to_yaml(load_accelerator("attention-unit", SMALL))
    path = measured.parent / "mine.yaml"
    path.write_text(yaml.replace("fpga: null", f"fpga:\n  target: lfe5u-85f-8\n  file: {measured.name}"))
    assert load_accelerator(path).clock_mhz == 87.5


def test_the_resolved_description_needs_no_file(measured: Path, tmp_path: Path) -> None:
    """Written out and read back, it is the same accelerator; changed in size, it has to be measured again."""
    accelerator = load_accelerator(
        "attention-unit", [*SMALL, f"fpga={{target: lfe5u-85f-8, file: {measured}}}"]
    )
    path = tmp_path / "resolved.yaml"
    path.write_text(to_yaml(accelerator))
    measured.unlink()
    assert load_accelerator(path) == accelerator
    with pytest.raises(InputError, match=r"no measurement of this unit \(3 x 4, int8\)"):
        load_accelerator(path, ["array.rows=3"])


def test_what_was_not_measured_is_refused_with_how_to_measure_it() -> None:
    """The message names unit, device, command and key."""
    with pytest.raises(InputError) as refused:
        load_accelerator("attention-unit", [*SMALL, "fpga.target=lfe5u-85f-6"])
    assert str(refused.value).startswith(
        "fpga: no measurement of this unit (2 x 4, int8) on 'lfe5u-85f-6'; make one with `tilewright rtl "
        "ACCELERATOR arch.fpga=null -o build --synth lfe5u-85f-6`, then give `fpga.file: "
        "build/resources.lfe5u-85f-6.json`; measured are "
    )


def test_a_machine_without_the_unit_has_no_fpga() -> None:
    """Other accelerators have no Verilog that could have been measured."""
    with pytest.raises(InputError) as refused:
        load_accelerator("bare-array", ["fpga.target=lfe5u-85f-8"])
    assert str(refused.value) == (
        "fpga: only the streaming attention unit has Verilog; give `attention_unit: {kind: streaming}` or "
        "leave `fpga` out"
    )


def test_resources_without_a_clock_are_no_measurement(tmp_path: Path) -> None:
    """What was synthesised only, for 7 series, says nothing of time."""
    path = tmp_path / "resources.json"
    path.write_text(json.dumps({**ROW, "fmax_mhz": None}))
    with pytest.raises(InputError, match="no measurement of this unit"):
        load_accelerator("attention-unit", [*SMALL, f"fpga={{target: lfe5u-85f-8, file: {path}}}"])


def test_shipped_measurements_are_of_different_units() -> None:
    """No unit has two measurements on one device, and each says which command made it, with which tools."""
    rows = shipped_measurements()
    assert len({(row.target, tuple(row.parameters.items())) for row in rows}) == len(rows)
    assert all(row.source.startswith("tilewright rtl attention-unit") for row in rows)
    assert all("pyosys" in row.tools for row in rows)
