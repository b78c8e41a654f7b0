"""Queries and keys for what depends on data: from a file, or from a stated model with a seed.

How many blocks of keys a block of queries needs, how full a bucket or a cluster is: no constant says so.
`draw` makes queries and keys of a model whose terms can be read off its parameters, `read` takes real ones
from a file, and `blocks_by_mass` turns either into the blocks that a pattern (`patterns.from_blocks`) is made
of.
"""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from tilewright.description.errors import InputError, Problem
from tilewright.workloads.attention.base import Parameters, Values

_SAFETENSORS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class ScoreModel(Parameters):
    """Queries and keys whose products fall with distance, with some tokens that everyone attends to.

    A model, not data: z_i follows an AR(1) process in each of the e components, of unit variance and with
    correlation exp(-1 / reach) from token to token; keys are z and queries a multiple of it, so that the mean
    logit of tokens t apart is `sharpness` exp(-t / reach). The KV heads' reaches are spaced evenly on a
    logarithmic scale. The first `sinks` keys have `sink_logit` more from every query (attention sinks: Xiao
    et al., arXiv:2309.17453).
    """

    seed: int = 0
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


def draw(model: ScoreModel, heads: int, kv_heads: int, tokens: int, head_dim: int) -> tuple[Values, Values]:
    """Queries [heads, tokens, head_dim] and keys [kv_heads, tokens, head_dim]; equal seeds, equal bytes."""
    rng = np.random.default_rng(model.seed)
    reach = np.geomspace(model.shortest, model.longest, kv_heads)
    stay = np.exp(-1 / reach)[:, None]
    process = rng.standard_normal((tokens, kv_heads, head_dim))
    for token in range(1, tokens):
        process[token] = stay * process[token - 1] + np.sqrt(1 - stay**2) * process[token]
    key = process.swapaxes(0, 1)
    query = (model.sharpness / np.sqrt(head_dim)) * key.repeat(heads // kv_heads, axis=0)
    aside = rng.standard_normal((kv_heads, 1, head_dim))
    aside /= np.linalg.norm(aside, axis=-1, keepdims=True)
    key[:, : model.sinks] += np.sqrt(head_dim) * aside
    return query + model.sink_logit * aside.repeat(heads // kv_heads, axis=0), key


def read(path: Path, query: str = "query", key: str = "key") -> tuple[Values, Values]:
    """Queries [heads, n, e] and keys [kv_heads, n, e] by their names in a `.npz` or `.safetensors` file.

    A leading batch axis of one is dropped. Raises `InputError` if the file can't be read, lacks a tensor, or
    their shapes do not go together.
    """
    arrays = [_three_axes(_array(path, name), path, name) for name in (query, key)]
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


def _three_axes(array: Values, path: Path, name: str) -> Values:
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or 0 in shape:
        raise InputError(
            Problem(f"{name!r} is [heads, tokens, width], not of shape {shape}", source=str(path))
        )
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
    """What each block of queries gives to each block of keys, [heads, n / block, n / block]: softmax of the
    products of their averages. `query` [heads, n, e], `key` [kv_heads, n, e], n a multiple of the block."""
    heads, tokens, width = query.shape
    asks = query.reshape(heads, tokens // block, block, width).mean(axis=2)
    offers = key.reshape(len(key), tokens // block, block, width).mean(axis=2)
    scores = asks @ offers.repeat(heads // len(key), axis=0).swapaxes(1, 2) / np.sqrt(width)
    if causal:
        scores = np.where(np.tri(tokens // block, dtype=bool), scores, -np.inf)
    weights: Values = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def blocks_by_mass(weights: Values, mass: float) -> NDArray[np.bool_]:
    """The fewest blocks of keys whose weights add up to `mass` (at most 1), for each block of queries.

    As in Lai et al., "FlexPrefill", arXiv:2502.20766: with the data, each block of queries needs
    another number of them. `weights` and the result are [heads, blocks of queries, blocks of keys].
    """
    order = np.argsort(-weights, axis=-1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=-1)
    before = np.cumsum(ranked, axis=-1) - ranked
    needed = (before < mass - 1e-12) & (ranked > 0)
    sees = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(sees, order, needed, axis=-1)
    return sees


def imbalance(sees: NDArray[np.bool_]) -> float:
    """The most blocks of keys that a block of queries sees, over the mean: how much longer the busiest of as
    many units as blocks of queries would work than if work were spread evenly."""
    counts = sees.sum(axis=-1)
    return float(counts.max() / counts.mean())
