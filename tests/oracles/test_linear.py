"""Linear Transformer against performer-pytorch 1.1.4, whose linear attention takes any features, and against
the explicit n x n form. Run as a program, this writes the frozen fixture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tilewright.workloads.attention.linear import reference

with warnings.catch_warnings():  # it uses distutils
    warnings.simplefilter("ignore")
    from performer_pytorch.performer_pytorch import causal_linear_attention_noncuda, linear_attention

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "linear.npz"


def example() -> dict[str, Any]:
    torch.manual_seed(2)
    query, key, value = (torch.randn(1, 3, 17, 6, dtype=torch.float64) for _ in range(3))
    q, k = (torch.nn.functional.elu(x) + 1 for x in (query, key))
    both = linear_attention(q, k, value)
    causal = causal_linear_attention_noncuda(q, k, value, chunk_size=4, eps=0.0)
    named = {"query": query, "key": key, "value": value, "both_ways": both, "causal": causal}
    return {name: x[0].numpy() for name, x in named.items()}


@pytest.mark.parametrize("causal", [False, True])
def test_reference_equals_the_package(causal: bool) -> None:
    """The reference computes what the package's linear attention does on elu + 1."""
    case = example()
    actual = reference(case["query"], case["key"], case["value"], causal)
    np.testing.assert_allclose(actual, case["causal" if causal else "both_ways"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_reference_equals_the_explicit_form(causal: bool) -> None:
    """The same as the n x n matrix phi(q) phi(k), masked if causal, rows divided by their sums, times V."""
    case = {name: torch.from_numpy(x) for name, x in example().items()}
    q, k = (torch.nn.functional.elu(case[name]) + 1 for name in ("query", "key"))
    weights = q @ k.transpose(-1, -2)
    weights = weights.tril() if causal else weights
    expected = weights / weights.sum(-1, keepdim=True) @ case["value"]
    query, key, value = (case[name].numpy() for name in ("query", "key", "value"))
    actual = reference(query, key, value, causal)
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-13)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-13)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
