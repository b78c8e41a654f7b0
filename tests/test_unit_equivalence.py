"""Recurrence, SimPy, stepped registers and RTL of the attention unit agree: a fixed sample of what
`python -m benchmarks.unit_equivalence` runs by the thousand."""

from __future__ import annotations

import pytest

from benchmarks.unit_equivalence import UNITS, Answer, answer, configurations

SAMPLED_UNITS = UNITS[:3]
"""Operands of 8, 4 and 16 bits; a unit of which no model is kept yet is compiled, which takes seconds."""
SAMPLE = list(configurations(42, seed=1, units=SAMPLED_UNITS))


@pytest.mark.parametrize("number", range(len(SAMPLED_UNITS)))
def test_all_four_agree(number: int) -> None:
    """Equal cycles from all, and the numpy model's O from the stepped simulation and the RTL, bit for bit."""
    found = [answer(each) for each in SAMPLE[number :: len(SAMPLED_UNITS)]]
    assert [each for each in found if not each.equal] == []


def test_the_sample_has_everything() -> None:
    """Masks, bitmaps, several heads, pauses of every stream, and none at all."""
    jobs = [head.job for each in SAMPLE for head in each.heads]
    assert {job.bitmap is None for job in jobs} == {True, False}
    assert {len(each.heads) for each in SAMPLE} == {1, 2, 3}
    paused = {name for each in SAMPLE for name in each.gaps}
    assert paused == {"command", "bitmap", "q", "k", "v", "o"}
    assert any(not each.gaps for each in SAMPLE)


def test_a_difference_is_found() -> None:
    """Neither other cycles nor another O passes for equal."""
    same = {"event": 5, "rtl": 5}
    assert Answer(same, ()).equal
    assert not Answer(same, ("rtl",)).equal
    assert not Answer({"event": 5, "rtl": 6}, ()).equal
