"""A region's loop nest, run-length encoded: what the machine is asked to do, tile by tile.

A *tick* is one tile's journey: its operands are loaded, the array works on it, the vector unit works on it,
its result is stored. Every unit serves the ticks in order. The rules of the machine, which the recurrence
in `schedule` and the SimPy machine in `tilewright.sim` both follow, each on its own:

1. The DMA engine serves, tick by tick: the tick's loads (weight, input, side), then the store of two ticks
   before. It starts a transfer when it is free, and a load not before the operands of two ticks before are
   done with (they have two slots; of `slots` before, where they have more): the array has streamed them, or,
   where the tick has side loads, the vector unit has worked on it. Stores that are `apart` have an engine of
   their own, which serves them in order and nothing else. A transfer holds the engine for `occupancy` cycles
   and is complete `latency` cycles after that.
2. The array streams a tick's operands from when the tick before has been streamed, the tick's weight (below)
   and input are there, and, for the first tick of an output tile, the output tile of two before has left its
   slot (`middle` tiles have slots of their own, and are counted apart). Streaming takes `array` cycles; the
   tick's results are complete `array_latency` cycles after it, and meanwhile the next tick streams already.
   A tick that is `fed` streams what the vector unit makes of the results of an earlier one, the last that
   `feeds` or the last but one: not before that unit has worked on it.
   A unit beside the array (a predictor of sparse attention) may have work on a tick before the array has: it
   serves the ticks in order, for `predict` cycles each, from when the tick's weight and input are there and
   the operands of two ticks before are done with.
   The array has a second set of registers, free `array_shadow` cycles after the streaming of the tick that
   used it last (before its end, if that is negative). Where a tick takes `array_preload` cycles to shift its
   stationary operand in, it does so into that set: when the set is free and the weight is complete. A tick
   that has no such operand needs the set for its sums when it has streamed `array_swap` cycles, and pauses
   there until it is free.
3. The vector unit starts a tick when it is free, the tick's results are complete, and so are its loads.
4. Each buffer's ports serve, tick by tick: the fills of the tick's loads, the read of the store of two ticks
   before, the vector unit's accesses for the tick before, the array's streams. Such an access starts when
   the port is free and the unit that makes it has started (the array: to stream). The unit goes on to the
   next tick, the results are complete, and the transfer ends, no earlier than these accesses.
   Ticks that are `single` have one slot for their operands and one for an output tile (but `middle` ones
   have two): the array waits for the output tile of one before, and the DMA engine serves the store of the
   tick before first, then their loads, which wait until the operands of the tick before are done with; the
   vector unit's accesses for the tick before and the read of its store come before the loads' fills.
5. A region starts when everything of the one before is complete. Loads marked `early` (whose data did not
   come from the region before) cost no DMA time for the bytes that were prefetched; the prefetch itself
   stands in the DMA engine's order where the loads of one more tick would.

Either all ticks of a program have work for the array, or none has; either all are `single`, or none is. All
orders are fixed, so every time is a maximum of sums of durations: shorter durations can't end later.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Protocol, TypeVar

Ports = tuple[int, ...]
"""Cycles of each buffer's ports, in the order of the accelerator's buffers."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One DMA job."""

    bytes: int
    occupancy: int
    latency: int
    buffer: int = -1
    """Number of the on-chip buffer on the other side; -1 where the machine has none."""
    port_cycles: int = 0
    """Cycles of that buffer's ports, on the busiest core."""
    buffer_bytes: int = 0
    """Bytes through those ports, all cores together (more than `bytes` where cores share an operand)."""
    early: bool = False
    """A load that may be prefetched while the region before is still running."""
    apart: bool = False
    """A store on a channel of its own."""
    share: float = 1.0
    """Of the memory's bandwidth, that its channel has."""
    link_bytes: int = 0
    """Bytes times links of the network between cores that they pass."""
    router_bytes: int = 0
    """Bytes times its routers."""
    staying_bytes: int = 0
    """Of a load whose tile stays on chip beyond the slots' turn: of all tiles that stay there together. Each
    has a place of its own, whose last tile was used as many ticks before as there are slots, or more."""

    @property
    def busy(self) -> int:
        """Cycles of all of the memory's bandwidth."""
        return self.occupancy if self.share == 1.0 else int(self.occupancy * self.share)


