"""Queries and keys for dynamic methods: the model's statistics, files, and what follows from them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Values
from tilewright.workloads.attention.scores import (
    ScoreModel,
    block_weights,
    blocks_by_mass,
    draw,
    imbalance,
    read,
)


def test_logits_fall_with_distance_as_stated() -> None:
    """The mean logit of tokens t apart is sharpness * exp(-t / reach), head by head."""
    model = ScoreModel(sharpness=5, shortest=4, longest=64, sinks=0)
    query, key = draw(model, 2, 2, 20_000, 32)
    query = query - model.sink_logit * _aside(query, key, model)
    for head, reach in enumerate((4, 64)):
        for lag in (0, 2, 8):
            logits = (query[head, lag:] * key[head, : 20_000 - lag]).sum(axis=-1) / np.sqrt(32)
            assert logits.mean() == pytest.approx(5 * np.exp(-lag / reach), abs=0.1)


def _aside(query: Values, key: Values, model: ScoreModel) -> Values:
    """The direction of the sinks: what queries have beside their multiple of the keys."""
    rest = query - model.sharpness / np.sqrt(key.shape[-1]) * key
    direction: Values = rest[:, :1] / np.linalg.norm(rest[:, :1], axis=-1, keepdims=True)
    return direction


def test_sinks_have_their_logit_more() -> None:
    """Without locality, the first keys have `sink_logit` with every query and the others nothing."""
    query, key = draw(ScoreModel(sharpness=0, sinks=3, sink_logit=6), 4, 2, 400, 64)
    logits = query @ key.repeat(2, axis=0).swapaxes(1, 2) / 8
    assert logits[:, :, :3].mean() == pytest.approx(6, abs=0.75)
    assert logits[:, :, 3:].mean() == pytest.approx(0, abs=0.1)


def test_a_seed_settles_everything() -> None:
    """The same seed gives the same bytes, another seed others."""
    first, again, other = (draw(ScoreModel(seed=seed), 4, 2, 50, 8) for seed in (1, 1, 2))
    assert [array.tobytes() for array in first] == [array.tobytes() for array in again]
    assert not np.array_equal(first[1], other[1])
    assert [array.shape for array in first] == [(4, 50, 8), (2, 50, 8)]


def test_a_model_that_makes_no_sense_says_why() -> None:
    """The longest reach is not the shorter one."""
    with pytest.raises(ValidationError, match=r"must be at least `shortest` \(8\), which 2 is not"):
        ScoreModel(longest=2)


def safetensors(path: Path, **tensors: np.ndarray) -> Path:
    """A file as the format's specification has it; arrays of uint16 are bfloat16."""
    kinds = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "<u2": "BF16", "<i4": "I32"}
    header: dict[str, object] = {"__metadata__": {"format": "np"}}
    start = 0
    for name, array in tensors.items():
        offsets = [start, start + array.nbytes]
        header[name] = {"dtype": kinds[array.dtype.str], "shape": array.shape, "data_offsets": offsets}
        start += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values())
    )
    return path


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", "bf16"])
def test_files_give_back_what_was_written(tmp_path: Path, dtype: str) -> None:
    """.npz and .safetensors, of each element type, with and without a batch axis of one."""
    values = np.random.default_rng(0).integers(-8, 8, size=(2, 2, 6, 4)) / 4  # exact in all types
    query, key = values[0], values[1]
    if dtype == "bf16":
        stored = [(x.astype("<f4").view("<u4") >> 16).astype("<u2") for x in (query[None], key)]
    else:
        stored = [x.astype(dtype) for x in (query[None], key)]
        np.savez(tmp_path / "a.npz", query=stored[0], key=stored[1])
        for ours, theirs in zip(read(tmp_path / "a.npz"), (query, key), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    path = safetensors(tmp_path / "a.safetensors", q=stored[0], k=stored[1])
    for ours, theirs in zip(read(path, "q", "k"), (query, key), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_files_that_do_not_fit_say_why(tmp_path: Path) -> None:
    """Each message names the file, what is wrong with it, and what there is instead."""
    good = np.zeros((2, 6, 4))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    (tmp_path / "a.txt").write_text("")
    cases = {
        tmp_path / "a.txt": "is neither a .npz nor a .safetensors file",
        tmp_path / "none.npz": "can't be read: No such file or directory",
        damaged: "is damaged: Expecting value: line 1 column 1 (char 0)",
        safetensors(tmp_path / "other.safetensors", q=good): "has no tensor 'query'; it has q",
        safetensors(tmp_path / "flat.safetensors", query=good[0], key=good): (
            "'query' is [heads, tokens, width], not of shape (6, 4)"
        ),
        safetensors(tmp_path / "pair.safetensors", query=good, key=good[:, :5]): (
            "'query' (2, 6, 4) and 'key' (2, 5, 4) do not go together: they need equal tokens and widths, "
            "and heads that are a multiple of the KV heads"
        ),
        safetensors(tmp_path / "ints.safetensors", query=good.astype("<i4"), key=good): (
            "is damaged: 'query' has elements of type I32, not one of ['F64', 'F32', 'F16', 'BF16']"
        ),
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {message}')}$"):
            read(path)


@given(
    blocks=st.integers(1, 8),
    mass=st.floats(0.01, 1),
    causal=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_chosen_blocks_are_the_fewest_with_the_mass(
    blocks: int, mass: float, causal: bool, seed: int
) -> None:
    """The chosen blocks reach the mass, without the lightest of them they do not, and none outweighs them."""
    query, key = np.random.default_rng(seed).normal(size=(2, 2, 4 * blocks, 3))
    weights = block_weights(query, key, 4, causal=causal)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    sees = blocks_by_mass(weights, mass)
    if causal:
        assert not (sees & ~np.tri(blocks, dtype=bool)).any()
    for row, chosen in zip(weights.reshape(-1, blocks), sees.reshape(-1, blocks), strict=True):
        assert row[chosen].sum() >= mass - 1e-9
        assert row[chosen].sum() - row[chosen].min() < mass
        assert row[chosen].min() >= row[~chosen].max(initial=0)


def test_imbalance_follows_from_the_data() -> None:
    """Local heads need few blocks and global ones many: that, and no constant, is the load."""
    assert imbalance(np.ones((2, 4, 4), dtype=bool)) == 1
    assert imbalance(np.tri(4, dtype=bool)[None]) == 4 / 2.5
    query, key = draw(ScoreModel(sinks=0, sink_logit=0), 4, 4, 2048, 64)
    counts = blocks_by_mass(block_weights(query, key, 64, causal=False), 0.9).sum(axis=-1).mean(axis=-1)
    assert len(set(counts)) == 4
    local, spread = (
        imbalance(blocks_by_mass(block_weights(query, key, 64, causal=True), mass)) for mass in (0.5, 0.9)
    )
    assert local > spread > 1
