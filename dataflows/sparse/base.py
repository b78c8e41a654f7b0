"""What every sparse-attention unit is to the mapper: pieces of work, and the loop nest that they make.

A unit's module has `select(unit, head, array)`: which pairs it keeps of one head, for real on its queries
and keys, and the pieces of work that this makes, some queries at a time, in order. Everything that takes time
is in a piece: prediction, search, sorting, packing, imbalance. A piece is a tick of the machine
(`dataflows.program`): its operands are loaded, the predictor works on it, then the array, then the vector
unit, and its results are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tilewright.arch.array import Array
    from tilewright.arch.sparse import Unit
    from tilewright.workloads.pairs import Head

Mask = NDArray[np.bool_]
Values = NDArray[np.float64]
Counts = NDArray[np.int64]

_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Piece:
    """Some queries of one head on the unit."""

    queries: int
    loads_keys: int = 0
    """Rows of K that are fetched for it (0: what the piece before had)."""
    loads_values: int = 0
    """Rows of V."""
    loads_queries: int | None = None
    """Rows of Q; by default those of its queries."""
    stores: int | None = None
    """Rows of the result; by default as many as its queries."""
    stored_share: float = 1.0
    """Of a row of Q or K, what memory holds (compressed ones less than 1)."""
    request_rows: int = 0
    """Rows of Q, K or V that a DRAM request holds; 0: a piece's all lie in one."""
    side_requests: tuple[int, ...] = ()
    """Bytes of further requests, with those for K (decoders of what is compressed)."""
    phase: Literal["both", "scores", "context"] = "both"
    """Whether it works on scores and context, or on one of them: the pieces of a head's context follow those
    of its scores, and wait for the softmax that the last of these ends with."""
    begins_phase: bool = True
    """Whether it is the first piece of its phase."""
    ends_phase: bool = True
    """Whether it is the last piece of its phase."""
    predict_cycles: int = 0
    """Of the predictor: prediction, search, selection, packing, whatever stands beside the array."""
    array_cycles: int = 0
    """Of the array, scores and context, idle PEs and imbalance included."""
    streaming_cycles: int = 0
    """Those of `array_cycles` in which operands enter and PEs work; by default all of them."""
    latency_cycles: int | None = None
    """From the end of `array_cycles` to the last result; by default the skew of a systolic array."""
    scores: int = 0
    """Scores that the softmax works on."""
    vector_lane_cycles: float = 0.0
    """Work of the vector unit besides the softmax (top-k on it, accumulated probabilities)."""
    macs: int = 0
    """Multiply-accumulates that the array carries out, in its own element type."""
    predictor_macs: int = 0
    """Multiply-accumulates of the predictor, of `predictor_bits`."""
    predictor_bits: int = 4
    predictor_primitives: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """Further primitive operations of the predictor (`compare`, `add`, `exp`, `move`), charged as the vector
    unit's are."""

    @property
    def query_rows(self) -> int:
        """Rows of Q that are fetched for it."""
        return self.queries if self.loads_queries is None else self.loads_queries

    @property
    def result_rows(self) -> int:
        """Rows of the result that are stored after it."""
        return self.queries if self.stores is None else self.stores


@dataclass(frozen=True)
class Selection:
    """What a unit chose in one head."""

    kept: Mask
    """Pairs whose scores are computed, [queries, keys]."""
    pieces: tuple[Piece, ...]
    predicts: bool = True
    """Whether `kept` is a prediction, of which the recall is worth reporting."""
    global_tokens: int = 0
    """Keys that all queries are taken to see."""


class UnitModule(Protocol):
    """A module of this package."""

    def select(self, unit: Unit, head: Head, array: Array) -> Selection:
        """What the unit chooses in one head, for real on its queries and keys, and the work that it makes."""
