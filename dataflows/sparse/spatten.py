"""SpAtten: tokens, heads and values that matter little are pruned, and keys are read in two steps.

Wang, Zhang, Han, "SpAtten: Efficient Sparse Attention Architecture with Cascade Token and Head Pruning", HPCA
2021, arXiv:2012.09852; stages, widths and the top-k engine as in its RTL and simulator
(github.com/mit-han-lab/spatten, MIT).

- *Tokens*: a token's importance is the attention that it is given, added up over queries and heads; the
  largest `token_keep` of them stay. In self-attention the queries of the others go too.
- *Heads*: the importance of a head is the magnitude of its output; the largest `head_keep` of them stay.
- *Keys in two steps*: scores are computed from the upper bits of the keys; where a query's largest weight is
  below `requantize_below`, the lower bits are fetched and its scores computed once more.
- *Values*: of each query's weights the largest `value_keep` stay, and only these values are fetched.

Scores, top-k and context are stages side by side, scores and context with half of the array's multipliers
each, so that a query takes as long as the slowest of them. The top-k engine is a quick-select with random
pivots: a pass over n elements takes ceil(n / comparators) + 3 cycles, the passes being those that the data
needs.

Simplified. The paper's pruning is a cascade: importance is added up over all layers before, what is pruned
stays pruned, and the ratios differ from layer to layer. Here a layer chooses by its own importance, and the
ratios are means over the layers. Values are not known where the choice is made; for independent values of
unit variance a query's output has a magnitude in proportion to the root of its summed squared weights, and
that stands for it. Everything beside attention still works on all tokens and heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from tilewright.arch.accelerator import Array
from tilewright.arch.sparse_search import SpAtten
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import quantized, strongest, weights
from tilewright.dataflows.sparse.scoring import logits, row_cycles, stage_lanes, stretches
from tilewright.workloads.pairs import Head


def select(unit: SpAtten, head: Head, array: Array) -> Selection:
    """The choice in a layer of one head."""
    return select_together(unit, [head], array)[0]


def select_together(unit: SpAtten, heads: Sequence[Head], array: Array) -> list[Selection]:
    """What is kept of each head of a layer, and a piece for each `queries` queries that are left. A pruned
    head keeps nothing and has no pieces."""
    given = [weights(logits(head.query, head.key), head.seen) for head in heads]
    tokens = np.sum([each.sum(axis=0) for each in given], axis=0)
    outputs = np.array([np.sqrt((each**2).sum(axis=1)).sum() for each in given])
    kept_tokens, kept_heads = top(tokens, unit.token_keep), top(outputs, unit.head_keep)
    rng = np.random.default_rng(unit.seed)
    search = np.sum([quick_select(x, k.sum(), unit.comparators, rng) for x, k in (
        (tokens, kept_tokens), (outputs, kept_heads))], axis=0)  # fmt: skip
    chosen = []
    for head, stays in zip(heads, kept_heads, strict=True):
        if not stays:
            chosen.append(Selection(np.zeros(head.seen.shape, dtype=bool), (), predicts=False))
            continue
        chosen.append(_one_head(unit, head, kept_tokens, array, search, rng))
        search = np.zeros(2, dtype=np.int64)
    return chosen


def top(values: Values, share: float) -> Mask:
    """The largest values: this share of them, rounded up. Among equals the first."""
    return np.asarray(strongest(values[None], share, np.ones((1, len(values)), dtype=bool))[0])


def quick_select(values: Values, target: int, comparators: int, rng: np.random.Generator) -> tuple[int, int]:
    """Cycles and comparisons until the `target`-th largest value is found; none if all are asked for."""
    cycles = compared = 0
    if not 0 < target < len(values):
        return cycles, compared
    while True:
        pivot = values[rng.integers(len(values))]
        cycles += ceil(len(values) / comparators) + 3
        compared += 2 * len(values)
        above, equal = values[values > pivot], int((values == pivot).sum())
        if len(above) < target <= len(above) + equal:
            return cycles, compared
        if target <= len(above):
            values = above
        else:
            values, target = values[values < pivot], target - len(above) - equal


@dataclass(frozen=True)
class Scored:
    """The weights that a head computes, and the queries for which it does so twice."""

    weights: Values
    twice: Mask
    """[queries]"""


def scored(unit: SpAtten, head: Head, seen: Mask) -> Scored:
    """Weights from the upper bits of the keys, or from all bits where these are too flat."""
    query, one = quantized(head.query, unit.msb_bits + unit.lsb_bits)
    key, other = quantized(head.key, unit.msb_bits + unit.lsb_bits)
    step = 2**unit.lsb_bits
    coarse = weights(logits(query, np.floor(key / step) * step) * one * other, seen)
    twice = (coarse.max(axis=1) < unit.requantize_below) & seen.any(axis=1)
    if unit.lsb_bits == 0 or not twice.any():
        return Scored(coarse, np.zeros(len(seen), dtype=bool))
    fine = weights(logits(query, key) * one * other, seen)
    return Scored(np.where(twice[:, None], fine, coarse), twice)


def _one_head(
    unit: SpAtten, head: Head, tokens: Mask, array: Array, search: Counts, rng: np.random.Generator
) -> Selection:
    seen = head.seen & tokens
    if len(head.seen) == len(tokens):
        seen &= tokens[:, None]
    work = scored(unit, head, seen)
    kept = strongest(work.weights, unit.value_keep, seen)
    rows = np.flatnonzero(seen.any(axis=1))
    stages = _Stages(unit, array, head, seen, kept, work)
    fetched = np.zeros(len(tokens), dtype=bool)
    pieces = []
    for at in stretches(len(rows), unit.queries):
        some = rows[at]
        needed = kept[some].any(axis=0)
        lower = work.twice[some].any() and not work.twice[rows[: at.start]].any()
        keys = _rows_of_bits(unit, int(tokens.sum()), upper=at.start == 0, lower=bool(lower))
        values = int((needed & ~fetched).sum())
        pieces.append(stages.piece(some, keys, values, search if at.start == 0 else np.zeros(2), rng))
        fetched |= needed
    return Selection(kept, tuple(pieces))


def _rows_of_bits(unit: SpAtten, tokens: int, *, upper: bool, lower: bool) -> int:
    """Parts of keys that are fetched, as if they were whole ones."""
    bits = unit.msb_bits * upper + unit.lsb_bits * lower
    return ceil(tokens * bits / (unit.msb_bits + unit.lsb_bits))


@dataclass(frozen=True)
class _Stages:
    unit: SpAtten
    array: Array
    head: Head
    seen: Mask
    kept: Mask
    work: Scored

    def piece(
        self, rows: Counts, keys: int, values: int, search: Values | Counts, rng: np.random.Generator
    ) -> Piece:
        """These queries, with the keys and values that are fetched for them."""
        width, lanes = self.head.key.shape[1], stage_lanes(self.array)
        count, left = self.seen[rows].sum(axis=1), self.kept[rows].sum(axis=1)
        times = 1 + self.work.twice[rows]
        busy = np.maximum(row_cycles(count, width, lanes) * times, row_cycles(left, width, lanes))
        found = [
            quick_select(self.work.weights[row][self.seen[row]], k, self.unit.comparators, rng)
            for row, k in zip(rows, left, strict=True)
        ]
        cycles, compared = np.array(found, dtype=np.int64).reshape(-1, 2).T
        scores = int(count.sum())
        return Piece(
            queries=len(rows),
            loads_keys=keys,
            loads_values=values,
            predict_cycles=int(search[0]),
            array_cycles=int(np.maximum(busy, cycles).sum()),
            streaming_cycles=int(busy.sum()),
            # Upper bits alone go through the softmax as well.
            scores=int((count * times).sum()),
            macs=int((count * times + left).sum()) * width,
            predictor_bits=16,
            # Importance is added up from every weight; a query's largest weight is looked for.
            predictor_primitives={"add": scores, "compare": int(compared.sum() + search[1]) + scores},
        )
