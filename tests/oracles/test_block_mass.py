"""Blocks by mass against PyTorch: pooling, sorting, running sums, and attention with the mask that they make.

Run as a program, this writes the frozen cases of `tests/data/oracles/block_mass.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tilewright.workloads.attention.block_mass import BlockMass, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "block_mass.npz"
CASES = {
    "encoder": (24, 4, 0.6, "head", False),
    "causal": (24, 4, 0.7, "head", True),
    "rows": (30, 5, 0.5, "row", True),
    "short": (26, 4, 0.8, "row", False),
}
"""Tokens, block, mass, over what, causal."""
HEADS, KV_HEADS, WIDTH = 4, 2, 4


def blocks_kept(weights: torch.Tensor, mass: float) -> torch.Tensor:
    """The fewest of each row that add up to `mass`."""
    ranked, order = weights.sort(dim=-1, descending=True)
    enough = (ranked.cumsum(dim=-1) < mass).sum(dim=-1, keepdim=True)
    kept = torch.arange(weights.shape[-1]) <= enough
    return torch.zeros_like(weights).scatter(-1, order, kept.to(weights.dtype)).bool()


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output in float64."""
    tokens, block, mass, over, causal = CASES[name]
    torch.manual_seed(len(name))
    query = 3 * torch.randn(HEADS, tokens, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, KV_HEADS, tokens, WIDTH, dtype=torch.float64)
    offered = key.repeat_interleave(HEADS // KV_HEADS, dim=0)
    asks, offers = (functional.avg_pool1d(x.mT, block, ceil_mode=True).mT for x in (query, offered))
    scores = asks @ offers.mT / WIDTH**0.5
    blocks = scores.shape[-1]
    if causal:
        scores = scores.masked_fill(torch.ones(blocks, blocks).triu(1).bool(), float("-inf"))
    weights = scores.softmax(dim=-1)
    if over == "head":
        sees = blocks_kept(weights.flatten(1) / blocks, mass).unflatten(1, (blocks, blocks))
    else:
        sees = blocks_kept(weights, mass)
    sees |= torch.eye(blocks).bool()
    sees[..., 0] = True
    mask = torch.kron(sees.double(), torch.ones(1, block, block)).bool()[:, :tokens, :tokens]
    if causal:
        mask &= torch.ones(tokens, tokens).tril().bool()
    out = functional.scaled_dot_product_attention(
        query, offered, value.repeat_interleave(HEADS // KV_HEADS, dim=0), attn_mask=mask
    )
    arrays = {"query": query, "key": key, "value": value, "out": out}
    said = {"block": np.array(block), "mass": np.array(mass), "over": np.array(over)}
    return {**{key: array.numpy() for key, array in arrays.items()}, **said, "causal": np.array(causal)}


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_pytorch(name: str) -> None:
    """The same blocks are chosen, and attention to them gives the same numbers."""
    case = oracle(name)
    p = BlockMass(block=int(case["block"]), mass=float(case["mass"]), over=str(case["over"]))
    out = reference(case["query"], case["key"], case["value"], p, causal=bool(case["causal"]))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_pytorchs(name: str) -> None:
    """The stored inputs and outputs are those of PyTorch."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            stored = frozen[f"{name}_{key}"]
            if key == "over":
                assert stored == value
            else:
                np.testing.assert_allclose(stored, value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
