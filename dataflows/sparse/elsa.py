"""ELSA: hashes of queries and keys tell their angle, the angle their likeness, and only likely keys are kept.

Ham et al., "ELSA: Hardware-Software Co-design for Efficient, Lightweight Self-Attention Mechanism in Neural
Networks", ISCA 2021, doi:10.1109/ISCA52012.2021.00060. A vector's hash is the signs of its projection on
orthogonal random directions (as many as it has elements), made as a Kronecker product of three small
orthogonal matrices: d (a + b + c) multiplications instead of d², where d = a b c. From the Hamming distance h
of two hashes follows the angle pi h / d, less `angle_correction`, at least 0; a key is kept if
|key| cos(angle) >= t |largest key|.

The threshold t is learned, as in the paper: of each query's keys whose weight is more than `degree` / n, the
one of the lowest score; its score over |query| |largest key|; the mean over queries. Simplified: it is
learned on the very head that it is used on, where the paper takes training data. A query that is left without
keys keeps the likeliest (guess).

Keys are dealt out among `modules` attention modules, each with its own selectors, and a query is done when
the busiest of them is: that is where imbalance comes from.
"""

from __future__ import annotations

from functools import reduce
from math import ceil, pi

import numpy as np

from tilewright.arch.array import Array
from tilewright.arch.sparse_search import Elsa
from tilewright.dataflows.sparse.base import Counts, Mask, Piece, Selection, Values
from tilewright.dataflows.sparse.estimate import weights
from tilewright.dataflows.sparse.scoring import logits, row_cycles, stage_lanes, stretches, with_one
from tilewright.workloads.pairs import Head


def select(unit: Elsa, head: Head, array: Array) -> Selection:
    """The keys that look likely, and a piece for each `queries` queries."""
    likeness = likeness_of(unit, head.query, head.key)
    largest = np.linalg.norm(head.key, axis=1).max()
    threshold = learned_threshold(unit, head) if unit.threshold is None else unit.threshold
    kept = with_one(likeness >= threshold * largest, likeness, head.seen)
    pieces = [_piece(unit, array, head, kept, rows) for rows in stretches(len(kept), unit.queries)]
    return Selection(kept, tuple(pieces))


def likeness_of(unit: Elsa, query: Values, key: Values) -> Values:
    """|key| cos(angle), the angle estimated from hashes; [queries, keys]."""
    width = key.shape[1]
    directions = projection(width, unit.seed)
    asks, offers = (np.where(x @ directions.T >= 0, 1, -1) for x in (query, key))
    distance = (width - asks @ offers.T) / 2
    angle = np.maximum(0, pi * distance / width - unit.angle_correction)
    return np.asarray(np.linalg.norm(key, axis=1) * np.cos(angle))


def projection(width: int, seed: int) -> Values:
    """Orthogonal directions as rows: the Kronecker product of random orthogonal matrices."""
    rng = np.random.default_rng(seed)
    small = [np.linalg.qr(rng.standard_normal((size, size)))[0] for size in factors(width)]
    return np.asarray(reduce(np.kron, small))


def factors(width: int) -> tuple[int, int, int]:
    """The three factors of `width` with the least sum, largest first."""
    divisors = [d for d in range(1, width + 1) if width % d == 0]
    threes = ((a, b, width // (a * b)) for a in divisors for b in divisors if width % (a * b) == 0)
    a, b, c = sorted(min(threes, key=lambda three: (sum(three), max(three))), reverse=True)
    return a, b, c


def learned_threshold(unit: Elsa, head: Head) -> float:
    """The mean over queries of the likeness that the least of its relevant keys has."""
    given = weights(logits(head.query, head.key), head.seen)
    even = 1 / np.maximum(1, head.seen.sum(axis=1, keepdims=True))
    relevant = with_one(given > unit.degree * even, given, head.seen)
    norms = np.linalg.norm(head.query, axis=1, keepdims=True) * np.linalg.norm(head.key, axis=1).max()
    cosines = head.query @ head.key.T / np.maximum(norms, 1e-300)
    least = np.where(relevant, cosines, np.inf).min(axis=1)
    return float(least[np.isfinite(least)].mean()) if np.isfinite(least).any() else -1.0


def _piece(unit: Elsa, array: Array, head: Head, kept: Mask, rows: slice) -> Piece:
    keys, width = head.key.shape
    chosen, first = kept[rows], rows.start == 0
    queries = len(chosen)
    # A query is hashed while the one before it is compared with the keys.
    hash_macs = width * sum(factors(width))
    hash_cycles = ceil(hash_macs / unit.hash_macs)
    scan = ceil(ceil(keys / unit.modules) / unit.selectors)
    hashed = queries + (keys if first else 0)
    norms = keys * width if first else 0
    pairs = queries * keys
    return Piece(
        queries=queries,
        loads_keys=keys if first else 0,
        loads_values=keys if first else 0,
        predict_cycles=queries * max(hash_cycles, scan) + (keys * hash_cycles if first else 0),
        array_cycles=int(_module_cycles(unit, array, chosen, width).sum()),
        scores=int(chosen.sum()),
        macs=2 * int(chosen.sum()) * width,
        predictor_macs=hashed * hash_macs + norms + pairs,
        predictor_bits=8,
        # Counting the bits that differ: an adder tree over them, in words of 32.
        predictor_primitives={
            "add": pairs * ceil(width / 32),
            "compare": pairs,
            "sqrt": keys if first else 0,
        },
    )


def _module_cycles(unit: Elsa, array: Array, chosen: Mask, width: int) -> Counts:
    """For each query the cycles of the busiest module, or of the dividers at the end if they take longer."""
    lanes = max(1, stage_lanes(array) // unit.modules)
    banks = [chosen[:, bank :: unit.modules].sum(axis=1) for bank in range(unit.modules)]
    busiest = row_cycles(np.max(banks, axis=0), width, lanes)
    return np.maximum(busiest, ceil(width / unit.dividers))
