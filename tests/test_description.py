"""Reading descriptions: every mistake at once, each where it stands, in words that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, model_validator

from tilewright.description.errors import InputError, Problem
from tilewright.description.names import closest, unknown
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import dump, parse, parse_value


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sram(Strict):
    kind: Literal["sram"]
    kib: PositiveInt


class Hbm(Strict):
    kind: Literal["hbm"]
    stacks: PositiveInt
    gbps: float = 2.0


class Cell(Strict):
    rows: PositiveInt
    cols: PositiveInt
    skewed: bool = False


class Machine(Strict):
    name: str
    cell: Cell
    memory: Annotated[Sram | Hbm, Field(discriminator="kind")]
    ports: dict[str, Cell] = {}
    lanes: tuple[int, ...] = ()
    flavour: Literal["weight", "output"] = "weight"
    spare: Cell | None = None

    @model_validator(mode="after")
    def _square(self) -> Machine:
        if self.name == "square" and self.cell.rows != self.cell.cols:
            raise ValueError(f"a square machine needs rows = cols, not {self.cell.rows} and {self.cell.cols}")
        return self


GOOD = """\
name: m
cell: {rows: 4, cols: 8}
memory: {kind: sram, kib: 16}
"""


def complaint(text: str, *overrides: str) -> str:
    """Return the whole message of reading a bad machine."""
    with pytest.raises(InputError) as caught:
        read(Machine, text, "edge.yaml", overrides)
    return str(caught.value)


class Lists(Strict):
    tile: tuple[int, int, int] = (1, 1, 1)
    orders: Annotated[tuple[Literal["flat", "flash"], ...], Field(min_length=1)] = ("flat",)


def test_a_list_of_fixed_length_says_which_entry_is_missing() -> None:
    """The list is the place, and entries are counted from one."""
    with pytest.raises(InputError) as caught:
        read(Lists, "tile: [1, 2]\n", "edge.yaml")
    assert str(caught.value) == "edge.yaml:1:7: tile: entry 3 is missing\n    tile: [1, 2]\n          ^"


@pytest.mark.parametrize(
    ("orders", "problem"),
    [
        ("[flsh]", "orders.0: must be 'flat' or 'flash', not 'flsh', did you mean 'flash'?"),
        ("[]", "orders: must have at least 1 item(s), not 0"),
    ],
)
def test_a_wrong_entry_does_not_make_a_list_too_short(orders: str, problem: str) -> None:
    """A misspelt entry is one problem; an empty list is still too short."""
    with pytest.raises(InputError) as caught:
        read(Lists, f"orders: {orders}\n", "edge.yaml")
    assert [each.partition(": ")[2] for each in str(caught.value).splitlines() if "yaml:" in each] == [
        problem
    ]


def test_a_good_text_gives_the_model() -> None:
    """A text without mistakes becomes the model it describes."""
    expected = Machine(name="m", cell=Cell(rows=4, cols=8), memory=Sram(kind="sram", kib=16))

    assert read(Machine, GOOD, "edge.yaml") == expected


def test_every_mistake_is_reported_at_once_where_it_stands() -> None:
    """Each mistake has its line, column, key and a caret; a misspelt key is not also a missing one."""
    text = """\
name: [m]
cell:
  row: 64
  cols: -3
  cols: 8.5
memory: {kind: hmb, stacks: 1}
lanes: [1, two]
flavour: wieght
spare: 7
kell: 1
ports:
  a: {rows: 1, cols: 1, skewed: maybe}
"""

    assert (
        complaint(text)
        == """\
edge.yaml:1:7: name: must be text, not a list
    name: [m]
          ^
edge.yaml:3:3: cell.row: unknown key 'row', did you mean 'rows'?
      row: 64
      ^
edge.yaml:5:3: cell.cols: duplicate key 'cols', first on line 4
      cols: 8.5
      ^
edge.yaml:5:9: cell.cols: must be an integer, not 8.5
      cols: 8.5
            ^
