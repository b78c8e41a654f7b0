"""The machine in SimPy: one process per unit, one event per tile or transfer.

Each unit serves its jobs in program order and waits for what a job needs; the rules are those listed in
`tilewright.dataflows.program`. Time is in cycles. A piece of a program runs in an environment of its own,
from the state in which the piece before left the units, which is exact because no unit ever takes jobs out of
order; so a loop that has become periodic can be skipped without being run (`dataflows.program.drive`).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace

import simpy

from tilewright.dataflows.program import Program, Tick, Transfer, drive, unrolled
from tilewright.sim.array_model import ArrayTile, MakeArrays, Process, TimedArrays, happening, time_of
from tilewright.sim.jobs import Access, Job, Port
from tilewright.sim.result import Slice

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
    output_free: int = 0
    """When the output slot that was emptied last was."""
    behind: Tick = _IDLE
    behind_ready: int = 0
    behind_side: int = 0
    leaving: Tick = _IDLE
    leaving_ready: int = 0
    ports: tuple[int, ...] = ()
    credit_bytes: int = 0


@dataclass
class Tally:
    """Cycles by unit and cause, added up while a region runs."""

    array_busy: int = 0
    weight_shift: int = 0
    fill_drain: int = 0
    weight_stall: int = 0
    input_stall: int = 0
    output_stall: int = 0
    port_stall: int = 0
    vector_busy: int = 0
    dma_busy: int = 0

    def values(self) -> tuple[int, ...]:
        """All counts, in order."""
        return tuple(vars(self).values())

    def add(self, counts: tuple[int, ...], times: int) -> None:
        """Add `times` these counts."""
        for name, count in zip(vars(self), counts, strict=True):
            setattr(self, name, getattr(self, name) + count * times)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state at a cut, with what had been counted by then."""

    key: Hashable
    time: int
    counts: tuple[int, ...]
    state: State


@dataclass(frozen=True)
class RegionRun:
    """What a region's run showed."""

    cycles: int
    tally: Tally
    last_array: int
    """When the array's last result was complete (0: none)."""
    last_vector: int
    slices: tuple[Slice, ...]


