"""StreamingLLM against the cache of attention-sinks.

Run as a program, this writes the frozen case of `tests/data/oracles/streaming.npz`.
"""

from __future__ import annotations

import runpy
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention

from tilewright.workloads.attention.streaming import Streaming, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "streaming.npz"
TOKENS, SINKS, WINDOW = 21, 3, 6


def oracle() -> dict[str, np.ndarray]:
    """Queries, keys, values, and what torch makes of the keys that the cache has kept, step by step."""
    file = distribution("attention-sinks").locate_file("attention_sinks/attention_sink_kv_cache.py")
    keep = runpy.run_path(str(file))["AttentionSinkKVCache"](
        attention_sink_size=SINKS, attention_sink_window_size=WINDOW
    )
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, TOKENS, 4, dtype=torch.float64) for _ in range(3))
    past, out = [(key[:, :, :0], value[:, :, :0])], []
    for i in range(TOKENS):
        step = slice(i, i + 1)
        joined = tuple(
            torch.cat((old, new[:, :, step]), 2) for old, new in zip(past[0], (key, value), strict=True)
        )
        past = keep([joined])
        out.append(scaled_dot_product_attention(query[:, :, step], *past[0]))
    arrays = {"query": query, "key": key, "value": value, "out": torch.cat(out, 2)}
    return {name: array[0].numpy() for name, array in arrays.items()}


def test_reference_equals_the_cache() -> None:
    """A whole sequence at once gives what the cache gives token by token."""
    case = oracle()
    made = reference(case["query"], case["key"], case["value"], Streaming(sinks=SINKS, window=WINDOW))
    np.testing.assert_allclose(made, case["out"], rtol=0, atol=1e-14)


def test_the_frozen_case_is_the_public_one() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **oracle())
