"""Image Transformer against torch's attention with the paper's mask, written out pair by pair.

Run as a program, this writes the frozen case of `tests/data/oracles/image.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.image import Image, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "image.npz"
TOKENS, QUERIES, MEMORY = 22, 4, 6


def oracle() -> dict[str, np.ndarray]:
    """Inputs and output of torch, in float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, TOKENS, 4, dtype=torch.float64) for _ in range(3))
    seen = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for start in range(0, TOKENS, QUERIES):
        for i in range(start, min(start + QUERIES, TOKENS)):
            seen[i, max(0, start - MEMORY) : i + 1] = True
    out = scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return {"query": query.numpy(), "key": key.numpy(), "value": value.numpy(), "out": out.numpy()}


def test_reference_equals_torch() -> None:
    """Blocks of queries see their memory and themselves."""
    case = oracle()
    made = reference(case["query"], case["key"], case["value"], Image(query_block=QUERIES, memory=MEMORY))
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
