"""Multi-head latent attention against transformers 4.57.6. Run as a program, it writes the fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
    apply_rotary_pos_emb_interleave,
)

from tilewright.workloads.attention.mla import reference

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "mla.npz"
N, D, HEADS, NOPE, ROPE, V, RANK = 9, 20, 3, 6, 4, 5, 7


def example() -> dict[str, Any]:
    torch.manual_seed(10)
    sizes = {"qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": V, "kv_lora_rank": RANK}
    config = DeepseekV3Config(
        hidden_size=D, num_attention_heads=HEADS, num_key_value_heads=HEADS, q_lora_rank=8,
        rope_scaling=None, attn_implementation="eager", **sizes,
    )  # fmt: skip
    layer = DeepseekV3Attention(config, 0).double().eval()
    x = torch.randn(1, N, D, dtype=torch.float64)
    cos, sin = DeepseekV3RotaryEmbedding(config)(x, torch.arange(N)[None])
    mask = torch.full((N, N), -torch.inf, dtype=torch.float64).triu(1)[None, None]
    context: dict[str, Any] = {}
    layer.o_proj.register_forward_pre_hook(lambda _, inputs: context.update(it=inputs[0]))
    layer(x, (cos, sin), mask)
    query = (
        layer.q_b_proj(layer.q_a_layernorm(layer.q_a_proj(x))).view(1, N, HEADS, NOPE + ROPE).transpose(1, 2)
    )
    latent, shared = layer.kv_a_proj_with_mqa(x).split([RANK, ROPE], dim=-1)
    rotated, shared = apply_rotary_pos_emb_interleave(query[..., NOPE:], shared[:, None], cos, sin)
    up = layer.kv_b_proj.weight.view(HEADS, NOPE + V, RANK).transpose(1, 2)
    arrays = {
        "query": query[0, ..., :NOPE],
        "rotated": rotated[0],
        "latent": layer.kv_a_layernorm(latent)[0],
        "shared_key": shared[0, 0],
        "up_key": up[..., :NOPE],
        "up_value": up[..., NOPE:],
        "expected": context["it"][0].view(N, HEADS, V).transpose(0, 1),
    }
    return {name: array.detach().numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("absorbed", [False, True])
def test_reference_equals_the_package(absorbed: bool) -> None:
    """Both forms compute what DeepseekV3Attention does, up to the float32 of its softmax."""
    case = example()
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case, absorbed=absorbed), expected, rtol=0, atol=1e-6)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-6)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
