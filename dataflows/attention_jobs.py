"""What the streaming attention unit is given: jobs, and when its streams move (docs/attention-unit.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

WORD_TILES = 16
"""K tiles to a word of the bitmap."""
TILE_FIFO_DEPTH = 4
"""Tiles that the sequencer may be ahead."""


@dataclass(frozen=True, slots=True)
class Job:
    """A head: query i attends key j iff `i + low <= j < i + high`, 0 <= j < keys and its tile is visited."""

    queries: int
    keys: int
    low: int
    high: int
    bitmap: tuple[int, ...] | None = None
    """Of each Q tile: bit t says whether K tile t is visited. None: no bitmap is sent."""


def unmasked(queries: int, keys: int) -> Job:
    """Every query attends every key."""
    return Job(queries, keys, -queries, keys)


def causal(queries: int, keys: int) -> Job:
    """The last query sees all keys, the one before all but the last, and so on."""
    return Job(queries, keys, -queries, keys - queries + 1)


@dataclass(frozen=True)
class Timing:
    """Cycles for which streams pause: before beat n of a stream, `gaps[stream][n]`; none beyond the end.

    Streams are `command`, `bitmap`, `q`, `k`, `v` (the source's pauses) and `o` (the sink's). Beats count
    over all jobs.
    """

    gaps: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def gap(self, stream: str, beat: int) -> int:
        """Before this beat."""
        listed = self.gaps.get(stream, ())
        return listed[beat] if beat < len(listed) else 0

    def pauses(self, stream: str) -> bool:
        """Whether the stream ever does."""
        return any(self.gaps.get(stream, ()))

    @property
    def ideal(self) -> bool:
        """Whether a beat is offered, or taken, in every cycle of every stream."""
        return not any(self.pauses(stream) for stream in self.gaps)


IDEAL = Timing()


@dataclass(frozen=True, slots=True)
class UnitRun:
    """When things happened."""

    cycles: int
    """From the offer of the first command to the last beat of O, both counted."""
    ends: tuple[int, ...]
    """Cycle of each job's last beat of O."""
    tiles: int
    """K tiles visited, over all jobs."""
    stalls: Mapping[str, int]
    """Cycles in which the score array took no key, by what came last; with `tiles` times the beats of a tile
    they add up to `cycles`."""


CAUSES = ("prediction_stall", "weight_stall", "vector_stall", "input_stall", "fill_drain")
"""Of stalls: waits for the sequencer, for Q, for lanes and value array, for K, and for a job's end."""
