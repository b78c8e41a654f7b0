"""The recurrence and the SimPy machine on random programs: two realisations of the same rules."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.dataflows.program import (
    Loop,
    Program,
    Tick,
    Transfer,
    totals,
    unrolled,
)
from tilewright.dataflows.schedule import region_cycles
from tilewright.sim.event import run_region

BUFFERS = 2
small = st.integers(0, 12)


@st.composite
def transfers(draw: st.DrawFn, share: float = 1.0, *, apart: bool = False) -> Transfer:
    buffer = draw(st.integers(-1, BUFFERS - 1))
    size = draw(st.integers(1, 40))
    return Transfer(
        bytes=size,
        occupancy=draw(small),
        latency=draw(small),
        buffer=buffer,
        port_cycles=draw(small) if buffer >= 0 else 0,
        buffer_bytes=size,
        early=draw(st.booleans()),
        apart=apart,
        share=share,
    )


ports = st.tuples(*[small] * BUFFERS)


@st.composite
def ticks(draw: st.DrawFn, *, matmul: bool, apart: bool) -> Tick:
    closes = draw(st.booleans())
    loads = transfers(0.7 if apart else 1.0)
    stores = transfers(0.3, apart=True) if apart else loads
    array = draw(st.integers(1, 20)) if matmul else 0
    streaming = draw(st.integers(1, array)) if matmul else 0
    shift = draw(st.integers(0, array - streaming))
    preload = draw(small) if matmul else 0
    swap = draw(st.integers(0, array))
    return Tick(
        weight=draw(st.none() | loads) if matmul else None,
        input=draw(st.none() | loads) if matmul else None,
        side=tuple(draw(st.lists(loads, max_size=2))),
        array=array,
        array_streaming=streaming,
        array_shift=shift,
        array_preload=preload,
        array_swap=swap,
        array_shadow=draw(st.integers(swap - array, 12)),
        array_latency=draw(small),
        array_ports=draw(ports) if matmul else (),
        predict=draw(st.sampled_from([0, 0, 3, 11])) if matmul else 0,
        feeds=draw(st.booleans()) if matmul else False,
        fed=draw(st.sampled_from([0, 0, 1, 2])) if matmul else 0,
        vector=draw(small) if matmul else draw(st.integers(1, 12)),
        vector_ports=draw(ports),
        store=draw(st.none() | stores) if closes else None,
        opens_output=draw(st.booleans()),
        closes_output=closes,
        middle=draw(st.booleans()) if matmul else False,
        buffer_read=draw(ports),
        buffer_write=draw(ports),
    )


@st.composite
def draw_programs(draw: st.DrawFn) -> Program:
    kind = draw(st.sampled_from(["double", "single", "apart", "deep"]))
    slots = {"single": 1, "deep": draw(st.integers(3, 6))}.get(kind, 2)
    apart = kind == "apart" or (kind == "deep" and draw(st.booleans()))
    one = ticks(matmul=draw(st.booleans()), apart=apart).map(lambda tick: replace(tick, slots=slots))
    loops = st.builds(Loop, times=st.integers(1, 12), body=st.lists(one, min_size=1, max_size=3).map(tuple))
    inner = st.lists(one | loops, min_size=1, max_size=3).map(tuple)
    nests = st.builds(Loop, times=st.integers(1, 6), body=inner)
    return tuple(draw(st.lists(one | loops | nests, min_size=1, max_size=4)))


programs = draw_programs()
prefetches = st.tuples(small, small)


@given(program=programs, credit=st.integers(0, 100), prefetch=prefetches)
@settings(max_examples=300, deadline=None)
def test_recurrence_equals_the_simpy_machine(
    program: Program, credit: int, prefetch: tuple[int, int]
) -> None:
    """Whatever the program, both realisations arrive at the same cycle, skipping loops or not."""
    by_recurrence = region_cycles(program, BUFFERS, credit, prefetch)
    skipping = run_region(program, BUFFERS, credit, prefetch)
    whole = run_region(program, BUFFERS, credit, prefetch, fast_forward=False)

    assert skipping.cycles == whole.cycles == by_recurrence
    assert skipping.tally == whole.tally
    assert (skipping.last_array, skipping.last_vector) == (whole.last_array, whole.last_vector)


@given(program=programs, credit=st.integers(0, 100), prefetch=prefetches)
@settings(max_examples=100, deadline=None)
def test_units_are_busy_for_what_the_program_holds(
    program: Program, credit: int, prefetch: tuple[int, int]
) -> None:
    """No unit works more than the run lasts, and the array's idle and busy cycles fill its time."""
    run = run_region(program, BUFFERS, credit, prefetch)
    sums = totals(program, BUFFERS)
    tally = run.tally
    array = tally.array_busy + tally.weight_shift + tally.fill_drain
    idle = tally.weight_stall + tally.input_stall + tally.output_stall + tally.port_stall
    idle += tally.vector_stall + tally.prediction_stall

    assert tally.array_busy == sums.array_streaming
    assert tally.weight_shift >= sums.array_shift
    assert tally.fill_drain >= sums.array - sums.array_streaming - sums.array_shift
    assert tally.vector_busy == sums.vector
    assert array + idle == run.last_array
    assert max(run.last_array, tally.vector_busy, tally.dma_busy) <= run.cycles


@given(program=programs, credit=st.integers(0, 100), prefetch=prefetches, data=st.data())
@settings(max_examples=200, deadline=None)
def test_shorter_jobs_never_end_later(
    program: Program, credit: int, prefetch: tuple[int, int], data: st.DataObject
) -> None:
    """All orders are fixed, so a program whose every duration is at most another's ends no later."""
    shrink = data.draw(st.sampled_from(["dma", "array", "preload", "results", "vector", "latency"]))
    shorter = tuple(_shortened(tick, shrink) for tick in unrolled(program))

    before = region_cycles(tuple(unrolled(program)), BUFFERS, credit, prefetch)

    assert region_cycles(shorter, BUFFERS, credit, prefetch) <= before


def _shortened(tick: Tick, what: str) -> Tick:
    if what == "array":
        rest = (tick.array - tick.array_swap) // 2
        shadow = max(
            tick.array_shadow, -rest
        )  # the registers are still free when the tick has them at the latest
        return replace(tick, array=tick.array_swap + rest, array_shadow=shadow) if tick.array else tick
    if what == "preload":
        return replace(tick, array_preload=(tick.array_preload + 1) // 2)
    if what == "results":
        return replace(tick, array_latency=tick.array_latency // 2)
    if what == "vector":
        return replace(tick, vector=(tick.vector + 1) // 2)

    def less(transfer: Transfer | None) -> Transfer | None:
        if transfer is None:
            return None
        if what == "dma":
            return replace(transfer, occupancy=transfer.occupancy // 2)
        return replace(transfer, latency=transfer.latency // 2)

    side = tuple(each for each in (less(transfer) for transfer in tick.side) if each is not None)
    return replace(tick, weight=less(tick.weight), input=less(tick.input), store=less(tick.store), side=side)


@given(program=programs)
def test_totals_are_the_sum_over_all_ticks(program: Program) -> None:
    """Loops multiply: the sums equal those of the unrolled program."""
    assert totals(program, BUFFERS) == totals(tuple(unrolled(program)), BUFFERS)
