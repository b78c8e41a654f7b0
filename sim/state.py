"""Where the SimPy machine's units stand at a cut between two ticks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilewright.dataflows.program import Tick

_IDLE = Tick()


@dataclass(frozen=True, slots=True)
class State:
    """When each unit is free and what is under way, at a cut between two ticks."""

    dma: int = 0
    array: int = 0
    """When the next tick may stream."""
    shadow: int = 0
    """When the array's shadow registers are free."""
    vector: int = 0
    done: int = 0
    """When the last transfer, access or result so far is complete."""
    release: int = 0
    """When the operands of two ticks before are done with."""
    older: tuple[int, ...] = ()
    """When those of three before were, and so on, as far as there are slots; the oldest first."""
    predictor: int = 0
    stores: int = 0
    """When the stores' own channel is free."""
    slots: tuple[int, ...] = (0, 0, 0, 0)
    """When the last but one and the last output tile left its slot, of ordinary and of middle ones."""
    behind: Tick = _IDLE
    behind_ready: int = 0
    behind_side: int = 0
    leaving: Tick = _IDLE
    leaving_ready: int = 0
    leaving_gone: int = 0
    """When its store had left; only of single-buffered ticks, whose store comes so early."""
    fed: tuple[int, ...] = (0, 0)
    """When the vector unit had worked on the last but one and the last tick that feeds."""
    ports: tuple[int, ...] = ()
    credit_bytes: int = 0


_TIMES = (
    "dma", "array", "shadow", "vector", "predictor", "done", "release", "behind_ready",
    "behind_side", "leaving_ready", "leaving_gone", "stores",
)  # fmt: skip


def shifted(since: State, now: State, cycles: int) -> State:
    """`now`, later by some cycles; what did not move since then has been left behind and stays."""
    moved = {name: getattr(now, name) for name in _TIMES if getattr(now, name) != getattr(since, name)}
    ports, fed, slots, older = (
        tuple(time if time == before else time + cycles for time, before in zip(new, old, strict=True))
        for new, old in (
            (now.ports, since.ports),
            (now.fed, since.fed),
            (now.slots, since.slots),
            (now.older, since.older),
        )
    )
    later = {name: time + cycles for name, time in moved.items()}
    return replace(now, ports=ports, fed=fed, slots=slots, older=older, **later)
