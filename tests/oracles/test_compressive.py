"""Compressive Transformer against compressive-transformer-pytorch 0.4.0. Run as a program, this writes the
frozen fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from compressive_transformer_pytorch.compressive_transformer_pytorch import SelfAttention

from tilewright.workloads.attention.compressive import reference, remember

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "compressive.npz"
HEADS, WIDTH, LENGTH, MEMORY, COMPRESSED, RATE = 3, 4, 6, 8, 5, 2


def example() -> dict[str, Any]:
    torch.manual_seed(8)
    torch.set_default_dtype(torch.float64)
    d, total = HEADS * WIDTH, COMPRESSED + MEMORY + LENGTH
    layer = SelfAttention(d, LENGTH, MEMORY, COMPRESSED, RATE, HEADS)
    layer.to_out = torch.nn.Identity()
    layer.eval()
    x, memory, compressed = (
        torch.randn(1, LENGTH, d),
        torch.randn(1, MEMORY, d),
        torch.randn(1, COMPRESSED, d),
    )
    table = torch.randn(HEADS, total, WIDTH)  # the furthest first
    output, after, _ = layer(x, (memory, compressed), table)
    keys, values = layer.to_kv(torch.cat([compressed, memory, x], dim=1)).chunk(2, dim=-1)
    arrays = {"query": layer.to_q(x)[0], "key": keys[0], "value": values[0], "expected": output[0]}
    arrays = {name: z.reshape(len(z), HEADS, WIDTH).transpose(0, 1) for name, z in arrays.items()}
    arrays |= {"positions": table.flip(1), "segment": x[0], "memory": memory[0], "compressed": compressed[0]}
    arrays |= {"new_memory": after.mem[0], "new_compressed": after.compressed_mem[0]}
    conv = layer.compress_mem_fn.conv
    arrays |= {"weight": conv.weight.permute(2, 1, 0), "bias": conv.bias}
    torch.set_default_dtype(torch.float32)
    return {name: array.detach().numpy() for name, array in arrays.items()}


def test_reference_equals_the_package() -> None:
    """The reference computes what the package's SelfAttention does on full memories."""
    case = example()
    actual = reference(case["query"], case["key"], case["value"], case["positions"])
    np.testing.assert_allclose(actual, case["expected"], rtol=0, atol=1e-14)


def test_memories_are_the_packages() -> None:
    """Both queues after the segment are the package's."""
    case = example()
    memory, compressed = remember(
        *(case[name] for name in ("memory", "compressed", "segment", "weight", "bias"))
    )
    np.testing.assert_allclose(memory, case["new_memory"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(compressed, case["new_compressed"], rtol=0, atol=1e-14)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
