"""Sparse Transformer against deepspeed's layout and torch's attention.

Deepspeed's `FixedSparsityConfig` lays out blocks of tokens, here of one token each. It shows a query the
summaries of its own block whether earlier or later (what is later in a block of many is masked elsewhere), so
the later ones are taken out here. The strided masks are brute force from the paper's definition. Run as a
program, this writes the frozen cases of `tests/data/oracles/sparse.npz`.
"""

from __future__ import annotations

import runpy
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.sparse import Sparse, masks, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "sparse.npz"
TOKENS, HEADS, STRIDE, SUMMARY = 24, 4, 4, 1


def fixed(stride: int, summary: int) -> torch.Tensor:
    """What deepspeed lets each head see [heads, tokens, tokens]."""
    file = distribution("deepspeed").locate_file("deepspeed/ops/sparse_attention/sparsity_config.py")
    layout = runpy.run_path(str(file))["FixedSparsityConfig"](
        num_heads=HEADS,
        block=1,
        num_local_blocks=stride,
        num_global_blocks=summary,
        attention="unidirectional",
    )
    return layout.make_layout(TOKENS).bool().tril()


def strided() -> torch.Tensor:
    """The paper's definition: half of the heads local, half at a distance."""
    seen = torch.zeros(HEADS, TOKENS, TOKENS, dtype=torch.bool)
    for i in range(TOKENS):
        for j in range(i + 1):
            seen[: HEADS // 2, i, j] = j >= i - STRIDE
            seen[HEADS // 2 :, i, j] = (i - j) % STRIDE == 0
    return seen


def oracle(layout: str) -> dict[str, np.ndarray]:
    """Inputs and output in float64."""
    torch.manual_seed(len(layout))
    query, key, value = (torch.randn(HEADS, TOKENS, 4, dtype=torch.float64) for _ in range(3))
    seen = fixed(STRIDE, SUMMARY) if layout == "fixed" else strided()
    out = scaled_dot_product_attention(query, key, value, attn_mask=seen)
    return {"query": query.numpy(), "key": key.numpy(), "value": value.numpy(), "out": out.numpy()}


@pytest.mark.parametrize("layout", ["fixed", "strided"])
def test_reference_equals_the_public_implementation(layout: str) -> None:
    """Every head sees what the public layout lets it see."""
    case = oracle(layout)
    p = Sparse.model_validate({"layout": layout, "stride": STRIDE, "summary": SUMMARY})
    made = reference(case["query"], case["key"], case["value"], p)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize(("stride", "summary"), [(4, 1), (4, 2), (8, 4), (6, 3), (12, 1)])
def test_the_fixed_masks_equal_deepspeeds(stride: int, summary: int) -> None:
    """Own block and the summaries of earlier ones, pair by pair."""
    p = Sparse(stride=stride, summary=summary)
    np.testing.assert_array_equal(masks(TOKENS, HEADS, p), fixed(stride, summary).numpy())


@pytest.mark.parametrize("layout", ["fixed", "strided"])
def test_the_frozen_cases_are_the_public_ones(layout: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(layout).items():
            np.testing.assert_allclose(frozen[f"{layout}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    cases = {f"{layout}_{key}": v for layout in ("fixed", "strided") for key, v in oracle(layout).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **cases)
