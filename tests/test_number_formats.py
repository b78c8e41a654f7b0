"""Narrow numbers: those of the public implementations, and the laws of rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.compression.number_formats import FLOATS, affine, rounded, symmetric

FROZEN = Path(__file__).parent / "data" / "oracles" / "number_formats.npz"
lists = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=20)


@pytest.mark.parametrize("name", FLOATS)
def test_rounding_equals_the_public_implementation(name: str) -> None:
    """Frozen conversions of torch 2.13.0: ties, subnormal numbers and overflow included."""
    with np.load(FROZEN) as frozen:
        numbers, out = frozen["numbers"].astype(float), frozen[name]
    np.testing.assert_array_equal(rounded(numbers, name), out)


@pytest.mark.parametrize(("name", "bits"), [("int8", 8), ("int4", 4)])
def test_integers_equal_the_public_implementation(name: str, bits: int) -> None:
    """Frozen results of torch's observers and fake quantisation, which compute in float32."""
    with np.load(FROZEN) as frozen:
        case = dict(frozen)
    x = case["x"].astype(float)
    for where, axis in (("tensor", None), ("column", 0)):
        q, scale = symmetric(x, bits, axis)
        np.testing.assert_allclose(q * scale, case[f"{name}_{where}"], rtol=3e-7)
    q, step, zero = affine(x, bits)
    assert zero == case[f"{name}_zero"]
    np.testing.assert_allclose((q - zero) * step, case[f"{name}_affine"], rtol=3e-7)


@given(numbers=lists, name=st.sampled_from(sorted(FLOATS)))
def test_rounding_is_to_the_nearest(numbers: list[float], name: str) -> None:
    """What is rounded stays when it is rounded again, and no number is off by more than half of a unit in the
    last place, or half of the smallest subnormal number."""
    form = FLOATS[name]
    x = np.clip(numbers, -form.largest, form.largest)
    out = rounded(x, name)
    np.testing.assert_array_equal(rounded(out, name), out)
    half_unit = 2.0 ** -(form.mantissa_bits + 1)
    assert np.all(abs(out - x) <= np.maximum(abs(x) * half_unit, 2.0**form.smallest_exponent * half_unit))


@pytest.mark.parametrize(("name", "count"), [("fp8_e4m3", 253), ("fp8_e5m2", 247), ("fp16", 63487)])
def test_a_format_has_as_many_numbers_as_its_bits_say(name: str, count: int) -> None:
    """2^bits codes without NaNs, infinities and the second zero."""
    form = FLOATS[name]
    mantissas = np.arange(2 ** (form.mantissa_bits + 1)) * 2.0**-form.mantissa_bits
    exponents = np.arange(form.smallest_exponent, 17)
    all_of_them = (mantissas[:, None] * 2.0**exponents).ravel()
    numbers = np.unique(rounded(all_of_them, name))
    assert 2 * np.isfinite(numbers).sum() - 1 == count


@given(numbers=lists, bits=st.integers(2, 16))
def test_integers_are_off_by_half_a_step(numbers: list[float], bits: int) -> None:
    """Symmetric: half of the scale at most, zero stays zero, and the largest magnitude is the largest number.
    Affine: half a step inside of the range, and one where rounding the zero point has moved its ends."""
    x = np.array(numbers)
    q, scale = symmetric(x, bits)
    assert np.abs(q).max() == (2 ** (bits - 1) - 1 if x.any() else 0)
    assert np.all(abs(q * scale - x) <= scale * (0.5 + 1e-9))
    assert np.all(q[x == 0] == 0)
    codes, step, zero = affine(x, bits)
    assert 0 <= codes.min() <= codes.max() < 2**bits
    assert np.all(abs((codes - zero) * step - x) <= step * (1 + 1e-9))
    assert np.all(codes[x == 0] == zero)


def test_columns_have_scales_of_their_own() -> None:
    """`axis=0` of [k, n] quantises each column as if it were alone."""
    x = np.array([[1.0, 100.0], [-2.0, 51.0]])
    q, scale = symmetric(x, 8, axis=0)
    assert scale.tolist() == [[2 / 127, 100 / 127]]
    assert q.tolist() == [[64, 127], [-127, 65]]
