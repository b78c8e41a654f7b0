"""A mixture of experts against Mixtral's block in Hugging Face Transformers.

Run as a program, this writes the frozen case of `tests/data/oracles/mixture.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from tilewright.workloads.mixture import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "mixture.npz"
TOKENS, D, F, EXPERTS, ACTIVE = 19, 8, 12, 5, 2


def oracle() -> dict[str, np.ndarray]:
    """Weights, inputs and output of Mixtral's block, in float64 with a router in float32."""
    torch.manual_seed(0)
    config = MixtralConfig(
        hidden_size=D, intermediate_size=F, num_local_experts=EXPERTS, num_experts_per_tok=ACTIVE
    )
    block = MixtralSparseMoeBlock(config).double().eval()
    x = torch.randn(1, TOKENS, D, dtype=torch.float64)
    case = {"x": x[0], "router": 4 * block.gate.weight.T}  # distinct probabilities
    for name, part in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        case[name] = torch.stack([getattr(expert, part).weight.T for expert in block.experts])
    with torch.no_grad():
        block.gate.weight *= 4
        case["out"] = block(x)[0][0]
    return {name: array.detach().numpy() for name, array in case.items()}


def test_reference_equals_mixtral() -> None:
    """Router, choice of two, gated experts and weighted sum are Mixtral's."""
    case = oracle()
    made = reference(case["x"], case["router"], (case["gate"], case["up"], case["down"]), ACTIVE)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=2e-7)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    fresh = oracle()
    with np.load(FROZEN) as frozen:
        assert set(frozen) == set(fresh)
        for key, value in fresh.items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=2e-7)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
