"""Softmax within the array: FuseMax's exponentials and FSA's single-array schedule, against closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.chain import chain_program
from tilewright.dataflows.chain_tiling import chain_bound, chain_tilings, chain_traffic
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import totals
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, Operand, SoftmaxWork
from tilewright.description.errors import InputError
from tilewright.workloads.operators import MatmulShape

BERT = ["batch=64", "heads=12", "head_dim=64", "mask=none"]


def attention(accelerator: str, overrides: list[str], *workload: str) -> tw.Result:
    return tw.simulate(
        tw.load_accelerator(accelerator, overrides), tw.load_workload("attention", list(workload))
    )


@given(n=st.integers(2, 40), pieces=st.integers(1, 16), blocks=st.integers(1, 4), tiles=st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_fsa_takes_the_cycles_that_its_rtl_issues(n: int, pieces: int, blocks: int, tiles: int) -> None:
    """With nothing else to wait for: 5 N + 3 + P for each N queries and N keys, 2 N + 20 for N queries."""
    machine = [f"array={{rows: {n}, cols: {n}, dataflow: weight_stationary, exp_pieces: {pieces}}}"]
    free = ["mapper.attention=[fsa]", "dram={kind: ideal}", "buffers={}"]

    result = attention(
        "fsa",
        machine + free,
        "heads=1",
        f"head_dim={n}",
        f"seq={n * blocks}",
        f"kv_seq={n * tiles}",
        "mask=none",
    )

    assert result.cycles == blocks * (tiles * (5 * n + 3 + pieces) + 2 * n + 20)
    assert result.units["array"]["busy"] == blocks * tiles * 2 * n
    assert result.units["vector"]["busy"] == 0


@pytest.mark.parametrize("n", [16, 64, 128])
def test_fsa_hides_its_loads(n: int) -> None:
    """With the preset's memories, too, an iteration more takes 5 N + 11 cycles more."""

    def cycles(tiles: int) -> int:
        array = [f"array.rows={n}", f"array.cols={n}"]
        return attention(
            "fsa", array, "heads=1", "mask=none", f"head_dim={n}", f"seq={n}", f"kv_seq={n * tiles}"
        ).cycles

    assert [cycles(tiles + 1) - cycles(tiles) for tiles in (1, 2, 9)] == [5 * n + 11] * 3


def test_fsa_needs_heads_as_wide_as_the_array() -> None:
    """Another width is refused if there is no other order, and else run by another one."""
    workload = ["heads=2", "head_dim=64", "seq=128"]

    with pytest.raises(InputError, match=r"`fsa` needs heads exactly as wide as the array, 128, not 64; set"):
        attention("fsa", ["mapper.attention=[fsa]"], *workload)

    either = attention("fsa", ["mapper.attention=[fsa, flash]"], *workload)
    assert either.operators[0].mapping.startswith("flash")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("array.exp_pieces=null", ""),
        ("array.cols=64", ", not 1 of 128 x 64"),
        ("array.count=2", ", not 2 of"),
    ],
)
def test_fsa_needs_its_array(override: str, found: str) -> None:
    """One square array with an interpolated exponential; anything else is refused where it is described."""
    expected = f"`fsa` needs one square array with `array.exp_pieces`{found}"
    with pytest.raises(InputError) as caught:
        tw.load_accelerator("fsa", [override])

    assert expected in str(caught.value)
    assert "mapper.attention" in str(caught.value)


def test_a_channel_for_stores_needs_two_slots() -> None:
    """`store_share` means nothing where loads wait for stores."""
    with pytest.raises(InputError, match=r"`store_share` needs `buffering: double`"):
        tw.load_accelerator("fusemax", ["dma.buffering=single"])


@pytest.mark.parametrize("seq", [1024, 4096, 65536, 1048576])
def test_fusemax_is_bound_by_its_lanes(seq: int) -> None:
    """A row's 256 keys take 10 lane cycles for the statistics and 2 for each of 64 sums; at the end the row
    takes 1 for the reciprocal and 64 more. The array works 64 + 64 for the products and 6 + 3 for softmax."""
    result = attention("fusemax", [], f"seq={seq}", *BERT)
    rows, tiles = 64 * 12 * seq, seq // 256

    assert result.units["array"]["busy"] == rows * seq * 137 // 256**2
    assert result.units["vector"]["busy"] == pytest.approx(rows * (138 * tiles + 65) / 256, rel=1e-3)
    assert result.units["vector"]["busy"] <= result.cycles
    assert result.cycles == pytest.approx(result.units["vector"]["busy"], rel=5e-3)


@pytest.mark.parametrize("seq", [1024, 16384, 65536])
def test_flat_is_bound_by_softmax(seq: int) -> None:
    """Four lane cycles a score: maximum; exponential, subtraction, scaling in one; sum; normalisation. Rows
    that are too long for the array's full height are run a few at a time."""
    result = attention("flat", [], f"seq={seq}", *BERT)

    assert result.cycles == pytest.approx(64 * 12 * seq * seq * 4 / 256, rel=2e-3)