edge.yaml:6:16: memory.kind: must be one of 'sram', 'hbm', not 'hmb', did you mean 'hbm'?
    memory: {kind: hmb, stacks: 1}
                   ^
edge.yaml:7:12: lanes.1: must be an integer, not 'two'
    lanes: [1, two]
               ^
edge.yaml:8:10: flavour: must be 'weight' or 'output', not 'wieght', did you mean 'weight'?
    flavour: wieght
             ^
edge.yaml:9:8: spare: must be a mapping of keys to values, not 7
    spare: 7
           ^
edge.yaml:10:1: kell: unknown key 'kell', did you mean 'cell'?
    kell: 1
    ^
edge.yaml:12:33: ports.a.skewed: must be true or false, not 'maybe'
      a: {rows: 1, cols: 1, skewed: maybe}
                                    ^"""
    )


def test_a_missing_key_points_at_its_block() -> None:
    """What is not there is reported at the key of the block that lacks it, or at the top of the file."""
    assert (
        complaint("# a comment\nname: m\ncell:\n  rows: 4\n")
        == """\
edge.yaml:2:1: memory: required key is missing
    name: m
    ^
edge.yaml:3:1: cell.cols: required key is missing
    cell:
    ^"""
    )
    assert (
        complaint(GOOD.replace("kind: sram, ", ""))
        == """\
edge.yaml:3:1: memory.kind: required key is missing
    memory: {kib: 16}
    ^"""
    )


def test_a_key_of_another_kind_says_so() -> None:
    """A key that a block of another kind has is no spelling mistake."""
    assert (
        complaint(GOOD.replace("kib: 16", "kib: 16, stacks: 2"))
        == """\
edge.yaml:3:31: memory.stacks: unknown key 'stacks': kind 'sram' does not have it, 'hbm' has
    memory: {kind: sram, kib: 16, stacks: 2}
                                  ^"""
    )


def test_a_key_in_the_wrong_block_says_where_it_belongs() -> None:
    """A known key in the wrong place is answered with its right place."""
    assert (
        complaint(GOOD + "kib: 3\n")
        == """\
edge.yaml:4:1: kib: unknown key 'kib', did you mean 'memory.kib'?
    kib: 3
    ^"""
    )


def test_a_rule_over_several_keys_points_at_its_block() -> None:
    """What a model's own validator says is reported where the model starts."""
    assert (
        complaint(GOOD.replace("name: m", "name: square"))
        == """\
edge.yaml:1:1: a square machine needs rows = cols, not 4 and 8
    name: square
    ^"""
    )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("true", "must be a number, not true"),
        ("yes", "must be an integer, not 'yes'"),
        ("", "must be an integer, not empty"),
        ("4.5", "must be an integer, not 4.5"),
        ("{a: 1}", "must be an integer, not a mapping"),
        ("9" * 5000, f"must be a smaller integer, not '{'9' * 56}…"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_value(value: str, message: str) -> None:
    """A number is never made of a boolean, a word or nothing."""
    first_line = complaint(
        f"name: m\nmemory: {{kind: sram, kib: 1}}\ncell:\n  cols: 8\n  rows: {value}\n"
    ).split("\n")[0]

    assert first_line == f"edge.yaml:5:{9 if value else 8}: cell.rows: {message}"


def test_text_that_looks_like_a_number_wants_quotes() -> None:
    """A name that YAML takes for a number is answered with the way out."""
    assert (
        complaint(GOOD.replace("name: m", "name: 16"))
        == """\
edge.yaml:1:7: name: must be text, not 16; put it in quotes
    name: 16
          ^"""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "edge.yaml: the file is empty: expected a mapping of keys to values"),
        ("# nothing\n", "edge.yaml: the file is empty: expected a mapping of keys to values"),
        ("- a\n", "edge.yaml:1:1: expected a mapping of keys to values, not a list\n    - a\n    ^"),
        ("hi", "edge.yaml:1:1: expected a mapping of keys to values, not a single value\n    hi\n    ^"),
        (
            "cell:\n\trows: 4\n",
            "edge.yaml:2:1: not valid YAML: a tab can't indent; use spaces\n     rows: 4\n    ^",
        ),
        (
            "a: 1\n  b: 2\n",
            "edge.yaml:2:4: not valid YAML: a second ':' here; check the indentation, or quote the value"
            "\n      b: 2\n       ^",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "edge.yaml:2:1: more than one YAML document: keep one per file\n    ---\n    ^",
        ),
        ("a: b\x07c\n", "edge.yaml:1:5: character U+0007 is not allowed in YAML"),
        ("[" * 100_000, "edge.yaml:1:101: nested more than 100 deep"),
    ],
)
def test_text_that_is_no_mapping_is_refused(text: str, expected: str) -> None:
    """Text that can't be a description at all is refused with its one reason."""
    assert complaint(text) == expected


