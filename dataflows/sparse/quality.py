"""How good a unit's choice is: what it kept, against the true scores and weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tilewright.dataflows.sparse.base import Counts, Mask, Selection
from tilewright.dataflows.sparse.estimate import weights
from tilewright.dataflows.sparse.scoring import logits
from tilewright.workloads.pairs import Head


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a selection is, over all heads; what a unit that predicts nothing leaves out is 0."""

    pairs: int
    """Pairs that may be seen."""
    kept: int
    recall: float
    """Of each query's k largest true scores, the share that is kept, k being how many are kept of it; the
    mean over queries."""
    kept_mass: float
    """Share of the true softmax that is kept, the mean over queries."""
    imbalance: float
    """Most scores kept of a query over the mean of all queries, the mean over heads."""
    global_tokens: int = 0
    """Keys that all queries are taken to see, over all heads."""


JUDGED = 512
"""Queries of a head whose true scores are worked out."""


def quality(heads: list[tuple[Head, Selection]]) -> Quality:
    """Over all heads of a layer."""
    pairs = kept = 0
    recalls, masses, imbalances = [], [], []
    for head, chosen in heads:
        count = chosen.kept.sum(axis=1)
        pairs, kept = pairs + int(head.seen.sum()), kept + int(count.sum())
        imbalances.append(float(count.max() / max(count.mean(), 1e-12)))
        if chosen.predicts:
            recall, mass = _true_shares(head, chosen.kept, count)
            recalls.append(recall)
            masses.append(mass)
    recall, mass, uneven = (
        float(np.mean(values)) if values else 0.0 for values in (recalls, masses, imbalances)
    )
    return Quality(pairs, kept, recall, mass, uneven, sum(chosen.global_tokens for _, chosen in heads))


def _true_shares(head: Head, kept: Mask, count: Counts) -> tuple[float, float]:
    """Recall and kept mass, over at most `JUDGED` queries, evenly spaced."""
    rows = np.unique(np.linspace(0, len(kept) - 1, min(len(kept), JUDGED)).astype(int))
    kept, count = kept[rows], count[rows]
    scores = np.where(head.seen[rows], logits(head.query[rows], head.key), -np.inf)
    some = count > 0
    ranked = np.sort(scores, axis=1)[:, ::-1]
    least = np.take_along_axis(ranked, np.maximum(count - 1, 0)[:, None], axis=1)
    hits = np.minimum((kept & (scores >= least)).sum(axis=1), count)
    recall = float(np.mean(hits[some] / count[some])) if some.any() else 0.0
    return recall, float(np.mean((weights(scores, head.seen[rows]) * kept).sum(axis=1)))
