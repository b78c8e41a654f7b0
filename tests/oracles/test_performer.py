"""Performer against the package performer-pytorch 1.1.4. Run as a program, this writes the frozen fixture."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tilewright.workloads.attention.performer import reference

with warnings.catch_warnings():  # it uses distutils
    warnings.simplefilter("ignore")
    from performer_pytorch.performer_pytorch import FastAttention, causal_linear_attention_noncuda

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "performer.npz"
CASES = [(kernel, causal) for kernel in ("softmax", "relu") for causal in (False, True)]


def example() -> dict[str, Any]:
    torch.manual_seed(3)
    query, key, value = (torch.randn(1, 3, 13, 8, dtype=torch.float64) for _ in range(3))
    arrays = {"query": query[0], "key": key[0], "value": value[0]}
    for kernel, causal in CASES:
        torch.manual_seed(4)
        layer = FastAttention(8, nb_features=20, generalized_attention=kernel == "relu", causal=causal)
        layer = layer.double()
        if causal:  # without the 1e-6 that it adds to each running sum
            layer.causal_linear_fn = partial(causal_linear_attention_noncuda, eps=0.0)
        arrays["projection"] = layer.projection_matrix
        arrays[f"{kernel}_{'causal' if causal else 'both_ways'}"] = layer(query, key, value)[0]
    return {name: x.numpy() for name, x in arrays.items()}


@pytest.mark.parametrize(("kernel", "causal"), CASES)
def test_reference_equals_the_package(kernel: str, causal: bool) -> None:
    """The reference computes what FastAttention does, of either kernel, both ways and causal."""
    case = example()
    actual = reference(case["query"], case["key"], case["value"], case["projection"], kernel, causal=causal)
    expected = case[f"{kernel}_{'causal' if causal else 'both_ways'}"]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-13)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-13)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
