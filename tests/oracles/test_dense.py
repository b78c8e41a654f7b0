"""Dense attention against torch's own.

Run as a program, this writes the frozen cases of `tests/data/oracles/dense.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.dense import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "dense.npz"
CASES = {"both": (4, False), "causal": (4, True), "grouped": (2, True)}  # KV heads, causal


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output of torch, in float64."""
    kv_heads, causal = CASES[name]
    torch.manual_seed(len(name))
    query = torch.randn(4, 13, 8, dtype=torch.float64)
    key, value = (torch.randn(kv_heads, 13, 8, dtype=torch.float64) for _ in range(2))
    out = scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)
    return {"query": query.numpy(), "key": key.numpy(), "value": value.numpy(), "out": out.numpy()}


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_torch(name: str) -> None:
    """Both ways, causal, and with shared KV heads."""
    case = oracle(name)
    made = reference(case["query"], case["key"], case["value"], causal=CASES[name][1])
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_the_public_ones(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
