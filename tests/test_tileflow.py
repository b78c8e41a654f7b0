"""Chains of matmuls whose tiles the workload prescribes, and TileFlow's RTL."""

from __future__ import annotations

from math import ceil
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.dataflows.chain_tiling import chain_tilings
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.plan import plan
from tilewright.dataflows.specs import ChainSpec
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph

RTL_BITS = {
    (768, 384, 48, 48, 32): (14745600, 589824),
    (512, 256, 48, 48, 16): (12976128, 393216),
    (512, 512, 64, 64, 32): (17301504, 524288),
    (256, 256, 64, 64, 64): (2359296, 262144),
    (256, 256, 80, 80, 64): (2949120, 327680),
    (1024, 512, 48, 48, 32): (25952256, 786432),
}
"""Bits read from and written to DRAM by (m, n1, k1, n2, rows of a tile), as TileFlow's RTL counted them
(github.com/pku-liang/TileFlow, MIT, AE/validation/accelerator/data: mem_to_buf, buf_to_mem)."""


def chain(shape: tuple[int, int, int, int], micro1: list[int], micro2: list[int]) -> OperatorGraph:
    keys = zip(("m", "n1", "k1", "n2"), shape, strict=True)
    return tw.load_workload(
        "gemm_chain", [*(f"{key}={size}" for key, size in keys), f"micro1={micro1}", f"micro2={micro2}"]
    )


def run(
    workload: OperatorGraph, *overrides: str, fidelity: Literal["event", "analytic"] = "event"
) -> tw.Result:
    return tw.simulate(tw.load_accelerator("tileflow-16x16", list(overrides)), workload, fidelity=fidelity)


def test_the_suite_is_within_its_tolerance() -> None:
    """Against the RTL's cycles the mean error is below 3 %, and 26 of the 40 points are exact."""
    (suite,) = tw.validate("tileflow").suites

    assert len(suite.cases) == 40
    assert suite.mape < 0.03
    assert sum(case.error == 0 for case in suite.cases) >= 26


@pytest.mark.parametrize("key", RTL_BITS, ids=str)
def test_dram_traffic_is_the_rtls(key: tuple[int, int, int, int, int]) -> None:
    """A is read once, B and D once per block of rows, the result is written once: as the RTL counted."""
    *shape, rows = key
    m, n1, k1, n2 = shape
    result = run(chain((m, n1, k1, n2), [rows, n1, 16], [rows, n2, 64]))

    dram = result.traffic_bytes["dram"]
    assert (8 * dram.read, 8 * dram.write) == RTL_BITS[key]


small = st.integers(1, 40)


@given(data=st.data(), shape=st.tuples(small, small, small, small))
@settings(max_examples=15, deadline=None)
def test_ragged_tiles_cover_the_products_once(data: st.DataObject, shape: tuple[int, int, int, int]) -> None:
    """Whatever the tiles: the MACs and the traffic are the closed forms', and no bound exceeds the event
    simulation."""
    m, n1, k1, n2 = shape
    rows = data.draw(st.integers(1, m))
    micro1 = [rows, data.draw(st.integers(1, n1)), data.draw(st.integers(1, k1))]
    micro2 = [rows, data.draw(st.integers(1, n2)), data.draw(st.integers(1, n1))]
    workload = chain(shape, micro1, micro2)
    event, bound = run(workload), run(workload, fidelity="analytic")

    assert event.macs == m * n1 * k1 + m * n1 * n2
    dram = event.traffic_bytes["dram"]
    assert dram.read == 2 * (m * k1 + ceil(m / rows) * (k1 * n1 + n1 * n2))
    assert dram.write == 2 * m * n2
    assert bound.cycles <= event.cycles