def test_a_bad_byte_of_an_argument_is_refused() -> None:
    """An argument that is no UTF-8 is refused like any other bad value."""
    first_line, *_ = complaint(GOOD, "name=\udcff").splitlines()

    assert first_line == r"command line: arch.name: not UTF-8 text: '\udcff'"


@pytest.mark.parametrize("text", ["name: m\nmemory: {kind: sram,\n", "name: m\ncell: [1,\n", "name: 'm\n"])
def test_a_truncated_text_is_refused_at_its_end(text: str) -> None:
    """A text cut off in the middle of a block or a string is refused as such."""
    lines = text.count("\n") + 1

    assert complaint(text) == (
        f"edge.yaml:{lines}:1: not valid YAML: "
        "the text ends too early (cut off, or a quote or bracket left open?)"
    )


def test_tags_and_endless_aliases_are_mistakes() -> None:
    """Nothing in a file can run code or refer to itself."""
    message = complaint("name: !!python/object:os.system x\nlanes: &a [*a]\n" + GOOD.partition("\n")[2])

    assert message.split("\n")[::3] == [
        "edge.yaml:1:7: name: tag !!python/object:os.system means nothing here",
        "edge.yaml:2:8: lanes.0: an alias that holds itself",
        "edge.yaml:2:8: lanes.0: must be an integer, not empty",
    ]


def test_aliases_repeat_a_block_and_stay_apart_under_overrides() -> None:
    """An alias copies a block; overriding the copy leaves the original alone."""
    text = "name: m\ncell: &c {rows: 4, cols: 8}\nmemory: {kind: sram, kib: 1}\nspare: *c\n"
    machine = read(Machine, text, "edge.yaml", ["spare.rows=9"])

    assert (machine.cell.rows, machine.spare and machine.spare.rows) == (4, 9)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("2400e6", 2400e6), (".5", 0.5), ("-1.", -1.0),
        ("+12", 12), ("0x1F", 31), ("0o17", 15), ("017", 17),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("off", "off"), ("y", "y"),
        ("true", True), ("False", False),
        ("null", None), ("~", None), ("", None),
        ("1:30", "1:30"), ("2001-01-01", "2001-01-01"), ("1_000", "1_000"), (".inf", ".inf"), ("'1'", "1"),
        ("[1, a]", [1, "a"]), ("{on: no}", {"on": "no"}), ("{1: 2}", {"1": 2}),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    """`no` is a word, `1e-3` a number, a date text: YAML 1.2's core schema."""
    read_value = parse_value(text)

    assert (type(read_value), read_value) == (type(value), value)