@dataclass
class EventMachine:
    """Runs one region, piece by piece."""

    buffers: int
    credit_bytes: int
    trace: bool = False
    arrays: MakeArrays = TimedArrays
    tally: Tally = field(default_factory=Tally)
    slices: list[Slice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.state = State(ports=(0,) * self.buffers, credit_bytes=self.credit_bytes)

    def ticks(self, ticks: tuple[Tick, ...]) -> None:
        """Run these, in order."""
        self.state = _Piece(self, ticks).run()

    def snapshot(self) -> Snapshot:
        """The state up to a shift in time: no job still to come starts before `floor`."""
        s = self.state
        floor = min(s.release, s.array) if s.behind.array else s.release
        times = (
            s.dma, s.array, s.vector, s.done, s.release, s.output_free, s.behind_ready, s.behind_side,
            s.leaving_ready, *s.ports,
        )  # fmt: skip
        relative = tuple(max(0, time - floor) for time in times)
        key = (s.credit_bytes, id(s.behind), id(s.leaving), s.array - s.shadow, relative)
        return Snapshot(key, floor, self.tally.values(), s)

    def skip(self, periods: int, since: Snapshot) -> None:
        """Do at once what was done since then, so many times more."""
        now = self.snapshot()
        cycles = periods * (now.time - since.time)
        if self.trace and cycles:
            for unit in ("array", "dma", "vector"):
                free = int(getattr(self.state, unit))
                if free != getattr(since.state, unit):
                    self.slices.append(Slice(unit, "steady state", free, free + cycles, max(2, periods)))
        self.tally.add(tuple(a - b for a, b in zip(now.counts, since.counts, strict=True)), periods)
        self.state = _shifted(since.state, self.state, cycles)

    def finish(self, prefetch: tuple[int, int]) -> RegionRun:
        """Let everything under way come to its end, the prefetch for the next region included."""
        last_array = self.state.behind_ready if self.tally.array_busy else 0
        if last_array:
            self.tally.fill_drain += last_array - self.state.array
        self.state = _Piece(self, (), prefetch, last=True).run()
        s = self.state
        end = max(s.done, s.dma, s.vector, *s.ports)
        last_vector = s.vector if self.tally.vector_busy else 0
        return RegionRun(end, self.tally, last_array, last_vector, tuple(self.slices))

    def record(self, unit: str, name: str, start: int, end: int) -> None:
        """Keep a slice for the trace."""
        if self.trace and end > start:
            self.slices.append(Slice(unit, name, start, end))


_TIMES = (
    "dma", "array", "shadow", "vector", "done", "release", "output_free", "behind_ready",
    "behind_side", "leaving_ready",
)  # fmt: skip


def _shifted(since: State, now: State, cycles: int) -> State:
    """`now`, later by some cycles; what did not move since then has been left behind and stays."""
    moved = {name: getattr(now, name) for name in _TIMES if getattr(now, name) != getattr(since, name)}
    ports = tuple(
        port if port == before else port + cycles for port, before in zip(now.ports, since.ports, strict=True)
    )
    return replace(now, ports=ports, **{name: time + cycles for name, time in moved.items()})


class _Piece:
    """Some ticks in an environment of their own, from a state to a state."""

    def __init__(
        self,
        machine: EventMachine,
        ticks: tuple[Tick, ...],
        prefetch: tuple[int, int] = (0, 0),
        last: bool = False,
    ) -> None:
        state = machine.state
        self.machine, self.prefetch, self.last = machine, prefetch, last
        self.env = simpy.Environment()
        self.dma, self.array, self.vector = state.dma, state.array, state.vector
        self.done, self.credit_bytes, self.output_free = state.done, state.credit_bytes, state.output_free
        self.jobs = [Job(self.env, tick) for tick in ticks]
        for job in self.jobs:
            job.nothing_to_load()
        self.chain = [*self._carried_over(state), *self.jobs]
        self.ports = [Port(self.env, free) for free in state.ports]
        self.arrays = machine.arrays(self.env, state.shadow)
        self._list_accesses()

    def run(self) -> State:
        """Run to the end; the state that is left."""
        units = (self._dma(), self._shift(), self._array(), self._vector())
        for process in (*units, *(port.serve() for port in self.ports)):
            self.env.process(process)
        self.env.run()
        leaving, behind = self.chain[-2:]
        return State(
            dma=self.dma,
            array=self.array,
            shadow=self.arrays.shadow,
            vector=self.vector,
            done=self.done,
            release=time_of(leaving.released),
            output_free=self.output_free,
            behind=behind.tick,
            behind_ready=time_of(behind.array_done),
            behind_side=time_of(behind.side),
            leaving=leaving.tick,
            leaving_ready=time_of(leaving.ready),
            ports=tuple(port.free for port in self.ports),
            credit_bytes=self.credit_bytes,
        )

    def _carried_over(self, state: State) -> tuple[Job, Job]:
        """The two ticks under way, as far as they had come."""
        leaving, behind = Job(self.env, state.leaving), Job(self.env, state.behind)
        for event, time in {
            leaving.released: state.release,
            leaving.ready: state.leaving_ready,
            behind.streamed: state.array,
            behind.array_done: state.behind_ready,
            behind.side: state.behind_side,
        }.items():
            happening(self.env, time, event)
        return leaving, behind

    def _list_accesses(self) -> None:
        """Every port's accesses in the order of rule 4."""
        for position, job in enumerate(self.jobs):
            job.fills = [self._listed(transfer) for transfer in job.tick.loads]
            self._list_store(self.chain[position])
            self._list_vector(self.chain[position + 1])
            job.array_access = self._listed_work(job.tick.array_ports)
        if self.last:
            self._list_store(self.chain[-2])
            self._list_vector(self.chain[-1])
            self._list_store(self.chain[-1])

    def _list_store(self, job: Job) -> None:
        if job.tick.store is not None:
            job.store_access = self._listed(job.tick.store)

    def _list_vector(self, job: Job) -> None:
        if job.tick.vector:
            job.vector_access = self._listed_work(job.tick.vector_ports)

    def _listed(self, transfer: Transfer) -> Access | None:
        return self.ports[transfer.buffer].listed(transfer.port_cycles) if transfer.port_cycles else None

    def _listed_work(self, ports: tuple[int, ...]) -> list[Access]:
        return [self.ports[number].listed(cycles) for number, cycles in enumerate(ports) if cycles]

    def _dma(self) -> Process:
        """The DMA engine: rule 1."""
        yield self.env.timeout(self.dma)
        for position, job in enumerate(self.jobs):
            if job.tick.loads:
                yield self.chain[position].released
            yield from self._loads(job)
            yield from self._store(self.chain[position])
        if self.last:
            if self.prefetch[0]:
                yield self.chain[-2].released
                yield from self._transfer(Transfer(0, *self.prefetch), None, "prefetch")
                self.done = max(self.done, self.dma + self.prefetch[1])
            yield from self._store(self.chain[-2])
            yield from self._store(self.chain[-1])

    def _loads(self, job: Job) -> Process:
        tick, fills = job.tick, iter(job.fills)
        for event, transfer in ((job.weight, tick.weight), (job.input, tick.input)):
            if transfer is not None:
                access = next(fills)
                transfer = self._credited(transfer)
                yield from self._transfer(transfer, access, "load")
                self.env.process(self._completes([access], self.env.now + transfer.latency, event))
        latest, accesses = 0, []
        for transfer in tick.side:
            accesses.append(next(fills))
            transfer = self._credited(transfer)
            yield from self._transfer(transfer, accesses[-1], "load")
            latest = max(latest, int(self.env.now) + transfer.latency)
        if tick.side:
            self.env.process(self._completes(accesses, latest, job.side))

    def _credited(self, transfer: Transfer) -> Transfer:
        """What is left to do of a load of which a part may have been prefetched."""
        if not (transfer.early and self.credit_bytes):
            return transfer
        fetched = min(self.credit_bytes, transfer.bytes)
        self.credit_bytes -= fetched
        rest = transfer.bytes - fetched
        occupancy = -(-transfer.occupancy * rest // transfer.bytes)
        return replace(transfer, occupancy=occupancy, latency=transfer.latency if occupancy else 0)

    def _transfer(self, transfer: Transfer, access: Access | None, name: str) -> Process:
        """Hold the engine for a transfer's occupancy."""
        start = int(self.env.now)
        if access is not None:
            access.asked.succeed(start)
        yield self.env.timeout(transfer.occupancy)
        self.dma = int(self.env.now)
        self.machine.tally.dma_busy += transfer.occupancy
        self.machine.record("dma", name, start, self.dma)

    def _completes(self, accesses: list[Access | None], earliest: float, event: simpy.Event) -> Process:
        """Make a load complete: its data has arrived and is in the buffer."""
        for access in accesses:
            if access is not None:
                yield access.ended
        yield self.env.timeout(max(0, earliest - self.env.now))
        event.succeed(int(self.env.now))

    def _store(self, job: Job) -> Process:
        if job.tick.store is None:
            return
        yield job.ready
        yield from self._transfer(job.tick.store, job.store_access, "store")
        self.env.process(self._leaves(job, job.tick.store.latency))

    def _leaves(self, job: Job, latency: int) -> Process:
        """Free the output slot when the store has read it, and be done when it has arrived."""
        if job.store_access is not None:
            yield job.store_access.ended
        yield self.env.timeout(max(0, self.dma - self.env.now))
        job.gone.succeed(int(self.env.now))
        self.done = max(self.done, int(self.env.now) + latency)

    def _shift(self) -> Process:
        """The shift registers that bring stationary operands into the array: rule 2."""
        for job in self.jobs:
            if job.tick.array:
                work = job.work = self.arrays.tile(job.tick)
                yield job.weight
                yield from work.shift()
                job.shifted.succeed(int(self.env.now))

    def _array(self) -> Process:
        """The systolic array: rule 2."""
        yield self.env.timeout(self.array)
        slot: simpy.Event | None = None
        for position, job in enumerate(self.jobs):
            if self.chain[position].tick.closes_output:
                slot = self.chain[position].gone
            waits = {"weight_stall": job.weight, "input_stall": job.input}
            if job.tick.opens_output:
                waits["output_stall"] = slot or self._slot_left_before()
            for cause in waits:
                yield waits[cause]
            if job.tick.array:
                self._blame(waits)
                yield job.shifted
                assert job.work is not None, "it has shifted"
                yield from self._array_tick(job, job.work)
            else:
                job.array_done.succeed(int(self.env.now))
        if slot is not None:
            self.env.process(self._note_slot(slot))

    def _slot_left_before(self) -> simpy.Event:
        """The output slot that was emptied before this piece began."""
        return self.env.timeout(max(0, self.output_free - self.env.now), self.output_free)

    def _note_slot(self, slot: simpy.Event) -> Process:
        yield slot
        self.output_free = time_of(slot)

    def _blame(self, waits: dict[str, simpy.Event]) -> None:
        """Charge the array's idle cycles so far to what it waited for last."""
        idle = int(self.env.now) - self.array
        cause = max(waits, key=lambda each: time_of(waits[each]))
        setattr(self.machine.tally, cause, getattr(self.machine.tally, cause) + idle)
        self.array = int(self.env.now)

    def _array_tick(self, job: Job, work: ArrayTile) -> Process:
        tick, start, tally = job.tick, int(self.env.now), self.machine.tally
        for access in job.array_access:
            access.asked.succeed(start)
        yield from work.stream()
        streamed = int(self.env.now)
        self.env.process(self._results(job, work))
        for access in job.array_access:
            yield access.ended
        skew = tick.array - tick.array_streaming - tick.array_shift
        tally.array_busy += tick.array_streaming
        tally.fill_drain += skew
        tally.weight_shift += streamed - self.array - tick.array_streaming - skew
        self.array = int(self.env.now)
        tally.port_stall += self.array - streamed
        self.machine.record("array", "tile", start, self.array)
        job.streamed.succeed(self.array)

    def _results(self, job: Job, work: ArrayTile) -> Process:
        """Have a tick's results complete when they have left the array and its accesses have ended."""
        yield from work.drain()
        for access in job.array_access:
            yield access.ended
        self.done = max(self.done, int(self.env.now))
        job.array_done.succeed(int(self.env.now))

    def _vector(self) -> Process:
        """The vector unit: rule 3."""
        yield self.env.timeout(self.vector)
        for job in self.chain[1:] if self.last else self.chain[1:-1]:
            if not job.tick.vector:
                continue
            yield job.array_done
            yield job.side
            start = int(self.env.now)
            for access in job.vector_access:
                access.asked.succeed(start)
            yield self.env.timeout(job.tick.vector)
            for access in job.vector_access:
                yield access.ended
            self.vector = int(self.env.now)
            self.machine.tally.vector_busy += job.tick.vector
            self.machine.record("vector", "tile", start, self.vector)
            job.ready.succeed(self.vector)


def run_region(
    program: Program,
    buffers: int,
    credit_bytes: int,
    prefetch: tuple[int, int],
    *,
    fast_forward: bool = True,
    trace: bool = False,
    arrays: MakeArrays = TimedArrays,
) -> RegionRun:
    """Run one region from its start until everything of it is complete.

    Without `fast_forward` every tick is run, in one environment.
    """
    machine = EventMachine(buffers, credit_bytes, trace, arrays)
    if fast_forward:
        drive(program, machine)
    else:
        machine.ticks(tuple(unrolled(program)))
    return machine.finish(prefetch)
