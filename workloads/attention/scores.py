"""Queries and keys for what depends on data: from a file, or from a stated model with a seed.

How many blocks of keys a block of queries needs: no constant says so. `draw` makes queries and keys of a
model whose terms can be read off its parameters, `read` takes real ones from a file, and `each_head` gives
either to a mechanism, head by head. From them `block_weights` and `pair_weights` estimate attention as
published methods do, and `by_mass` and `by_threshold` choose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from tilewright.description.errors import InputError, Problem
from tilewright.workloads.attention.base import Parameters, Values
from tilewright.workloads.layers import Heads

Mask = NDArray[np.bool_]

MOST_PAIRED = 16_384
"""Tokens up to which weights are estimated pair by pair: their number grows with the square."""
SAMPLED = 256
"""Queries, evenly spaced, whose true weights are worked out."""
_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_STRETCH = 128
"""Tokens of the stretches that `_autoregression` runs side by side."""


class ScoreModel(Parameters):
    """Queries and keys whose products fall with distance, with some tokens that everyone attends to.

    A model, not data: z_i follows an AR(1) process in each of the e components, of unit variance and with
    correlation exp(-1 / reach) from token to token; keys are z and queries a multiple of it, so that the mean
    logit of tokens t apart is `sharpness` exp(-t / reach). The KV heads' reaches are spaced evenly on a
    logarithmic scale. The first `sinks` keys have `sink_logit` more from every query (attention sinks: Xiao
    et al., arXiv:2309.17453). Every layer and every sequence of a batch gets the same draw.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    sharpness: Annotated[float, Field(ge=0)] = 4.0
    """Mean logit of a token with itself."""
    shortest: Annotated[float, Field(gt=0)] = 8.0
    """Reach of the most local head, in tokens."""
    longest: Annotated[float, Field(gt=0)] = 1024.0
    """Reach of the least local head, in tokens."""
    sinks: Annotated[int, Field(ge=0)] = 4
    """Tokens at the beginning that every query attends to."""
    sink_logit: float = 4.0
    """What they have more than others."""

    @field_validator("longest")
    @classmethod
    def _spans_a_range(cls, longest: float, info: ValidationInfo) -> float:
        shortest = info.data.get("shortest")
        if shortest is not None and longest < shortest:
            raise ValueError(f"must be at least `shortest` ({shortest:g}), which {longest:g} is not")
        return longest


class Scores(ScoreModel):
    """Where queries and keys come from: a file with `path`, else the model with its `seed`."""

    path: str | None = None
    """A `.safetensors` or `.npz` file with real ones, as they enter the product (after rotary positions)."""
    query: str = "query"
    """Name of the queries in the file, [heads, tokens, width]; `{layer}` stands for the layer's number."""
    key: str = "key"
    """Name of the keys in the file, [KV heads, tokens, width]."""
    value: str | None = None
    """Name of the values in the file, [KV heads, tokens, width], for a unit that judges heads by their
    output; by default they are not known."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Scores:
        own, names = ScoreModel.model_fields, ("query", "key", "value")
        idle = [n for n in (own if self.path is not None else names) if getattr(self, n) != _default(n)]
        if idle and self.path is not None:
            raise ValueError(f"`path` takes the place of the model: leave {', '.join(idle)} out")
        if idle:
            raise ValueError(f"{', '.join(idle)}: names of tensors need the `path` of their file")
        return self

    def of_layer(self, number: int) -> Scores:
        """The same with the number in place of `{layer}`."""
        if self.path is None:
            return self
        given = ((name, getattr(self, name)) for name in ("query", "key", "value"))
        names = {name: text.replace("{layer}", str(number)) for name, text in given if text is not None}
        return self.model_copy(update=names)


def _default(name: str) -> object:
    return Scores.model_fields[name].default


def each_head(scores: Scores, heads: Heads, tokens: int) -> Iterator[tuple[Values, Values]]:
    """For each KV head the queries [heads that share it, tokens, head_dim] and the keys [tokens, head_dim].

    Raises `InputError` if a file can't be read or holds other sizes than the layer's.
    """
    if scores.path is None:
        share = heads.heads // heads.kv_heads
        for number in range(heads.kv_heads):
            query, key = _drawn(scores, number, heads.kv_heads, tokens, heads.head_dim)
            yield np.broadcast_to(query, (share, *query.shape)), key
        return
    query, key = read(Path(scores.path), scores.query, scores.key)
    wanted = (heads.heads, tokens, heads.head_dim), (heads.kv_heads, tokens, heads.head_dim)
    if (query.shape, key.shape) != wanted:
        raise InputError(
            f"attention.scores.path: {scores.path} holds queries {query.shape} and keys {key.shape}; the "
            f"layer's [heads, tokens, width] are {wanted[0]} and {wanted[1]}"
        )
    yield from zip(np.split(query, heads.kv_heads), key, strict=True)


def each_value(scores: Scores, heads: Heads, tokens: int) -> list[Values] | None:
    """For each KV head its values [tokens, width], where a file has them. Raises `InputError` if it can't be
    read or holds other sizes than the layer's."""
    if scores.path is None or scores.value is None:
        return None
    value = _checked(_array(Path(scores.path), scores.value), Path(scores.path), scores.value)
    if value.shape[:2] != (heads.kv_heads, tokens):
        raise InputError(
            f"attention.scores.value: {scores.path} holds values {value.shape}; the layer's "
            f"[KV heads, tokens] are {(heads.kv_heads, tokens)}"
        )
    return list(value)


