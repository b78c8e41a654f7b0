"""H2O, SnapKV and TOVA: what is kept of a prompt, against the package kvpress; attention against PyTorch.

Run as a program, this writes the frozen cases of `tests/data/oracles/{h2o,snapkv,tova}.npz`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Protocol, cast

import numpy as np
import pytest
import torch

from tilewright.workloads.attention import h2o, snapkv, tova

FOLDER = Path(__file__).parents[1] / "data" / "oracles"
HEADS, KV_HEADS, WIDTH = 4, 2, 4
PROMPT, TOKENS = 24, 30
SLOTS, WINDOW, KERNEL = 10, 4, 3
HEAVY = RECENT = 5
KINDS = ("h2o", "snapkv", "tova")


class Press(Protocol):
    def score(self, *arguments: object) -> torch.Tensor: ...


def press(kind: str) -> Press:
    """A scorer of kvpress, loaded without the package's `__init__`, which imports much else."""
    if "kvpress" not in sys.modules:
        spec = importlib.util.find_spec("kvpress")
        assert spec is not None
        root = Path(str(spec.origin)).parent
        for package, folder in (("kvpress", root), ("kvpress.presses", root / "presses")):
            bare = ModuleType(package)
            bare.__path__ = [str(folder)]
            sys.modules[package] = bare
    if kind == "h2o":
        module = importlib.import_module("kvpress.presses.observed_attention_press")
        return cast(Press, module.ObservedAttentionPress())
    if kind == "snapkv":
        module = importlib.import_module("kvpress.presses.snapkv_press")
        return cast(Press, module.SnapKVPress(window_size=WINDOW, kernel_size=KERNEL))
    module = importlib.import_module("kvpress.presses.tova_press")
    return cast(Press, module.TOVAPress())


def oracle(kind: str) -> dict[str, np.ndarray]:
    """Queries, keys and values; the public scores of the prompt's tokens and its attention, in float64."""
    torch.manual_seed(KINDS.index(kind))
    query = torch.randn(1, HEADS, TOKENS, WIDTH, dtype=torch.float64)
    key, value = torch.randn(2, 1, KV_HEADS, TOKENS, WIDTH, dtype=torch.float64)
    sizes = SimpleNamespace(num_attention_heads=HEADS, num_key_value_heads=KV_HEADS)
    module = SimpleNamespace(config=sizes, head_dim=WIDTH)
    shared = HEADS // KV_HEADS
    asked, offered = query[:, :, :PROMPT], key[:, :, :PROMPT].repeat_interleave(shared, dim=1)
    mask = torch.ones(PROMPT, PROMPT).triu(1).bool()
    scores = (asked @ offered.mT / WIDTH**0.5).masked_fill(mask, float("-inf"))
    hidden = torch.zeros(1, PROMPT, HEADS * WIDTH)
    keys, values = key[:, :, :PROMPT], value[:, :, :PROMPT]
    score = press(kind).score(module, hidden, keys, values, scores.softmax(dim=-1), {})
    attended = torch.nn.functional.scaled_dot_product_attention(
        asked, keys, values, is_causal=True, enable_gqa=True
    )
    arrays = {"query": query, "key": key, "value": value, "score": score, "attended": attended}
    return {name: array[0].numpy() for name, array in arrays.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_of_a_prompt_equals_the_package(kind: str) -> None:
    """The tokens with the largest public scores stay, and the prompt's own attention is exact."""
    case = oracle(kind)
    arrays = case["query"], case["key"], case["value"], PROMPT
    score = case["score"]
    if kind == "h2o":
        out, histories = h2o.reference(*arrays, HEAVY, RECENT)
        kept = [history[0] for history in histories]
        # The package has the mean over the tokens that can see one; the paper the sum, over two heads here.
        score = score * np.arange(PROMPT, 0, -1)
        score[:, -RECENT:] = np.inf
    elif kind == "snapkv":
        out, kept = snapkv.reference(*arrays, snapkv.SnapKV(window=WINDOW, kernel=KERNEL, capacity=SLOTS))
    else:
        out, history = tova.reference(*arrays, SLOTS)
        kept = [history[0]] * KV_HEADS
    np.testing.assert_allclose(out[:, :PROMPT], case["attended"], rtol=0, atol=1e-14)
    for ours, theirs in zip(kept, score, strict=True):
        assert set(ours) == set(np.argsort(-theirs)[:SLOTS])


@pytest.mark.parametrize("kind", KINDS)
def test_the_frozen_cases_are_the_public_ones(kind: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FOLDER / f"{kind}.npz") as frozen:
        for key, value in oracle(kind).items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-6)


if __name__ == "__main__":
    for kind in KINDS:
        np.savez_compressed(FOLDER / f"{kind}.npz", allow_pickle=False, **oracle(kind))
