"""Flexible arrays: edges cost nothing, heads may keep to shares of their own, and what they can't do."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.array import Array
from tilewright.dataflows.systolic import ByHead, tile_cycles
from tilewright.description.errors import InputError

extents = st.integers(1, 40)
BLOCK = ["d=96", "heads=3", "ffn=128", "seq=20"]


def pool(pes: int, *, latency_cycles: int = 0) -> Array:
    flexible = {"latency_cycles": latency_cycles, "by_head": True}
    sides = {"rows": 1, "cols": pes, "dataflow": "weight_stationary"}
    return Array.model_validate({**sides, "flexible": flexible})


def products(*overrides: str, workload: tuple[str, ...] = ()) -> dict[str, int]:
    """Cycles of the array on each product of an encoder block, with memory for nothing."""
    block = tw.load_workload("encoder_block", [*BLOCK, *workload])
    result = tw.simulate(tw.load_accelerator("bare-array", list(overrides)), block)
    return {row.name: row.array_busy_cycles for row in result.operators if row.kind == "matmul"}


def done_after(cycles: int, pes: int, work: list[int]) -> bool:
    """Whether shares that take a product a cycle and PE, and PEs left over that take any head's, are done."""
    share, spare = divmod(pes, len(work))
    return sum(max(each - share * cycles, 0) for each in work) <= spare * cycles


@given(pes=st.integers(1, 64), m=extents, k=extents, n=extents, latency=st.integers(0, 5))
def test_a_tile_takes_its_products_over_all_pes(pes: int, m: int, k: int, n: int, latency: int) -> None:
    """Whatever its shape; nothing is shifted, and only the end is later by the networks' stages."""
    cycles = tile_cycles(pool(pes, latency_cycles=latency), m, k, n)

    assert cycles.stream == cycles.streaming == ceil(m * k * n / pes)
    assert (cycles.preload, cycles.shift, cycles.latency) == (0, 0, latency)
    assert cycles.total == cycles.stream + latency == cycles.streaming + cycles.skew


@given(pes=st.integers(1, 64), heads=st.integers(2, 6), width=st.integers(1, 9), m=extents, n=extents)
def test_heads_keep_to_their_shares(pes: int, heads: int, width: int, m: int, n: int) -> None:
    """Shares are full until the last cycle; what is left goes to the PEs left over where they have time for
    it, else it takes one cycle more. All products fit into so many cycles, and a share's into no fewer."""
    if heads > pes:
        return
    share, work = pes // heads, m * n * width

    cycles = tile_cycles(pool(pes), m, heads * width, n, by_head=ByHead(heads, width)).stream

    full = work // share
    assert cycles == (full if done_after(full, pes, [work] * heads) else full + 1)
    assert done_after(cycles, pes, [work] * heads)
    assert tile_cycles(pool(pes), m, heads * width, n).stream <= cycles


@given(
    pes=st.integers(6, 64),
    by_head=st.builds(ByHead, st.integers(2, 6), st.integers(1, 9)),
    tile=st.tuples(extents, extents, extents),
)
def test_more_to_do_is_never_faster_and_more_pes_are_never_slower(
    pes: int, by_head: ByHead, tile: tuple[int, int, int]
) -> None:
    """The mapper's bounds build on the first, law 3 is the second."""
    cycles = tile_cycles(pool(pes), *tile, by_head=by_head).stream

    for axis in range(3):
        more = [size + (axis == at) for at, size in enumerate(tile)]
        assert tile_cycles(pool(pes), *more, by_head=by_head).stream >= cycles
    assert tile_cycles(pool(pes + 1), *tile, by_head=by_head).stream <= cycles


@given(tiles=st.lists(st.tuples(extents, extents, extents), min_size=1, max_size=4), heads=st.booleans())
def test_columns_of_candidates_give_the_same(tiles: list[tuple[int, int, int]], heads: bool) -> None:
    """As single numbers do."""
    m, k, n = (np.array(column, dtype=np.int64) for column in zip(*tiles, strict=True))
    by_head = ByHead(3, 5) if heads else None

    together = tile_cycles(pool(16), m, k, n, by_head=by_head)

    assert list(together.total) == [tile_cycles(pool(16), *tile, by_head=by_head).total for tile in tiles]


def test_ragged_edges_cost_nothing() -> None:
    """A systolic array pays for all its rows and columns at the edges; a flexible one does not."""
    sides = ["array.rows=100", "array.cols=10"]
    systolic = products(*sides, "array.fold_overlap=true")
    flexible = products(*sides, "array.flexible={}")

    assert systolic["attention.query"] == 20 * ceil(96 / 100) * ceil(96 / 10)
    assert flexible["attention.query"] == ceil(20 * 96 * 96 / 1000)
    assert all(flexible[name] <= systolic[name] for name in systolic)


def test_only_what_was_written_by_head_is_done_by_head() -> None:
    """The output projection, also behind element-wise work; not query, key, value and feed-forward layers."""
    sides = ["array.rows=1", "array.cols=512"]
    pooled, shared = (products(*sides, f"array.flexible={{by_head: {flag}}}") for flag in ("false", "true"))
    assert {name for name in pooled if pooled[name] != shared[name]} == {"attention.output"}
    assert shared["attention.output"] == 20 * 96 * 32 // 170
    assert pooled["attention.output"] == ceil(20 * 96 * 96 / 512)

    kernel = ("attention={kind: linear}",)
    divided = [
        products(*sides, f"array.flexible={{by_head: {flag}}}", workload=kernel)["attention.output"]
        for flag in ("false", "true")
    ]
    assert divided == [pooled["attention.output"], shared["attention.output"]]


@pytest.mark.parametrize(("heads", "pes"), [(1, 512), (96, 64)], ids=["one head", "more heads than PEs"])
def test_heads_that_can_have_no_share_of_their_own(heads: int, pes: int) -> None:
    """Are done in one pool."""
    machine = ["array.rows=1", f"array.cols={pes}", "array.flexible={by_head: true}"]
    found = products(*machine, workload=(f"heads={heads}",))
    assert found["attention.output"] == ceil(20 * 96 * 96 / pes)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["array.structured={n: 2, m: 4}"], "`structured` needs the paths of a systolic array"),
        (["array.exp_macs=6"], "`exp_macs` needs the paths of a systolic array; leave it or `flexible` out"),
        (["array.exp_pieces=8"], "`exp_pieces` needs the paths of a systolic array"),
    ],
)
def test_what_needs_a_systolic_array_is_refused(overrides: list[str], says: str) -> None:
    """With what is wrong."""
    with pytest.raises(InputError) as error:
        tw.load_accelerator("bare-array", ["array.flexible={}", *overrides])
    assert says in str(error.value)


def test_a_streaming_unit_is_systolic() -> None:
    """Its Verilog is."""
    says = "a streaming unit's arrays are systolic: leave `array.flexible` out"
    with pytest.raises(InputError, match=says):
        tw.load_accelerator("attention-unit", ["array.flexible={}"])


def test_cycle_fidelity_has_no_such_array() -> None:
    """And says what to do."""
    machine = tw.load_accelerator("teaching-4x4", ["array.flexible={}"])
    with pytest.raises(InputError, match=r"array.flexible: `cycle` fidelity steps systolic arrays"):
        tw.simulate(machine, tw.load_workload("gemm", ["m=4", "k=4", "n=4"]), "cycle")