TRAPS = ["no", "1e3", "0x10", "~", "null", "1.", "true", "1_0", "2001-01-01", ""]
"""Strings that some YAML takes for something else."""
WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from(["a", "b", "no", "1e3"])
JSON_LIKE = st.recursive(
    SCALARS | WORDS | st.sampled_from(TRAPS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON_LIKE)
def test_what_is_dumped_reads_back(data: object) -> None:
    """Dumping and parsing plain data gives the same data, whatever its strings look like."""
    assert parse(dump({"data": data}), "x").data == {"data": data}


def test_overrides_win_over_the_file_and_the_last_one_wins() -> None:
    """Overrides take effect with and without prefix, later over earlier, on keys not in the file too."""
    overrides = ["cell.rows=5", "arch.cell.rows=6", "cell.skewed=on", "name=no", "lanes=[1, 2]", "lanes.1=7"]
    overrides += ["spare={rows: 1, cols: 1}", "spare.cols=3"]
    machine = read(Machine, GOOD, "edge.yaml", overrides)

    assert machine == Machine(
        name="no",
        cell=Cell(rows=6, cols=8, skewed=True),
        memory=Sram(kind="sram", kib=16),
        lanes=(1, 7),
        spare=Cell(rows=1, cols=3),
    )


@pytest.mark.parametrize(
    "overrides",
    [
        ["memory.kind=hbm", "memory.stacks=4", "memory.gbps=3.2"],
        ["memory.gbps=3.2", "arch.memory.stacks=4", "arch.memory.kind=hbm"],
        ["memory={kind: hbm, stacks: 4, gbps: 3.2}"],
    ],
)
def test_another_kind_drops_the_keys_of_the_old_one(overrides: list[str]) -> None:
    """A block's kind can be overridden in any order with its new keys."""
    assert read(Machine, GOOD, "edge.yaml", overrides).memory == Hbm(kind="hbm", stacks=4, gbps=3.2)


def test_the_same_kind_again_keeps_the_keys() -> None:
    """Overriding a kind with what it is changes nothing."""
    assert read(Machine, GOOD, "edge.yaml", ["memory.kind=sram"]) == read(Machine, GOOD, "edge.yaml")


def test_every_bad_override_is_reported_with_its_text() -> None:
    """Unknown keys get the key that was meant, bad values their rule, all with the override's own text."""
    overrides = [
        "arch.cell.row=3",
        "cel.rows=3",
        "rows=3",
        "ports.a.rows=1",
        "memory.stacks=1",
        "cell.rows.x=1",
    ]
    overrides += ["zzz=1", "cell.rows", "=3", "name=[", "cell.cols=-8"]

    assert (
        complaint(GOOD, *overrides)
        == """\
command line: expected KEY=VALUE, not 'cell.rows'
command line: expected KEY=VALUE, not '=3'
command line: arch.name: not valid YAML: the text ends too early (cut off, or a quote or bracket left open?)
    name=[
         ^
command line: unknown key arch.cell.row, did you mean arch.cell.rows?
    arch.cell.row=3
         ^
command line: unknown key arch.cel.rows, did you mean arch.cell.rows?
    cel.rows=3
    ^
command line: unknown key arch.rows, did you mean arch.cell.rows?
    rows=3
    ^
command line: unknown key arch.ports.a.rows
    ports.a.rows=1
    ^
command line: unknown key arch.memory.stacks: kind 'sram' does not have it, 'hbm' has
    memory.stacks=1
    ^
command line: unknown key arch.cell.rows.x
    cell.rows.x=1
    ^
command line: unknown key arch.zzz; known here: name, cell, memory, ports, lanes, flavour, spare
    zzz=1
    ^
command line: cell.cols: must be greater than 0, not -8
    cell.cols=-8
              ^"""
    )


def test_an_overrides_boolean_is_no_number() -> None:
    """`true` where a number belongs is refused on the command line too."""
    assert (
        complaint(GOOD, "memory.kib=true")
        == """\
command line: memory.kib: must be a number, not true
    memory.kib=true
               ^"""
    )


def test_overrides_reach_existing_names_only() -> None:
    """A mapping with free names takes overrides for the names that it has, and says which was meant."""
    text = GOOD + "ports: {left: {rows: 1, cols: 1}}\n"

    assert read(Machine, text, "edge.yaml", ["ports.left.rows=7"]).ports["left"].rows == 7
    assert (
        complaint(text, "ports.letf.rows=7")
        == """\
command line: unknown key arch.ports.letf.rows, did you mean arch.ports.left.rows?
    ports.letf.rows=7
    ^"""
    )


def test_what_a_new_kind_lacks_is_the_overrides_fault() -> None:
    """Keys that only the overridden kind needs are missing on the command line, not in the file."""
    assert (
        complaint(GOOD, "memory.kind=hbm")
        == """\
command line: memory.stacks: required key is missing
    memory.kind=hbm
                ^"""
    )


def test_mistakes_of_file_and_overrides_come_together() -> None:
    """The file's mistakes come first, in its order, then the command line's."""
    assert complaint(GOOD.replace("cols: 8", "cols: 0"), "cell.rows=0").split("\n")[::3] == [
        "edge.yaml:2:23: cell.cols: must be greater than 0, not 0",
        "command line: cell.rows: must be greater than 0, not 0",
    ]


def test_an_override_mends_a_mistake_of_the_file() -> None:
    """What counts is the description after the overrides."""
    assert read(Machine, GOOD.replace("cols: 8", "cols: 0"), "edge.yaml", ["cell.cols=2"]).cell.cols == 2


class Gemm(Strict):
    family: Literal["gemm"]
    m: PositiveInt


class Softmax(Strict):
    family: Literal["softmax"]
    rows: PositiveInt
    cell: Cell | None = None


WORKLOAD: TypeAdapter[Gemm | Softmax] = TypeAdapter(Annotated[Gemm | Softmax, Field(discriminator="family")])


def test_a_union_reads_through_a_type_adapter() -> None:
    """A description of several families is read, overridden and switched through its discriminator."""
    assert read(WORKLOAD, "family: gemm\nm: 3\n", "w.yaml", ["workload.m=4"], "workload") == Gemm(
        family="gemm", m=4
    )
    switched = read(WORKLOAD, "family: gemm\nm: 3\n", "w.yaml", ["rows=2", "family=softmax"], "workload")
    assert switched == Softmax(family="softmax", rows=2)


def test_a_unions_mistakes_are_placed_without_its_tags() -> None:
    """The family that pydantic names in an error's place is no key of the file."""
    with pytest.raises(InputError) as caught:
        read(
            WORKLOAD,
            "family: softmax\nrwos: 3\ncell: {rows: 0, cols: 1}\n",
            "w.yaml",
            ["workload.m=1"],
            "workload",
        )

    assert (
        str(caught.value)
        == """\
w.yaml:2:1: rwos: unknown key 'rwos', did you mean 'rows'?
    rwos: 3
    ^
w.yaml:3:14: cell.rows: must be greater than 0, not 0
    cell: {rows: 0, cols: 1}
                 ^
command line: unknown key workload.m: family 'softmax' does not have it, 'gemm' has
    workload.m=1
             ^"""
    )


class Checked(Strict):
    inner: Cell

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, data: object) -> object:
        raise InputError(Problem(f"no such {type(data).__name__}", key="inner.rows"), "and another thing")


