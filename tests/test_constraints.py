"""Constraints that can't be met, and other mistakes of space files that would be costly to find out late."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.expressions import condition
from tilewright.explore.space.load import load_space

SPACE = """\
accelerator: gemmini-default
workloads:
  - {workload: gemm, overrides: [workload.m=16, workload.k=16, workload.n=16]}
parameters:
  arch.array.rows: {values: [8, 16]}
  arch.clock_mhz: {values: [500, 1000]}
constraints: [CONSTRAINTS]
objectives: [{name: latency_s}]
fidelity: FIDELITY
"""


def write(folder: Path, constraints: str, fidelity: str = "analytic") -> Path:
    path = folder / "space.yaml"
    path.write_text(SPACE.replace("CONSTRAINTS", constraints).replace("FIDELITY", fidelity))
    return path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1/0 < 1", "divides by zero"),
        ("not 1 / 0 < 1", "divides by zero"),
        ("area_mm2.total / (2 - 2) < 1", "divides by zero"),
        ("1 > 2", "is never met, whatever the point"),
        ("'a' < 1", "is never met, whatever the point"),
        ("area_mm2.total < 1 and min(3, 4) > 3", "is never met, whatever the point"),
        ("not true", "is never met, whatever the point"),
    ],
)
def test_constants_that_decide_against_all_points(text: str, reason: str, tmp_path: Path) -> None:
    """Named at their place in the file."""
    with pytest.raises(InputError) as error:
        load_space(write(tmp_path, f'"{text}"'))
    (problem,) = error.value.problems
    assert (problem.message, problem.line, problem.column) == (f"{text!r} {reason}", 7, 15)


@pytest.mark.parametrize("text", ["1 < 2", "area_mm2.total / 2 < 1", "1 > 2 or area_mm2.total < 9"])
def test_constants_that_leave_points(text: str) -> None:
    """A condition that some figures meet is one."""
    assert condition(text).holds({"area_mm2.total": 1.0})


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1))
def test_columns_divide_as_numbers_do(pairs: list[tuple[int, int]]) -> None:
    """By zero: the condition is not met, also where it says `not`."""
    columns = {name: np.array(values) for name, values in zip("ab", zip(*pairs, strict=True), strict=True)}
    for text in ("a / b < 1", "not a / b < 1", "a / b < 1 or a > 0", "1 / (a - b) <= a / (a + b)"):
        rule = condition(text)
        own = [bool(rule.holds({"a": a, "b": b})) for a, b in pairs]
        assert rule.holds(columns).tolist() == own


@pytest.mark.parametrize("fidelity", ["analytic", "event", "ladder"])
@pytest.mark.parametrize(
    ("constraint", "count"),
    [("latency_s < 1e-12", 4), ("area_mm2.total < 0.001", 4), ("arch.array.rows > 1000", 0)],
)
def test_a_constraint_that_no_point_meets_is_named(
    constraint: str, count: int, fidelity: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it asks for figures of the run, of the machine, or for parameters; others are not blamed."""
    space = write(tmp_path, f"{constraint}, arch.clock_mhz < 2000, cycles > 3", fidelity)
    assert execute(["sweep", str(space), "-o", str(tmp_path / "study"), "-j", "1"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out == "front: no point meets the constraints\n"
    assert f"{count} points: {count} evaluated, 0 known already" in captured.err
    assert captured.err.endswith(f"no point meets the constraint {constraint!r}\n")
    assert captured.err.count("no point meets") == 1


def test_constraints_that_no_point_meets_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each by itself is met: none of them is to blame."""
    space = write(tmp_path, "arch.array.rows > 8, arch.array.rows < 16")
    assert execute(["sweep", str(space), "-o", str(tmp_path / "study"), "-j", "1"]) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out == "front: no point meets the constraints\n"
    assert "no point meets the constraint" not in captured.err


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_an_objective_stands_there_once(goal: str, tmp_path: Path) -> None:
    """With the same goal or with the other one."""
    space = write(tmp_path, "")
    both = f"[{{name: latency_s}}, {{name: area_mm2.total}}, {{name: latency_s, goal: {goal}}}]"
    space.write_text(space.read_text().replace("[{name: latency_s}]", both))
    with pytest.raises(InputError) as error:
        load_space(space)
    (problem,) = error.value.problems
    assert problem.message == "'latency_s' is an objective already: it has one goal, and stands here once"
    assert (problem.line, problem.key) == (8, "objectives.2.name")


def test_a_value_stands_there_once(tmp_path: Path) -> None:
    """Points would be there twice, under two numbers: `8` and `8.0` are one value."""
    space = write(tmp_path, "")
    space.write_text(space.read_text().replace("[8, 16]", "[8, 16, 8.0]"))
    with pytest.raises(InputError) as error:
        load_space(space)
    (problem,) = error.value.problems
    assert (problem.message, problem.key) == ("8 stands here twice", "parameters.arch.array.rows.values.2")
    with pytest.raises(InputError, match=r"command line: arch\.array\.rows: 8 stands here twice"):
        load_space(write(tmp_path, ""), ["arch.array.rows=8,8"])


def test_a_mistyped_parameter_is_one_mistake(tmp_path: Path) -> None:
    """Constraints and objectives that ask for it by its right name are not told off."""
    space = write(tmp_path, "arch.array.rows > 8")
    text = space.read_text().replace("  arch.array.rows:", "  arch.array.rwos:")
    space.write_text(text.replace("{name: latency_s}", "{name: arch.array.rows}"))
    with pytest.raises(InputError) as error:
        load_space(space)
    (problem,) = error.value.problems
    assert problem.message.startswith("unknown key arch.array.rwos, did you mean")
