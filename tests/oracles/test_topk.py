"""Block top-k's reference against PyTorch: pooling, top-k, and attention with the mask that they make.

Run as a program, this writes the frozen cases of `tests/data/oracles/topk.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tilewright.workloads.attention.topk import BlockTopK, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "topk.npz"
CASES = {"encoder": (24, 4, 2, False), "causal": (24, 4, 2, True), "all": (12, 3, 9, True)}
"""Tokens, block, blocks seen, causal."""
HEADS, KV_HEADS, WIDTH = 4, 2, 4


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output in float64."""
    tokens, block, seen, causal = CASES[name]
    torch.manual_seed(len(name))
    query = torch.randn(HEADS, tokens, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, KV_HEADS, tokens, WIDTH, dtype=torch.float64)
    offered = key.repeat_interleave(HEADS // KV_HEADS, dim=0)
    asks, offers = (functional.avg_pool1d(x.mT, block).mT for x in (query, offered))
    scores = asks @ offers.mT
    blocks = tokens // block
    later = torch.ones(blocks, blocks).triu(1).bool()
    if causal:
        scores = scores.masked_fill(later, float("-inf"))
    best = scores.topk(min(seen, blocks), dim=-1).indices
    mask = torch.zeros(HEADS, blocks, blocks).scatter(-1, best, 1.0)
    mask = torch.kron(mask, torch.ones(1, block, block)).bool()
    if causal:
        mask &= torch.ones(tokens, tokens).tril().bool()
    out = functional.scaled_dot_product_attention(
        query, offered, value.repeat_interleave(HEADS // KV_HEADS, dim=0), attn_mask=mask
    )
    arrays = {"query": query, "key": key, "value": value, "out": out}
    numbers = {"block": np.array(block), "blocks": np.array(seen), "causal": np.array(causal)}
    return {**{key: array.numpy() for key, array in arrays.items()}, **numbers}


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_pytorch(name: str) -> None:
    """The same blocks are chosen, and attention to them gives the same numbers."""
    case = oracle(name)
    p = BlockTopK(block=int(case["block"]), blocks=int(case["blocks"]))
    out = reference(case["query"], case["key"], case["value"], p, causal=bool(case["causal"]))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_pytorchs(name: str) -> None:
    """The stored inputs and outputs are those of PyTorch."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