@dataclass(frozen=True)
class Tick:
    """One tile. Cycles are the unit's own; zero or None where it has nothing to do."""

    weight: Transfer | None = None
    input: Transfer | None = None
    side: tuple[Transfer, ...] = ()
    """Loads that only the vector unit needs (residual, bias, the second operand of an addition)."""
    array: int = 0
    """From the first operand to when the next tick's may follow."""
    array_streaming: int = 0
    """Cycles of `array` in which operands enter."""
    array_shift: int = 0
    """Cycles of `array` in which stationary operands or sums are shifted and nothing streams."""
    array_preload: int = 0
    """To shift the first stationary operand in, before streaming; 0 if nothing is stationary but sums."""
    array_swap: int = 0
    """Cycles of `array` before the shadow registers are needed for sums."""
    array_shadow: int = 0
    """From the end of `array` to when the shadow registers are free; not below `array_swap - array`."""
    array_latency: int = 0
    """From the end of `array` to the last result."""
    array_ports: Ports = ()
    predict: int = 0
    """Cycles of the predictor, before the array may stream."""
    feeds: bool = False
    """Whether a later tick streams what the vector unit makes of its results."""
    fed: int = 0
    """Which tick before that `feeds` it streams: 1 the last, 2 the last but one; 0: none."""
    vector: int = 0
    vector_ports: Ports = ()
    store: Transfer | None = None
    opens_output: bool = False
    """Whether it starts a new output tile."""
    closes_output: bool = False
    """Whether it ends one: its result leaves the accumulator."""
    slots: int = 2
    """Of operands: its loads take that of the tick so many before; with 1, its output tile does, too. All
    ticks of a program have as many."""
    middle: bool = False
    """Whether its output tile is one of those that stay on chip for later ticks."""
    buffer_read: Ports = ()
    """Bytes that the array and the vector unit read from each buffer, all cores together."""
    buffer_write: Ports = ()

    @property
    def single(self) -> bool:
        """Whether there is one slot, so that loads, work and stores take turns."""
        return self.slots == 1

    @cached_property
    def loads(self) -> tuple[Transfer, ...]:
        """In the order in which the DMA engine serves them."""
        return tuple(t for t in (self.weight, self.input, *self.side) if t is not None)


@dataclass(frozen=True)
class Loop:
    """`times` runs of `body`."""

    times: int
    body: Program


Program = tuple["Tick | Loop", ...]


def unrolled(program: Program) -> Iterator[Tick]:
    """All ticks in order."""
    for item in program:
        if isinstance(item, Tick):
            yield item
        else:
            for _ in range(item.times):
                yield from unrolled(item.body)


class Snapshot(Protocol):
    """A state of an engine."""

    @property
    def key(self) -> Hashable:
        """The state up to a shift in time: equal keys lead to equal behaviour."""


State = TypeVar("State", bound=Snapshot)


class Engine(Protocol[State]):
    """What goes through a program tick by tick and can jump ahead."""

    def ticks(self, ticks: tuple[Tick, ...]) -> None:
        """Run these, in order."""

    def snapshot(self) -> State:
        """The state as it stands."""

    def skip(self, periods: int, since: State) -> None:
        """Do at once what was done since then, so many times more."""


def drive(program: Program, engine: Engine[State]) -> None:
    """Take an engine through a program.

    A loop that comes back to a state (up to a shift in time) in which it was before has become periodic: the
    whole periods that are left are skipped, exactly.
    """
    for is_tick, items in groupby(program, key=lambda item: isinstance(item, Tick)):
        if is_tick:
            engine.ticks(tuple(item for item in items if isinstance(item, Tick)))
            continue
        for loop in items:
            if isinstance(loop, Loop):
                _drive_loop(loop, engine)


def _drive_loop(loop: Loop, engine: Engine[State]) -> None:
    seen: dict[Hashable, tuple[int, State]] = {}
    for done in range(loop.times):
        now = engine.snapshot()
        if now.key in seen:
            before, since = seen[now.key]
            periods, rest = divmod(loop.times - done, done - before)
            engine.skip(periods, since)
            for _ in range(rest):
                drive(loop.body, engine)
            return
        seen[now.key] = done, now
        drive(loop.body, engine)


