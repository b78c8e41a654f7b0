"""Masks from a file: right numbers, and the costs that follow from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.mask_file import MECHANISM, MaskFile, load, reference
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads
from tilewright.workloads.load import load_workload

FROZEN = Path(__file__).parent / "data" / "oracles" / "mask_file.npz"
GLOBAL_TOKENS = Path(__file__).parent / "data" / "masks" / "vitcod-deit-tiny-0.95-global-tokens.npy"
VITCOD = ["attention.kind=mask_file", "attention.path=vitcod-deit-tiny-0.95", "attention.marks=hidden"]


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs and output of torch's scaled_dot_product_attention."""
    with np.load(FROZEN) as frozen:
        query, key, value, masks, out = (frozen[part] for part in ("query", "key", "value", "masks", "out"))
    np.testing.assert_allclose(reference(query, key, value, masks), out, rtol=0, atol=1e-14)


def masks(heads: int, n: int) -> np.ndarray:
    return (np.random.default_rng(heads).random((heads, n, n)) < 0.1) | np.eye(n, dtype=bool)


def lowered(
    path: Path, n: int, *, layer: int | None = None, block: int = 8, causal: bool = False
) -> OperatorGraph:
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
    graph = lowered(tmp_path / "masks.npy", 29, layer=1 if len(shape) == 4 else None)
    assert graph.useful_macs == 2 * 4 * 29 * 12 * 12 + 2 * 3 * 2 * 4 * first.sum()


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (
            None,
            {},
            "attention.path: can't read '{path}': No such file or directory (masks that come with "
            "tilewright: vitcod-deit-tiny-0.95)",
        ),
        (
            np.array([{}], dtype=object),
            {},
            "attention.path: '{path}' is not a .npy file of booleans; write one with numpy.save",
        ),
        (
            np.ones((3, 9, 9)),
            {},
            "attention.path: {path} holds masks of shape (3, 9, 9), not (8, 8) for all or (3, 8, 8) for each "
            "of 3 heads of 8 tokens",
        ),
        (np.full((8, 8), 2), {}, "attention.path: {path} holds values other than 0 and 1"),
        (np.ones((2, 3, 8, 8)), {}, "attention.layer: {path} has layers 0 to 1; say which one"),
        (
            np.ones((2, 3, 8, 8)),
            {"layer": 2},
            "attention.layer: {path} has layers 0 to 1, not 2; it needs masks for each layer of the model, "
            "or `layer` says whose all of them take",
        ),
        (
            np.ones((8, 8)),
            {"causal": True},
            "attention.path: {path} lets tokens see later ones, but the layer is causal",
        ),
        (
            np.tri(8, k=-1),
            {},
            "attention.path: {path} hides every key from query 0 of head 0; let it see one, itself for "
            "instance, or say `marks: hidden` if that is what its 1 means",
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


def vitcod(layer: int) -> np.ndarray:
    """What each head of a layer of DeiT-Tiny sees, [3, 197, 197]."""
    p = MaskFile(path="vitcod-deit-tiny-0.95", marks="hidden", layer=layer)
    return np.stack(load(p, 3, 197))


def test_the_shipped_masks_are_read_as_their_authors_read_them() -> None:
    """94.67 % of the pairs are pruned, every query sees a key, and the keys that more than 50 queries see are
    as many as ViTCoD counts global tokens: an axis taken for the other would give other counts."""
    seen = np.stack([vitcod(layer) for layer in range(12)])
    assert 1 - seen.mean() == pytest.approx(0.9467, abs=1e-4)
    assert seen.any(axis=3).all()
    counted = np.load(GLOBAL_TOKENS)
    np.testing.assert_array_equal((seen.sum(axis=2) > 50).sum(axis=-1), counted)
    assert ((seen.sum(axis=3) > 50).sum(axis=-1) != counted).any()


def brute_blocks(mask: np.ndarray, block: int) -> list[list[int]]:
    """Queries and blocks of keys with a pair, of each block of queries, counted one by one."""
    n = len(mask)
    return [
        [
            min(block, n - row),
            sum(
                bool(mask[row : row + block, column : column + block].any()) for column in range(0, n, block)
            ),
        ]
        for row in range(0, n, block)
    ]


@pytest.mark.parametrize("block", [16, 64])
def test_each_layer_of_deit_tiny_has_its_own_mask(block: int) -> None:
    """Layer by layer the useful MACs are those of its masks' pairs, and the worked ones at least its blocks',
    counted by brute force, and at most what evening them out may add."""
    graph = load_workload("vit-ti16", [*VITCOD, f"attention.block={block}"]).expand()
    for layer in range(12):
        masks = vitcod(layer)
        core = [
            op
            for op in graph.operators
            if op.name.startswith(f"layers.{layer}.attention.") and op.name.endswith(("scores", "context"))
        ]
        assert sum(op.useful_macs or 0 for op in core) == 2 * 64 * masks.sum()
        blocks = [pair for mask in masks for pair in brute_blocks(mask, block)]
        least = 2 * 64 * sum(rows * min(taken * block, 197) for rows, taken in blocks)
        most = least * 8 / 7 + 2 * 64 * block * block * sum(taken for _, taken in blocks) / 32
        assert least <= sum(op.macs for op in core) <= most
    assert len({vitcod(layer).sum() for layer in range(12)}) == 12


def test_the_masked_kernel_leaves_the_skipping_to_a_unit() -> None:
    """All scores are there, the useful MACs are those of the masks' pairs, and the scores carry the masks."""
    graph = load_workload("vit-ti16", [*VITCOD, "attention.kernel=masked"]).expand()
    for layer in range(12):
        core = {
            op.name.rpartition(".")[2]: op
            for op in graph.operators
            if op.name.startswith(f"layers.{layer}.attention.")
        }
        masks = vitcod(layer)
        for name in ("scores", "context"):
            assert core[name].macs == 3 * 197 * 197 * 64
            assert core[name].useful_macs == 64 * masks.sum()
        pairs = core["scores"].pairs
        assert pairs is not None
        np.testing.assert_array_equal([head.seen for head in pairs.each()], masks)


def test_all_layers_masks_as_heads_of_one_and_one_head_for_all() -> None:
    """`layer: all` lines the layers' heads up, `head` has one of them stand for its layer's others."""
    all_heads = load(MaskFile(path="vitcod-deit-tiny-0.95", marks="hidden", layer="all"), 36, 197)
    np.testing.assert_array_equal(all_heads, np.concatenate([vitcod(layer) for layer in range(12)]))
    one = MaskFile(path="vitcod-deit-tiny-0.95", marks="hidden", layer="all", head=1)
    np.testing.assert_array_equal(
        load(one, 36, 197), np.repeat([vitcod(layer)[1] for layer in range(12)], 3, axis=0)
    )
    (alone,) = load(MaskFile(path="vitcod-deit-tiny-0.95", marks="hidden", layer=4, head=2), 3, 197)
    np.testing.assert_array_equal(alone, vitcod(4)[2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("head: 3, layer: 0", "attention.head: vitcod-deit-tiny-0.95 has heads 0 to 2, not 3"),
        (
            "layer: all",
            "attention.layer: vitcod-deit-tiny-0.95 has 12 layers of 3 heads, 36 in all; the workload has 3",
        ),
        (
            "layer: 0, kernel: blocks",
            "`attention`, masks from a file, takes `kernel: masked`, `mask: none`, no `window` and as "
            "many keys as queries",
        ),
    ],
)
def test_bad_masks_of_bare_attention_are_refused(options: str, message: str) -> None:
    """What is wrong with heads, layers or the kernel is said."""
    choice = {"kernel": "masked"} | dict(part.split(": ") for part in options.split(", "))
    fields = ", ".join(f"{key}: {value}" for key, value in choice.items())
    attention = f"attention={{kind: mask_file, path: vitcod-deit-tiny-0.95, marks: hidden, {fields}}}"
    with pytest.raises(InputError) as error:
        load_workload("attention", ["heads=3", "seq=197", attention])
    assert message in str(error.value)


def test_the_masked_kernel_needs_a_key_for_every_query(tmp_path: Path) -> None:
    """As the blocked one does."""
    np.save(tmp_path / "masks.npy", np.tri(8, k=-1))
    attention = f"attention={{kind: mask_file, path: {tmp_path / 'masks.npy'}, kernel: masked}}"
    with pytest.raises(InputError) as error:
        load_workload("attention", ["heads=2", "seq=8", attention])
    assert f"{tmp_path / 'masks.npy'} hides every key from query 0 of head 0" in str(error.value)


def test_a_mask_for_all_layers_keeps_them_one_block(tmp_path: Path) -> None:
    """Without an axis of layers, or with a layer named, all are equal and are lowered once."""
    np.save(tmp_path / "one.npy", ~vitcod(0))
    one = load_workload("vit-ti16", [*VITCOD, f"attention.path={tmp_path / 'one.npy'}"])
    named = load_workload("vit-ti16", [*VITCOD, "attention.layer=0"])
    assert [repeat.times for repeat in one.repeats] == [repeat.times for repeat in named.repeats] == [12]
    assert one.useful_macs == named.useful_macs
