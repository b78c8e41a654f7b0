"""Loop nests in which operands stay on chip, and the bounds by which the mapper visits all nests."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.bounds import candidates, splits
from tilewright.dataflows.least_traffic import Rooms, least_traffic
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Known, Request, best_mapping, ends
from tilewright.dataflows.matmul import program, windows
from tilewright.dataflows.program import held_bytes, totals, unrolled
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.specs import MatmulSpec, Operand
from tilewright.dataflows.systolic import ByHead
from tilewright.dataflows.task import Task
from tilewright.dataflows.tiling import Tiling
from tilewright.description.errors import InputError
from tilewright.workloads.operators import MatmulShape

ROOMS = (64, 256, 1024, 8192)
FLAT = st.fixed_dictionaries(
    {
        "kind": st.just("flat"),
        "bytes_per_cycle": st.sampled_from([0.7, 2.0, 8.0, 100.0]),
        "latency_cycles": st.sampled_from([0, 7, 40]),
    }
)
BANKED = st.fixed_dictionaries(
    {
        "kind": st.just("banked"),
        "standard": st.sampled_from(["ddr4-2400", "lpddr5-6400"]),
        "channels": st.integers(1, 2),
        "interleave_bytes": st.sampled_from([64, 256]),
    }
)


@st.composite
def machines(draw: st.DrawFn) -> Machine:
    def buffer(*holds: str) -> dict[str, Any]:
        return {
            "capacity_bytes": draw(st.sampled_from(ROOMS)),
            "holds": list(holds),
            "width_bytes": draw(st.sampled_from([1, 4, 32])),
        }

    shared, cores = draw(st.booleans()), draw(st.sampled_from([1, 1, 1, 2, 3]))
    network = {
        "topology": draw(st.sampled_from(["mesh", "ring"])),
        "link_bytes_per_cycle": draw(st.sampled_from([0.5, 4.0])),
        "hop_cycles": draw(st.integers(0, 2)),
    }
    return Machine(
        Accelerator.model_validate(
            {
                "name": "random",
                "clock_mhz": 1000,
                "cores": cores,
                "network": network if cores > 1 and draw(st.booleans()) else None,
                "host": draw(st.sampled_from([None, None, {"bytes_per_cycle": 0.5, "latency_cycles": 50}])),
                "array": {
                    "rows": draw(st.integers(1, 4)),
                    "cols": draw(st.integers(1, 4)),
                    "dataflow": draw(
                        st.sampled_from(["weight_stationary", "output_stationary", "input_stationary"])
                    ),
                    "fold_overlap": draw(st.booleans()),
                    "stationary_buffers": draw(st.sampled_from([1, 2])),
                    "output_drain": draw(st.sampled_from(["ideal", "exposed", "shadow"])),
                    "flexible": draw(st.sampled_from([None, None, {"by_head": True}, {"latency_cycles": 4}])),
                },
                "vector": {"lanes": draw(st.integers(1, 4)), "startup_cycles": draw(st.integers(0, 3))},
                "buffers": {"operands": buffer("input", "weight"), "sums": buffer("output")}
                if shared
                else {"inputs": buffer("input"), "weights": buffer("weight"), "sums": buffer("output")},
                "dram": draw(st.one_of(FLAT, BANKED)),
                "dma": {
                    "request_cycles": draw(st.sampled_from([0, 0, 3])),
                    **draw(
                        st.sampled_from(
                            [{}, {}, {"buffering": "single"}, {"store_share": 0.3}, {"operand_slots": 4}]
                        )
                    ),
                },
                "mapper": {"effort": draw(st.integers(0, 1))},
            }
        )
    )


@st.composite
def specs(draw: st.DrawFn) -> MatmulSpec:
    batch, m, k, n = draw(st.sampled_from([1, 1, 2, 5])), *(draw(st.integers(1, 24)) for _ in range(3))
    kinds: list[dict[str, bool]] = [{}, {}, {"early": True}, {"resident": True}]

    def operand(elements: int) -> Operand:
        return Operand(elements, 8, **draw(st.sampled_from(kinds)))

    tail = draw(st.booleans())
    return MatmulSpec(
        MatmulShape(batch, m, k, n),
        a=operand(batch * m * k),
        b=operand(batch * k * n),
        out=Operand(batch * m * n, 8, resident=draw(st.booleans())),
        sides=(operand(batch * m * n),) if tail else (),
        constants=(operand(n),) if tail else (),
        lane_cycles=draw(st.sampled_from([1.0, 2.5])) if tail else 0.0,
        by_head=ByHead(2, k // 2) if batch == 1 and k % 2 == 0 and draw(st.booleans()) else None,
    )


@given(
    machine=machines(),
    spec=specs(),
    credit=st.sampled_from([0, 0, 5, 60, 500]),
    next_bytes=st.integers(0, 99),
)
@settings(max_examples=120)
def test_no_nest_undercuts_its_bound(
    machine: Machine, spec: MatmulSpec, credit: int, next_bytes: int
) -> None:
    """The mapper may leave out a nest whose bound is not below the best: none takes less than its bound, and
    none reads less from DRAM than the least of all nests."""
    loads = [each for each in (spec.a, spec.b, *spec.sides, *spec.constants) if each.early]
    credit = min(credit, sum(each.bytes for each in loads))
    request = Request(spec, credit, next_bytes)
    least = least_traffic(spec, Rooms.of(machine))
    for split in splits(spec, machine):
        found = candidates(Task(spec, machine, split, credit, ends(request, machine)[1]))
        rows = np.arange(0, found.bound.size, 1 + found.bound.size // 40)
        for index, sharpened in zip(rows.tolist(), found.sharpened(rows).tolist(), strict=True):
            nest = program(spec, machine, found.tiling(index))
            cycles = region_cycles(nest, machine.buffers, credit, machine.dram_cycles(next_bytes))
            assert found.bound[index] <= sharpened <= cycles, found.tiling(index)
            sums = totals(nest, machine.buffers)
            assert least is not None
            assert least[0] <= sums.dram_read
            assert sums.dram_read + sums.dram_write == pytest.approx(found.traffic[index])


def stays(tiling: Tiling) -> tuple[bool, bool]:
    """Whether A and B do."""
    outer, inner = tiling.outer_stays, tiling.inner_stays
    return (outer, inner) if tiling.order == "mn" else (inner, outer)


@given(machine=machines(), spec=specs(), data=st.data())
@settings(max_examples=60)
def test_every_tick_finds_its_operands(machine: Machine, spec: MatmulSpec, data: st.DataObject) -> None:
    """Replayed with the tiles' places: what is not loaded is there, and a place is filled anew only when the
    tick that used it last had so many ticks after it as slots let the loads run ahead."""
    shape = spec.shape
    spec = replace(
        spec, a=Operand(shape.batch * shape.m * shape.k, 8), b=Operand(shape.batch * shape.k * shape.n, 8)
    )
    found = [
        each.tiling(int(index))
        for split in splits(spec, machine)
        for each in [candidates(Task(spec, machine, split))]
        for index in np.flatnonzero(each.nests.outer_stays | each.nests.inner_stays)
    ]
    if not found:
        return
    tiling = data.draw(st.sampled_from(found))
    places: list[dict[Hashable, tuple[Hashable, int]]] = [{}, {}]
    ticks = list(unrolled(program(spec, machine, tiling)))
    for time, (tick, window) in enumerate(zip(ticks, windows(spec, machine, tiling), strict=True)):
        inner = window.n if tiling.order == "mn" else window.m
        for which, (load, rows, cols) in enumerate(
            ((tick.input, window.m, window.k), (tick.weight, window.k, window.n))
        ):
            is_outer = (which == 0) == (tiling.order == "mn")
            place: Hashable = "slot"
            if stays(tiling)[which]:
                place = window.k.start if is_outer else (inner.start, window.k.start)
            tile = (window.batch.start, rows.start, cols.start)
            there, used = places[which].get(place, (None, -machine.operand_slots))
            assert load is not None or there == tile, "neither loaded nor there"
            if load is not None and stays(tiling)[which]:
                assert there != tile, "loaded although it is there"
                assert time - used >= machine.operand_slots
            places[which][place] = tile, time


@given(machine=machines(), spec=specs(), data=st.data())
@settings(max_examples=60)
def test_what_stays_never_costs_cycles(machine: Machine, spec: MatmulSpec, data: st.DataObject) -> None:
    """The search tries a nest without staying operands only where they have no room: with them it is never
    slower, and reads no more."""
    split = data.draw(st.sampled_from(splits(spec, machine)))
    found = candidates(Task(spec, machine, split))
    for index in np.flatnonzero(found.nests.outer_stays | found.nests.inner_stays)[:20]:
        tiling = found.tiling(int(index))
        plain = replace(tiling, outer_stays=False, inner_stays=False)
        with_it, without = (program(spec, machine, each) for each in (tiling, plain))
        credit = data.draw(st.sampled_from([0, 40]))
        cycles = [region_cycles(each, machine.buffers, credit, (0, 0)) for each in (with_it, without)]
        assert cycles[0] <= cycles[1]
        read = [totals(each, machine.buffers).dram_read for each in (with_it, without)]
        assert read[0] <= read[1]


@given(machine=machines(), spec=specs(), slack=st.sampled_from([0.01, 0.2, 1.0]))
@settings(max_examples=60)
def test_slack_gives_cycles_for_bytes(machine: Machine, spec: MatmulSpec, slack: float) -> None:
    """With slack, a mapping moves no more bytes than the fastest, and takes no more than so much longer."""
    accelerator = machine.accelerator
    slackened = accelerator.model_copy(
        update={"mapper": accelerator.mapper.model_copy(update={"slack": slack})}
    )
    request = Request(spec, 0, 0)
    try:
        fastest = best_mapping(request, machine, Known())
    except InputError:  # no tile fits
        return
    frugal = best_mapping(request, Machine(slackened), Known())
    assert fastest.cycles <= frugal.cycles <= fastest.cycles * (1 + slack)
    moved = [totals(each.program, machine.buffers) for each in (frugal, fastest)]
    assert moved[0].dram_read + moved[0].dram_write <= moved[1].dram_read + moved[1].dram_write


def test_a_block_of_weights_stays_while_inputs_pass_in_pieces() -> None:
    """512 x 3,072 x 768 int8 on 256 KiB: 64 columns of weights over all of k are 192 KiB, read once; inputs
    are read once for each of the 12 blocks, in pieces of k."""
    machine = Machine(tw.load_accelerator("gemmini-default"))
    shape = MatmulShape(1, 512, 3072, 768)
    spec = MatmulSpec(shape, Operand(512 * 3072, 8), Operand(3072 * 768, 8), Operand(512 * 768, 8))
    tiling = Tiling(64, 96, 64, "nm", "m", outer_stays=True)

    nest = program(spec, machine, tiling)

    assert str(tiling) == "64 x 96 x 64, n outer, B stays"
    assert totals(nest, machine.buffers).dram_read == 3072 * 768 + 12 * 512 * 3072
    assert held_bytes(nest, machine.buffers)[machine.number("weight")] == 3072 * 64 + 2 * 64 * 96
