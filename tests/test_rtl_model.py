"""Jobs, their streams, and the numpy model of the unit against the contract, one element at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.description.errors import InputError
from tilewright.rtl import row_value
from tilewright.rtl.job import (
    Job,
    Visit,
    attended,
    bitmap_words,
    check_job,
    output,
    pack,
    scale_for,
    streams,
    tiles,
    unpack,
    visited,
)
from tilewright.rtl.model import accumulated, attention

Array = NDArray[np.int64]
UNIT = UnitSizes(rows=3, cols=4, head_dim=5)


# the contract, one element at a time


def scalar_row(unit: UnitSizes, job: Job, i: int, q: Array, k: Array, v: Array) -> list[int]:
    """Row i of O, from docs/attention-unit.md in Python's integers, K tile by K tile, visited or not."""
    p_bits, f_bits = unit.probability_bits, unit.exponent_fraction_bits
    pre = max(0, unit.score_bits - 18)
    shift = unit.score_bits - pre
    m, total, o = -(2 ** (15 - f_bits)), 0, [0] * unit.head_dim
    for k0 in range(0, job.keys, unit.cols):
        xs: dict[int, int] = {}
        for j in range(k0, min(k0 + unit.cols, job.keys)):
            if job.bitmap is not None and not job.bitmap[i // unit.rows][k0 // unit.cols]:
                continue
            if i + job.low <= j < i + job.high:
                score = sum(int(a) * int(b) for a, b in zip(q[i], k[j], strict=True))
                x = ((score >> pre) * job.scale + 2 ** (shift - 1)) >> shift
                xs[j] = max(-(2**15 - 1), min(2**15 - 1, x))
        after = max([m] + [(x + 2**f_bits - 1) >> f_bits for x in xs.values()])
        total, o, m = total >> (after - m), [c >> (after - m) for c in o], after
        for j, x in xs.items():
            t = (m << f_bits) - x
            entry = round(2 ** (p_bits + 1 - (t % 2**f_bits) / 2**f_bits))
            p = min(2**p_bits - 1, ((entry >> (t >> f_bits)) + 1) >> 1)
            total += p << 8
            o = [c + p * int(v[j, column]) for column, c in enumerate(o)]
    return [scalar_result(unit, c, total) for c in o]


def scalar_result(unit: UnitSizes, o: int, total: int) -> int:
    """Steps 7 and 8."""
    if total == 0:
        return 0
    bits, index = unit.sum_bits, 6 if unit.operand_bits <= 8 else 8
    length = total.bit_length()
    u = (total << (bits - length)) >> (bits - 17)
    i, d = (u >> (16 - index)) % (1 << index), u % (1 << (16 - index))
    base, above = (min(2**17 - 1, round(2**17 / (1 + at / (1 << index)))) for at in (i, i + 1))
    y = base - (((base - above) * d) >> (16 - index))
    half = 1 << (unit.operand_bits - 1)
    return max(-half, min(half - 1, (((o << 8) >> (length - 8)) * y + 2**23) >> 24))


UNITS = st.builds(
    UnitSizes,
    rows=st.integers(1, 5),
    cols=st.sampled_from([4, 8]),
    head_dim=st.integers(4, 12),
    operand_bits=st.sampled_from([4, 8, 16]),
    probability_bits=st.integers(4, 16),
    exponent_fraction_bits=st.integers(4, 10),
    max_keys=st.sampled_from([32, 256]),
)


@st.composite
def jobs(draw: st.DrawFn, unit: UnitSizes) -> Job:
    queries, keys = draw(st.integers(1, 9)), draw(st.integers(1, 20))
    low, high = draw(st.integers(-queries - 2, keys + 2)), draw(st.integers(-queries - 2, keys + 2))
    bitmap = None
    if draw(st.booleans()):
        shape = (tiles(queries, unit.rows), tiles(keys, unit.cols))
        bitmap = np.array(draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape))))
        bitmap = bitmap.reshape(shape)
    return Job(queries, keys, draw(st.integers(0, 65535)), low, high, bitmap)


@st.composite
def cases(draw: st.DrawFn) -> tuple[UnitSizes, Job, Array, Array, Array]:
    unit = draw(UNITS)
    job = draw(jobs(unit))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    half = 1 << (unit.operand_bits - 1)
    q, k, v = (rng.integers(-half, half, (n, unit.head_dim)) for n in (job.queries, job.keys, job.keys))
    return unit, job, q, k, v


@settings(max_examples=150, deadline=None)
@given(cases())
def test_the_model_is_the_contract(case: tuple[UnitSizes, Job, Array, Array, Array]) -> None:
    """For any unit, mask and bitmap, every row is what the contract's page says, element by element."""
    unit, job, q, k, v = case
    expected = [scalar_row(unit, job, i, q, k, v) for i in range(job.queries)]
    assert attention(unit, job, q, k, v).tolist() == expected


