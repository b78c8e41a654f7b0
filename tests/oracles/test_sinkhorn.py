"""The Sinkhorn Transformer's reference against the package sinkhorn-transformer.

Its non-causal attention permutes keys where it means values (`b_v_r = b_k_r.reshape(...)`), so it is compared
with values equal to keys, where that makes no difference; values of their own are compared with its defect
mended. Run as a program, this writes the frozen cases of `tests/data/oracles/sinkhorn.npz`.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import sinkhorn_transformer.sinkhorn_transformer as public
import torch

from tilewright.workloads.attention.sinkhorn import Sinkhorn, balance, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "sinkhorn.npz"
CASES = {"as_published": (24, 4, 7, 0.75), "mended": (24, 3, 5, 0.5)}
"""Tokens, block, iterations, temperature."""
HEADS, WIDTH = 2, 4
DEFECT, MENDED = "b_v_r = b_k_r.reshape", "b_v_r = b_v_r.reshape"


def attention_class(mended: bool) -> type[torch.nn.Module]:
    """`SinkhornAttention`, as it is or with the one wrong name put right."""
    source = inspect.getsource(public.SinkhornAttention)
    assert source.count(DEFECT) == 1
    namespace = dict(vars(public))
    exec(source.replace(DEFECT, MENDED) if mended else source, namespace)
    return cast(type[torch.nn.Module], namespace["SinkhornAttention"])


def oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs, noise and output of the public implementation, in float64."""
    tokens, block, iterations, temperature = CASES[name]
    torch.manual_seed(len(name))
    layer = attention_class(name == "mended")(
        block,
        HEADS * WIDTH,
        WIDTH,
        HEADS,
        tokens,
        temperature,
        non_permutative=False,
        sinkhorn_iter=iterations,
    ).double()
    query, key, value = torch.randn(3, 1, HEADS, tokens, WIDTH, dtype=torch.float64)
    if name == "as_published":
        value = key
    blocks = tokens // block
    torch.manual_seed(0)
    noise = public.sample_gumbel((HEADS, blocks, blocks), query.device, query.dtype)
    torch.manual_seed(0)
    with torch.no_grad():
        out = layer(query, key, value)
    arrays = {"query": query[0], "key": key[0], "value": value[0], "noise": noise, "out": out[0]}
    numbers = {"block": block, "iterations": iterations, "temperature": temperature}
    return {key: array.numpy() for key, array in arrays.items()} | {
        k: np.array(v) for k, v in numbers.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_reference_equals_the_package(name: str) -> None:
    """Sorting scores, balancing, soft permutation and attention to 2b keys are those of the package."""
    case = oracle(name)
    p = Sinkhorn(
        block=int(case["block"]), iterations=int(case["iterations"]), temperature=float(case["temperature"])
    )
    out = reference(case["query"], case["key"], case["value"], p, case["noise"])
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


def test_the_operator_equals_the_package() -> None:
    """The Sinkhorn operator by itself."""
    logits = torch.randn(3, 6, 6, dtype=torch.float64)
    ours = balance(logits.numpy(), 8)
    np.testing.assert_allclose(ours, public.sinkhorn_sorting_operator(logits, 8).numpy(), rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_the_frozen_cases_are_the_public_ones(name: str) -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in oracle(name).items():
            np.testing.assert_allclose(frozen[f"{name}_{key}"], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    frozen = {f"{name}_{key}": value for name in CASES for key, value in oracle(name).items()}
    np.savez_compressed(FROZEN, allow_pickle=False, **frozen)
