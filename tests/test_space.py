"""Space files: what they mean, and how their mistakes are told."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tilewright.cli import execute
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import tokens
from tilewright.explore.evaluation.expressions import condition
from tilewright.explore.evaluation.points import Axis, Point, grid, grid_size, keys
from tilewright.explore.space.load import LoadedSpace, load_space
from tilewright.explore.space.schema import space_schema

HEAD = """\
accelerator: gemmini-default
workloads: [{workload: gemm}]
"""
TAIL = "objectives: [{name: latency_s}]\n"
MISTAKES = yaml.safe_load((Path(__file__).parent / "data" / "space_mistakes.yaml").read_text())
Load = Callable[..., LoadedSpace]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(parameters, rest, overrides)`: the space of such a file, called `space.yaml` in messages."""

    def made(parameters: str, rest: str = "", overrides: tuple[str, ...] = ()) -> LoadedSpace:
        path = tmp_path / "space.yaml"
        body = "".join(f"  {line}\n" for line in parameters.splitlines())
        path.write_text(f"{HEAD}parameters:\n{body}{rest or TAIL}")
        return load_space(path, overrides)

    return made


def problems(call: Callable[[], object]) -> list[str]:
    """First lines of what is wrong, without the folder."""
    with pytest.raises(InputError) as caught:
        call()
    return [str(each).splitlines()[0].rpartition("/")[2] for each in caught.value.problems]


@pytest.mark.parametrize(
    ("parameter", "values"),
    [
        ("{values: [8, 16.0, 32]}", (8, 16, 32)),
        ("{range: [4, 7]}", (4, 5, 6, 7)),
        ("{range: [4, 17, 4]}", (4, 8, 12, 16)),
        ("{log2: [3, 6]}", (8, 16, 32, 64)),
    ],
)
def test_the_kinds_of_parameters(load: Load, parameter: str, values: tuple[int, ...]) -> None:
    """Values, a range with both ends, powers of two."""
    assert load(f"arch.array.rows: {parameter}").axes[0].values == values


def test_decimal_steps_add_up(load: Load) -> None:
    """0.1 and so on, not 0.30000000000000004."""
    assert load("arch.clock_mhz: {range: [0.1, 0.5, 0.1]}").axes[0].values == (0.1, 0.2, 0.3, 0.4, 0.5)


def test_conditional_parameters(load: Load) -> None:
    """A key is there only with the values that it names; elsewhere the point leaves it alone."""
    loaded = load("arch.array.rows: {values: [8]}", "", ("arch.array.rows=16,32", "workload.m=4"))
    assert [axis.values for axis in loaded.axes] == [(16, 32), (4,)]
    assert problems(lambda: load("arch.array.rows: {values: [8]}", "", ("array.rows=3",))) == [
        "override 'array.rows=3' does not say of what: write arch.array.rows=… for the accelerator or "
        "workload.array.rows=… for the workload"
    ]
    assert problems(lambda: load("arch.array.rows: {values: [8]}", "", ("arch.array.row=3",))) == [
        "command line: arch.array.row: unknown key arch.array.row, did you mean arch.array.rows?"
    ]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["reason"])
def test_mistakes_have_their_place(load: Load, mistake: dict[str, str]) -> None:
    """Line and column, the offending value, what to do."""
    told = problems(lambda: load(mistake["parameters"], mistake["rest"]))
    assert len(told) == 1
    assert mistake["reason"] in told[0]


def test_all_mistakes_at_once(load: Load) -> None:
    """Of parameters, constraints and objectives."""
    told = problems(
        lambda: load(
            "arch.array.row: {values: [8]}\narch.array.col: {values: [8]}",
            "constraints: [x < ]\nobjectives: [{name: y}]\n",
        )
    )
    assert [each.split(":")[1] for each in told] == ["4", "5", "6", "7"]


def test_two_workloads_need_two_names(tmp_path: Path) -> None:
    """Their columns could not be told apart."""
    path = tmp_path / "space.yaml"
    body = "parameters: {arch.array.rows: {values: [8]}}\n"
    path.write_text(HEAD.replace("]", ", {workload: gemm}]") + body + TAIL)
    assert problems(lambda: load_space(path)) == [
        "space.yaml:2:31: workloads.1: two workloads are called 'gemm': give each a `name` of its own"
    ]


def test_schema_is_the_committed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`tilewright schema space` prints what editors are given."""
    assert execute(["schema", "space"]) == 0
    committed = Path(__file__).parent.parent / "docs" / "schema" / "space.schema.json"
    assert json.loads(capsys.readouterr().out) == space_schema() == json.loads(committed.read_text())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_a_grid_is_the_product(sizes: list[int]) -> None:
    """Every combination once, whichever axes are workloads'."""
    axes = [
        Axis(f"{'workload' if number % 2 else 'arch'}.k{number}", tuple(range(size)))
        for number, size in enumerate(sizes)
    ]
    found = [tuple(value for _, value in point.values) for point in grid(axes)]
    assert sorted(found) == sorted(product(*(axis.values for axis in axes)))
    assert len(found) == grid_size(axes)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.booleans() | st.text(), max_size=5))
def test_a_key_is_of_the_choice_not_of_its_order(values: dict[str, int | bool | str]) -> None:
    """And of the study, the fidelity and the version."""
    straight, reverse = Point(tuple(values.items())), Point(tuple(reversed(values.items())))
    assert straight.canonical == reverse.canonical
    found = {keys(study, how, model)(straight.canonical) for study in "ab" for how in "cd" for model in "ef"}
    assert len(found) == 8


@pytest.mark.parametrize(
    ("text", "truth"),
    [
        ("a.b < 3", True),
        ("a.b * 2 - 1 == 3", True),
        ("1 < a.b <= 2 and not c-d:e > 1e-3", False),
        ("kind == 'banked' or a.b > 7", True),
        ("max(a.b, c-d:e) < 2", False),
        ("a.b / (c-d:e - c-d:e) < 1", False),
        ("kind < 3", False),
        ("flag == true", True),
    ],
)
def test_conditions(text: str, truth: bool) -> None:
    """Worked out as Python would; what can't be compared is not met."""
    assert bool(condition(text).holds({"a.b": 2, "c-d:e": 0.5, "kind": "banked", "flag": True})) is truth


def test_conditions_take_columns() -> None:
    """Of many points at once."""
    holds = condition("a * b < 10 and a != 3").holds({"a": np.array([1, 2, 3]), "b": np.array([9, 9, 1])})
    assert holds.tolist() == [True, False, False]


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os')",
        "a",
        "a.b()",
        "[1] < 2",
        "a < (lambda: 1)",
        "a ** 9 < 1",
        "a <",
        "min() < 1",
        "f'{a}' < 1",
    ],
)
def test_nothing_else_can_be_said(text: str) -> None:
    """A condition is no program."""
    with pytest.raises(InputError, match="is no condition; compare dotted keys and numbers"):
        condition(text)


@pytest.mark.parametrize(
    ("described", "count"),
    [
        ({"batch": 2, "seq": 128}, 256),
        ({"batch": 4, "seq": 128, "phase": "decode"}, 4),
        ({"batch": 2, "seq": 128, "phase": "prefill", "generate": 10}, 20),
        ({"batch": 1, "image": 224, "patch": 16}, 196),
        ({"batch": 1}, None),
    ],
)
def test_tokens(described: dict[str, object], count: int | None) -> None:
    """What a run yields, for tokens per second."""
    assert tokens(described) == count
