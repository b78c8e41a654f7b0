"""Attention through any mask against torch's own.

Run as a program, this writes the frozen case of `tests/data/oracles/mask_file.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.mask_file import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "mask_file.npz"


def oracle() -> dict[str, np.ndarray]:
    """Inputs and output of torch, in float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 17, 4, dtype=torch.float64) for _ in range(3))
    masks = (torch.rand(3, 17, 17) < 0.3) | torch.eye(17, dtype=torch.bool)
    out = scaled_dot_product_attention(query, key, value, attn_mask=masks)
    arrays = {"query": query, "key": key, "value": value, "masks": masks, "out": out}
    return {name: array.numpy() for name, array in arrays.items()}


def test_reference_equals_torch() -> None:
    """Head by head, only what the mask shows."""
    case = oracle()
    made = reference(case["query"], case["key"], case["value"], case["masks"])
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
