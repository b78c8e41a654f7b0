"""SpAtten: tokens, heads and values that matter little are pruned, and keys are read in two steps.

Wang, Zhang, Han, "SpAtten: Efficient Sparse Attention Architecture with Cascade Token and Head Pruning", HPCA
2021, arXiv:2012.09852; stages, widths and the top-k engine as in its RTL and simulator
(github.com/mit-han-lab/spatten, MIT).

- *Tokens*: a token's importance is the attention that it is given, added up over queries and heads; the
  largest stay. In self-attention the queries of the others go too.
- *Heads*: the importance of a head is the magnitude of its output; the largest stay.
- *Keys in two steps*: scores are computed from the upper bits of the keys; where a query's largest weight is
  below `requantize_below`, the lower bits are fetched and its scores computed once more.
- *Values*: of each query's weights the largest `value_keep` stay, and only these values are fetched.

Scores, top-k and context are stages side by side, scores and context with half of the array's multipliers
each, so that a query takes as long as the slowest of them. The top-k engine is a quick-select with random
pivots: a pass over n elements takes ceil(n / comparators) + 3 cycles, the passes being those that the data
needs.

Pruning is a cascade (`cascade`): a layer keeps those that had the largest importance in all layers before it,
added up over them, out of those that the layer before had left. A layer that stands alone chooses by its
own importance, in the place of earlier ones.

Simplified. Where values are not known (the score model draws none), they are taken to be independent and of
unit variance: a query's output then has a magnitude in proportion to the root of its summed squared weights.
Importance is not carried over from one generated token to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_search import SpAtten
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.cascade import Schedule, schedule
from tilewright.dataflows.sparse.estimate import quantized, strongest, weights
from tilewright.dataflows.sparse.scoring import logits, row_cycles, stage_lanes, stretches
from tilewright.workloads.pairs import Head, Pairs


@dataclass(frozen=True)
class Carried:
    """What a layer of a cascade hands on: the importance so far, and what was left of tokens and heads."""

    tokens: Values
    """[keys]"""
    heads: Values
    tokens_left: Mask
    heads_left: Mask


def select(unit: SpAtten, head: Head, array: Array) -> Selection:
    """The choice in a layer of one head that stands alone."""
    return select_together(unit, [head], array)[0]


def select_together(unit: SpAtten, heads: Sequence[Head], array: Array) -> list[Selection]:
    """The choice in a layer that stands alone, by its own importance."""
    given = [weights(logits(head.query, head.key), head.seen) for head in heads]
    tokens = np.sum([each.sum(axis=0) for each in given], axis=0)
    outputs = np.array([magnitude(each, head) for each, head in zip(given, heads, strict=True)])
    whole = Carried(tokens, outputs, np.ones(len(tokens), dtype=bool), np.ones(len(outputs), dtype=bool))
    return _layer(unit, heads, array, whole, schedule(unit, len(tokens), len(heads), 1), 0)[0]


def select_layer(
    unit: SpAtten, pairs: Pairs, heads: Sequence[Head], array: Array, before: Carried | None
) -> tuple[list[Selection], Carried | None]:
    """The choice in a layer of a stack, given what the layer before handed on, and what this one does."""
    if pairs.layers == 1:
        return select_together(unit, heads, array), None
    if before is None:
        keys, count = pairs.keys, len(heads)
        all_left = np.ones(keys, dtype=bool), np.ones(count, dtype=bool)
        before = Carried(np.zeros(keys), np.zeros(count), *all_left)
    elif pairs.causal:  # the next token is made from the last one
        last = np.where(np.arange(pairs.keys) == pairs.keys - 1, np.inf, before.tokens)
        before = replace(before, tokens=last)
    counts = schedule(unit, pairs.keys, len(heads), pairs.layers)
    return _layer(unit, heads, array, before, counts, pairs.layer)


def _layer(
    unit: SpAtten, heads: Sequence[Head], array: Array, before: Carried, counts: Schedule, layer: int
) -> tuple[list[Selection], Carried]:
    """What is kept of each head, and a piece for each `queries` queries that are left. A pruned head keeps
    nothing and has no pieces."""
    tokens = largest(before.tokens, counts.tokens[layer], before.tokens_left)
    stay = largest(before.heads, counts.heads[layer], before.heads_left)
    rng = np.random.default_rng(unit.seed)
    search = np.sum(
        [
            quick_select(values[left], int(kept.sum()), unit.comparators, rng)
            for values, left, kept in (
                (before.tokens, before.tokens_left, tokens),
                (before.heads, before.heads_left, stay),
            )
        ],
        axis=0,
    )
    given, outputs, chosen = before.tokens.copy(), before.heads.copy(), []
    for number, head in enumerate(heads):
        if not stay[number]:
            chosen.append(Selection(np.zeros(head.seen.shape, dtype=bool), (), predicts=False))
            continue
        selection, computed = _one_head(unit, head, tokens, array, search, rng)
        chosen.append(selection)
        given += computed.sum(axis=0)
        outputs[number] += magnitude(np.where(selection.kept, computed, 0), head)
        search = np.zeros(2, dtype=np.int64)
    return chosen, Carried(given, outputs, tokens, stay)


def magnitude(given: Values, head: Head) -> float:
    """Of a head's output, over all queries and elements; where values are not known, up to a factor."""
    if head.value is not None:
        return float(np.abs(given @ head.value).sum())
    return float(np.sqrt((given**2).sum(axis=1)).sum())


def largest(values: Values, count: int, among: Mask) -> Mask:
    """The `count` largest of the values that are `among` them; of equal ones the first."""
    order = np.argsort(np.where(among, -values, np.inf), kind="stable")
    found = np.zeros(len(values), dtype=bool)
    found[order[:count]] = True
    return found & among


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
) -> tuple[Selection, Values]:
    """The choice, and the weights that were computed, [queries, keys]."""
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
    return Selection(kept, tuple(pieces)), work.weights


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
