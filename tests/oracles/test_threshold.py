"""Threshold attention against PyTorch: fake quantisation, softmax, and attention with the mask they make.

Run as a program, this writes the frozen cases of `tests/data/oracles/threshold.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from tilewright.workloads.attention.threshold import Threshold, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "threshold.npz"
CASES = {
    "encoder": (19, 4, 0.08, "pairs", 4, False),
    "causal": (19, 4, 0.1, "pairs", 4, True),
    "eight": (19, 4, 0.05, "pairs", 8, False),
    "blocks": (22, 4, 0.2, "blocks", 4, True),
}
"""Tokens, block, threshold, of what, bits, causal."""
HEADS, KV_HEADS, WIDTH = 4, 2, 4


def fake_quantised(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Each head of `x` rounded to symmetric integers, and back."""
    most = 2 ** (bits - 1) - 1
    scales = x.abs().amax(dim=(1, 2)).float() / most
    zeros = torch.zeros(len(x), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(x.float(), scales, zeros, 0, -most, most).double()


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output in float64; the estimate's integers are made in float32."""
    tokens, block, threshold, of, bits, causal = CASES[name]
    torch.manual_seed(len(name))
    query = 2 * torch.randn(HEADS, tokens, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, KV_HEADS, tokens, WIDTH, dtype=torch.float64)
    offered = key.repeat_interleave(HEADS // KV_HEADS, dim=0)
    if of == "pairs":
        asks, offers = fake_quantised(query, bits), fake_quantised(offered, bits)
    else:
        asks, offers = (functional.avg_pool1d(x.mT, block, ceil_mode=True).mT for x in (query, offered))
    scores = asks @ offers.mT / WIDTH**0.5
    size = scores.shape[-1]
    if causal:
        scores = scores.masked_fill(torch.ones(size, size).triu(1).bool(), float("-inf"))
    weights = scores.softmax(dim=-1)
    sees = (weights >= threshold) | (weights == weights.amax(dim=-1, keepdim=True))
    if of == "blocks":
        sees |= torch.eye(size).bool()
        sees = torch.kron(sees.double(), torch.ones(1, block, block)).bool()[:, :tokens, :tokens]
    if causal:
        sees &= torch.ones(tokens, tokens).tril().bool()
    out = functional.scaled_dot_product_attention(
        query, offered, value.repeat_interleave(HEADS // KV_HEADS, dim=0), attn_mask=sees
    )
    arrays = {"query": query, "key": key, "value": value, "out": out}
    said = {"block": block, "threshold": threshold, "of": of, "bits": bits, "causal": causal}
    return {
        **{key: array.numpy() for key, array in arrays.items()},
        **{key: np.array(value) for key, value in said.items()},
    }


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_pytorch(name: str) -> None:
    """The same pairs are chosen, and attention to them gives the same numbers."""
    case = oracle(name)
    p = Threshold.model_validate({key: case[key].item() for key in ("block", "threshold", "of", "bits")})
    out = reference(case["query"], case["key"], case["value"], p, causal=bool(case["causal"]))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_pytorchs(name: str) -> None:
    """The stored inputs and outputs are those of PyTorch."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            stored = frozen[f"{name}_{key}"]
            if key == "of":
                assert stored == value
            else:
                np.testing.assert_allclose(stored, value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
