"""Transformer-XL against transformers 4.57.6 (the last with it). Run as a program, it writes the fixture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tilewright.workloads.attention.transformer_xl import reference

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers.models.deprecated.transfo_xl.modeling_transfo_xl import (
        PositionalEmbedding,
        RelPartialLearnableMultiHeadAttn,
    )

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "transformer_xl.npz"
HEADS, WIDTH, LENGTH, MEMORY = 3, 4, 5, 7


def example() -> dict[str, Any]:
    torch.manual_seed(7)
    d, total = HEADS * WIDTH, MEMORY + LENGTH
    layer = RelPartialLearnableMultiHeadAttn(HEADS, d, WIDTH, dropout=0.0)
    torch.nn.init.normal_(layer.r_w_bias)
    torch.nn.init.normal_(layer.r_r_bias)
    layer.eval()
    memory, x = torch.randn(MEMORY, 1, d), torch.randn(LENGTH, 1, d)
    both = torch.cat([memory, x])
    position = PositionalEmbedding(d)(torch.arange(total - 1, -1, -1.0))  # the furthest first
    mask = torch.ones(LENGTH, total).triu(1 + MEMORY)[:, :, None].bool()
    context: dict[str, Any] = {}
    layer.o_net.register_forward_pre_hook(lambda _, inputs: context.update(it=inputs[0]))
    layer(x, position, attn_mask=mask, mems=memory)
    query, key, value = layer.qkv_net(both).chunk(3, dim=-1)
    arrays = {
        "query": query[-LENGTH:, 0],
        "key": key[:, 0],
        "value": value[:, 0],
        "r": layer.r_net(position)[:, 0].flip(0),
        "expected": context["it"][:, 0],
    }
    arrays = {name: x.reshape(len(x), HEADS, WIDTH).transpose(0, 1) for name, x in arrays.items()}
    arrays |= {"u": layer.r_w_bias, "v": layer.r_r_bias}
    return {name: array.detach().double().numpy() for name, array in arrays.items()}


def test_reference_equals_the_package() -> None:
    """The reference computes what transformers' layer does, up to the float32 that it works in."""
    case = example()
    expected = case.pop("expected")
    np.testing.assert_allclose(reference(**case), expected, rtol=0, atol=2e-6)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=2e-6)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
