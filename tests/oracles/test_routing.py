"""Routing Transformer's reference against `KmeansAttention` of the package routing-transformer.

Run as a program, this writes the frozen cases of `tests/data/oracles/routing.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from routing_transformer.routing_transformer import KmeansAttention

from tilewright.workloads.attention.routing import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "routing.npz"
CASES = {"encoder": (24, 4, 6, False), "overlapping": (20, 5, 7, False), "causal": (24, 4, 6, True)}
"""Tokens, clusters, window, causal."""
HEADS, WIDTH = 2, 4


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output of the public implementation, in float64."""
    tokens, clusters, window, causal = CASES[name]
    torch.manual_seed(len(name))
    layer = KmeansAttention(clusters, window, HEADS, WIDTH, causal=causal, shared_qk=causal).double().eval()
    layer.kmeans.means.copy_(torch.nn.functional.normalize(layer.kmeans.means, dim=-1))
    layer.kmeans.initted.fill_(True)
    query, key, value = torch.randn(3, 1, HEADS, tokens, WIDTH, dtype=torch.float64)
    if causal:
        key = query
    with torch.no_grad():
        out, _ = layer(query, key, value)
    arrays = {
        "query": query[0],
        "key": key[0],
        "value": value[0],
        "centroids": layer.kmeans.means,
        "out": out[0],
    }
    numbers = {"window": np.array(window), "causal": np.array(causal)}
    return {**{key: array.numpy() for key, array in arrays.items()}, **numbers}


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_the_package(name: str) -> None:
    """Selection, attention inside the clusters and the mean over them are those of the package."""
    case = oracle(name)
    out = reference(
        case["query"],
        case["key"],
        case["value"],
        case["centroids"],
        int(case["window"]),
        bool(case["causal"]),
    )
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_the_public_ones(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
