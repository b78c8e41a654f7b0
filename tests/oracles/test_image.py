"""Image Transformer against torch's attention with the paper's mask, written out pair by pair.

Run as a program, this writes the frozen case of `tests/data/oracles/image.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.image import Image, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "image.npz"
TOKENS, QUERIES, MEMORY = 22, 4, 6
ROWS, COLUMNS = 6, 6
BLOCK, FLANGE = (2, 3), (3, 2)


def attention(seen: torch.Tensor) -> dict[str, np.ndarray]:
    """Random inputs and the output of torch under a mask, in float64."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, len(seen), 4, dtype=torch.float64) for _ in range(3))
    out = scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return {"query": query.numpy(), "key": key.numpy(), "value": value.numpy(), "out": out.numpy()}


def stretches() -> dict[str, np.ndarray]:
    """Blocks of the raster and the memory before them."""
    seen = torch.zeros(TOKENS, TOKENS, dtype=torch.bool)
    for start in range(0, TOKENS, QUERIES):
        for i in range(start, min(start + QUERIES, TOKENS)):
            seen[i, max(0, start - MEMORY) : i + 1] = True
    return attention(seen)


def rectangles() -> dict[str, np.ndarray]:
    """A 6 x 6 image in blocks of 2 x 3, memory 3 above and 2 to the sides, pixel by pixel."""
    order = [
        (y + v, x + u)
        for y in range(0, ROWS, BLOCK[0])
        for x in range(0, COLUMNS, BLOCK[1])
        for v in range(BLOCK[0])
        for u in range(BLOCK[1])
    ]
    seen = torch.zeros(len(order), len(order), dtype=torch.bool)
    for i, (y, x) in enumerate(order):
        top, left = y - y % BLOCK[0], x - x % BLOCK[1]
        for j, (v, u) in enumerate(order[: i + 1]):
            inside = top - FLANGE[0] <= v < top + BLOCK[0]
            seen[i, j] = inside and left - FLANGE[1] <= u < left + BLOCK[1] + FLANGE[1]
    return attention(seen)


CASES = {"one": stretches, "two": rectangles}
PARAMETERS = {
    "one": Image(query_block=QUERIES, memory=MEMORY),
    "two": Image(
        form="2d",
        columns=COLUMNS,
        block_rows=BLOCK[0],
        block_columns=BLOCK[1],
        memory_rows=FLANGE[0],
        memory_columns=FLANGE[1],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_torch(name: str) -> None:
    """Blocks of queries see their memory and themselves."""
    case = CASES[name]()
    made = reference(case["query"], case["key"], case["value"], PARAMETERS[name])
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_case_is_the_public_one(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in CASES[name]().items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    arrays = {f"{name}_{key}": value for name, case in CASES.items() for key, value in case().items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **arrays)
