"""Quantised numbers against torch's observers, fake quantisation and narrow dtypes.

Run as a program, this writes the frozen case of `tests/data/oracles/number_formats.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.ao.quantization.observer import MinMaxObserver, PerChannelMinMaxObserver

from tilewright.workloads.compression.number_formats import affine, rounded, symmetric

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "number_formats.npz"
DTYPES = {
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
BITS = {"int8": 8, "int4": 4}


def observed(x: torch.Tensor, bits: int, scheme: torch.qscheme) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point that torch takes for `x`."""
    if scheme is torch.per_tensor_affine:
        watch = MinMaxObserver(torch.quint8, scheme, quant_min=0, quant_max=2**bits - 1)
    else:
        top = 2 ** (bits - 1) - 1
        kind = MinMaxObserver if scheme is torch.per_tensor_symmetric else PerChannelMinMaxObserver
        watch = kind(dtype=torch.qint8, qscheme=scheme, quant_min=-top, quant_max=top)
    watch(x)
    return watch.calculate_qparams()


def oracle() -> dict[str, np.ndarray]:
    """Weights [k, n], and what integers leave of them; numbers of all magnitudes in narrow formats."""
    torch.manual_seed(7)
    x = torch.randn(12, 9) + 0.3
    case = {"x": x}
    for name, bits in BITS.items():
        top = 2 ** (bits - 1) - 1
        scale, zero = observed(x, bits, torch.per_tensor_symmetric)
        case[f"{name}_tensor"] = torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), -top, top)
        scales, zeros = observed(x.T, bits, torch.per_channel_symmetric)
        case[f"{name}_column"] = torch.fake_quantize_per_channel_affine(x, scales, zeros.int(), 1, -top, top)
        scale, zero = observed(x, bits, torch.per_tensor_affine)
        case[f"{name}_affine"] = torch.fake_quantize_per_tensor_affine(x, scale, zero.int(), 0, 2**bits - 1)
        case[f"{name}_zero"] = zero
    wide = torch.randn(4000) * 2.0 ** torch.randint(-30, 30, (4000,))
    ties = torch.cat(
        [torch.arange(-520, 520, 0.25), torch.arange(-80, 80) * 2.0**-11]
    )  # and subnormal numbers
    largest = torch.tensor(
        [448.0, 464.0, 464.1, 57344.0, 61439.0, 61440.0, 65504.0, 65519.0, 65520.0, 3.4e38]
    )
    case["numbers"] = torch.cat([wide, ties, largest, -largest])
    for name, dtype in DTYPES.items():
        case[name] = case["numbers"].to(dtype).float()
    return {name: array.numpy() for name, array in case.items()}


@pytest.mark.parametrize("name", DTYPES)
def test_rounding_equals_torch(name: str) -> None:
    """Every number becomes the same, ties, subnormal numbers and overflow included."""
    case = oracle()
    np.testing.assert_array_equal(rounded(case["numbers"].astype(float), name), case[name])


@pytest.mark.parametrize(("name", "bits"), BITS.items())
def test_integers_equal_torch(name: str, bits: int) -> None:
    """Scales, zero points and rounding are those of torch, to its float32."""
    case = oracle()
    x = case["x"].astype(float)
    for where, axis in (("tensor", None), ("column", 0)):
        q, scale = symmetric(x, bits, axis)
        np.testing.assert_allclose(q * scale, case[f"{name}_{where}"], rtol=3e-7)
    q, step, zero = affine(x, bits)
    assert zero == case[f"{name}_zero"]
    np.testing.assert_allclose((q - zero) * step, case[f"{name}_affine"], rtol=3e-7)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=0)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
