"""Validation cases whose figure is measured by running the RTL."""

from __future__ import annotations

from pathlib import Path

import pytest

import tilewright as tw
from tilewright.explore import unit_measured

SUITE = """\
name: mine
metric: cycles
workload: attention
overrides: [workload.heads=1, workload.head_dim=8, workload.seq=12]
cases:
  - {accelerator: attention-unit, overrides: [%s], measured: rtl%s}
"""
SMALL = "arch.array.rows=3, arch.array.cols=4, arch.attention_unit.head_dim=8"


def _written(tmp_path: Path, overrides: str, more: str = "") -> Path:
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE % (overrides, more), encoding="utf-8")
    return path


def test_the_measured_figure_is_the_rtls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the RTL takes stands under `measured`, also where the simulator says something else."""
    monkeypatch.setattr(unit_measured, "measured_cycles", lambda *_: 500)
    (case,) = tw.validate(_written(tmp_path, SMALL)).suites[0].cases
    accelerator = tw.load_accelerator(
        "attention-unit", ["array.rows=3", "array.cols=4", "attention_unit.head_dim=8"]
    )
    workload = tw.load_workload("attention", ["heads=1", "head_dim=8", "seq=12"])
    assert case.measured == 500
    assert case.predicted == tw.simulate(accelerator, workload).cycles


@pytest.mark.parametrize(
    ("overrides", "more", "said"),
    [
        (
            SMALL,
            ", metric: macs",
            "measured: `measured: rtl` needs a `workload`, `metric: cycles`, and no `baseline`",
        ),
        (SMALL + ", arch.attention_unit=null", "", "has no attention unit, and Verilog is written of the"),
        (
            SMALL,
            ", workload: encoder_block",
            "the RTL is the attention unit's alone, and encoder_block has more in it",
        ),
    ],
)
def test_what_the_rtl_cannot_measure_is_refused(overrides: str, more: str, said: str, tmp_path: Path) -> None:
    """With the place in the suite and what to do."""
    path = _written(tmp_path, overrides, more)
    if "encoder_block" in more:
        path.write_text(path.read_text().replace("workload.head_dim=8", "workload.d=8"), encoding="utf-8")
    with pytest.raises(tw.InputError) as caught:
        tw.validate(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