# jobs


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_visited_tiles_are_those_that_hold_an_attended_key(data: st.DataObject) -> None:
    """In ascending order, less those that the bitmap leaves out; a dead tile 0 where nothing is left.

    Where low and high leave a Q tile no key at all, what is visited is a matter of the formula, without
    consequence.
    """
    unit = data.draw(UNITS)
    job = data.draw(jobs(unit))
    inside = attended(unit, replace(job, bitmap=None))
    for q_tile, visits in enumerate(visited(unit, job)):
        rows = inside[q_tile * unit.rows : (q_tile + 1) * unit.rows]
        hit = np.unique(np.flatnonzero(rows.any(axis=0)) // unit.cols)
        left = [Visit(t) for t in hit if job.bitmap is None or job.bitmap[q_tile, t]]
        if hit.size:
            assert visits == (left or [Visit(0, dead=True)])
        assert visits


def test_masks() -> None:
    """Causal: the last query sees all keys. A window: so many keys before a query's own, and after."""
    assert attended(UNIT, Job.full(2, 3, 1)).all()
    causal = attended(UNIT, Job.causal(3, 4, 1)).astype(int).tolist()
    assert causal == [[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    window = attended(UNIT, Job.window(3, 4, 1, 1, 0)).astype(int).tolist()
    assert window == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    blocks = Job.full(4, 5, 1).with_bitmap(np.array([[True, False], [False, True]]))
    assert attended(UNIT, blocks).astype(int).tolist() == [[1, 1, 1, 1, 0]] * 3 + [[0, 0, 0, 0, 1]]


def test_a_query_without_keys_gives_zero() -> None:
    """Beside queries that have some, and where the whole Q tile has none."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.integers(-128, 128, (n, 5)) for n in (7, 4, 4))
    job = Job(7, 4, 40000, -7, -1)
    assert not attended(UNIT, job)[:2].any()
    o = attention(UNIT, job, q, k, v)
    assert not o[:2].any()
    assert o[2:].any(axis=1).all()
    assert [v.dead for v in visited(UNIT, Job(7, 4, 1, -7, -6))[0]] == [True]


def test_scale() -> None:
    """The scale is that of the contract, and one that does not fit is refused with the greatest that does."""
    assert scale_for(UNIT, 1e-5) == round(1e-5 * math.log2(math.e) * 2 ** (6 + 19))
    with pytest.raises(InputError) as refused:
        scale_for(UNIT, 0.01)
    assert str(refused.value) == (
        "factor 0.01 of the scores does not fit the unit's 16-bit scale: give one between 0 and 0.00135378 "
        "(scale Q or K down), or fewer exponent_fraction_bits"
    )
    assert scale_for(UNIT, 0.00135378) == 65535
    with pytest.raises(InputError, match="factor -1 of the scores"):
        scale_for(UNIT, -1)


# streams


def test_beats_are_in_the_contracts_order() -> None:
    """By hand: columns of a Q tile, chunks of keys, columns of a V tile; what is past the end is filler."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.integers(-128, 128, (n, 5)) for n in (4, 6, 6))
    job = Job.full(4, 6, 1).with_bitmap(np.array([[True, True], [False, True]]))
    beats = streams(UNIT, job, q, k, v)
    assert beats.bitmap.tolist() == [3, 2]
    assert beats.q.shape == (2 * 5, 3)
    assert beats.q[2].tolist() == q[:3, 2].tolist()
    assert beats.q[7].tolist() == [q[3, 2], 0, 0]
    order = [0, 1, 1]
    assert beats.k.shape == (3 * 8, 4)
    assert beats.v.shape == (3 * 5, 4)
    for visit, tile in enumerate(order):
        for c in range(min(4, 6 - 4 * tile)):
            assert beats.k[8 * visit + c].tolist() == k[4 * tile + c, :4].tolist()
            assert beats.k[8 * visit + 4 + c].tolist() == [k[4 * tile + c, 4], 0, 0, 0]
    assert beats.v[3].tolist() == v[:4, 3].tolist()
    assert beats.v[8].tolist() == [v[4, 3], v[5, 3], 0, 0]


def test_filler_goes_where_nothing_matters() -> None:
    """With a filler, the elements that matter stay, and the rest is random."""
    rng = np.random.default_rng(1)
    q, k, v = (rng.integers(-128, 128, (n, 5)) for n in (4, 6, 6))
    plain = streams(UNIT, Job.full(4, 6, 1), q, k, v)
    filled = streams(UNIT, Job.full(4, 6, 1), q, k, v, rng)
    for before, after in ((plain.q, filled.q), (plain.k, filled.k), (plain.v, filled.v)):
        assert np.array_equal(before[before != 0], after[before != 0])
        assert (after != before).any()
        assert after.min() >= -128
        assert after.max() < 128


def test_bitmap_words_hold_16_tiles() -> None:
    """Bit t of word w is tile 16 w + t; each Q tile begins a word."""
    bitmap = np.zeros((2, 18), dtype=bool)
    bitmap[0, [0, 15, 17]] = True
    bitmap[1, 1] = True
    job = Job.full(6, 18 * 4, 1).with_bitmap(bitmap)
    assert bitmap_words(UNIT, job).tolist() == [0x8001, 2, 2, 0]
    assert bitmap_words(UNIT, Job.full(6, 18 * 4, 1)).size == 0


@given(st.integers(2, 20), st.integers(1, 5), st.data())
def test_unpack_inverts_pack(bits: int, count: int, data: st.DataObject) -> None:
    """Beats survive the way through payloads; element e is at bits e · width."""
    element = st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    rows = data.draw(st.lists(st.lists(element, min_size=count, max_size=count), min_size=1, max_size=4))
    payloads = pack(np.array(rows), bits)
    assert unpack(payloads, count, bits).tolist() == rows
    assert [payload % (1 << bits) for payload in payloads] == [row[0] % (1 << bits) for row in rows]


def test_output_is_put_together_from_its_beats() -> None:
    """Beats of columns, Q tile by Q tile; rows past the last query are dropped."""
    o = np.arange(4 * 5).reshape(4, 5)
    padded = np.vstack([o, np.full((2, 5), -1)])
    beats = np.array([padded[first : first + 3, j] for first in (0, 3) for j in range(5)])
    assert output(UNIT, Job.full(4, 6, 1), beats).tolist() == o.tolist()


def test_the_command_is_the_job() -> None:
    """The payload's fields."""
    job = Job.causal(3, 4, 9)
    assert job.command == {"queries": 3, "keys": 4, "scale": 9, "low": -3, "high": 2, "use_bitmap": 0}
    assert job.with_bitmap(np.ones((1, 1), dtype=bool)).command["use_bitmap"] == 1


# accumulators at their edge


@pytest.mark.parametrize("operand", [4, 8, 16])
@pytest.mark.parametrize("keys", [32, 64])
def test_accumulators_at_their_worst_fit_and_no_bit_less_would_do(operand: int, keys: int) -> None:
    """All operands -2^(W-1), all N keys at the maximum: S = D 2^(2W-2), l = N (2^P - 1) 2^8, o = -N (2^P - 1)
    2^(W-1).

    A rescale makes neither l nor |o| larger. SB has one bit more than S needs.
    """
    unit = replace(UNIT, head_dim=8, operand_bits=operand, max_keys=keys)
    low = -(1 << (operand - 1))
    q, k = (np.full((n, 8), low) for n in (1, keys))
    assert int(q[0] @ k[0]) == 1 << (unit.score_bits - 2)
    scale = 1 << 15
    for fill in (low, -low - 1):
        v = np.full((keys, 8), fill)
        rows = accumulated(unit, Job.full(1, keys, scale), q, k, v)
        assert int(rows.total[0]) == keys * 255 << 8
        assert int(rows.total[0]).bit_length() == unit.sum_bits
        assert rows.o[0].tolist() == [keys * 255 * fill] * 8
        assert attention(unit, Job.full(1, keys, scale), q, k, v)[0].tolist() == [fill] * 8
    assert keys * 255 * -low > 1 << (unit.output_bits - 2)


def test_a_sum_that_overflows_is_noticed() -> None:
    """The model asserts its widths: 34 keys' probabilities in a sum for 32, and operands of 9 bits."""
    unit = replace(UNIT, head_dim=4, max_keys=32)
    total, shift, p = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64), np.full((1, 34), 255)
    with pytest.raises(AssertionError, match="a running sum overflows"):
        row_value.model_sum(unit, total, shift, p)
    with pytest.raises(AssertionError, match="an accumulator of O overflows"):
        row_value.model_output(unit, np.zeros((1, 4), dtype=np.int64), shift, (p @ np.full((34, 4), -128)))
    nine = np.full((1, 4), -129)
    with pytest.raises(AssertionError, match="operand out of range"):
        attention(unit, Job.full(1, 1, 1), nine, nine, nine)


def test_a_job_the_unit_cannot_take_is_refused() -> None:
    """All that is wrong with it at once."""
    unit = replace(UNIT, max_keys=32)
    job = Job.full(4, 40, 65536).with_bitmap(np.ones((2, 2), dtype=bool))
    with pytest.raises(InputError) as refused:
        check_job(unit, job)
    assert str(refused.value).splitlines() == [
        "keys 40 of a job: the unit takes 1 to 32 (max_keys)",
        "scale 65536 of a job: give 0 to 65535 (see scale_for)",
        "bitmap of shape (2, 2) in a job of 4 queries and 40 keys: "
        "give (2, 10), a bit for each tile of 3 queries by 4 keys",
    ]
    with pytest.raises(InputError, match="queries 0 of a job"):
        check_job(unit, Job.full(0, 1, 1))
