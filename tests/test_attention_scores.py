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
    Scores,
    block_weights,
    by_mass,
    by_threshold,
    draw,
    each_head,
    each_value,
    imbalance,
    kept_mass,
    pair_weights,
    read,
    sampled,
)
from tilewright.workloads.layers import Heads
from tilewright.workloads.pairs import Pairs


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
        safetensors(
            tmp_path / "nan.safetensors", query=good, key=np.where(np.arange(4) == 1, np.nan, good)
        ): (
            "12 of the 48 numbers of 'key' are infinite or not a number; write it from a run without overflow"
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
    sees = by_mass(weights, mass)
    if causal:
        assert not (sees & ~np.tri(blocks, dtype=bool)).any()
    for row, chosen in zip(weights.reshape(-1, blocks), sees.reshape(-1, blocks), strict=True):
        assert row[chosen].sum() >= mass - 1e-9
        assert row[chosen].sum() - row[chosen].min() < mass
        assert row[chosen].min() >= row[~chosen].max(initial=0)


def test_imbalance_follows_from_the_data() -> None:
    """Local heads need few blocks and global ones many: that, and no constant, is the load."""
    assert imbalance(np.full(8, 4)) == 1
    assert imbalance(np.arange(1, 5)) == 4 / 2.5
    query, key = draw(ScoreModel(sinks=0, sink_logit=0), 4, 4, 2048, 64)
    counts = by_mass(block_weights(query, key, 64, causal=False), 0.9).sum(axis=-1).mean(axis=-1)
    assert len(set(counts)) == 4
    local, spread = (
        imbalance(by_mass(block_weights(query, key, 64, causal=True), mass).sum(axis=-1))
        for mass in (0.5, 0.9)
    )
    assert local > spread > 1


@given(
    tokens=st.integers(1, 700),
    reach=st.floats(0.5, 2000),
    seed=st.integers(0, 2**32 - 1),
)
def test_draws_are_the_process_run_token_by_token(tokens: int, reach: float, seed: int) -> None:
    """Stretches side by side give what one loop over all tokens gives."""
    model = ScoreModel(seed=seed, shortest=reach, longest=reach, sinks=0)
    _, key = draw(model, 1, 1, tokens, 2)
    noise = np.random.default_rng([seed, 0]).standard_normal((tokens, 2))
    stay, z = np.exp(-1 / reach), noise.copy()
    for token in range(1, tokens):
        z[token] = stay * z[token - 1] + np.sqrt(1 - stay**2) * noise[token]
    np.testing.assert_allclose(key[0], z, rtol=0, atol=1e-12)


def test_heads_one_by_one_are_those_drawn_together() -> None:
    """Each KV head's queries and keys, without ever holding all."""
    query, key = draw(ScoreModel(seed=3), 6, 2, 40, 8)
    for number, (queries, keys) in enumerate(each_head(Scores(seed=3), Heads(6, 2, 8), 40)):
        np.testing.assert_array_equal(queries, query[3 * number : 3 * number + 3])
        np.testing.assert_array_equal(keys, key[number])


def test_a_file_takes_the_place_of_the_model(tmp_path: Path) -> None:
    """Layers have tensors of their own by `{layer}` in the names; other sizes than theirs are refused."""
    query, key = np.random.default_rng(0).normal(size=(4, 6, 2)), np.ones((2, 6, 2))
    np.savez(tmp_path / "qk.npz", q5=query, k=key)
    scores = Scores(path=str(tmp_path / "qk.npz"), query="q{layer}", key="k").of_layer(5)
    found = list(each_head(scores, Heads(4, 2, 2), 6))
    np.testing.assert_array_equal(np.concatenate([queries for queries, _ in found]), query)
    np.testing.assert_array_equal(np.stack([keys for _, keys in found]), key)
    message = (
        f"attention.scores.path: {tmp_path / 'qk.npz'} holds queries (4, 6, 2) and keys (2, 6, 2); the "
        "layer's [heads, tokens, width] are (4, 7, 2) and (2, 7, 2)"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        list(each_head(scores, Heads(4, 2, 2), 7))


def test_a_file_may_hold_values(tmp_path: Path) -> None:
    """Values are a KV head's each, layer by layer; without a name there are none, and other sizes than the
    layer's are refused."""
    path = tmp_path / "qkv.npz"
    query, value = np.ones((4, 6, 2)), np.random.default_rng(0).normal(size=(2, 6, 3))
    np.savez(path, query=query, key=query[:2], v1=value)
    scores = Scores(path=str(path), value="v{layer}").of_layer(1)
    heads = list(Pairs(Heads(4, 2, 2), 6, 6, scores=scores).each())
    for number, head in enumerate(heads):
        np.testing.assert_array_equal(head.value, value[number // 2])
    assert each_value(Scores(path=str(path)), Heads(4, 2, 2), 6) is None
    assert each_value(Scores(), Heads(4, 2, 2), 6) is None
    message = (
        f"attention.scores.value: {path} holds values (2, 6, 3); the layer's [KV heads, tokens] are (2, 7)"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        each_value(scores, Heads(4, 2, 2), 7)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"path": "a.npz", "seed": 1, "sinks": 0},
            "`path` takes the place of the model: leave seed, sinks out",
        ),
        ({"key": "k"}, "key: names of tensors need the `path` of their file"),
    ],
)
def test_scores_come_from_one_place(given: dict[str, object], message: str) -> None:
    """Either a file or the model; a description that is dumped and read again stays the same."""
    with pytest.raises(ValidationError, match=re.escape(message)):
        Scores.model_validate(given)
    for scores in (Scores(seed=4), Scores(path="a.npz", key="k")):
        assert Scores.model_validate(scores.model_dump()) == scores


@given(tokens=st.integers(1, 40), block=st.integers(1, 12), causal=st.booleans())
def test_the_last_block_may_be_shorter(tokens: int, block: int, causal: bool) -> None:
    """Averages are over the tokens that there are: softmax of their products, by brute force."""
    query, key = np.random.default_rng(tokens).normal(size=(2, 1, tokens, 3))
    starts = range(0, tokens, block)
    asks, offers = (np.stack([x[0, s : s + block].mean(axis=0) for s in starts]) for x in (query, key))
    weights = np.exp(asks @ offers.T / np.sqrt(3))
    if causal:
        weights = np.tril(weights)
    weights /= weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(block_weights(query, key, block, causal=causal)[0], weights, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_wide_integers_estimate_the_true_weights(causal: bool) -> None:
    """With 12 bits the estimate of pairs is the softmax itself, a part of the rows at a time; with 4 it is
    not."""
    query, key = np.random.default_rng(0).normal(size=(2, 20, 8))
    logits = query @ key.T / np.sqrt(8)
    true = np.exp(np.where(np.tri(20, dtype=bool) | (not causal), logits, -np.inf))
    true /= true.sum(axis=-1, keepdims=True)
    fine, coarse = (pair_weights(query, key, bits, slice(5, 12), causal=causal) for bits in (12, 4))
    wanted = true[5:12, : 12 if causal else 20]
    np.testing.assert_allclose(fine, wanted, atol=2e-3)
    assert np.abs(coarse - wanted).max() > 1e-2


@given(threshold=st.floats(1e-3, 0.999), seed=st.integers(0, 2**32 - 1))
def test_a_threshold_keeps_what_reaches_it_and_the_largest(threshold: float, seed: int) -> None:
    """Everything at or above it; below it only a row's largest, where nothing reaches it."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(6), size=5)
    sees = by_threshold(weights, threshold)
    for row, kept in zip(weights, sees, strict=True):
        reach = row >= threshold
        assert (kept == (reach if reach.any() else row == row.max())).all()


def test_kept_mass_is_the_share_of_the_softmax() -> None:
    """All keys hold 1, one of equal keys its share; samples are spaced evenly and end with the last query."""
    query, key, rows = np.zeros((1000, 2)), np.ones((1000, 2)), sampled(1000)
    assert len(rows) == 256
    assert rows[-1] == 999
    assert set(np.diff(rows)) == {3, 4}
    everything = np.ones((256, 1000), dtype=bool)
    assert kept_mass(query, key, rows, everything, causal=True) == pytest.approx(1)
    first = np.arange(1000) == np.zeros((256, 1))
    assert kept_mass(query, key, rows, first, causal=False) == pytest.approx(1 / 1000)
    assert kept_mass(query, key, rows, first, causal=True) == pytest.approx((1 / (rows + 1)).mean())
    assert list(sampled(3)) == [0, 1, 2]
