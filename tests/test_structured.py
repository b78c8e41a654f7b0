"""Arrays that pack N:M sparse weights: closed forms, what is packed and what is not, by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.api import load_accelerator, simulate
from tilewright.arch.array import Array
from tilewright.dataflows.systolic import packed, tile_cycles
from tilewright.description.errors import InputError
from tilewright.sim.result import Fidelity, Result
from tilewright.workloads.load import load_workload

SIZES = ["d=128", "heads=2", "ffn=256", "seq=32"]
PAIRS = [(1, 2), (1, 4), (2, 4), (3, 8)]


def array(
    n: int | None, m: int, dataflow: str = "weight_stationary", side: int = 4, select_cycles: int = 1
) -> Array:
    structured = None if n is None else {"n": n, "m": m, "select_cycles": select_cycles}
    sides = {"rows": side, "cols": side, "dataflow": dataflow}
    return Array.model_validate({**sides, "structured": structured})


def run(machine: str, technique: str, *overrides: str, fidelity: Fidelity = "event") -> Result:
    workload = load_workload("encoder_block", [*SIZES, f"compression=[{technique}]"])
    return simulate(load_accelerator(machine, list(overrides)), workload, fidelity)


@given(pair=st.sampled_from(PAIRS), k=st.integers(1, 60))
def test_packed_is_what_a_full_pattern_keeps(pair: tuple[int, int], k: int) -> None:
    """A column in which the first n of each m are kept has as many left."""
    n, m = pair
    assert packed(array(n, m), k) == sum(row % m < n for row in range(k))
    assert packed(array(n, m), np.array([k]))[0] == packed(array(n, m), k)


@given(
    pair=st.sampled_from(PAIRS),
    dataflow=st.sampled_from(["weight_stationary", "output_stationary"]),
    groups=st.integers(1, 20),
    m=st.integers(1, 9),
    n=st.integers(1, 9),
    select=st.integers(0, 3),
)
def test_a_tile_takes_what_its_kept_rows_take(
    pair: tuple[int, int], dataflow: str, groups: int, m: int, n: int, select: int
) -> None:
    """K is n/m as long; the selection's stages come on top, once; dense weights take what they took."""
    keep, of = pair
    sparse, dense = array(keep, of, dataflow, select_cycles=select), array(None, 0, dataflow)
    took = tile_cycles(sparse, m, groups * of, n, structured=True)
    expected = tile_cycles(dense, m, groups * keep, n)
    assert took.stream == expected.stream
    assert took.latency == expected.latency + select
    assert took.streaming + took.shift + took.skew == took.total
    assert tile_cycles(sparse, m, groups * of, n) == tile_cycles(dense, m, groups * of, n)


def test_the_array_streams_half_as_long() -> None:
    """Of 2:4 weights that fill the array's rows, a 2:4 array streams half of what a dense one does; the
    products of attention, whose operands are no weights, take what they took."""
    dense = run("bare-array", "", "array.rows=16", "array.cols=16")
    sparse = run(
        "bare-array", "{kind: sparse_weights, pattern: n_m}", "array.rows=16", "array.cols=16",
        "array.structured={n: 2, m: 4}",
    )  # fmt: skip
    busy = {row.name: row.array_busy_cycles for row in dense.operators}
    for row in sparse.operators:
        halves = row.kind == "matmul" and row.name.split(".")[-1] not in ("scores", "context")
        assert row.array_busy_cycles == busy[row.name] / (2 if halves else 1)
    assert sparse.cycles < dense.cycles
    assert sparse.useful_macs < dense.useful_macs


@pytest.mark.parametrize("machine", ["edge-npu-large", "many-core-server", "gemmini-default"])
def test_faster_but_never_beyond_its_bound(machine: str) -> None:
    """On machines with buffers packing is worth cycles, and the analytic answer stays below the simulated."""
    technique, packs = "{kind: sparse_weights, pattern: n_m}", "array.structured={n: 2, m: 4}"
    event = run(machine, technique, packs)
    assert event.cycles < run(machine, technique).cycles
    assert run(machine, technique, packs, fidelity="analytic").cycles <= event.cycles


@pytest.mark.parametrize(
    ("technique", "as_if"),
    [
        ("{kind: sparse_weights, pattern: n_m, n: 1, m: 4}", "{kind: sparse_weights, pattern: n_m}"),
        ("{kind: sparse_weights, pattern: n_m, n: 2, m: 8}", ""),
        ("{kind: sparse_weights, pattern: n_m, n: 3, m: 4}", ""),
        ("{kind: sparse_weights, pattern: unstructured}", ""),
        ("{kind: sparse_weights, pattern: block, block: 32}", ""),
    ],
)
def test_only_what_fits_the_pattern_is_packed(technique: str, as_if: str) -> None:
    """Where memory is free, sparser weights of the same groups take what the array's own pattern takes, and
    all others what dense ones take."""
    packs = "array.structured={n: 2, m: 4}"
    assert run("bare-array", technique, packs).cycles == run("bare-array", as_if, packs).cycles


def test_fused_chains_pack_too() -> None:
    """A feed-forward network on tiles that stay on chip is faster with packed weights."""
    cycles = [
        run(
            "edge-npu-large", "{kind: sparse_weights, pattern: n_m}", "mapper.chains=[fused]",
            f"array.structured={packs}",
        ).cycles
        for packs in ("null", "{n: 2, m: 4}")
    ]  # fmt: skip
    assert cycles[1] < cycles[0]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("array.structured={n: 4, m: 4}", "`n` (4) must be less than `m` (4), or nothing is left out"),
        ("array.dataflow=input_stationary", "`structured` needs a weight- or output-stationary array"),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, says: str) -> None:
    """With what is wrong."""
    with pytest.raises(InputError) as error:
        load_accelerator("bare-array", ["array.structured={n: 2, m: 4}", override])
    assert says in str(error.value)


def test_cycle_fidelity_says_that_it_has_no_such_array() -> None:
    """And what to do."""
    technique = "{kind: sparse_weights, pattern: n_m}"
    with pytest.raises(InputError, match="`cycle` fidelity steps arrays that multiply"):
        run("teaching-4x4", technique, "array.structured={n: 2, m: 4}", fidelity="cycle")
