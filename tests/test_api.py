"""The Python interface: what it offers can be found, reads well, and says what is wrong with arguments."""

import pydoc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tilewright as tw

ACCELERATOR = tw.load_accelerator("teaching-4x4")
WORKLOAD = tw.load_workload("gemm", ["m=4", "k=4", "n=4"])


def _anything(value: object) -> Any:  # noqa: ANN401 - what a caller without a type checker hands over
    return value


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: tw.simulate(_anything(WORKLOAD), _anything(ACCELERATOR)),
            "expected what load_accelerator returns, not of type OperatorGraph",
        ),
        (
            lambda: tw.simulate(ACCELERATOR, _anything("gemm")),
            "expected what load_workload returns, not 'gemm'",
        ),
        (
            lambda: tw.generate_verilog(_anything("attention-unit"), "build"),
            "expected what load_accelerator returns, not 'attention-unit'",
        ),
        (
            lambda: tw.simulate(ACCELERATOR, WORKLOAD, _anything("exact")),
            "fidelity: must be one of analytic, event, cycle, not 'exact'",
        ),
        (
            lambda: tw.simulate(ACCELERATOR, WORKLOAD, "cycle", seed=-1),
            "seed: must be an integer of at least 0, not -1",
        ),
        (
            lambda: tw.load_accelerator("teaching-4x4", "array.rows=8"),
            "overrides: must be a list of 'KEY=VALUE', not 'array.rows=8'",
        ),
        (
            lambda: tw.load_accelerator("teaching-4x4", _anything({"array.rows": 8})),
            "overrides: must be a list of 'KEY=VALUE', not {'array.rows': 8}",
        ),
        (
            lambda: tw.load_workload("gemm", _anything([8])),
            "overrides: must be a list of 'KEY=VALUE', not of 8",
        ),
        (
            lambda: tw.sweep("space.yaml", "study", jobs=0),
            "jobs: must be at least 1, not 0",
        ),
        (lambda: tw.validate("rtl", jobs=-1), "jobs: must be at least 1, not -1"),
        (lambda: tw.load_accelerator(Path("teaching-4x4")), "teaching-4x4: no such file"),
        (lambda: tw.load_workload(Path("gemm")), "gemm: no such file"),
    ],
)
def test_a_wrong_argument_is_refused(
    call: Callable[[], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An argument that only looks right is named with its value, and nothing is simulated or written."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tw.InputError) as refusal:
        call()
    assert str(refusal.value) == message
    assert not list(tmp_path.iterdir())


def test_help_and_completion_know_every_public_name() -> None:
    """The names that load late are listed by `dir` and described by `help`."""
    assert set(tw.__all__) <= set(dir(tw))
    text = pydoc.plain(pydoc.render_doc(tw))
    assert all(f"{name}(" in text or f"class {name}" in text for name in tw.__all__ if name != "__version__")


def test_what_is_returned_prints_short_or_as_the_command_does() -> None:
    """`repr` is a line, however large the model; `str` is the table of the command line."""
    result = tw.simulate(ACCELERATOR, WORKLOAD)
    bert = tw.load_workload("bert-base")
    assert repr(result) == f"<Result of gemm on teaching-4x4, event: {result.cycles} cycles>"
    assert repr(bert) == f"<OperatorGraph bert-base: {len(bert.operators)} operators, {bert.macs:,} MACs>"
    assert str(result).startswith("gemm on teaching-4x4, event fidelity\n\ncycles")


def test_a_validation_prints_short_or_as_the_command_does(tmp_path: Path) -> None:
    """`repr` is a line with the mean error of each suite; `str` is the table of the command line."""
    (tmp_path / "suite.yaml").write_text(
        "name: half\ncases:\n"
        "  - {accelerator: teaching-4x4, metric: peak_macs_per_cycle, measured: 32, evidence: claim}\n"
    )
    validation = tw.validate(tmp_path / "suite.yaml")
    assert repr(validation) == "<Validation, mean absolute error: half 50.0 %>"
    assert str(validation).startswith("half\n")