@given(
    blocks=st.integers(1, 4),
    k1=st.sampled_from([16, 32, 48]),
    k2=st.sampled_from([16, 32, 64]),
    latency=st.integers(0, 20),
    request=st.integers(0, 12),
)
@settings(max_examples=15, deadline=None)
def test_loading_is_all_that_counts_where_memory_is_slow(
    blocks: int, k1: int, k2: int, latency: int, request: int
) -> None:
    """With a byte a cycle: all loads one after another, then the last tile's way through the array (16 cycles
    to load A, a cycle a column and fold, 30 of skew) and its store."""
    n1, n2, rows = 64, 32, 16
    overrides = ["dram.bytes_per_cycle=2", f"dram.latency_cycles={latency}", f"dma.request_cycles={request}"]
    result = run(chain((rows * blocks, n1, 48, n2), [rows, n1, k1], [rows, n2, k2]), *overrides)

    tiles = 2 * ceil(48 / k1) + ceil(n1 / k2)
    loads = blocks * (2 * (rows * 48 + 48 * n1 + n1 * n2) + request * tiles)
    last = 16 + n2 * k2 // 16 + 30
    assert result.cycles == loads + latency + last + 2 * rows * n2 + request + latency


def test_more_slots_are_never_slower() -> None:
    """Loads that may run further ahead come no later."""
    workload = chain((256, 256, 64, 64), [64, 256, 64], [64, 64, 16])
    cycles = [run(workload, f"dma.operand_slots={slots}").cycles for slots in (2, 3, 4, 6)]

    assert cycles == sorted(cycles, reverse=True)
    assert cycles[-1] < cycles[0]


def test_there_are_as_many_slots_as_fit() -> None:
    """In a buffer too small for four slots, the same tiles run with two, and say so in their cycles."""
    workload = chain((256, 256, 64, 64), [64, 256, 64], [64, 64, 256])
    small_buffer = "buffers.cache.capacity_bytes=163840"

    assert run(workload, small_buffer).cycles == run(workload, "dma.operand_slots=2").cycles
    with pytest.raises(
        InputError, match=r"mapper.chains: no tile of fused on 256 x 64 x 256 fits cache \(65,536"
    ):
        run(workload, "buffers.cache.capacity_bytes=65536")


def test_the_mapper_takes_the_prescribed_tiles() -> None:
    """It has one candidate, whatever its effort, and names it."""
    accelerator = tw.load_accelerator("tileflow-16x16", ["mapper.effort=6"])
    workload = chain((512, 256, 48, 48), [32, 256, 16], [32, 48, 128])
    ((request, mapping),) = plan(workload, accelerator).mappings.items()

    assert isinstance(request.spec, ChainSpec)
    assert chain_tilings(request.spec, Machine(accelerator)) == [mapping.tiling]
    assert str(mapping.tiling) == "32 x 16 x 256 and 32 x 128 x 48, prescribed"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["micro1=[32,512,16]"], "prescribe both tiles, `micro1` and `micro2`, or none"),
        (
            ["micro1=[32,512,16]", "micro2=[16,64,16]"],
            "micro2: its m (16) must be that of `micro1` (32): both work on the same rows",
        ),
        (["micro1=[32,1024,16]", "micro2=[32,64,16]"], "micro1: 1024 is more than `n1` (512)"),
        (["micro1=[32,512,16]", "micro2=[32,64,1024]"], "micro2: 1024 is more than `n1` (512)"),
    ],
)
def test_tiles_that_do_not_belong_together_are_refused(overrides: list[str], said: str) -> None:
    """The message names the tile and the size that it exceeds or contradicts."""
    with pytest.raises(InputError) as raised:
        tw.load_workload("gemm_chain", overrides)

    assert said in str(raised.value)


def test_tiles_are_not_prescribed_in_vain() -> None:
    """A machine that does not fuse chains has its own tiles, so it refuses others."""
    workload = chain((512, 256, 48, 48), [32, 256, 16], [32, 48, 128])

    with pytest.raises(InputError) as raised:
        run(workload, "mapper.chains=[unfused]")

    assert "the tiles of 'first' are prescribed" in str(raised.value)
    assert "let the machine fuse (`mapper.chains: [fused]`), or prescribe none" in str(raised.value)
