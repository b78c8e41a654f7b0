"""The run that a unit's test bench makes: a few heads of every kind of mask, with stalls on every stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.job import Job, scale_for, tiles
from tilewright.rtl.streams import Cycles
from tilewright.rtl.unit_run import Head, random_head

STREAMS = ("command", "bitmap", "q", "k", "v", "o")
_STALLED = 0.05
"""Share of the beats before which there is a gap."""
_LONGEST_GAP = 40


def example_heads(parameters: UnitSizes, seed: int = 1) -> list[Head]:
    """Heads without mask, causal, with a sliding window, and with a bitmap; tiles are cut off at the ends."""
    rng = np.random.default_rng(seed)
    rows, cols = parameters.rows, parameters.cols
    most = parameters.max_keys
    queries, keys = min(2 * rows + rows // 2 + 1, most), min(3 * cols + cols // 2 + 1, most)
    # scores of uniform operands have a standard deviation of about sqrt(D) · 4^W / 12: scaled to about 4
    spread = parameters.head_dim**0.5 * 4.0**parameters.operand_bits / 12
    scale = scale_for(parameters, 4 / spread)
    bitmap = rng.random((tiles(queries, rows), tiles(keys, cols))) < 0.5
    bitmap[-1] = False
    jobs = [
        Job.full(queries, keys, scale),
        Job.causal(min(queries, keys), keys, scale),
        Job.window(queries, keys, scale, before=cols, after=2),
        Job.full(queries, keys, scale).with_bitmap(bitmap),
    ]
    return [random_head(parameters, job, rng) for job in jobs]


def example_gaps(beats: Mapping[str, int], seed: int = 2, stalled: float = _STALLED) -> dict[str, Cycles]:
    """Gaps for streams of so many beats: most are 0, some up to 40 cycles."""
    rng = np.random.default_rng(seed)
    gaps = {name: _gaps(rng, beats[name], stalled) for name in STREAMS if name in beats}
    gaps["command"][0] = 0  # cycle 0 is the one in which the first command is offered
    return gaps


def _gaps(rng: np.random.Generator, beats: int, stalled: float) -> Cycles:
    lengths = rng.integers(1, _LONGEST_GAP + 1, beats)
    return np.where(rng.random(beats) < stalled, lengths, 0).astype(np.int64)


def beats_of(parameters: UnitSizes, heads: Sequence[Head]) -> dict[str, int]:
    """Beats of every stream."""
    from tilewright.rtl.job import bitmap_words, visited

    visits = sum(len(found) for head in heads for found in visited(parameters, head.job))
    q_tiles = sum(tiles(head.job.queries, parameters.rows) for head in heads)
    return {
        "command": len(heads),
        "bitmap": sum(len(bitmap_words(parameters, head.job)) for head in heads),
        "q": q_tiles * parameters.head_dim,
        "k": visits * parameters.score_beats,
        "v": visits * parameters.head_dim,
        "o": q_tiles * parameters.head_dim,
    }
