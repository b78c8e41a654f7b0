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

from tilewright.workloads.attention.sinkhorn import Sinkhorn, balance, causal_reference, reference

FROZEN = Path(__file__).parents[1] / "data" / "oracles" / "sinkhorn.npz"
CASES = {"as_published": (24, 4, 7, 0.75), "mended": (24, 3, 5, 0.5)}
"""Tokens, block, iterations, temperature."""
CAUSAL = {"causal_one": (24, 4, 1, 0.75), "causal_two": (20, 5, 2, 0.5)}
"""Tokens, block, top blocks, temperature."""
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


def causal_oracle(name: str) -> dict[str, np.ndarray]:
    """Inputs, null vectors and output of `SinkhornCausalAttention`, in float64."""
    tokens, block, top, temperature = CAUSAL[name]
    torch.manual_seed(len(name))
    layer = public.SinkhornCausalAttention(
        block, HEADS * WIDTH, WIDTH, HEADS, tokens, n_top_buckets=top, temperature=temperature
    ).double()
    query, key, value = torch.randn(3, 1, HEADS, tokens, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        out = layer(query.clone(), key.clone(), value.clone())
    nulls = {"null_key": layer.null_keys.detach(), "null_value": layer.null_values.detach()}
    arrays = {"query": query[0], "key": key[0], "value": value[0], "out": out[0], **nulls}
    numbers = {"block": block, "top_blocks": top, "temperature": temperature}
    return {key: array.numpy() for key, array in arrays.items()} | {
        k: np.array(v) for k, v in numbers.items()
    }


def cut_oracle() -> dict[str, np.ndarray]:
    """SortCut, for which the package attends to the own block as well: its sorting operator on the relu of
    the block scores, and torch's attention to the first two sorted blocks of 4."""
    torch.manual_seed(1)
    query, key, value = torch.randn(3, HEADS, 24, WIDTH, dtype=torch.float64)
    asks, offers, values = (public.bucket(6, x) for x in (query, key, value))
    scores = torch.relu(torch.einsum("bie,bje->bij", asks.mean(2), offers.mean(2)) * WIDTH**-0.5)
    order = public.sinkhorn_sorting_operator(torch.log(scores + 1e-6) / 0.75, 6)
    kept = (public.reorder_buckets(x, order)[:, :2].flatten(1, 2) for x in (offers, values))
    out = torch.nn.functional.scaled_dot_product_attention(query, *kept)
    arrays = {"query": query, "key": key, "value": value, "out": out}
    return {name: array.numpy() for name, array in arrays.items()}


def every_case() -> dict[str, np.ndarray]:
    """What is frozen."""
    cases = {name: oracle(name) for name in CASES} | {name: causal_oracle(name) for name in CAUSAL}
    cases["cut"] = cut_oracle()
    return {f"{name}_{key}": value for name, case in cases.items() for key, value in case.items()}


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_reference_equals_the_package(name: str) -> None:
    """Ranking, shares, null vectors, rotation and masks are those of the package."""
    case = causal_oracle(name)
    p = Sinkhorn(
        block=int(case["block"]), top_blocks=int(case["top_blocks"]), temperature=float(case["temperature"])
    )
    null = case["null_key"], case["null_value"]
    out = causal_reference(case["query"], case["key"], case["value"], null, p)
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


def test_sort_cut_equals_torch() -> None:
    """Attention to the first sorted blocks and to nothing else."""
    case = cut_oracle()
    out = reference(case["query"], case["key"], case["value"], Sinkhorn(block=4, iterations=6, sort_cut=2))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


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


def test_the_frozen_cases_are_the_public_ones() -> None:
    """The stored inputs and outputs are those of the public implementation."""
    with np.load(FROZEN) as frozen:
        for key, value in every_case().items():
            np.testing.assert_allclose(frozen[key], value, rtol=0, atol=1e-14)


if __name__ == "__main__":
    np.savez_compressed(FROZEN, allow_pickle=False, **every_case())