def test_a_validators_own_problems_keep_their_keys() -> None:
    """A validator may say which key below its block is wrong."""
    with pytest.raises(InputError) as caught:
        read(Checked, "inner:\n  rows: 3\n", "c.yaml")

    assert (
        str(caught.value)
        == """\
c.yaml:1:1: and another thing
    inner:
    ^
c.yaml:2:9: inner.rows: no such dict
      rows: 3
            ^"""
    )


def answered(text: str, overrides: list[str]) -> bool:
    """Return whether reading gives a machine, or the problems that it has."""
    try:
        return isinstance(read(Machine, text, "x.yaml", overrides), Machine)
    except InputError as error:
        return bool(error.problems)


@settings(deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=20), max_size=2))
def test_no_text_brings_anything_but_an_input_error(text: str, overrides: list[str]) -> None:
    """Whatever the file and the overrides hold, the reader answers with the model or its problems."""
    assert answered(text, overrides)
    assert answered(GOOD + text, overrides)


PIECES = [
    "name: m",
    "cell:",
    " rows: 4",
    "  cols: [",
    "memory: {kind: sram",
    "kib: 1}",
    "? a",
    "- b",
    "&a",
    "*a",
]
KEYED = [
    "cell",
    "cell.rows",
    "memory",
    "memory.kind",
    "lanes.0",
    "ports.a",
    "spare.cols",
    "name",
    "a..b",
    ".",
    "arch",
]


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=6),
    st.lists(
        st.builds("{}={}".format, st.sampled_from(KEYED), st.sampled_from([*TRAPS, "[", "{a: 1}", "hbm"]))
    ),
)
def test_no_yaml_in_pieces_brings_anything_but_an_input_error(
    pieces: list[str], overrides: list[str]
) -> None:
    """YAML in pieces, and overrides of whatever is there, are answered with the model or its problems."""
    assert answered("\n".join(pieces), overrides)
    assert answered(GOOD, overrides)


