"""I-BERT's integer-only functions against the modules in Hugging Face Transformers, run in float64.

Run as a program, this writes the frozen case of `tests/data/oracles/integer_only.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.ibert.quant_modules import IntGELU, IntLayerNorm, IntSoftmax

from tilewright.workloads.compression.integer_only import exponential, gelu, layernorm, softmax

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "integer_only.npz"
SCALES = {"coarse": 2.0**-5, "fine": 2.0**-9}  # powers of two: the modules divide by them without an error
N = 16


def oracle() -> dict[str, np.ndarray]:
    """Integers, and what the modules make of them, as integers again; per scale, all in float64."""
    torch.manual_seed(11)
    q = torch.randint(-2000, 2000, (2, 6, N)).double()
    norm = IntLayerNorm(N, eps=1e-5, quant_mode=True).double().eval()
    norm.weight.data, norm.bias.data = torch.rand(N).double() + 0.5, torch.randn(N).double()
    case = {"q": q, "gamma": norm.weight, "beta": norm.bias}
    with torch.no_grad():
        out, unit = norm(q * 0.5, torch.tensor(0.5).double())
        case["layernorm"] = out / unit
        for name, size in SCALES.items():
            scale = torch.tensor([size]).double()
            module = IntSoftmax(8, quant_mode=True).double().eval()
            powers, _ = module.int_exp(q - q.max(-1, keepdim=True).values, scale)
            module.act.x_max[:] = powers.max()  # what calibration finds: exp(0) stands in every row
            probabilities, unit = module(q * scale, scale)
            case[f"{name}_exponential"], case[f"{name}_softmax"] = powers, probabilities / unit
            out, unit = IntGELU().double()(q * scale, scale)
            case[f"{name}_gelu"] = out / unit
    return {key: array.detach().numpy() for key, array in case.items()}


@pytest.mark.parametrize("name", SCALES)
def test_exponential_softmax_and_gelu_are_exact(name: str) -> None:
    """Integer by integer."""
    case, scale = oracle(), SCALES[name]
    q = case["q"].astype(np.int64)
    powers, _ = exponential(q - q.max(axis=-1, keepdims=True), scale)
    np.testing.assert_array_equal(powers, case[f"{name}_exponential"])
    np.testing.assert_array_equal(softmax(q, scale)[0], np.rint(case[f"{name}_softmax"]))
    np.testing.assert_array_equal(gelu(q, scale)[0], np.rint(case[f"{name}_gelu"]))


def test_layer_norm_is_exact() -> None:
    """Integer by integer, with gamma and beta."""
    case = oracle()
    made = layernorm(case["q"].astype(np.int64), case["gamma"], case["beta"])
    np.testing.assert_array_equal(made, np.rint(case["layernorm"]))


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-6)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
