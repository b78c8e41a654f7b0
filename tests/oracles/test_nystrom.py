"""Nyströmformer against transformers 4.57.6. Run as a program, this writes the frozen fixture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import NystromformerConfig
from transformers.models.nystromformer.modeling_nystromformer import NystromformerSelfAttention

from tilewright.workloads.attention.nystrom import reference

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "nystrom.npz"
HEADS, WIDTH, N, LANDMARKS, TAPS = 3, 4, 20, 5, 3


def example(taps: int | None = TAPS) -> dict[str, Any]:
    torch.manual_seed(9)
    config = NystromformerConfig(
        hidden_size=HEADS * WIDTH, num_attention_heads=HEADS, num_landmarks=LANDMARKS,
        segment_means_seq_len=N, conv_kernel_size=TAPS, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    layer = NystromformerSelfAttention(config).double().eval()
    layer.conv_kernel_size = taps
    x = torch.randn(1, N, HEADS * WIDTH, dtype=torch.float64)
    named = {"query": layer.query(x), "key": layer.key(x), "value": layer.value(x), "expected": layer(x)[0]}
    arrays = {name: z[0].reshape(N, HEADS, WIDTH).transpose(0, 1) for name, z in named.items()}
    if taps:
        arrays["filters"] = layer.conv.weight[:, 0, :, 0]
    return {name: array.detach().numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("taps", [TAPS, None])
def test_reference_equals_the_package(taps: int | None) -> None:
    """The reference computes what NystromformerSelfAttention does, with its convolution and without."""
    case = example(taps)
    expected = case.pop("expected")
    actual = reference(**case, landmarks=LANDMARKS, iterations=6)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-13)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
