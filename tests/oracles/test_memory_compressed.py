"""Memory-compressed attention against the package memory-compressed-attention.

The package scales by the root of the whole width, not of a head's: queries are handed over rescaled. Run as a
program, this writes the frozen cases of `tests/data/oracles/memory_compressed.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from memory_compressed_attention import MemoryCompressedAttention

from tilewright.workloads.attention.memory_compressed import MemoryCompressed, compress, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "memory_compressed.npz"
HEADS, D, C = 2, 8, 3
CASES = {"both": (14, False), "causal": (14, True), "whole": (12, True)}  # tokens, causal


def by_head(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), HEADS, -1).swapaxes(0, 1)


def dense_kernel(grouped: np.ndarray) -> np.ndarray:
    """The package's grouped kernel [d, d / heads, c] as one for all channels, zero between heads."""
    kernel, part = np.zeros((D, D, C)), D // HEADS
    for head in range(HEADS):
        own = slice(head * part, (head + 1) * part)
        kernel[own, own] = grouped[own]
    return kernel


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs, parameters and context of the public implementation, in float64."""
    tokens, causal = CASES[name]
    torch.manual_seed(tokens)
    layer = MemoryCompressedAttention(D, heads=HEADS, causal=causal, compression_factor=C).double()
    torch.nn.init.normal_(layer.null_k)
    torch.nn.init.normal_(layer.null_v)
    x = torch.randn(1, tokens, D, dtype=torch.float64)
    with torch.no_grad():
        query, key, value = layer.to_qkv(x)[0].chunk(3, dim=-1)
        layer.to_out = torch.nn.Identity()
        out, conv = layer(x)[0].numpy(), layer.compress_fn.conv
        return {
            "query": query.numpy() / np.sqrt(HEADS), "key": key.numpy(), "value": value.numpy(),
            "kernel": dense_kernel(conv.weight.numpy()), "bias": conv.bias.numpy(),
            "null_key": layer.null_k[0].numpy(), "null_value": layer.null_v[0].numpy(), "out": out,
        }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_the_package(name: str) -> None:
    """Convolution, null key and causal rule are the package's."""
    case, causal = oracle(name), CASES[name][1]
    key, value = (
        by_head(compress(case[part], case["kernel"], case["bias"], case[f"null_{part}"]))
        for part in ("key", "value")
    )
    made = reference(by_head(case["query"]), key, value, MemoryCompressed(compression=C), causal=causal)
    np.testing.assert_allclose(made, by_head(case["out"]), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_the_public_ones(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, **{f"{name}_{key}": v for name in CASES for key, v in oracle(name).items()})