def draw(model: ScoreModel, heads: int, kv_heads: int, tokens: int, head_dim: int) -> tuple[Values, Values]:
    """Queries [heads, tokens, head_dim] and keys [kv_heads, tokens, head_dim]; equal seeds, equal bytes."""
    drawn = [_drawn(model, number, kv_heads, tokens, head_dim) for number in range(kv_heads)]
    query, key = (np.stack(arrays) for arrays in zip(*drawn, strict=True))
    return query.repeat(heads // kv_heads, axis=0), key


def _drawn(
    model: ScoreModel, number: int, kv_heads: int, tokens: int, head_dim: int
) -> tuple[Values, Values]:
    """Queries and keys [tokens, head_dim] of one KV head."""
    rng = np.random.default_rng([model.seed, number])
    reach = float(np.geomspace(model.shortest, model.longest, kv_heads)[number])
    key = _autoregression(rng.standard_normal((tokens, head_dim)), float(np.exp(-1 / reach)))
    aside = rng.standard_normal(head_dim)
    aside /= np.linalg.norm(aside)
    query = model.sharpness / np.sqrt(head_dim) * key
    query += model.sink_logit * aside
    key[: model.sinks] += np.sqrt(head_dim) * aside
    return query, key


def _autoregression(noise: Values, stay: float) -> Values:
    """z_0 = noise_0, z_t = stay z_t-1 + sqrt(1 - stay^2) noise_t along the first axis.

    Stretches of tokens run side by side, each from zero; what its predecessor ends with then comes on top.
    """
    tokens, width = noise.shape
    stretches = -(-tokens // _STRETCH)
    z = np.zeros((stretches * _STRETCH, width))
    z[:tokens] = np.sqrt(1 - stay**2) * noise
    z[0] = noise[0]
    z = z.reshape(stretches, _STRETCH, width)
    for step in range(1, _STRETCH):
        z[:, step] += stay * z[:, step - 1]
    fade = stay ** np.arange(1, _STRETCH + 1)[:, None]
    for number in range(1, stretches):
        z[number] += fade * z[number - 1, -1]
    return z.reshape(-1, width)[:tokens]


def read(path: Path, query: str = "query", key: str = "key") -> tuple[Values, Values]:
    """Queries [heads, n, e] and keys [kv_heads, n, e] by their names in a `.npz` or `.safetensors` file.

    A leading batch axis of one is dropped. Raises `InputError` if the file can't be read, lacks a tensor, or
    their shapes do not go together.
    """
    arrays = [_checked(_array(path, name), path, name) for name in (query, key)]
    (heads, tokens, width), (kv_heads, key_tokens, key_width) = (array.shape for array in arrays)
    if (tokens, width) != (key_tokens, key_width) or heads % kv_heads:
        raise InputError(
            Problem(
                f"{query!r} {arrays[0].shape} and {key!r} {arrays[1].shape} do not go together: they need "
                "equal tokens and widths, and heads that are a multiple of the KV heads",
                source=str(path),
            )
        )
    return arrays[0], arrays[1]


def _checked(array: Values, path: Path, name: str) -> Values:
    """With three axes, and finite."""
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or 0 in shape:
        raise InputError(
            Problem(f"{name!r} is [heads, tokens, width], not of shape {shape}", source=str(path))
        )
    odd = int(np.count_nonzero(~np.isfinite(array)))
    if odd:
        message = f"{odd:,} of the {array.size:,} numbers of {name!r} are infinite or not a number"
        raise InputError(Problem(f"{message}; write it from a run without overflow", source=str(path)))
    return array


def _array(path: Path, name: str) -> Values:
    if path.suffix not in (".npz", ".safetensors"):
        raise InputError(Problem("is neither a .npz nor a .safetensors file", source=str(path)))
    try:
        found = _from_npz(path, name) if path.suffix == ".npz" else _from_safetensors(path, name)
    except OSError as error:
        raise InputError(Problem(f"can't be read: {error.strerror or error}", source=str(path))) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(Problem(f"is damaged: {error}", source=str(path))) from None
    if isinstance(found, list):
        raise InputError(Problem(f"has no tensor {name!r}; it has {', '.join(found)}", source=str(path)))
    return found


def _from_npz(path: Path, name: str) -> Values | list[str]:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[name].astype(np.float64) if name in arrays else list(arrays)


def _from_safetensors(path: Path, name: str) -> Values | list[str]:
    """The format is a 64-bit length, a JSON header of as many bytes, and the tensors."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        if name not in header:
            return [key for key in header if key != "__metadata__"]
        entry = header[name]
        if entry["dtype"] not in _SAFETENSORS:
            raise ValueError(f"{name!r} has elements of type {entry['dtype']}, not one of {[*_SAFETENSORS]}")
        dtype, (start, stop) = np.dtype(_SAFETENSORS[entry["dtype"]]), entry["data_offsets"]
        if stop - start != prod(entry["shape"]) * dtype.itemsize:
            raise ValueError(f"{name!r} has {stop - start} bytes for shape {entry['shape']}")
        file.seek(8 + length + start)
        data = np.frombuffer(file.read(stop - start), dtype)
    if entry["dtype"] == "BF16":  # the upper half of a float32
        data = (data.astype("<u4") << 16).view("<f4")
    return data.reshape(entry["shape"]).astype(np.float64)


def block_weights(query: Values, key: Values, block: int, *, causal: bool) -> Values:
    """What each block of queries gives to each block of keys, [heads, n_B, n_B] with n_B = n / block, rounded
    up: softmax of the scaled products of their averages. `query` [heads, n, e], `key` [kv_heads, n, e]."""
    heads, tokens, width = query.shape
    first = np.arange(0, tokens, block)
    sizes = np.minimum(block, tokens - first)[:, None]
    asks = np.add.reduceat(query, first, axis=1) / sizes
    offers = np.add.reduceat(key, first, axis=1) / sizes
    scores = asks @ offers.repeat(heads // len(key), axis=0).swapaxes(1, 2) / np.sqrt(width)
    if causal:
        scores = np.where(np.tri(len(first), dtype=bool), scores, -np.inf)
    return _softmax(scores)


def pair_weights(query: Values, key: Values, bits: int, rows: slice, *, causal: bool) -> Values:
    """What the queries `rows` of a head give to its keys: softmax of the scaled product of both rounded to
    `bits`. `query` and `key` are [n, e]; returns [rows, n], with `causal` only the keys up to the last row.

    In float32: the products of integers so small are exact in it.
    """
    (asks, one), (offers, other) = _rounded(query, bits), _rounded(key, bits)
    first, last = rows.start, min(rows.stop, len(query))
    scores = asks[rows] @ offers[: last if causal else None].T
    scores *= np.float32(one * other / np.sqrt(query.shape[1]))
    if causal:
        scores[:, first:][np.triu_indices(last - first, 1)] = -np.inf
    return _softmax(scores)


def _rounded(x: Values, bits: int) -> tuple[NDArray[np.float32], float]:
    """Symmetric integers of `bits`, and the scale that gives the values back (one for the whole head)."""
    scale = float(np.abs(x).max()) / (2 ** (bits - 1) - 1) or 1.0
    return np.rint(x / scale).astype(np.float32), scale


def _softmax(scores: NDArray[np.floating]) -> Values:
    """Over the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores  # type: ignore[return-value]


def by_threshold(weights: Values, threshold: float) -> Mask:
    """The weights that are at least `threshold`; in a row where none is, the largest."""
    return np.asarray(weights >= np.minimum(threshold, weights.max(axis=-1, keepdims=True)))


def by_mass(weights: Values, mass: float) -> Mask:
    """The fewest weights of each row (the last axis) that add up to `mass`; to all of it, if it has less."""
    order = np.argsort(-weights, axis=-1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    needed = (before < mass - 1e-12) & (ranked > 0)
    sees = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(sees, order, needed, axis=-1)
    return sees


def imbalance(counts: NDArray[np.int64]) -> float:
    """The most over the mean: how much longer the busiest of as many units as there are counts would work
    than if the work were spread evenly."""
    return float(counts.max() / counts.mean())


def sampled(tokens: int) -> NDArray[np.int64]:
    """At most `SAMPLED` queries, evenly spaced, the last one among them."""
    count = min(tokens, SAMPLED)
    return np.arange(1, count + 1) * tokens // count - 1


def kept_mass(query: Values, key: Values, rows: NDArray[np.int64], sees: Mask, *, causal: bool) -> float:
    """The share of the softmax of the queries `rows` of a head, unrounded, that falls on keys they see; the
    mean over them. `query` and `key` [n, e], `sees` [rows, n]."""
    scores = query[rows] @ key.T / np.sqrt(query.shape[1])
    if causal:
        scores[np.arange(len(key)) > rows[:, None]] = -np.inf
    return float((_softmax(scores) * sees).sum() / len(rows))
