"""ETC against torch's attention, with mask and relative scores written out pair by pair.

There is no package of it. Run as a program, this writes the frozen case of `tests/data/oracles/etc.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.etc import Etc, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "etc.npz"
TOKENS, GLOBALS, RADIUS, FAR, HEADS, WIDTH = 21, 4, 3, 2, 2, 4


def biases(query: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The scores of the relations, minus infinity where there are none."""
    bias = torch.full((HEADS, TOKENS, TOKENS), -torch.inf, dtype=torch.float64)
    for i in range(TOKENS):
        for j in range(TOKENS):
            if i >= GLOBALS and j >= GLOBALS and abs(i - j) > RADIUS:
                continue
            if (i < GLOBALS) == (j < GLOBALS):
                kind = max(-FAR, min(FAR, j - i)) + FAR
            else:
                kind = 2 * FAR + (1 if i < GLOBALS else 2)
            bias[:, i, j] = (query[:, i] * vectors[:, kind]).sum(-1) / WIDTH**0.5
    return bias


def oracle() -> dict[str, np.ndarray]:
    """Inputs and outputs of torch, in float64: `out` of one projection for all, `separate` of global tokens
    with keys and values of their own."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(HEADS, TOKENS, WIDTH, dtype=torch.float64) for _ in range(3))
    vectors = torch.randn(HEADS, 2 * FAR + 3, WIDTH, dtype=torch.float64)
    own_key, own_value = (torch.randn(HEADS, TOKENS, WIDTH, dtype=torch.float64) for _ in range(2))
    bias = biases(query, vectors)
    out = scaled_dot_product_attention(query, key, value, attn_mask=bias)
    rows = scaled_dot_product_attention(query[:, :GLOBALS], own_key, own_value, attn_mask=bias[:, :GLOBALS])
    arrays = {
        "query": query,
        "key": key,
        "value": value,
        "vectors": vectors,
        "own_key": own_key,
        "own_value": own_value,
        "out": out,
        "separate": torch.cat((rows, out[:, GLOBALS:]), dim=1),
    }
    return {name: array.numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("separate", [False, True])
def test_reference_equals_torch(separate: bool) -> None:
    """Globals, band and relations, with one set of keys and values or with two."""
    case = oracle()
    p = Etc(global_tokens=GLOBALS, radius=RADIUS, relative_distance=FAR)
    own = (case["own_key"], case["own_value"]) if separate else None
    made = reference(case["query"], case["key"], case["value"], case["vectors"], p, own)
    np.testing.assert_allclose(made, case["separate" if separate else "out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, **oracle())
