"""Beats of ready/valid streams as arrays, and what a simulation of them gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tilewright.rtl.ports import Ports

Words = NDArray[np.uint32]
"""Payloads, [beats, words]: the bits of a payload from the lowest, 32 to a word, zeros above."""
Cycles = NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Beats for an input stream. Beat n is offered `gaps[n]` cycles after the one before was taken."""

    payloads: Words
    gaps: Sequence[int] | Cycles = ()
    """Empty: none."""


@dataclass(frozen=True)
class Sink:
    """How an output stream is read: ready for beat n from `gaps[n]` cycles after beat n - 1 was taken."""

    beats: int
    gaps: Sequence[int] | Cycles = ()
    """Empty: none."""


@dataclass(frozen=True)
class Trace:
    """What happened on every stream, until the last sink had its last beat."""

    cycles: int
    """One more than the last sink's last beat was taken in."""
    taken: Mapping[str, Cycles]
    """By stream: the cycle in which each beat was taken; fewer than offered if the unit left some."""
    payloads: Mapping[str, Words]
    """By output stream."""
    active: Mapping[str, int]
    """By one-bit output: in how many cycles it was high."""


class Simulator(Protocol):
    """Runs a component's streams; every run starts from reset."""

    @property
    def engine(self) -> str:
        """What runs it: `cxxrtl` or `pysim`."""
        ...

    @property
    def ports(self) -> Ports:
        """Of the component."""
        ...

    def run(self, sources: Mapping[str, Source], sinks: Mapping[str, Sink], limit: int = ...) -> Trace:
        """Drive all streams for at most `limit` cycles. Raises `StuckError` if a sink still waits then."""
        ...


class StuckError(RuntimeError):
    """The unit stopped before the sinks had their beats."""


def stuck(limit: int, moved: Mapping[str, tuple[int, int]]) -> StuckError:
    """The error after `limit` cycles, from each stream's beats taken and beats there were."""
    beats = ", ".join(f"{name} {done:,} of {count:,}" for name, (done, count) in moved.items())
    return StuckError(f"not finished after {limit:,} cycles; beats taken: {beats}")


def words_of(bits: int) -> int:
    """Words of a payload of so many bits."""
    return max(1, -(-bits // 32))


def pack(elements: NDArray[np.integer], element_bits: int) -> Words:
    """Payloads [beats, words] of `elements` [beats, n], the first of a beat in the lowest bits."""
    beats, count = elements.shape
    values = elements.astype(np.int64) & ((1 << element_bits) - 1)
    bits = (values[:, :, None] >> np.arange(element_bits)) & 1
    padded = np.zeros((beats, 32 * words_of(count * element_bits)), np.uint8)
    padded[:, : count * element_bits] = bits.reshape(beats, count * element_bits)
    octets = np.packbits(padded, axis=1, bitorder="little")
    return np.ascontiguousarray(octets).view("<u4").astype(np.uint32, copy=False)


def unpack(payloads: Words, element_bits: int, count: int, *, signed: bool = True) -> NDArray[np.int64]:
    """Elements [beats, `count`] of payloads: the inverse of `pack`."""
    octets = np.ascontiguousarray(payloads.astype("<u4")).view(np.uint8)
    bits = np.unpackbits(octets, axis=1, bitorder="little")[:, : count * element_bits]
    weights = np.int64(1) << np.arange(element_bits, dtype=np.int64)
    values = bits.reshape(len(payloads), count, element_bits).astype(np.int64) @ weights
    return values - ((values >> (element_bits - 1)) << element_bits) if signed else values


def to_words(payloads: Sequence[int], bits: int) -> Words:
    """Payloads given as whole numbers, [beats, words]."""
    width = 4 * words_of(bits)
    octets = b"".join((value & ((1 << bits) - 1)).to_bytes(width, "little") for value in payloads)
    return np.frombuffer(octets, "<u4").astype(np.uint32).reshape(len(payloads), width // 4)


def to_integers(payloads: Words) -> list[int]:
    """The inverse of `to_words`."""
    return [int.from_bytes(row.tobytes(), "little") for row in payloads.astype("<u4")]


def gap_array(gaps: Sequence[int] | Cycles, beats: int) -> Cycles:
    """Gaps of `beats` beats: as given, or zeros."""
    if len(gaps) == 0:
        return np.zeros(beats, np.int64)
    if len(gaps) < beats:
        raise ValueError(f"{len(gaps)} gaps for {beats} beats")
    return np.ascontiguousarray(gaps[:beats], np.int64)
