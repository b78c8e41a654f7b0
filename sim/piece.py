"""Some ticks in SimPy: one process per unit, one event per tile or transfer.

Each unit serves its jobs in program order and waits for what a job needs; the rules are those listed in
`tilewright.dataflows.program`. Time is in cycles.
"""

from __future__ import annotations

from dataclasses import replace

import simpy

from tilewright.dataflows.program import Tick, Transfer
from tilewright.sim.array_model import ArrayTile, MakeArrays, Process, happening, time_of
from tilewright.sim.jobs import Access, Job, Port
from tilewright.sim.state import State
from tilewright.sim.tally import Log


class Piece:
    """Some ticks in an environment of their own, from a state to a state.

    `prefetch`: occupancy and latency of the prefetch for the next region; given with the last piece of a
    region, which lets everything under way come to its end.
    """

    def __init__(
        self,
        state: State,
        log: Log,
        arrays: MakeArrays,
        ticks: tuple[Tick, ...],
        prefetch: tuple[int, int] | None = None,
    ) -> None:
        self.log, self.prefetch, self.last = log, prefetch or (0, 0), prefetch is not None
        self.env = simpy.Environment()
        self.dma, self.array, self.vector = state.dma, state.array, state.vector
        self.done, self.credit_bytes, self.predictor = state.done, state.credit_bytes, state.predictor
        self.stores = state.stores
        self.jobs = [Job(self.env, tick) for tick in ticks]
        for job in self.jobs:
            job.nothing_to_load()
        self.chain = [*self._carried_over(state), *self.jobs]
        older = max(len(state.older), *(job.tick.slots - 2 for job in self.chain))
        times = (0,) * (older - len(state.older)) + state.older
        self.past = [happening(self.env, time) for time in times]
        self.freed = [*self.past, *(job.released for job in self.chain)]
        self.feeders = [happening(self.env, time) for time in state.fed]
        left = [happening(self.env, time) for time in state.slots]
        self.left = {False: left[:2], True: left[2:]}
        self.ports = [Port(self.env, free) for free in state.ports]
        self.arrays = arrays(self.env, state.shadow)
        self._list_accesses()

    def run(self) -> State:
        """Run to the end; the state that is left."""
        units = (
            self._dma(), self._stores(), self._predictor(), self._shift(), self._array(), self._vector(),
        )  # fmt: skip
        for process in (*units, *(port.serve() for port in self.ports)):
            self.env.process(process)
        self.env.run()
        leaving, behind = self.chain[-2:]
        fed = [*self.feeders, *(job.ready for job in self.chain[1:-1] if job.tick.feeds)]
        return State(
            dma=self.dma,
            array=self.array,
            shadow=self.arrays.shadow,
            vector=self.vector,
            predictor=self.predictor,
            stores=self.stores,
            done=self.done,
            release=time_of(leaving.released),
            older=tuple(time_of(event) for event in self.freed[-len(self.past) - 2 : -2]),
            slots=self._slots(),
            behind=behind.tick,
            behind_ready=time_of(behind.array_done),
            behind_side=time_of(behind.side),
            leaving=leaving.tick,
            leaving_ready=time_of(leaving.ready),
            leaving_gone=time_of(leaving.gone) if leaving.tick.single else 0,
            fed=(time_of(fed[-2]), time_of(fed[-1])),
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
        if leaving.tick.single and leaving.tick.store is not None:
            happening(self.env, state.leaving_gone, leaving.gone)
        return leaving, behind

    def _free(self, position: int, tick: Tick) -> simpy.Event:
        """When the slot that a tick's operands take is free."""
        return self.freed[len(self.past) + position + 2 - tick.slots]

    def _list_accesses(self) -> None:
        """Every port's accesses in the order of rule 4."""
        for position, job in enumerate(self.jobs):
            single = job.tick.single
            if single:
                self._list_vector(self.chain[position + 1])
                self._list_store(self.chain[position + 1])
            job.fills = [self._listed(transfer) for transfer in job.tick.loads]
            if not single:
                self._list_store(self.chain[position])
                self._list_vector(self.chain[position + 1])
            job.array_access = self._listed_work(job.tick.array_ports)
        if self.last:
            if not self.chain[-1].tick.single:
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
            single = job.tick.single
            if single:
                yield from self._store(self.chain[position + 1])
            if job.tick.loads:
                yield self._free(position, job.tick)
            yield from self._loads(job)
            if not single:
                yield from self._store(self.chain[position])
        if self.last:
            yield from self._last_jobs(*self.chain[-2:])

    def _last_jobs(self, leaving: Job, behind: Job) -> Process:
        """The prefetch for the next region and the last stores."""
        single = behind.tick.single
        if single:
            yield from self._store(behind)
        if self.prefetch[0]:
            yield self._free(len(self.jobs), behind.tick)
            yield from self._transfer(Transfer(0, *self.prefetch), None, "prefetch")
            self.done = max(self.done, self.dma + self.prefetch[1])
        if not single:
            yield from self._store(leaving)
            yield from self._store(behind)

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
        end = int(self.env.now)
        if transfer.apart:
            self.stores = end
        else:
            self.dma = end
        self.log.tally.dma_busy += transfer.busy
        self.log.record("stores" if transfer.apart else "dma", name, start, end)

    def _completes(self, accesses: list[Access | None], earliest: float, event: simpy.Event) -> Process:
        """Make a load complete: its data has arrived and is in the buffer."""
        for access in accesses:
            if access is not None:
                yield access.ended
        yield self.env.timeout(max(0, earliest - self.env.now))
        event.succeed(int(self.env.now))

    def _stores(self) -> Process:
        """The channel of stores that are apart: rule 1."""
        yield self.env.timeout(self.stores)
        for job in self.chain if self.last else self.chain[:-2]:
            if job.tick.store is not None and job.tick.store.apart:
                yield from self._stored(job, job.tick.store)

    def _store(self, job: Job) -> Process:
        if job.tick.store is not None and not job.tick.store.apart:
            yield from self._stored(job, job.tick.store)

    def _stored(self, job: Job, transfer: Transfer) -> Process:
        yield job.ready
        yield from self._transfer(transfer, job.store_access, "store")
        self.env.process(self._leaves(job, transfer.latency))

    def _leaves(self, job: Job, latency: int) -> Process:
        """Free the output slot when the store has read it, and be done when it has arrived."""
        if job.store_access is not None:
            yield job.store_access.ended
        job.gone.succeed(int(self.env.now))
        self.done = max(self.done, int(self.env.now) + latency)

    def _predictor(self) -> Process:
        """The unit that works on a tick before the array: rule 2."""
        yield self.env.timeout(self.predictor)
        for position, job in enumerate(self.jobs):
            if job.tick.predict:
                yield self._free(position, job.tick)
                yield job.weight
                yield job.input
                start = int(self.env.now)
                yield self.env.timeout(job.tick.predict)
                self.predictor = int(self.env.now)
                self.log.tally.predictor_busy += job.tick.predict
                self.log.record("predictor", "tile", start, self.predictor)
                job.predicted.succeed(self.predictor)

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
        feeders = list(self.feeders)
        for position, job in enumerate(self.jobs):
            if self.chain[position].tick.closes_output:
                self.left[self.chain[position].tick.middle].append(self.chain[position].gone)
            if self.chain[position + 1].tick.feeds:
                feeders.append(self.chain[position + 1].ready)
            waits = {"weight_stall": job.weight, "input_stall": job.input}
            if job.tick.predict:
                waits["prediction_stall"] = job.predicted
            if job.tick.fed:
                waits["vector_stall"] = feeders[-job.tick.fed]
            if job.tick.opens_output:
                waits["output_stall"] = self._slot(position, job.tick)
            for cause in waits:
                yield waits[cause]
            if job.tick.array:
                self._blame(waits)
                yield job.shifted
                assert job.work is not None, "it has shifted"
                yield from self._array_tick(job, job.work)
            else:
                job.array_done.succeed(int(self.env.now))

    def _slot(self, position: int, tick: Tick) -> simpy.Event:
        """When the output tile of two before, of its kind, has left its slot; of one before, where there is
        one slot."""
        behind = self.chain[position + 1]
        is_last = behind.tick.closes_output and behind.tick.middle == tick.middle
        if tick.single and not tick.middle:
            return behind.gone if is_last else self.left[False][-1]
        return self.left[tick.middle][-1 if is_last else -2]

    def _slots(self) -> tuple[int, ...]:
        """When the last two tiles of each kind left theirs."""
        return tuple(time_of(event) for middle in (False, True) for event in self.left[middle][-2:])

    def _blame(self, waits: dict[str, simpy.Event]) -> None:
        """Charge the array's idle cycles so far to what it waited for last."""
        idle = int(self.env.now) - self.array
        cause = max(waits, key=lambda each: time_of(waits[each]))
        setattr(self.log.tally, cause, getattr(self.log.tally, cause) + idle)
        self.array = int(self.env.now)

    def _array_tick(self, job: Job, work: ArrayTile) -> Process:
        tick, start, tally = job.tick, int(self.env.now), self.log.tally
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
        self.log.record("array", "tile", start, self.array)
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
            self.log.tally.vector_busy += job.tick.vector
            self.log.record("vector", "tile", start, self.vector)
            job.ready.succeed(self.vector)
