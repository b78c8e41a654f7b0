"""The waveform in docs/rtl.md: what is read from a VCD, and that the unit's keeps to its contract."""

from __future__ import annotations

import pytest

from docs.waveform import HIGH, ROWS, cycles, drawing, recorded

VCD = """\
$timescale 1 ns $end
$scope module bench $end
$scope module top $end
$var wire 1 ! clk $end
$var wire 1 " a $end
$scope module inner $end
$var wire 1 # \\b.valid $end
$upscope $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
$dumpvars
0!
1"
0#
$end
#5
1!
0"
1#
#10
0!
#12
1"
#15
1!
0"
"""


def test_a_cycles_values_are_those_before_the_clock_rises() -> None:
    """Changes of the same instant belong to the next cycle; what follows the last edge is a cycle as well."""
    found = list(cycles(VCD, ["top.a", "top.inner.b.valid"], "top.clk"))
    assert [cycle["top.a"] for cycle in found] == [True, True, False]
    assert [cycle["top.inner.b.valid"] for cycle in found] == [False, True, True]


def test_a_signal_that_is_not_there_is_named() -> None:
    """Instead of a row without marks."""
    with pytest.raises(SystemExit, match=r"no signal top\.c in the waveform"):
        list(cycles(VCD, ["top.c"], "top.clk"))


def test_the_picture_keeps_to_the_contract() -> None:
    """Two K tiles of C = R = 4, HC = D = 8: the passes start when docs/attention-unit.md says, for as many
    cycles as they have beats."""
    _, *rows = drawing(recorded()).splitlines()
    width = max(len(title) for title, _ in ROWS) + 2
    marks = {row[:width].strip(): [at for at, mark in enumerate(row[width:]) if mark == HIGH] for row in rows}
    a, e, b, o = (marks[name] for name in ("score pass", "exponential", "value pass", "o taken"))
    assert a == list(range(9, 25))  # the first Q tile is there after its D beats
    assert e == [*range(a[7] + 11, a[7] + 15), *range(a[15] + 11, a[15] + 15)]
    assert b == list(range(e[0] + 7, e[0] + 23))
    assert o == [at + 16 for at in b[8:]]
    assert len(marks["q taken"]) == 8
    assert len(marks["k taken"]) == len(marks["v taken"]) == 16
