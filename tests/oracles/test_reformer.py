"""Reformer's reference against `LSHSelfAttention` of Hugging Face Transformers.

Run as a program, this writes the frozen cases of `tests/data/oracles/reformer.npz`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import ReformerConfig
from transformers.models.reformer.modeling_reformer import LSHSelfAttention

from tilewright.workloads.attention.reformer import reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "reformer.npz"
# tokens, chunk, rounds, digits, causal
CASES = {
    "encoder": (32, 8, 1, (8,), False),
    "causal": (32, 8, 3, (4,), True),
    "digits": (48, 4, 2, (4, 6), True),
    "dense": (8, 8, 2, (4,), True),
}
HEADS, WIDTH, SEED = 2, 4, 3


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs and output of the public implementation, in float64."""
    tokens, chunk, rounds, digits, causal = CASES[name]
    torch.manual_seed(len(name))
    config = ReformerConfig(
        hidden_size=HEADS * WIDTH,
        num_attention_heads=HEADS,
        attention_head_size=WIDTH,
        hash_seed=SEED,
        lsh_attn_chunk_length=chunk,
        num_hashes=rounds,
        num_buckets=digits[0] if len(digits) == 1 else list(digits),
        is_decoder=causal,
        lsh_attention_probs_dropout_prob=0.0,
    )
    layer = LSHSelfAttention(config, layer_idx=0).double().eval()
    x = torch.randn(1, tokens, HEADS * WIDTH, dtype=torch.float64)
    with torch.no_grad():
        out = layer(x, attention_mask=torch.ones(1, tokens)).hidden_states
        query_key, value = layer.query_key(x), layer.value(x)
        torch.manual_seed(SEED)
        rotations = torch.randn(HEADS, WIDTH, rounds, sum(digits) // 2, dtype=torch.float64)
    return {
        "query_key": by_head(query_key), "value": by_head(value), "out": by_head(out),
        "rotations": rotations.numpy(), "digits": np.array(digits),
        "chunk": np.array(chunk), "causal": np.array(causal),
    }  # fmt: skip


def by_head(x: torch.Tensor) -> np.ndarray:
    return np.asarray(x[0].reshape(-1, HEADS, WIDTH).transpose(0, 1).contiguous())


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_transformers(name: str) -> None:
    """Bucket by bucket, chunk by chunk and round by round, it is what Transformers computes."""
    case = oracle(name)
    out = reference(
        case["query_key"],
        case["value"],
        case["rotations"],
        tuple(case["digits"]),
        int(case["chunk"]),
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
    FROZEN.parent.mkdir(parents=True, exist_ok=True)
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
