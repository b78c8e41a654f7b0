"""FlashAttention computes exact attention in another order: torch's scaled_dot_product_attention in float64.

Run as a program, this writes the frozen case of `tests/data/oracles/flash.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.flash import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "flash.npz"
HEADS, TOKENS, WIDTH = 3, 37, 8


def oracle() -> dict[str, np.ndarray]:
    """`query`, `key`, `value` [heads, tokens, e], and torch's outputs `both_ways` and `causal`."""
    torch.manual_seed(21)
    query, key, value = (torch.randn(HEADS, TOKENS, WIDTH, dtype=torch.float64) for _ in range(3))
    case = {
        "query": 4 * query,
        "key": key,
        "value": value,
    }  # sharp rows: their maxima differ from tile to tile
    case["both_ways"] = scaled_dot_product_attention(case["query"], key, value)
    case["causal"] = scaled_dot_product_attention(case["query"], key, value, is_causal=True)
    return {name: array.numpy() for name, array in case.items()}


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (16, 5), (1, 37)])
def test_reference_equals_torch(rows: int, cols: int) -> None:
    """Both ways and causal, with several tiles."""
    case = oracle()
    for name, causal in (("both_ways", False), ("causal", True)):
        made = reference(case["query"], case["key"], case["value"], rows, cols, causal=causal)
        np.testing.assert_allclose(made, case[name], rtol=0, atol=1e-13)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
