"""Linformer against the package linformer 0.2.3. Run as a program, this writes the frozen fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from linformer.linformer import LinformerSelfAttention

from tilewright.workloads.attention.linformer import reference

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "linformer.npz"


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x[0].reshape(x.shape[1], heads, -1).transpose(0, 1)


def example(share: bool = False) -> dict[str, Any]:
    torch.manual_seed(1)
    n, d, heads, k = 12, 16, 4, 5
    layer = LinformerSelfAttention(d, n, k=k, heads=heads, share_kv=share).double()
    layer.to_out = torch.nn.Identity()
    x = torch.randn(1, n, d, dtype=torch.float64)
    with torch.no_grad():
        key = layer.to_k(x)
        value = key if share else layer.to_v(x)
        arrays = {
            "query": split(layer.to_q(x), heads),
            "key": split(key, heads),
            "value": split(value, heads),
            "e": layer.proj_k,
            "f": layer.proj_k if share else layer.proj_v,
            "expected": split(layer(x), heads),
        }
    return {name: array.detach().numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("share", [False, True])
def test_reference_equals_the_package(share: bool) -> None:
    """The reference computes what LinformerSelfAttention does, E and F shared or not."""
    case = example(share)
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case), expected, rtol=0, atol=1e-14)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
