"""The laws that hold for every accelerator, workload and fidelity, as properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import preset_names
from tilewright.dataflows.chosen import forget
from tilewright.dataflows.plan import plan
from tilewright.description.errors import InputError
from tilewright.sim.result import Fidelity, Result
from tilewright.workloads.graph import OperatorGraph

FIDELITIES: list[Fidelity] = ["analytic", "event"]


CAPACITIES = (256, 400, 1024, 3000, 16384)
CRAMPED = (64, 128, 256, 400, 800)
"""Bytes that force a small matmul into many tiles."""
ATTENTION = ["unfused", "unfused", "flat", "flash", "fusemax"]


BUFFERS: list[dict[str, list[str]]] = [
    {},
    {"unified": ["input", "weight", "output"]},
    {"scratchpad": ["input", "weight"], "accumulator": ["output"]},
    {"inputs": ["input"], "weights": ["weight"], "sums": ["output"]},
]
"""What each buffer holds, of a machine without any, with a shared one, with split ones."""

arrays = st.fixed_dictionaries(
    {
        "rows": st.integers(1, 6),
        "cols": st.integers(1, 6),
        "count": st.sampled_from([1, 1, 2]),
        "dataflow": st.sampled_from(["weight_stationary", "output_stationary", "input_stationary"]),
        "fold_overlap": st.booleans(),
        "exp_macs": st.sampled_from([None, 2]),
        "stationary_buffers": st.sampled_from([1, 2]),
        "output_drain": st.sampled_from(["ideal", "exposed", "shadow"]),
    }
)
flexible_arrays = st.builds(
    lambda array, flexible: {**array, "exp_macs": None, "flexible": flexible},
    arrays,
    st.fixed_dictionaries({"latency_cycles": st.sampled_from([0, 3]), "by_head": st.booleans()}),
)
vectors = st.fixed_dictionaries(
    {"lanes": st.integers(1, 8), "startup_cycles": st.integers(0, 3), "fused_exp": st.booleans()}
)
drams = st.fixed_dictionaries(
    {
        "kind": st.just("flat"),
        "bytes_per_cycle": st.sampled_from([0.7, 2.0, 8.0, 100.0]),
        "latency_cycles": st.sampled_from([0, 7, 40]),
    }
)
dmas: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda prefetch, how: {"prefetch_bytes": prefetch, **how},
    st.sampled_from([0, 64, 4096]),
    st.sampled_from([{}, {}, {"buffering": "single"}, {"store_share": 0.3}, {"operand_slots": 4}]),
)
mappers = st.fixed_dictionaries(
    {
        "effort": st.integers(0, 2),
        "attention": st.lists(st.sampled_from(ATTENTION), min_size=1, max_size=2),
        "flat_spills": st.booleans(),
        "chains": st.sampled_from([["unfused"], ["fused"], ["unfused", "fused"]]),
    }
)


def buffer(holds: list[str], capacities: tuple[int, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "capacity_bytes": st.sampled_from(capacities),
            "holds": st.just(holds),
            "banks": st.sampled_from([1, 2]),
            "width_bytes": st.sampled_from([1, 4, 32]),
        }
    )


def accelerators(
    capacities: tuple[int, ...] = CAPACITIES, *, systolic: bool = False
) -> st.SearchStrategy[dict[str, Any]]:
    """Small machines of every kind: shared and split buffers, several cores and arrays, flexible ones too."""
    kinds = [{name: buffer(holds, capacities) for name, holds in kind.items()} for kind in BUFFERS]
    return st.fixed_dictionaries(
        {
            "name": st.just("random"),
            "clock_mhz": st.just(1000),
            "cores": st.sampled_from([1, 1, 2, 3]),
            "array": arrays if systolic else st.one_of(arrays, arrays, flexible_arrays),
            "vector": vectors,
            "buffers": st.one_of([st.fixed_dictionaries(kind) for kind in kinds]),
            "dram": drams,
            "dma": dmas,
            "mapper": mappers,
        }
    )


sizes = st.integers(1, 24)


@st.composite
def workloads(draw: st.DrawFn) -> OperatorGraph:
    """Small workloads of every shape: ragged GEMMs, softmax, attention, blocks, whole models, decode."""
    kind = draw(
        st.sampled_from(["gemm", "softmax", "layernorm", "attention", "encoder_block", "band", "gpt2"])
    )
    heads = draw(st.integers(1, 3))
    width = heads * draw(st.integers(1, 6))
    seq = draw(st.integers(1, 12))
    overrides = {
        "gemm": [f"m={draw(sizes)}", f"k={draw(sizes)}", f"n={draw(sizes)}", f"batch={heads}"],
        "softmax": [f"rows={draw(sizes)}", f"cols={draw(sizes)}"],
        "layernorm": [f"rows={draw(sizes)}", f"cols={draw(sizes)}"],
        "attention": [f"heads={heads}", f"seq={seq}", f"head_dim={draw(st.integers(1, 8))}"],
        "encoder_block": [f"d={width}", f"heads={heads}", f"ffn={draw(sizes)}", f"seq={seq}"],
        "band": [
            f"d={width}", f"heads={heads}", f"ffn={draw(sizes)}", f"seq={seq}",
            "attention.kind=sliding_window", f"attention.window={draw(st.integers(1, 12))}",
        ],
        "gpt2": [
            f"layers={draw(st.integers(1, 4))}", f"d={width}", f"heads={heads}", "vocab=30", "positions=32",
            f"seq={seq}", f"generate={draw(st.integers(0, 3))}", f"ffn={draw(sizes)}",
        ],
    }  # fmt: skip
    return tw.load_workload("encoder_block" if kind == "band" else kind, overrides[kind])


def run(description: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity = "event") -> Result | None:
    """The result, or None where the buffers are too small."""
    try:
        return tw.simulate(Accelerator.model_validate(description), workload, fidelity)
    except InputError:
        return None


@given(description=accelerators(), workload=workloads())
@settings(max_examples=40, deadline=None)
def test_no_run_beats_its_machine(description: dict[str, Any], workload: OperatorGraph) -> None:
    """Cycles are at least MACs over peak MACs, and bytes over bandwidth on every port; units' cycles add up;
    the analytic answer never exceeds the simulated one."""
    results = [run(description, workload, fidelity) for fidelity in FIDELITIES]
    analytic, event = results
    assert (analytic is None) == (event is None)
    if analytic is None or event is None:
        return

    assert analytic.cycles <= event.cycles
    accelerator = Accelerator.model_validate(description)
    for result in (analytic, event):
        assert result.cycles >= result.macs / result.peak_macs_per_cycle
        dram = result.traffic_bytes["dram"]
        rounding = len(result.operators) if result is analytic else 0  # its regions are rounded down
        moved = (dram.read + dram.write) / description["dram"]["bytes_per_cycle"]
        assert result.cycles >= moved - rounding
        for name, buffer in accelerator.buffers.items():
            if name in result.traffic_bytes:
                traffic = result.traffic_bytes[name]
                bandwidth = buffer.bytes_per_cycle * accelerator.cores
                assert result.cycles >= (traffic.read + traffic.write) / bandwidth
        for states in result.units.values():
            assert sum(states.values()) == result.cycles
            assert min(states.values()) >= 0
        assert result.units["array"]["busy"] + sum(result.stalls.values()) == result.cycles
        assert sum(row.useful_macs for row in result.operators) == result.useful_macs == workload.useful_macs
        assert 0 <= result.useful_macs <= result.macs
        assert 0 <= result.utilization <= result.macs / (result.peak_macs_per_cycle * result.cycles) <= 1


@given(description=accelerators(), workload=workloads(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_more_is_never_worse(
    description: dict[str, Any], workload: OperatorGraph, data: st.DataObject
) -> None:
    """More bandwidth, more lanes, larger or wider buffers, a larger search: never more cycles."""
    what = data.draw(
        st.sampled_from(["bandwidth", "lanes", "capacity", "width", "effort", "orders", "latency"])
    )
    factor = data.draw(st.sampled_from([1.1, 1.5, 2, 3]))
    more = _improved(description, what, factor)
    for fidelity in FIDELITIES:
        before, after = run(description, workload, fidelity), run(more, workload, fidelity)
        if before is not None:
            assert after is not None
            assert after.cycles <= before.cycles


def _improved(description: dict[str, Any], what: str, factor: float) -> dict[str, Any]:
    more = dict(description)
    if what == "bandwidth":
        dram = description["dram"]
        more["dram"] = {**dram, "bytes_per_cycle": dram["bytes_per_cycle"] * factor}
    elif what == "latency":
        more["dram"] = {**description["dram"], "latency_cycles": 0}
    elif what == "lanes":
        more["vector"] = {**description["vector"], "lanes": int(description["vector"]["lanes"] * factor) + 1}
    elif what == "effort":
        more["mapper"] = {**description["mapper"], "effort": description["mapper"]["effort"] + 1}
    elif what == "orders":
        tried = [*description["mapper"]["attention"], "unfused", "flat", "flash", "fusemax"]
        more["mapper"] = {**description["mapper"], "attention": tried, "chains": ["unfused", "fused"]}
    else:
        key = "capacity_bytes" if what == "capacity" else "width_bytes"
        more["buffers"] = {
            name: {**buffer, key: int(buffer[key] * factor) + 1}
            for name, buffer in description["buffers"].items()
        }
    return more


@pytest.mark.parametrize(
    ("d", "heads", "ffn", "seq", "capacity_bytes"),
    [(12, 1, 9, 9, 256), (12, 2, 16, 14, 600), (8, 1, 30, 14, 600), (12, 1, 4, 9, 256)],
)
def test_divisions_left_early_are_not_the_best(
    d: int, heads: int, ffn: int, seq: int, capacity_bytes: int
) -> None:
    """A plan over several ways to divide the buffers is the best of plans that each know only one way (and
    to keep nothing), though it leaves some of them before every region is mapped. In these cases the division
    of the least bound is not the best."""
    workload = tw.load_workload("encoder_block", [f"d={d}", f"heads={heads}", f"ffn={ffn}", f"seq={seq}"])
    rooms = [f"buffers.{name}.capacity_bytes={capacity_bytes}" for name in ("inputs", "weights", "sums")]

    def cycles(*fractions: float) -> int:
        overrides = [*rooms, f"mapper.resident_fractions={list(fractions)}"]
        return plan(workload, tw.load_accelerator("teaching-4x4", overrides)).cycles

    alone = {cycles(fraction) for fraction in (0.3, 0.5, 0.75)}
    assert len(alone) > 1
    assert cycles(0.3, 0.5, 0.75) == min(alone)


@given(description=accelerators(), workload=workloads())
@settings(max_examples=25, deadline=None)
def test_fast_forward_is_exact(description: dict[str, Any], workload: OperatorGraph) -> None:
    """Skipping periodic loops and simulating equal regions once change nothing in the answer."""
    fast = run(description, workload)
    if fast is not None:
        slow = tw.simulate(Accelerator.model_validate(description), workload, fast_forward=False)

        _assert_same_answer(fast, slow)


@given(description=accelerators(), workload=workloads())
@settings(max_examples=25, deadline=None)
def test_holding_equal_layers_once_is_exact(description: dict[str, Any], workload: OperatorGraph) -> None:
    """A block that stands for its copies costs what the copies cost. (Without tensors that stay on chip:
    all copies of a block decide alike about theirs, which a plain graph does not know.)"""
    description = {**description, "mapper": {**description["mapper"], "resident_fractions": []}}
    folded, plain = run(description, workload), run(description, workload.expand())

    assert (folded is None) == (plain is None)
    if folded is not None and plain is not None:
        _assert_same_answer(folded, plain)


def _assert_same_answer(first: Result, second: Result) -> None:
    assert first.cycles == second.cycles
    assert first.units == second.units
    assert first.traffic_bytes == second.traffic_bytes
    assert first.operators == second.operators


@given(description=accelerators(), workload=workloads())
@settings(max_examples=10, deadline=None)
def test_same_input_same_bytes(description: dict[str, Any], workload: OperatorGraph) -> None:
    """Two runs give the same object, when nothing is known of the first."""
    first = run(description, workload)
    forget()
    second = run(description, workload)

    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert first.to_dict() == second.to_dict()


@given(description=accelerators(), workload=workloads())
@settings(max_examples=20, deadline=None)
def test_counts_are_the_workloads(description: dict[str, Any], workload: OperatorGraph) -> None:
    """MACs and parameters are the workload's; every operator is in the result once per copy; nothing is
    free."""
    result = run(description, workload)
    if result is None:
        return

    assert result.macs == workload.macs == sum(row.macs for row in result.operators)
    assert result.parameters == workload.parameters
    assert [row.name for row in result.operators] == [op.name for op in workload.expand().operators]
    assert sum(row.cycles for row in result.operators) == result.cycles
    assert sum(row.dram_read_bytes for row in result.operators) == result.traffic_bytes["dram"].read
    assert sum(row.vector_busy_cycles for row in result.operators) == result.units["vector"]["busy"]
    for row in result.operators:
        assert row.cycles > 0 or row.fused_into
        assert row.kind == "matmul" or row.vector_busy_cycles > 0 or row.fused_into


@given(
    description=accelerators(systolic=True) | accelerators(CRAMPED, systolic=True),
    seed=st.integers(0, 9),
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    batch=st.integers(1, 2),
)
@settings(max_examples=20, deadline=None)
def test_event_equals_cycle(
    description: dict[str, Any], seed: int, shape: tuple[int, int, int], batch: int
) -> None:
    """Stepping every PE on real data, tile behind tile, takes the same cycles, stall by stall, and computes
    what numpy does."""
    m, k, n = shape
    workload = tw.load_workload("gemm", [f"m={m}", f"k={k}", f"n={n}", f"batch={batch}"])
    event = run(description, workload)
    if event is None:
        return

    stepped = tw.simulate(Accelerator.model_validate(description), workload, "cycle", seed=seed)

    assert stepped.cycles == event.cycles
    assert stepped.units == event.units
    a, b, c = (stepped.outputs[name] for name in (*workload.operators[0].inputs, *workload.outputs))
    assert (c.reshape(-1, m, n) == a.reshape(-1, m, k) @ b.reshape(-1, k, n)).all()


@pytest.mark.parametrize("accelerator", preset_names())
@pytest.mark.parametrize(
    ("workload", "overrides"),
    [
        ("gemm", ["m=70", "k=100", "n=50"]),
        ("encoder_block", ["d=48", "heads=3", "ffn=80", "seq=33"]),
        ("gpt2", ["layers=3", "d=48", "heads=3", "vocab=64", "positions=64", "seq=20", "generate=3"]),
        ("softmax", ["rows=33", "cols=65"]),
    ],
)
def test_fast_forward_is_exact_on_every_preset(accelerator: str, workload: str, overrides: list[str]) -> None:
    """Each preset gives the same result with and without it."""
    machine, graph = tw.load_accelerator(accelerator), tw.load_workload(workload, overrides)

    fast, slow = tw.simulate(machine, graph), tw.simulate(machine, graph, fast_forward=False)

    assert fast.units == slow.units
    assert fast.operators == slow.operators
    assert tw.simulate(machine, graph, "analytic").cycles <= fast.cycles
