"""Masks from a file: right numbers, and the costs that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.mask_file import MECHANISM, MaskFile, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "mask_file.npz"


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of torch's scaled_dot_product_attention."""
    with np.load(FROZEN) as frozen:
        query, key, value, masks, out = (frozen[part] for part in ("query", "key", "value", "masks", "out"))
    np.testing.assert_allclose(reference(query, key, value, masks), out, rtol=0, atol=1e-14)


def masks(heads: int, n: int) -> np.ndarray:
    return (np.random.default_rng(heads).random((heads, n, n)) < 0.1) | np.eye(n, dtype=bool)


def lowered(path: Path, n: int, *, layer: int = 0, block: int = 8, causal: bool = False) -> OperatorGraph:
    b = GraphBuilder("t")
    x = b.input("x", (2, n, 12))
    site = Site(Heads(3, 3, 4), ALL_BIASES, causal=causal, context=n)
    p = MaskFile(path=str(path), layer=layer, block=block)
    return b.finish(MECHANISM.lower(b, x, site, p))


def test_the_work_is_that_of_the_masks(tmp_path: Path) -> None:
    """Useful: 2 e per pair, whichever head has it. Worked: the blocks that hold a pair, heads apart, with at
    most the padding that evens out rows; scattered keys are gathered."""
    each = masks(3, 29)
    np.save(tmp_path / "masks.npy", each)
    graph = lowered(tmp_path / "masks.npy", 29, block=4)
    projections = 2 * 4 * 29 * 12 * 12
    assert graph.useful_macs == projections + 2 * 2 * 4 * each.sum()
    hit = np.add.reduceat(np.add.reduceat(each, range(0, 29, 4), axis=1), range(0, 29, 4), axis=2) > 0
    pairs = sum(
        hit[head, row].sum() * 4 * min(4, 29 - 4 * row) for head in range(3) for row in range(hit.shape[1])
    )
    assert 0.9 * pairs <= (graph.macs - projections) / (2 * 2 * 4) <= pairs * 8 / 7 + 3 * 29 * 29 / 32
    assert any(op.kind == "gather" for op in graph.operators)


@pytest.mark.parametrize("shape", [(29, 29), (1, 29, 29), (2, 3, 29, 29), (2, 1, 29, 29)])
def test_masks_come_for_all_heads_for_each_and_by_layer(tmp_path: Path, shape: tuple[int, ...]) -> None:
    """Two axes are a mask for all; a fourth is the layer."""
    first = masks(1, 29)[0]
    stack = np.ones(shape, dtype=np.uint8)
    stack[..., :, :] = first
    if len(shape) == 4:
        stack[0] = 1
    np.save(tmp_path / "masks.npy", stack)
    graph = lowered(tmp_path / "masks.npy", 29, layer=len(shape) // 4)
    assert graph.useful_macs == 2 * 4 * 29 * 12 * 12 + 2 * 3 * 2 * 4 * first.sum()


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (None, {}, "attention.path: can't read '{path}' as a .npy file: [Errno 2] No such file or directory"),
        (
            np.ones((3, 9, 9)),
            {},
            "attention.path: {path} holds masks of shape (3, 9, 9), not (8, 8) for all or (3, 8, 8) for each "
            "of 3 heads of 8 tokens",
        ),
        (np.full((8, 8), 2), {}, "attention.path: {path} holds values other than 0 and 1"),
        (
            np.ones((2, 3, 8, 8)),
            {"layer": 2},
            "attention.layer: {path} has layers 0 to 1, not 2",
        ),
        (
            np.ones((8, 8)),
            {"causal": True},
            "attention.path: {path} lets tokens see later ones, but the layer is causal",
        ),
        (
            np.tri(8, k=-1),
            {},
            "the mask hides every key from query 0; let it see one, itself for instance",
        ),
    ],
)
def test_a_bad_file_is_refused(
    tmp_path: Path, array: np.ndarray | None, options: dict[str, Any], message: str
) -> None:
    """What is wrong with the file is said, with its name."""
    path = tmp_path / "masks.npy"
    if array is not None:
        np.save(path, array)
    with pytest.raises(InputError) as error:
        lowered(path, 8, **options)
    assert str(error.value).startswith(message.format(path=path))