def merged(runs: list[tuple[Program, int]]) -> Program:
    """Programs one after another, each so many times, with equal neighbours folded into one loop."""
    folded: list[tuple[Program, int]] = []
    for program, times in runs:
        if folded and folded[-1][0] == program:
            folded[-1] = program, folded[-1][1] + times
        else:
            folded.append((program, times))
    return tuple(part for program, times in folded for part in _repeated(program, times))


def _repeated(body: Program, times: int) -> Program:
    return body if times == 1 else (Loop(times, body),)


@dataclass(frozen=True)
class Totals:
    """What a program adds up to, over all its ticks."""

    ticks: int
    array: int
    array_streaming: int
    array_shift: int
    vector: int
    predict: int
    dma: int
    """Cycles that transfers hold the engine, before any prefetching."""
    dram_read: int
    dram_write: int
    link_read: int
    """Bytes times links, of loads."""
    link_write: int
    """Of stores and sums."""
    routed: int
    """Bytes times routers."""
    buffer_read: Ports
    buffer_write: Ports


_SINGLE_SUMS = 12
"""Numbers of `Totals` that are not by buffer."""


def totals(program: Program, buffers: int) -> Totals:
    """Sum over all ticks, loops multiplied; `buffers` is the number of on-chip buffers."""
    sums = [0] * (_SINGLE_SUMS + 2 * buffers)
    _accumulate(program, 1, sums, buffers)
    ported = sums[_SINGLE_SUMS:]
    read, write = tuple(ported[:buffers]), tuple(ported[buffers:])
    ticks, array, streaming, shift, vector, predict, dma, *moved = sums[:_SINGLE_SUMS]
    dram_read, dram_write, link_read, link_write, routed = moved
    return Totals(
        ticks, array, streaming, shift, vector, predict, dma,
        dram_read, dram_write, link_read, link_write, routed, read, write,
    )  # fmt: skip


def held_bytes(program: Program, buffers: int) -> Ports:
    """Bytes of each buffer that the tiles under way take up at most: two of each load and of each store, or
    one where ticks are `single`; of loads that stay, all that do."""
    held = [0] * buffers
    for tick in _distinct(program):
        moved, slots = [0] * buffers, 1 if tick.single else 2
        for transfer in (*tick.loads, *((tick.store,) if tick.store else ())):
            if transfer.buffer >= 0:
                moved[transfer.buffer] += max(slots * transfer.buffer_bytes, transfer.staying_bytes)
        held = [max(pair) for pair in zip(held, moved, strict=True)]
    return tuple(held)


def _distinct(program: Program) -> Iterator[Tick]:
    for item in program:
        if isinstance(item, Tick):
            yield item
        else:
            yield from _distinct(item.body)


def _accumulate(program: Program, times: int, sums: list[int], buffers: int) -> None:
    for item in program:
        if isinstance(item, Loop):
            _accumulate(item.body, times * item.times, sums, buffers)
        else:
            for index, value in enumerate(_tick_row(item, buffers)):
                sums[index] += value * times


def _tick_row(tick: Tick, buffers: int) -> list[int]:
    read, write = [0] * buffers, [0] * buffers
    read[: len(tick.buffer_read)] = tick.buffer_read
    write[: len(tick.buffer_write)] = tick.buffer_write
    for load in tick.loads:
        if load.buffer >= 0:
            write[load.buffer] += load.buffer_bytes
    stored = tick.store
    if stored is not None and stored.buffer >= 0:
        read[stored.buffer] += stored.buffer_bytes
    dma = sum(t.occupancy for t in tick.loads) + (stored.occupancy if stored else 0)
    dram = sum(t.bytes for t in tick.loads), stored.bytes if stored else 0
    links = sum(t.link_bytes for t in tick.loads), stored.link_bytes if stored else 0
    routed = sum(t.router_bytes for t in tick.loads) + (stored.router_bytes if stored else 0)
    units = [1, tick.array, tick.array_streaming, tick.array_shift, tick.vector, tick.predict]
    return [*units, dma, *dram, *links, routed, *read, *write]
