"""I-BERT's integer-only functions: the public modules' integers, and how near they are to real numbers."""

from __future__ import annotations

from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.compression.integer_only import exponential, gelu, layernorm, softmax, square_root

FROZEN = Path(__file__).parent / "data" / "oracles" / "integer_only.npz"
SCALES = {"coarse": 2.0**-5, "fine": 2.0**-9}


@pytest.mark.parametrize("name", SCALES)
def test_exponential_softmax_and_gelu_equal_the_public_modules(name: str) -> None:
    """Frozen integers of IntSoftmax and IntGELU in transformers 4.57.6, all the same."""
    with np.load(FROZEN) as frozen:
        case = dict(frozen)
    q, scale = case["q"].astype(np.int64), SCALES[name]
    powers, _ = exponential(q - q.max(axis=-1, keepdims=True), scale)
    np.testing.assert_array_equal(powers, case[f"{name}_exponential"])
    np.testing.assert_array_equal(softmax(q, scale)[0], np.rint(case[f"{name}_softmax"]))
    np.testing.assert_array_equal(gelu(q, scale)[0], np.rint(case[f"{name}_gelu"]))


def test_layer_norm_equals_the_public_module() -> None:
    """Frozen integers of IntLayerNorm in transformers 4.57.6, all the same."""
    with np.load(FROZEN) as frozen:
        case = dict(frozen)
    made = layernorm(case["q"].astype(np.int64), case["gamma"], case["beta"])
    np.testing.assert_array_equal(made, np.rint(case["layernorm"]))


def test_the_functions_are_near_the_real_ones() -> None:
    """exp of what is not positive within 0.0019 and GELU within 0.018, as the paper says (sections 3.4, 3.5);
    a softmax of 8 bits within 1.5 steps, most of which is rounding down."""
    q = np.arange(-(2**14), 2**14 + 1)
    x = q * 2.0**-12
    powers, unit = exponential(q[: 2**14], 2.0**-12)
    assert 0.0017 < np.abs(powers * unit - np.exp(x[: 2**14])).max() < 0.00195
    out, unit = gelu(q, 2.0**-12)
    expected = np.array([value * (1 + erf(value / sqrt(2))) / 2 for value in x])
    assert 0.017 < np.abs(out * unit - expected).max() < 0.0185
    rows = np.random.default_rng(0).integers(-512, 512, (50, 9))
    weights = np.exp(rows * 2.0**-8)
    out, unit = softmax(rows, 2.0**-8)
    assert unit == 1 / 256
    errors = (out * unit - weights / weights.sum(axis=-1, keepdims=True)) / unit
    assert -1.5 < errors.min() < errors.max() < 0.5


def test_layer_norm_is_near_the_real_one() -> None:
    """(x - mean) / std times gamma, plus beta, within a hundredth of a deviation."""
    random = np.random.default_rng(3)
    q = random.integers(-3000, 3000, (40, 32))
    gamma, beta = random.uniform(0.5, 1.5, 32), random.standard_normal(32)
    expected = gamma * (q - q.mean(axis=1, keepdims=True)) / q.std(axis=1, keepdims=True) + beta
    np.testing.assert_allclose(layernorm(q, gamma, beta) * gamma * sqrt(32) / 2**30, expected, atol=0.01)


@given(st.lists(st.integers(0, 2**52), min_size=1, max_size=20))
def test_roots_are_floors(numbers: list[int]) -> None:
    """r^2 <= n < (r + 1)^2, zero included."""
    for n, root in zip(numbers, square_root(np.array(numbers)).tolist(), strict=True):
        assert root * root <= n < (root + 1) ** 2


def test_what_has_no_answer_is_refused() -> None:
    """Rows without a deviation, and scales whose squares leave 64 bits."""
    with pytest.raises(ValueError, match="a row of equal numbers has no deviation to divide by"):
        layernorm(np.full((1, 4), 3), np.ones(4), np.zeros(4))
    with pytest.raises(
        ValueError, match="a scale of 1e-05 is too fine for exponentials of 64 bits; take 2e-5"
    ):
        softmax([[1, 2]], 1e-5)
