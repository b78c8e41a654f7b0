"""Masks of magnitude pruning against torch's pruning modules, in which a weight matrix is transposed.

Run as a program, this writes the frozen case of `tests/data/oracles/sparse_masks.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import prune

from tilewright.workloads.compression.sparse_masks import blocks, largest, n_of_m

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "sparse_masks.npz"
K, N = 24, 16
CASES = {"n2_m4": (2, 4), "n1_m4": (1, 4), "n4_m8": (4, 8)}


def sparsified(layer: torch.nn.Linear, level: float, shape: tuple[int, int], zeros: int) -> torch.Tensor:
    sparsifier = WeightNormSparsifier(level, shape, zeros)
    sparsifier.prepare(layer, [{"tensor_fqn": "weight"}])
    sparsifier.step()
    return layer.parametrizations.weight[0].mask


def oracle() -> dict[str, np.ndarray]:
    """A weight matrix [k, n], and torch's masks of it."""
    torch.manual_seed(3)
    weight = torch.randn(N, K, dtype=torch.float64)

    def layer() -> torch.nn.Linear:
        made = torch.nn.Linear(K, N, bias=False).double()
        made.weight.data = weight.clone()
        return made

    case = {"weights": weight}
    for name, (n, m) in CASES.items():
        case[name] = sparsified(layer(), 1.0, (1, m), m - n)
    case["blocks"] = sparsified(layer(), 0.5, (4, 4), 16)  # 12 of 24 stay
    case["unstructured"] = prune.l1_unstructured(layer(), "weight", amount=300).weight_mask
    return {name: array.detach().numpy().T for name, array in case.items()}


@pytest.mark.parametrize("name", CASES)
def test_n_of_m_equals_torch(name: str) -> None:
    """In each group of a column the same weights stay."""
    case = oracle()
    np.testing.assert_array_equal(n_of_m(case["weights"], *CASES[name]), case[name])


def test_blocks_and_single_weights_equal_torch() -> None:
    """The same blocks stay, and without a pattern the same weights."""
    case = oracle()
    np.testing.assert_array_equal(blocks(case["weights"], 4, 12), case["blocks"])
    np.testing.assert_array_equal(largest(case["weights"], K * N - 300), case["unstructured"])


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=0)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