def test_closest_names() -> None:
    """A close name is offered whatever its case, a distant one is not."""
    assert closest("BERT-bse", ["bert-base", "gpt2"]) == "did you mean 'bert-base'?"
    assert closest("zzz", ["bert-base", "gpt2"]) == ""


def test_an_unknown_name_says_where_the_list_is() -> None:
    """The error for an unknown name offers the closest and the command that lists all."""
    assert str(unknown("accelerator", "gemini-default", ["gemmini-default", "tpu-v1"])) == (
        "unknown accelerator 'gemini-default', did you mean 'gemmini-default'? "
        "(tilewright list accelerators shows them all)"
    )
    assert str(unknown("technology", "zzz", ["7nm"])) == (
        "unknown technology 'zzz' (tilewright list technologies shows them all)"
    )


def test_read_text_takes_utf_8_with_and_without_a_mark(tmp_path: Path) -> None:
    """A byte-order mark is no part of the text."""
    for name, raw in (("plain", "ä: 1\n".encode()), ("marked", b"\xef\xbb\xbf" + "ä: 1\n".encode())):
        (tmp_path / name).write_bytes(raw)
        assert read_text(tmp_path / name) == "ä: 1\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the file is empty"),
        (b"a: 1\x00\x00", "a binary file, not text"),
        (b"a: 1\nbc: \xff\n", "not UTF-8 text (byte 0xff): save the file as UTF-8"),
    ],
)
def test_read_text_refuses_what_is_no_text(tmp_path: Path, raw: bytes, message: str) -> None:
    """An empty, binary or wrongly encoded file is refused with the reason and the file's name."""
    path = tmp_path / "edge.yaml"
    path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        read_text(path)

    place = ":2:5" if "UTF-8" in message else ""
    assert str(caught.value) == f"{path}{place}: {message}"


def test_read_text_refuses_what_is_no_file(tmp_path: Path) -> None:
    """A missing file, a directory, a path through a file and a name with a null are refused with reasons."""
    (tmp_path / "file").write_text("a: 1\n")
    for path, reason in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a directory; name a file"),
        (tmp_path / "file" / "x", "not a directory; name a file"),
    ):
        with pytest.raises(InputError) as caught:
            read_text(path)
        assert str(caught.value) == f"{path}: {reason}"
    with pytest.raises(InputError, match="can't be read"):
        read_text("a\0b")


def test_read_text_refuses_a_huge_file(tmp_path: Path) -> None:
    """A file too large for a description was named by mistake."""
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"a" * (16 * 2**20 + 1))
    with pytest.raises(InputError) as caught:
        read_text(path)

    assert str(caught.value) == f"{path}: larger than 16 MiB; this is no description"
