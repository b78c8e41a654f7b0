"""Longformer against `LongformerSelfAttention` of Hugging Face Transformers.

Run as a program, this writes the frozen cases of `tests/data/oracles/longformer.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

from tilewright.workloads.attention.longformer import Longformer, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "longformer.npz"
TOKENS, HEADS, WIDTH, WINDOW = 32, 2, 4, 8
GLOBALS = {"none": 0, "one": 1, "three": 3}


def by_head(x: torch.Tensor) -> np.ndarray:
    return x[0].reshape(-1, HEADS, WIDTH).transpose(0, 1).contiguous().numpy()


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output of the public implementation, float64 with a softmax in float32."""
    torch.manual_seed(GLOBALS[name])
    config = LongformerConfig(
        hidden_size=HEADS * WIDTH,
        num_attention_heads=HEADS,
        attention_window=[WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    layer = LongformerSelfAttention(config, layer_id=0).double().eval()
    x = torch.randn(1, TOKENS, HEADS * WIDTH, dtype=torch.float64)
    is_global = torch.arange(TOKENS)[None] < GLOBALS[name]
    with torch.no_grad():
        out = layer(
            x,
            attention_mask=is_global.double() * 10000,
            is_index_masked=torch.zeros(1, TOKENS, dtype=torch.bool),
            is_index_global_attn=is_global,
            is_global_attn=bool(is_global.any()),
        )[0]
        arrays = {
            "query": layer.query(x), "key": layer.key(x), "value": layer.value(x),
            "own_query": layer.query_global(x), "own_key": layer.key_global(x),
            "own_value": layer.value_global(x), "out": out,
        }  # fmt: skip
    return {part: by_head(array) for part, array in arrays.items()}


@pytest.mark.parametrize("name", GLOBALS)
def test_reference_equals_transformers(name: str) -> None:
    """Band, global columns and global rows are what Transformers computes."""
    case = oracle(name)
    own = case["own_query"], case["own_key"], case["own_value"]
    p = Longformer(window=WINDOW, global_tokens=GLOBALS[name])
    made = reference(case["query"], case["key"], case["value"], own, p)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", GLOBALS)
def test_the_frozen_cases_are_the_public_ones(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-6)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in GLOBALS for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
