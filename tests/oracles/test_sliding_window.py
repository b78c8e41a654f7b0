"""Sliding windows against Mistral's mask and attention in Hugging Face Transformers.

Run as a program, this writes the frozen case of `tests/data/oracles/sliding_window.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import MistralConfig
from transformers.masking_utils import create_sliding_window_causal_mask
from transformers.models.mistral.modeling_mistral import MistralAttention, eager_attention_forward

from tilewright.workloads.attention.sliding_window import SlidingWindow, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "sliding_window.npz"
TOKENS, HEADS, KV_HEADS, WIDTH, WINDOW = 23, 4, 2, 8, 6


def oracle() -> dict[str, np.ndarray]:
    """Inputs and output of the public implementation, float64 with a softmax in float32."""
    torch.manual_seed(0)
    config = MistralConfig(
        hidden_size=HEADS * WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=WIDTH,
        sliding_window=WINDOW,
        attn_implementation="eager",
    )
    layer = MistralAttention(config, layer_idx=0).double().eval()
    shape = (1, HEADS, TOKENS, WIDTH)
    query = torch.randn(shape, dtype=torch.float64)
    key, value = (torch.randn(1, KV_HEADS, TOKENS, WIDTH, dtype=torch.float64) for _ in range(2))
    mask = create_sliding_window_causal_mask(
        config, torch.zeros(1, TOKENS, 1, dtype=torch.float64), None, torch.arange(TOKENS), None
    )
    with torch.no_grad():
        out, _ = eager_attention_forward(layer, query, key, value, mask, layer.scaling)
    arrays = {"query": query, "key": key, "value": value, "out": out.transpose(1, 2)}
    return {name: array[0].numpy() for name, array in arrays.items()}


def test_reference_equals_transformers() -> None:
    """It is what Mistral's attention computes with its sliding-window mask."""
    case = oracle()
    made = reference(case["query"], case["key"], case["value"], SlidingWindow(window=WINDOW), causal=True)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-6)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-6)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
