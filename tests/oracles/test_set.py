"""Set Transformer against torch-geometric 2.8.1. Run as a program, this writes the frozen fixture."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tilewright.workloads.attention.set import reference

with warnings.catch_warnings():  # it uses torch.jit.script
    warnings.simplefilter("ignore")
    from torch_geometric.nn.aggr.utils import InducedSetAttentionBlock, MultiheadAttentionBlock

FIXTURE = Path(__file__).parents[1] / "data" / "oracles" / "set.npz"
HEADS = 4


def weights(block: MultiheadAttentionBlock) -> dict[str, torch.Tensor]:
    attention = block.attn
    w = {"output": attention.out_proj.weight.T, "output_bias": attention.out_proj.bias}
    w |= {"ff": block.lin.weight.T, "ff_bias": block.lin.bias}
    packed = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
    for name, (weight, bias) in zip(("query", "key", "value"), packed, strict=True):
        w |= {name: weight.T, f"{name}_bias": bias}
    return w


def example() -> dict[str, Any]:
    torch.manual_seed(6)
    layer = InducedSetAttentionBlock(16, 5, heads=HEADS).double()
    for parameter in layer.parameters():
        if parameter.ndim == 1 and not torch.all(parameter == 1):  # biases start as zeros; norms stay 1 and 0
            torch.nn.init.normal_(parameter)
    for norm in (layer.mab1, layer.mab2):
        for part in (norm.layer_norm1, norm.layer_norm2):
            torch.nn.init.zeros_(part.bias)
    x = torch.randn(1, 11, 16, dtype=torch.float64)
    arrays = {"x": x[0], "points": layer.ind[0], "expected": layer(x)[0]}
    for side, block in (("inner", layer.mab1), ("outer", layer.mab2)):
        arrays |= {f"{side}.{name}": weight for name, weight in weights(block).items()}
    return {name: array.detach().numpy() for name, array in arrays.items()}


def test_reference_equals_the_package() -> None:
    """The reference computes what InducedSetAttentionBlock does."""
    case = example()
    inner, outer = (
        {name.removeprefix(f"{side}."): array for name, array in case.items() if name.startswith(side)}
        for side in ("inner", "outer")
    )
    actual = reference(case["x"], case["points"], inner, outer, HEADS)
    np.testing.assert_allclose(actual, case["expected"], rtol=0, atol=1e-13)


def test_fixture_is_what_the_package_computes() -> None:
    """The frozen arrays are the package's own."""
    frozen, fresh = np.load(FIXTURE), example()
    assert set(frozen) == set(fresh)
    for name, array in fresh.items():
        np.testing.assert_allclose(frozen[name], array, rtol=0, atol=1e-13)


if __name__ == "__main__":
    np.savez_compressed(FIXTURE, **example())
