"""BigBird against `BigBirdBlockSparseAttention` of Hugging Face Transformers.

In train() mode, without dropout: in eval() its random blocks are all block 0. Run as a program, this writes
the frozen case of `tests/data/oracles/bigbird.npz`.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from transformers import BigBirdConfig
from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

from tilewright.workloads.attention.bigbird import BigBird, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "bigbird.npz"
BLOCK, BLOCKS, HEADS, WIDTH, RANDOM = 4, 13, 2, 4, 3


def by_head(x: torch.Tensor) -> np.ndarray:
    return x[0].reshape(-1, HEADS, WIDTH).transpose(0, 1).contiguous().numpy()


def oracle() -> dict[str, np.ndarray]:
    """Inputs, the blocks that it drew, and output of the public implementation, in float64."""
    torch.manual_seed(0)
    tokens = BLOCK * BLOCKS
    config = BigBirdConfig(
        hidden_size=HEADS * WIDTH,
        num_attention_heads=HEADS,
        block_size=BLOCK,
        num_random_blocks=RANDOM,
        max_position_embeddings=tokens,
        attention_probs_dropout_prob=0.0,
    )
    layer = BigBirdBlockSparseAttention(config, seed=5).double().train()
    x = torch.randn(1, tokens, HEADS * WIDTH, dtype=torch.float64)
    ones = torch.ones(1, tokens, dtype=torch.float64)
    blocked, band, rows, columns = BigBirdModel.create_masks_for_block_sparse_attn(ones, BLOCK)
    drawn = []
    original = layer._bigbird_block_rand_mask_with_head

    def spy(**sizes: object) -> list[np.ndarray]:
        drawn.extend(original(**sizes))
        return list(drawn)

    with torch.no_grad(), patch.object(layer, "_bigbird_block_rand_mask_with_head", spy):
        out = layer(x, band, rows, columns, blocked, blocked)[0]
        arrays = {"query": layer.query(x), "key": layer.key(x), "value": layer.value(x), "out": out}
    return {name: by_head(array) for name, array in arrays.items()} | {"chosen": np.stack(drawn).astype(int)}


def test_reference_equals_transformers() -> None:
    """Global, window and random blocks are what Transformers computes with the same draw."""
    case = oracle()
    p = BigBird(block=BLOCK, random_blocks=RANDOM)
    made = reference(case["query"], case["key"], case["value"], case["chosen"], p)
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
