"""The machine's recurrence: when each tick of a program starts and ends (the rules are in `program`).

This is the exact cost that the mapper minimises. All orders are fixed, so the state of the machine between
two ticks is a handful of times, and a loop that comes back to a state it was in, up to a shift in time, is
periodic.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from tilewright.dataflows.program import Program, Tick, Transfer, drive

_IDLE = Tick()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state between two ticks, up to a shift in time, and when that was."""

    key: Hashable
    time: int


class Schedule:
    """The machine's state while a program runs, in cycles since the region's start.

    `behind` is the tick that the array has streamed and the vector unit has not worked on; `leaving` the one
    before, whose store has not started. `array` is when the next tick may stream, `shadow` when the array's
    shadow registers are free, `fed` when the vector unit had worked on the last tick that feeds, and
    `fed_before` on the last but one. `slots`: when the last and the last but one output tile left theirs, of
    ordinary tiles and of middle ones. `release`: when the operands of two ticks before were done with,
    `older` those of three before, and so on, where there are more slots.
    """

    __slots__ = (
        "array", "behind", "behind_ready", "behind_side", "credit_bytes", "dma", "done", "fed", "fed_before",
        "leaving", "leaving_ready", "older", "ports", "predictor", "release", "shadow", "slots", "stores",
        "vector",
    )  # fmt: skip

    def __init__(self, buffers: int, credit_bytes: int) -> None:
        self.dma = self.array = self.shadow = self.vector = self.done = 0
        self.release = self.fed = self.fed_before = self.predictor = self.stores = 0
        self.slots = [[0, 0], [0, 0]]
        self.older: list[int] = []
        self.behind, self.leaving = _IDLE, _IDLE
        self.behind_ready = self.behind_side = self.leaving_ready = 0
        self.ports = [0] * buffers
        self.credit_bytes = credit_bytes

    def ticks(self, ticks: tuple[Tick, ...]) -> None:
        """Run these, in order."""
        for tick in ticks:
            self._tick(tick)

    def snapshot(self) -> Snapshot:
        """The state as it stands. Nothing still to come starts before `floor`, so earlier times are as good
        as that one; but for `shadow`, to which a tick's own cycles are added before anything waits for it."""
        floor = min([self.release, *self.older])
        floor = min(floor, self.array) if self.behind.array else floor
        times = (
            self.dma, self.array, self.vector, self.done, self.release, self.behind_ready, self.behind_side,
            self.leaving_ready, self.predictor, self.stores, self.fed, self.fed_before, *self.slots[0],
            *self.slots[1], *self.older, *self.ports,
        )  # fmt: skip
        relative = tuple([time - floor if time > floor else 0 for time in times])
        shadow = self.array - self.shadow
        return Snapshot((self.credit_bytes, id(self.behind), id(self.leaving), shadow, relative), floor)

    def skip(self, periods: int, since: Snapshot) -> None:
        """Do at once what was done since then, so many times more."""
        cycles = periods * (self.snapshot().time - since.time)
        for name in (
            "dma", "array", "shadow", "vector", "done", "release", "behind_ready", "behind_side",
            "leaving_ready", "predictor", "stores", "fed", "fed_before",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name) + cycles)
        self.ports = [port + cycles for port in self.ports]
        self.older = [time + cycles for time in self.older]
        self.slots = [[time + cycles for time in times] for times in self.slots]

    def finish(self, prefetch: tuple[int, int]) -> int:
        """The region's end: prefetch for the next region, last stores, everything complete."""
        if self.behind.single:
            self._clear()
        if prefetch[0]:
            self.dma = max(self.dma, self._free(self.behind)) + prefetch[0]
            self.done = max(self.done, self.dma + prefetch[1])
        self._store()
        self._vector()
        self._store()
        return max(self.done, self.dma, self.stores, self.vector, *self.ports)

    def _clear(self) -> None:
        """Have the tick before leave: where operands have one slot, before this one's loads."""
        self._vector()
        self._store()
        self.behind = self.leaving = _IDLE

    def _tick(self, tick: Tick) -> None:
        if tick.single:
            self._clear()
        self.older += [0] * (tick.slots - 2 - len(self.older))  # at the start
        free = self._free(tick)
        weight = self._load(tick.weight, free) if tick.weight else 0
        ready = self._load(tick.input, free) if tick.input else 0
        if tick.predict:
            self.predictor = ready = max(self.predictor, free, weight, ready) + tick.predict
        side = 0
        for transfer in tick.side:
            side = max(side, self._load(transfer, free))
        if not tick.single:
            self._store()
            self._vector()
        if tick.fed:
            ready = max(ready, self.fed if tick.fed == 1 else self.fed_before)
        if tick.opens_output:
            last = self.behind.closes_output and self.behind.middle == tick.middle
            alone = tick.single and not tick.middle
            ready = max(ready, self.slots[tick.middle][0 if last or alone else 1])
        ready = self._stream(tick, weight, ready) if tick.array else max(weight, ready)
        self.behind, self.behind_ready, self.behind_side = tick, ready, side

    def _stream(self, tick: Tick, weight: int, ready: int) -> int:
        """Serve the array's part; when its results are complete."""
        if tick.array_preload:
            weight = max(weight, self.shadow) + tick.array_preload
        start = max(self.array, weight, ready)
        streamed = max(start, self.shadow - tick.array_swap) + tick.array
        accessed = self._accesses(start, tick.array_ports)
        self.shadow = streamed + tick.array_shadow
        self.array = max(streamed, accessed)
        complete = max(streamed + tick.array_latency, accessed)
        self.done = max(self.done, complete)
        return complete

    def _free(self, tick: Tick) -> int:
        """When the slot of a tick's operands is free, or of those of one like it that comes next."""
        return self.older[tick.slots - 3] if tick.slots > 2 else self.release

    def _load(self, transfer: Transfer, free: int) -> int:
        """Serve a load into a slot; when it is complete."""
        start = max(self.dma, free)
        occupancy, latency = transfer.occupancy, transfer.latency
        if transfer.early and self.credit_bytes:
            fetched = min(self.credit_bytes, transfer.bytes)
            self.credit_bytes -= fetched
            occupancy = -(-occupancy * (transfer.bytes - fetched) // transfer.bytes)
            latency = latency if occupancy else 0
        self.dma = start + occupancy
        return max(self.dma + latency, self._access(transfer, start))

    def _store(self) -> None:
        """Serve the store of the tick that is leaving."""
        gone, transfer = self.leaving_ready, self.leaving.store
        if transfer is not None:
            start = max(self.stores if transfer.apart else self.dma, gone)
            end = start + transfer.occupancy
            if transfer.apart:
                self.stores = end
            else:
                self.dma = end
            gone = max(end, self._access(transfer, start))
            self.done = max(self.done, gone + transfer.latency)
        if self.leaving.closes_output:
            slots = self.slots[self.leaving.middle]
            slots[0], slots[1] = gone, slots[0]

    def _vector(self) -> None:
        """Serve the vector unit's part of the tick behind, which then is the one that leaves."""
        tick, ready = self.behind, self.behind_ready
        if tick.vector:
            start = max(self.vector, ready, self.behind_side)
            self.vector = ready = max(start + tick.vector, self._accesses(start, tick.vector_ports))
        if tick.feeds:
            self.fed_before, self.fed = self.fed, ready
        if self.older:
            self.older = [self.release, *self.older[:-1]]
        self.release = ready if tick.side or not tick.array else self.array
        self.leaving, self.leaving_ready = tick, ready

    def _access(self, transfer: Transfer, start: int) -> int:
        """Serve the buffer's side of a transfer; when it ends."""
        if not transfer.port_cycles:
            return 0
        port = max(self.ports[transfer.buffer], start) + transfer.port_cycles
        self.ports[transfer.buffer] = port
        return port

    def _accesses(self, start: int, ports: tuple[int, ...]) -> int:
        """Serve the array's or the vector unit's accesses; when the last ends."""
        end = 0
        for buffer, busy in enumerate(ports):
            if busy:
                port = max(self.ports[buffer], start) + busy
                self.ports[buffer] = port
                if port > end:
                    end = port
        return end


def region_cycles(program: Program, buffers: int, credit_bytes: int, prefetch: tuple[int, int]) -> int:
    """Cycles from the region's start until everything of it is complete.

    `credit_bytes` of its early loads were prefetched; `prefetch` is the (occupancy, latency) of what it
    prefetches for the next region.
    """
    schedule = Schedule(buffers, credit_bytes)
    drive(program, schedule)
    return schedule.finish(prefetch)
