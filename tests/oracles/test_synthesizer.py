"""Synthesizer against torch's linear layers, tiling and softmax (no package has it). Run as a program, this
writes the frozen fixture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tilewright.workloads.attention import synthesizer
from tilewright.workloads.attention.base import Values

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "synthesizer.npz"
VARIANTS = ("dense", "random", "factorised_dense", "factorised_random")
N, D, HEADS, WIDTH, A, RANK = 12, 10, 2, 5, 3, 4


def example() -> dict[str, Any]:
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    x, value = torch.randn(N, D), torch.randn(HEADS, N, WIDTH)
    arrays = {"x": x, "value": value}
    scores: dict[str, list[torch.Tensor]] = {variant: [] for variant in VARIANTS}
    parts: dict[str, list[torch.Tensor]] = {}

    def keep(**tensors: torch.Tensor) -> None:
        for name, tensor in tensors.items():
            parts.setdefault(name, []).append(tensor)

    for _ in range(HEADS):
        up, down = torch.nn.Linear(D, WIDTH), torch.nn.Linear(WIDTH, N)
        keep(w1=up.weight.T, b1=up.bias, w2=down.weight.T, b2=down.bias)
        scores["dense"].append(down(torch.relu(up(x))))
        fa, fb = torch.nn.Linear(D, A)(x), torch.nn.Linear(D, N // A)(x)
        keep(fa=fa, fb=fb)
        scores["factorised_dense"].append(fa.repeat(1, N // A) * fb.repeat_interleave(A, dim=1))
        r, r1, r2 = torch.randn(N, N), torch.randn(N, RANK), torch.randn(N, RANK)
        keep(r=r, r1=r1, r2=r2)
        scores["random"].append(r)
        scores["factorised_random"].append(torch.einsum("ik,jk->ij", r1, r2))
    later = torch.ones(N, N).triu(1).bool()
    for variant, heads in scores.items():
        stacked = torch.stack(heads)
        arrays[variant] = stacked.softmax(-1) @ value
        arrays[f"{variant}_causal"] = stacked.masked_fill(later, -torch.inf).softmax(-1) @ value
    arrays |= {name: torch.stack(tensors) for name, tensors in parts.items()}
    torch.set_default_dtype(torch.float32)
    return {name: tensor.detach().numpy() for name, tensor in arrays.items()}


def scores_of(variant: str, case: Mapping[str, Any]) -> Values:
    if variant == "dense":
        return synthesizer.dense_scores(*(case[name] for name in ("x", "w1", "b1", "w2", "b2")))
    if variant == "factorised_dense":
        return synthesizer.factorised_dense_scores(case["fa"], case["fb"])
    if variant == "factorised_random":
        return synthesizer.factorised_random_scores(case["r1"], case["r2"])
    return np.asarray(case["r"])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_reference_equals_torch(variant: str, causal: bool) -> None:
    """The reference computes what torch's layers do, for each variant."""
    case = example()
    scores = scores_of(variant, case)
    actual = synthesizer.reference(scores, case["value"], causal)
    expected = case[f"{variant}_causal" if causal else variant]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-14)


def test_fixture_is_what_torch_computes() -> None:
    """The frozen arrays are torch's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
