"""ViTCoD: global tokens as dense columns on some lines of PEs, the scattered rest on the others.

You et al., HPCA 2023, arXiv:2210.09573; cycles as in the authors' simulator (Hardware/Simulator/ViTCoD.py of
https://github.com/GATECH-EIC/ViTCoD, Apache-2.0). For one of h heads side by side, with n queries, g global
tokens, z pairs with other keys, a head width e, L lines of P PEs each:

- L_d = floor(L g n / (z + g n)) lines are given to the dense part, L_s = L - L_d to the sparse one;
- scores, with keys stationary and a line to a query (dense) or a pair (sparse):
  max(g ceil(n / L_d), ceil(z / L_s)) ceil(e h / P);
- context: max(ceil(n g e / floor(L_d P / h)), ceil(z e / floor(L_s P / h)));
- a row of Q or of K that is stored as c heads' worth is decoded in ceil(c e / floor(L P / h)) cycles.

Memory is asked row by row, with a token's row of all heads side by side in one request. In the authors'
simulator decoding and the rest take turns on the PEs, and loading overlaps with everything; here decoders
stand beside the array, and what is computed with a row waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from tilewright.arch.array import Array
from tilewright.arch.sparse_split import ViTCoD
from tilewright.dataflows.sparse.base import Piece, Selection
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head


@dataclass(frozen=True)
class _Split:
    """One head on the two parts of the array."""

    queries: int
    global_tokens: int
    scattered: int
    """Pairs with other keys."""
    width: int
    dense_lines: int
    sparse_lines: int
    heads: int
    """Side by side."""
    line: int
    """PEs of a line."""

    @property
    def scores_cycles(self) -> int:
        """Of Q K^T."""
        steps = ceil(self.width * self.heads / self.line)
        dense = self.global_tokens * _per(self.queries, self.dense_lines)
        return max(dense, _per(self.scattered, self.sparse_lines)) * steps

    @property
    def context_cycles(self) -> int:
        """Of the product with V."""
        dense = _per(self.global_tokens * self.queries * self.width, self._share(self.dense_lines))
        return max(dense, _per(self.scattered * self.width, self._share(self.sparse_lines)))

    @property
    def computed(self) -> int:
        """Scores, hidden ones of dense columns included."""
        return self.global_tokens * self.queries + self.scattered

    def decode_cycles(self, rows: int, encoded: int) -> int:
        """Of rows of Q or K that are stored as `encoded` heads' worth."""
        return rows * _per(encoded * self.width, self._share(self.dense_lines + self.sparse_lines))

    def _share(self, lines: int) -> int:
        """PEs of lines that one head has."""
        return max(1, lines * self.line // self.heads)


def _per(work: int, units: int) -> int:
    return ceil(work / max(1, units)) if work else 0


def select(unit: ViTCoD, head: Head, array: Array) -> Selection:
    """All pairs that may be seen; columns of global tokens are computed as a whole."""
    queries, keys = head.seen.shape
    seen_by = head.seen.sum(axis=0)
    dense = seen_by > unit.dense_above
    split = _split(unit, array, head, int(dense.sum()), int(seen_by[~dense].sum()))
    count = ceil(keys / unit.keys)
    spans = [_part(keys, number, count) for number in range(count)]
    rows = [_part(queries, number, count) for number in range(count)]
    pieces = [_scores(unit, split, number, spans, rows[number]) for number in range(count)]
    pieces += [_context(unit, split, number, spans) for number in range(count)]
    return Selection(head.seen, tuple(pieces), predicts=False, global_tokens=split.global_tokens)


def _split(unit: ViTCoD, array: Array, head: Head, global_tokens: int, scattered: int) -> _Split:
    """Raises `InputError` if there is no line for each of two parts."""
    lines, dense = array.rows * array.count, global_tokens * len(head.seen)
    if dense and scattered and lines < 2:
        raise InputError("attention_unit: `vitcod` needs two rows of PEs at least, one for each part")
    given = lines * dense // (dense + scattered) if dense + scattered else 0
    if dense and scattered:
        given = min(max(given, 1), lines - 1)
    queries, width = head.query.shape
    return _Split(queries, global_tokens, scattered, width, given, lines - given, unit.abreast, array.cols)


def _scores(unit: ViTCoD, split: _Split, number: int, spans: list[int], queries: int) -> Piece:
    """The piece of some queries and keys that come in side by side: they meet each other and those before."""
    first, last = number == 0, number == len(spans) - 1
    decoded = 0
    if unit.encoded is not None:
        decoded = queries + spans[number]
    return Piece(
        queries=split.queries,
        loads_keys=spans[number],
        loads_queries=queries,
        stores=0,
        stored_share=1.0 if unit.encoded is None else unit.encoded / unit.abreast,
        request_rows=1,
        side_requests=_decoders(unit, split) if first else (),
        phase="scores",
        begins_phase=first,
        ends_phase=last,
        predict_cycles=split.decode_cycles(decoded, unit.encoded or 0),
        array_cycles=_part(split.scores_cycles, number, len(spans), pairs=True),
        latency_cycles=0,
        scores=split.computed if last else 0,
        macs=_part(split.computed, number, len(spans), pairs=True) * split.width,
        predictor_macs=decoded * (unit.encoded or 0) * split.width,
        predictor_bits=8,
    )


def _context(unit: ViTCoD, split: _Split, number: int, spans: list[int]) -> Piece:
    """The piece of some rows of V."""
    last = number == len(spans) - 1
    return Piece(
        queries=split.queries,
        loads_values=spans[number],
        loads_queries=0,
        stores=split.queries if last and unit.stores_context else 0,
        request_rows=1,
        phase="context",
        begins_phase=number == 0,
        ends_phase=last,
        array_cycles=_part(split.context_cycles, number, len(spans)),
        latency_cycles=0,
        macs=_part(split.computed, number, len(spans)) * split.width,
    )


def _decoders(unit: ViTCoD, split: _Split) -> tuple[int, ...]:
    """Bytes of a head's column of each decoder: of Q, and of K for each part that has keys."""
    if unit.encoded is None:
        return ()
    return (unit.encoded,) * (3 if split.global_tokens else 2)


def _part(whole: int, number: int, count: int, *, pairs: bool = False) -> int:
    """What falls on one of `count` pieces, if the first i of them have i / count of the whole; with `pairs`,
    the square of that."""
    begin, end = (number**2, (number + 1) ** 2) if pairs else (number, number + 1)
    pieces = count**2 if pairs else count
    return whole * end // pieces - whole * begin // pieces
