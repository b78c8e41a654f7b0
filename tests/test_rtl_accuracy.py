"""The unit's numbers against softmax attention in float64: within the derived bound, which is not far off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.accuracy import bound, softmax_attention
from tilewright.rtl.job import Job, attended, scale_for
from tilewright.rtl.model import accumulated, attention

Array = NDArray[np.int64]
UNIT = UnitSizes(rows=8, cols=16, head_dim=64)


def worst(unit: UnitSizes, job: Job, factor: float, q: Array, k: Array, v: Array) -> tuple[float, float]:
    """The greatest error, and the greatest part of the bound that a row's error comes to."""
    error = np.abs(attention(unit, job, q, k, v) - softmax_attention(unit, job, factor, q, k, v)).max(axis=1)
    keys = attended(unit, job).sum(axis=1)
    alive = keys > 0
    assert not error[~alive].any()
    most = bound(unit, keys[alive], accumulated(unit, job, q, k, v).total[alive], int(np.ptp(v)))
    assert (bound(unit, keys[alive], spread=int(np.ptp(v))) >= most).all()
    return float(error.max()), float((error[alive] / most).max())


@pytest.mark.parametrize("bits", [(4, 8, 6), (8, 8, 6), (8, 16, 8), (8, 4, 4), (16, 16, 10)])
@pytest.mark.parametrize("head_dim", [16, 64, 128])
def test_random_attention_is_within_the_bound(head_dim: int, bits: tuple[int, int, int]) -> None:
    """Head dimensions 16 to 128, lengths 16 to 1024, flat and peaked softmax, masks: within the bound."""
    operand, probability, fraction = bits
    unit = replace(
        UNIT,
        head_dim=head_dim,
        operand_bits=operand,
        probability_bits=probability,
        exponent_fraction_bits=fraction,
    )
    rng = np.random.default_rng(head_dim + operand)
    half = 1 << (operand - 1)
    widest = 65535 / (np.log2(np.e) * 2.0 ** (fraction + unit.score_bits))
    for keys, part in ((16, 1.0), (64, 0.3), (256, 0.05), (1024, 0.01)):
        q, k, v = (rng.integers(-half, half, (n, head_dim)) for n in (24, keys, keys))
        scale = scale_for(unit, widest * part)
        for job in (
            Job.full(24, keys, scale),
            Job.causal(24, keys, scale),
            Job.window(24, keys, scale, 9, 0),
        ):
            assert worst(unit, job, widest * part, q, k, v)[1] <= 1


def scored(head_dim: int, scores: list[int]) -> tuple[Array, Array]:
    """One query, and keys with these scores (multiples of 127, at most 16129 · head_dim in magnitude)."""
    keys = np.zeros((len(scores), head_dim), dtype=np.int64)
    rest = np.array(scores) // 127
    for column in range(head_dim):
        keys[:, column] = np.clip(rest, -127, 127)
        rest -= keys[:, column]
    assert not rest.any()
    return np.full((1, head_dim), 127), keys


def adversarial(unit: UnitSizes, octaves: float, count: int) -> tuple[float, float]:
    """One key at the top with the smallest V, and `count` keys `octaves` below it with the greatest."""
    factor = 65000 / (np.log2(np.e) * 2.0 ** (unit.exponent_fraction_bits + unit.score_bits))
    per_octave = np.log(2) / factor
    step = round(octaves * per_octave / 127) * 127
    q, k = scored(unit.head_dim, [0] + [-step] * count)
    v = np.full((count + 1, unit.head_dim), 127)
    v[0] = -128
    return worst(unit, Job.full(1, count + 1, scale_for(unit, factor)), factor, q, k, v)


def test_probabilities_just_too_small_are_lost_within_the_bound() -> None:
    """A thousand keys that round to 0 (or up to 1) one and all: the bound is near, and holds."""
    parts = []
    for octaves in np.arange(7.5, 10.5, 0.25):
        for count in (15, 63, 255, 1023):
            parts.append(adversarial(UNIT, octaves, count)[1])
    assert 0.8 < max(parts) <= 1


def test_rising_maxima_are_within_the_bound() -> None:
    """Each tile has a greater maximum than all before it, so that every tile rescales."""
    for rise in (1, 3, 10, 40):
        scores = [127 * rise * (n - 127) for n in range(255)]
        q, k = scored(64, scores)
        v = np.where(np.arange(255)[:, None] % 2, 127, -128) + np.zeros((255, 64), dtype=np.int64)
        factor = 1e-4
        assert worst(UNIT, Job.full(1, 255, scale_for(UNIT, factor)), factor, q, k, v)[1] <= 1


def test_more_precise_probabilities_and_exponents_are_nearer() -> None:
    """With a flat softmax over many keys, P = 16 and F = 8 leave little more than the rounding to W bits."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.integers(-128, 128, (n, 64)) for n in (32, 1024, 1024))
    fine = replace(UNIT, probability_bits=16, exponent_fraction_bits=8)
    job = Job.full(32, 1024, scale_for(fine, 2e-5))
    assert worst(fine, job, 2e-5, q, k, v)[0] < 0.56
    coarse = Job.full(32, 1024, scale_for(UNIT, 2e-5))
    assert worst(UNIT, coarse, 2e-5, q, k, v)[0] > worst(fine, job, 2e-5, q, k, v)[0]
