"""Fused matmuls: what they spare, what they cost, and which operators are fused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.chain import chain_program
from tilewright.dataflows.chain_tiling import chain_bound, chain_tilings, chain_traffic
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import totals, unrolled
from tilewright.dataflows.regions import cut
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, Operand, SoftmaxWork, vector_work
from tilewright.description.errors import InputError
from tilewright.workloads.operators import MatmulShape

SOFTMAX = SoftmaxWork(whole=8.0, online=7.0, statistics=7.0, reciprocal=8.0, rescale=2.0, finish=1.0)
ORDERS = ("flat", "flash", "fusemax")


def machine(cores: int = 1, capacity_bytes: int = 4096) -> Machine:
    return Machine(
        Accelerator.model_validate(
            {
                "name": "small",
                "clock_mhz": 1000,
                "cores": cores,
                "array": {"rows": 4, "cols": 4, "dataflow": "weight_stationary", "fold_overlap": True},
                "vector": {"lanes": 2},
                "buffers": {
                    "one": {
                        "capacity_bytes": capacity_bytes,
                        "holds": ["input", "weight", "output"],
                        "width_bytes": 64,
                    }
                },
                "dram": {"kind": "flat", "bytes_per_cycle": 4},
                "mapper": {"effort": 2},
            }
        )
    )


def attention(batch: int, m: int, e: int, n: int, orders: tuple[str, ...] = ORDERS) -> ChainSpec:
    scores = Operand(batch * m * n, 8, resident=True)
    return ChainSpec(
        MatmulSpec(
            MatmulShape(batch, m, e, n),
            Operand(batch * m * e, 8),
            Operand(batch * e * n, 8),
            scores,
            lane_cycles=1.0,
        ),
        MatmulSpec(MatmulShape(batch, m, n, e), scores, Operand(batch * n * e, 8), Operand(batch * m * e, 8)),
        SOFTMAX if orders != ("fused",) else None,
        orders,
    )


small = st.integers(1, 20)


@given(
    batch=st.integers(1, 4),
    m=small,
    e=st.integers(1, 8),
    n=small,
    cores=st.integers(1, 3),
    orders=st.sampled_from([ORDERS, ("fused",)]),
)
@settings(max_examples=40, deadline=None)
def test_every_tiling_does_the_work_once(
    batch: int, m: int, e: int, n: int, cores: int, orders: tuple[str, ...]
) -> None:
    """Whatever the tiling and order: DRAM traffic is the closed form's, which has no scores; results are
    stored once; the vector unit works at least as much as no order can spare; the bound holds."""
    spec, the_machine = attention(batch, m, e, n, orders), machine(cores)

    for tiling in chain_tilings(spec, the_machine)[::7]:
        program = chain_program(spec, the_machine, tiling)
        sums = totals(program, 1)
        read, written = chain_traffic(spec, tiling)
        assert (sums.dram_read, sums.dram_write) == (read, written)
        assert written == batch * m * e
        assert sums.vector * the_machine.accelerator.vector.lanes * cores >= vector_work(spec)
        assert chain_bound(spec, the_machine, (0, 0), tiling) <= region_cycles(program, 1, 0, (0, 0))


@given(m=small, n=small, order=st.sampled_from([*ORDERS, "fused"]))
@settings(max_examples=40, deadline=None)
def test_second_matmuls_stream_what_the_vector_unit_made(m: int, n: int, order: str) -> None:
    """Each unit's first ticks come before its second ones, at most one other unit's between them: a tick that
    is fed by the last or the last but one unit finds that this one is its own."""
    spec = attention(2, m, 3, n, (order,))
    for tiling in chain_tilings(spec, machine())[::5]:
        made = used = 0
        for tick in unrolled(chain_program(spec, machine(), tiling)):
            made += tick.feeds
            if tick.fed:
                used += 1
                assert made - used == tick.fed - 1
        assert made == used


def run(order: str, *, workload: str = "attention", overrides: list[str] | None = None) -> tw.Result:
    accelerator = tw.load_accelerator("tpu-v3-core", [f"mapper.attention=[{order}]"])
    chosen = overrides or ["heads=2", "seq=256", "head_dim=64"]
    return tw.simulate(accelerator, tw.load_workload(workload, chosen))


@pytest.mark.parametrize("order", ORDERS)
def test_scores_leave_the_chip_only_where_the_dataflow_says_so(order: str) -> None:
    """Unfused attention beyond the buffers writes and reads its scores; fused attention moves Q, K, V and the
    output, each once where the tiles are large enough."""
    overrides = ["heads=2", "seq=4096", "head_dim=64", "mask=none"]
    fused, unfused = run(order, overrides=overrides), run("unfused", overrides=overrides)
    operand_bytes = 2 * 2 * 4096 * 64  # bf16

    assert fused.traffic_bytes["dram"].write == operand_bytes
    assert unfused.traffic_bytes["dram"].write >= operand_bytes + 2 * 2 * 2 * 4096 * 4096
    assert fused.cycles < unfused.cycles
    assert fused.macs == unfused.macs


def test_a_fused_region_shows_its_operators() -> None:
    """Rows of scores, softmax and context stay; the array's cycles are shared out by their MACs."""
    rows = {row.name: row for row in run("flash").operators}

    assert rows["softmax"].fused_into == rows["context"].fused_into == "scores"
    assert rows["scores"].array_busy_cycles == rows["context"].array_busy_cycles > 0
    assert rows["scores"].mapping.startswith("flash, ")


def test_the_mapper_takes_the_best_order() -> None:
    """With several orders to try, the result is that of the best one alone."""
    alone = [run(order).cycles for order in ("unfused", *ORDERS)]

    assert run("unfused, flat, flash, fusemax").cycles == min(alone)


def test_what_is_fused() -> None:
    """Attention becomes one region with `attention`, the feed-forward network one with `chains`."""
    graph = tw.load_workload("encoder_block", ["d=64", "heads=2", "ffn=128", "seq=16"])

    def anchors(**what: bool) -> list[str]:
        the_cut = cut(graph, **what)
        return [graph.operators[region.anchor].name for region in the_cut.regions]

    plain = anchors()
    assert set(plain) - set(anchors(attention=True)) == {"attention.softmax", "attention.context"}
    assert set(plain) - set(anchors(chains=True)) == {"ffn.down"}


def test_a_chain_that_does_not_fit_says_so() -> None:
    """No tile fits: what was tried, where, and what to do."""
    accelerator = tw.load_accelerator("gemmini-default", ["mapper.attention=[flat]"])
    workload = tw.load_workload("attention", ["heads=2", "seq=4096", "head_dim=64"])

    with pytest.raises(InputError, match=r"mapper\.attention: no tile of flat .* try `unfused` as well"):
        tw.simulate(accelerator, workload)


def test_cycle_fidelity_refuses_fused_regions() -> None:
    """It steps one matmul at a time, and says what to do."""
    accelerator = tw.load_accelerator("tpu-v3-core", ["mapper.attention=[flash]", "array.rows=8"])
    workload = tw.load_workload("attention", ["heads=1", "seq=8", "head_dim=4"])

    with pytest.raises(InputError, match="leave `unfused` alone"):
        tw.simulate(accelerator, workload, fidelity="cycle")
