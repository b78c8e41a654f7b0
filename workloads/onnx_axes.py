"""The sizes of an ONNX graph's inputs: which open axes are the batch, the tokens, the cached tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tilewright.description.errors import InputError, Problem

if TYPE_CHECKING:
    from onnx import ModelProto, TensorShapeProto, ValueInfoProto

DEFAULT_SEQ = 128
"""Tokens of a sequence, and of a KV cache."""

Meaning = Literal["batch", "seq", "past", "total"]

_CACHE = re.compile(r"past|cache", re.IGNORECASE)


@dataclass(frozen=True)
class Sizes:
    """What a workload says about its sizes; None where it leaves one out."""

    file: str
    batch: int
    seq: int | None
    past: int | None


class Axes:
    """Gives the open axes of a graph's inputs their sizes, and finds the inputs that are KV caches."""

    def __init__(self, sizes: Sizes, model: ModelProto) -> None:
        self.sizes = sizes
        self.open: set[Meaning] = set()
        stored = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [each for each in model.graph.input if each.name not in stored]
        for value in self._inputs:
            for axis, dim in enumerate(value.type.tensor_type.shape.dim):
                if not _fixed(dim):
                    self.open.update(_meanings(value, axis, dim) or ())
        self.past = DEFAULT_SEQ if sizes.past is None else sizes.past
        self.seq = sizes.seq or (1 if "past" in self.open else DEFAULT_SEQ)

    @property
    def caches(self) -> set[str]:
        """The inputs that hold keys and values of earlier tokens."""
        return {each.name for each in self._inputs if _is_cache(each)}

    def bind(self, value: ValueInfoProto) -> tuple[int, ...]:
        """The sizes of an input's axes. Raises `InputError` for one that has no meaning known here."""
        dims = value.type.tensor_type.shape.dim
        return tuple(self._size(value, axis, dim) for axis, dim in enumerate(dims))

    def _size(self, value: ValueInfoProto, axis: int, dim: TensorShapeProto.Dimension) -> int:
        if _fixed(dim):
            return int(dim.dim_value)
        terms = _meanings(value, axis, dim)
        if terms is None:
            raise InputError(
                f"{self.sizes.file}: axis {axis} of input {value.name!r} ({dim.dim_param or 'no name'}) is "
                "neither the batch nor the sequence nor the cached tokens; export the model with that size "
                "fixed"
            )
        known = {
            "batch": self.sizes.batch,
            "seq": self.seq,
            "past": self.past,
            "total": self.past + self.seq if "past" in self.open else self.seq,
        }
        numbers = [int(term) for term in dim.dim_param.split("+") if term.strip().isdigit()]
        return sum(known[term] for term in terms) + sum(numbers)

    def check_used(self) -> None:
        """Raise `InputError` if a size was asked for that the file has fixed."""
        reason = "can't be set: the file fixes the sizes of its inputs"
        problems = []
        if self.sizes.batch != 1 and "batch" not in self.open:
            problems.append(f"`batch` {reason}")
        if self.sizes.seq is not None and not self.open & {"seq", "total"}:
            problems.append(f"`seq` {reason}")
        if self.sizes.past is not None and "past" not in self.open:
            problems.append("`past` can't be set: no input of the file has an open axis of cached tokens")
        if problems:
            raise InputError(*(Problem(text, self.sizes.file) for text in problems))


def _fixed(dim: TensorShapeProto.Dimension) -> bool:
    return dim.HasField("dim_value") and dim.dim_value > 0


def _is_cache(value: ValueInfoProto) -> bool:
    dims = value.type.tensor_type.shape.dim
    if len(dims) < 3 or "mask" in value.name.lower():
        return False
    named = any("past" in dim.dim_param.lower() and "+" not in dim.dim_param for dim in dims)
    return named or _CACHE.search(value.name) is not None


def _meanings(
    value: ValueInfoProto, axis: int, dim: TensorShapeProto.Dimension
) -> tuple[Meaning, ...] | None:
    """What an open axis is the sum of, by its name (`past_sequence_length + 1`), or by its place where it has
    none that says so; None if that is not known. Numbers in a sum are left out."""
    if _CACHE.search(value.name) and axis >= 2 and len(value.type.tensor_type.shape.dim) >= 4:
        return ("past",)
    terms: list[Meaning] = []
    for term in dim.dim_param.split("+"):
        if term.strip().isdigit():
            continue
        meaning = _meaning(term, axis)
        if meaning is None:
            return None
        terms.append(meaning)
    return tuple(terms)


def _meaning(name: str, axis: int) -> Meaning | None:
    lower = name.lower()
    if any(sign in lower for sign in "*/-("):
        return None
    if "batch" in lower:
        return "batch"
    if "past" in lower or "cache" in lower:
        return "past"
    if "total" in lower:
        return "total"
    if any(word in lower for word in ("seq", "length", "token")):
        return "seq"
    places: tuple[Meaning | None, ...] = ("batch", "seq", None)
    return places[min(axis, 2)]
