"""Axial attention against the package axial-attention.

Run as a program, this writes the frozen cases of `tests/data/oracles/axial.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from axial_attention import AxialAttention

from tilewright.workloads.attention.axial import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "axial.npz"
HEIGHT, WIDTH, HEADS, D = 3, 5, 2, 8
AXES = ("column", "row")  # in the package's order


def oracle() -> dict[str, np.ndarray]:
    """Queries, keys, values and contexts of each axis, in float64, and the package's own sum of both."""
    torch.manual_seed(0)
    layer = AxialAttention(dim=D, num_dimensions=2, heads=HEADS, dim_index=-1, sum_axial_out=True).double()
    x = torch.randn(1, HEIGHT, WIDTH, D, dtype=torch.float64)
    flat, case, total = x.reshape(-1, D), {}, 0
    with torch.no_grad():
        for axis, each in zip(AXES, layer.axial_attentions, strict=True):
            parts = each.fn.to_q(flat), *each.fn.to_kv(flat).chunk(2, dim=-1)
            for name, part in zip(("query", "key", "value"), parts, strict=True):
                case[f"{axis}_{name}"] = part.reshape(-1, HEADS, D // HEADS).transpose(0, 1).numpy()
            case[f"{axis}_weight"] = each.fn.to_out.weight.numpy().T
            total = total + each.fn.to_out.bias.numpy()
        out = layer(x).reshape(-1, D).numpy()
    return case | {"out": out - total}


@pytest.mark.parametrize("frozen", [False, True])
def test_the_sum_of_both_axes_equals_the_package(frozen: bool) -> None:
    """Both axes, through their output projections, add up to what the package computes."""
    case = dict(np.load(FROZEN)) if frozen else oracle()
    total = np.zeros((HEIGHT * WIDTH, D))
    for axis in AXES:
        parts = (case[f"{axis}_{name}"] for name in ("query", "key", "value"))
        context = reference(*parts, WIDTH, axis, causal=False)
        total += context.swapaxes(0, 1).reshape(-1, D) @ case[f"{axis}_weight"]
    np.testing.assert_allclose(total, case["out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, **oracle())