def test_rows_that_do_not_fit_spill_where_the_dataflow_says_so() -> None:
    """Of 262,144 scores a row and 256 rows, in two slots, 16 MiB's worth stays at most; each of the others is
    written three times and read four times. Without spilling, no tile fits."""
    seq = 262144
    workload = ["heads=1", "head_dim=64", "mask=none", f"seq={seq}"]
    result = attention("flat", [], *workload)

    traffic = result.traffic_bytes["dram"]
    operands = seq * 64 * 2
    spilled = int(result.operators[0].mapping.split(", ")[-1].removesuffix(" spilled"))
    assert 0.85 * seq < spilled < seq
    assert traffic.write - operands == pytest.approx(3 * 2 * seq * spilled, rel=1e-4)
    reads = traffic.read - operands - 2 * operands * seq // 256  # queries once, keys and values for 256 rows
    assert reads == pytest.approx(4 * 2 * seq * spilled, rel=1e-4)
    assert result.cycles == pytest.approx((traffic.read + traffic.write) / 456.9, rel=0.05)
    with pytest.raises(InputError, match=r"mapper\.attention: no tile of flat"):
        attention("flat", ["mapper.flat_spills=false"], *workload)


def test_a_fused_exponential_takes_scaling_and_subtraction_in() -> None:
    """Without it, each score costs the lanes two operations more."""
    apart = attention("flat", ["vector.fused_exp=false"], "seq=1024", *BERT)
    fused = attention("flat", [], "seq=1024", *BERT)

    lanes = 64 * 12 * 1024 * 1024 / 256
    assert apart.units["vector"]["busy"] - fused.units["vector"]["busy"] == 2 * lanes


def machine(cores: int, capacity_bytes: int, exp_macs: int | None, overlap: bool) -> Machine:
    return Machine(
        Accelerator.model_validate(
            {
                "name": "small",
                "clock_mhz": 1000,
                "cores": cores,
                "array": {
                    "rows": 4,
                    "cols": 4,
                    "dataflow": "output_stationary",
                    "fold_overlap": overlap,
                    "exp_macs": exp_macs,
                    "exp_pieces": 3,
                },
                "vector": {"lanes": 2},
                "buffers": {
                    "one": {
                        "capacity_bytes": capacity_bytes,
                        "holds": ["input", "weight", "output"],
                        "width_bytes": 64,
                    }
                },
                "dram": {"kind": "flat", "bytes_per_cycle": 4},
                "mapper": {"effort": 2, "attention": ["fusemax", "fsa"]},
            }
        )
    )


def chain(batch: int, m: int, n: int, e: int) -> ChainSpec:
    scores = Operand(batch * m * n, 8, resident=True)
    q, kv, out = Operand(batch * m * e, 8), Operand(batch * n * e, 8), Operand(batch * m * e, 8)
    softmax = SoftmaxWork(8.0, 7.0, 7.0, 8.0, 2.0, 1.0, in_array=True)
    first = MatmulSpec(MatmulShape(batch, m, e, n), q, kv, scores)
    second = MatmulSpec(MatmulShape(batch, m, n, e), scores, kv, out)
    return ChainSpec(first, second, softmax, ("fusemax", "fsa") if e == 4 else ("fusemax",))


small = st.integers(1, 20)


@given(
    batch=st.integers(1, 4),
    m=small,
    n=small,
    e=st.integers(1, 8),
    cores=st.integers(1, 3),
    overlap=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_tiling_does_the_work_once(
    batch: int, m: int, n: int, e: int, cores: int, overlap: bool
) -> None:
    """Whatever the tiling: the traffic is the closed form's, scores pass through no buffer, each fold of a
    core takes the array its cycles, and the bound holds."""
    spec, the_machine = chain(batch, m, n, e), machine(cores, 4096, 2, overlap)

    for tiling in chain_tilings(spec, the_machine):
        program = chain_program(spec, the_machine, tiling)
        sums = totals(program, 1)
        assert (sums.dram_read, sums.dram_write) == chain_traffic(spec, tiling)
        assert chain_bound(spec, the_machine, (0, 0), tiling) <= region_cycles(program, 1, 0, (0, 0))
        if tiling.order == "fusemax" and cores == 1:
            folds = batch * -(-m // 4) * -(-n // 4)
            assert sums.array_streaming == folds * (2 * e + 2 + 3)
            operands = batch * m * e + batch * n * e * 2 * -(-m // 4)
            queries_again = batch * m * e * (-(-n // 4) - 1)
            statistics_only = sums.buffer_read[0] - operands - queries_again
            # sums of 32 bits are read once per tile of keys, results once to be stored
            assert statistics_only == batch * m * e * (4 * -(-n // 4) + 1)


def test_a_machine_without_exponentials_leaves_them_to_the_vector_unit() -> None:
    """The order `fusemax` then costs the lanes every score, and the array its plain products."""
    spec = chain(2, 8, 8, 4)
    plain, able = machine(1, 4096, None, True), machine(1, 4096, 2, True)

    def work(the_machine: Machine) -> int:
        (tiling,) = [
            t for t in chain_tilings(spec, the_machine) if t.order == "fusemax" and (t.rows, t.cols) == (8, 4)
        ]
        return totals(chain_program(spec, the_machine, tiling), 1).vector

    assert work(plain) - work(able) == 2 * 8 * 8 * 7 // 2


@pytest.mark.parametrize("suite", ["fsa", "fusemax-flat"])
def test_the_suite_keeps_its_tolerances(suite: str) -> None:
    """The shipped cases, those with a tolerance of their own included."""
    assert tw.validate(suite).suites[0].failures == ()
