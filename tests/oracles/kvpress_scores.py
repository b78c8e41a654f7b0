"""What the package kvpress says of a prompt's tokens: shared by the tests of H2O, SnapKV and TOVA."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Protocol, cast

import numpy as np
import torch

HEADS, KV_HEADS, WIDTH = 4, 2, 4
PROMPT, TOKENS = 24, 30
SLOTS = 10


class Press(Protocol):
    """A scorer of kvpress."""

    def score(self, *arguments: object) -> torch.Tensor: ...


def press(module: str, name: str, **sizes: int) -> Press:
    """A scorer of kvpress, loaded without the package's `__init__`, which imports much else."""
    if "kvpress" not in sys.modules:
        spec = importlib.util.find_spec("kvpress")
        root = Path(str(spec and spec.origin)).parent
        for package, folder in (("kvpress", root), ("kvpress.presses", root / "presses")):
            bare = ModuleType(package)
            bare.__path__ = [str(folder)]
            sys.modules[package] = bare
    return cast(Press, getattr(importlib.import_module(f"kvpress.presses.{module}"), name)(**sizes))


def scored(scorer: Press, seed: int) -> dict[str, np.ndarray]:
    """Queries, keys, values; scores of the prompt's tokens, and their attention in torch; in float64."""
    torch.manual_seed(seed)
    query = torch.randn(1, HEADS, TOKENS, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, 1, KV_HEADS, TOKENS, WIDTH, dtype=torch.float64)
    heads = SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS)
    module = SimpleNamespace(config=heads, head_dim=WIDTH)
    asked, keys, values = query[:, :, :PROMPT], key[:, :, :PROMPT], value[:, :, :PROMPT]
    mask = torch.ones(PROMPT, PROMPT).triu(1).bool()
    weights = asked @ keys.repeat_interleave(HEADS // KV_HEADS, dim=1).mT / WIDTH**0.5
    weights = weights.masked_fill(mask, float("-inf")).softmax(dim=-1)
    score = scorer.score(module, torch.zeros(1, PROMPT, HEADS * WIDTH), keys, values, weights, {})
    attended = torch.nn.functional.scaled_dot_product_attention(
        asked, keys, values, is_causal=True, enable_gqa=True
    )
    arrays = {"query": query, "key": key, "value": value, "score": score, "attended": attended}
    return {name: array[0].numpy() for name, array in arrays.items()}


def largest(score: np.ndarray) -> list[set[int]]:
    """Per KV head, the tokens that stay: those with the largest scores."""
    return [set(np.argsort(-row)[:SLOTS].tolist()) for row in score]
