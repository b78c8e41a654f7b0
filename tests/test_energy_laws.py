"""The laws of energy and area that hold for every accelerator, workload and fidelity, as properties."""

from __future__ import annotations

import re
from math import fsum
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.energy import ZJ_PER_PJ, Actions, EnergyModel
from tilewright.arch.load import preset_names
from tilewright.arch.technology import technology_of
from tilewright.description.errors import InputError
from tilewright.sim.result import Fidelity, OperatorRow, Result
from tilewright.workloads.graph import OperatorGraph

STATIC = ("leakage", "clock", "dram_background")
SAME = 1e-12
"""Relative: what summing in another order may change."""


@st.composite
def accelerators(draw: st.DrawFn) -> dict[str, Any]:
    """Small machines at several nodes, with and without buffers, DRAM and clock gating."""
    layout = draw(st.sampled_from([{}, {"unified": ["input", "weight", "output"]}, _SPLIT]))
    buffer = {
        "capacity_bytes": draw(st.sampled_from([1024, 3000, 16384])),
        "width_bytes": draw(st.sampled_from([4, 32])),
        "ports": draw(st.sampled_from([1, 2])),
    }
    flat = {"kind": "flat", "bytes_per_cycle": draw(st.sampled_from([2.0, 8.0])), "latency_cycles": 7}
    return {
        "name": "random",
        "clock_mhz": draw(st.sampled_from([200, 1000])),
        "cores": draw(st.sampled_from([1, 2])),
        "array": {
            "rows": draw(st.integers(1, 6)),
            "cols": draw(st.integers(1, 6)),
            "dataflow": draw(st.sampled_from(["weight_stationary", "output_stationary", "input_stationary"])),
        },
        "vector": {"lanes": draw(st.integers(1, 8))},
        "buffers": {name: {**buffer, "holds": holds} for name, holds in layout.items()},
        "dram": draw(st.sampled_from([flat, {"kind": "ideal"}])),
        "mapper": {"effort": 0, "resident_fractions": []},
        "technology": {
            "node_nm": draw(st.sampled_from([7, 16, 28, 45, 65])),
            "clock_gating": draw(st.booleans()),
            "dram": draw(st.sampled_from(["ddr4", "lpddr4", "hbm2"])),
        },
    }


_SPLIT = {"scratchpad": ["input", "weight"], "accumulator": ["output"]}


def gpt(layers: int, tokens: int, generate: int = 0) -> OperatorGraph:
    """A small GPT-2: gathers, norms, matmuls, softmax, activations, and decode steps."""
    sizes = ["d=12", "heads=3", "ffn=20", "vocab=30", "positions=32"]
    return tw.load_workload("gpt2", [f"layers={layers}", f"seq={tokens}", f"generate={generate}", *sizes])


workloads = st.builds(gpt, st.integers(1, 3), st.integers(1, 9), st.integers(0, 2)) | st.builds(
    lambda m, k, n: tw.load_workload("gemm", [f"m={m}", f"k={k}", f"n={n}"]),
    *[st.integers(1, 24)] * 3,
)
fidelities: st.SearchStrategy[Fidelity] = st.sampled_from(["analytic", "event"])


def run(description: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity = "event") -> Result:
    """The result; an example whose buffers are too small for any tile is passed over."""
    try:
        return tw.simulate(Accelerator.model_validate(description), workload, fidelity)
    except InputError:
        assume(False)
        raise


def parts(breakdown: dict[str, float]) -> list[float]:
    return [amount for name, amount in breakdown.items() if name != "total"]


@given(accelerators(), workloads, fidelities)
@settings(max_examples=40, deadline=None)
def test_parts_are_the_total_exactly(
    description: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity
) -> None:
    """In the run's energy, in the area and in every operator, `total` is first and the sum of the rest."""
    result = run(description, workload, fidelity)
    breakdowns = [result.energy_j, result.area_mm2, *(row.energy_pj for row in result.operators)]
    for breakdown in map(dict, breakdowns):
        assert next(iter(breakdown)) == "total"
        assert sum(parts(breakdown)) == breakdown["total"]
        assert min(parts(breakdown)) >= 0
    assert result.energy_j["total"] > 0
    assert result.area_mm2["total"] > 0


@given(accelerators(), workloads, fidelities)
@settings(max_examples=40, deadline=None)
def test_operators_add_up_to_the_run(
    description: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity
) -> None:
    """Component by component, no energy is lost or counted twice; static energy is power times time."""
    result = run(description, workload, fidelity)
    for component, energy in result.energy_j.items():
        whole = fsum(row.energy_pj[component] for row in result.operators) * 1e-12
        assert whole == pytest.approx(energy, rel=SAME)
    model = EnergyModel(Accelerator.model_validate(description))
    for name, mw in model.static_power_mw().items():
        assert result.energy_j[name] == pytest.approx(mw * 1e-3 * result.latency_s, rel=1e-6)


@given(accelerators(), st.integers(1, 2), st.integers(1, 9), fidelities)
@settings(max_examples=20, deadline=None)
def test_twice_the_layers_take_twice_their_dynamic_energy(
    description: dict[str, Any], layers: int, tokens: int, fidelity: Fidelity
) -> None:
    """The layers' dynamic energy doubles with their number, what is outside them stays."""
    once = run(description, gpt(layers, tokens), fidelity)
    twice = run(description, gpt(2 * layers, tokens), fidelity)
    for component in set(once.energy_j) - {"total", *STATIC}:
        inside, outside = _split(once, component)
        inside_twice, outside_twice = _split(twice, component)
        assert inside_twice == pytest.approx(2 * inside, rel=SAME)
        assert outside_twice == pytest.approx(outside, rel=SAME)


def _split(result: Result, component: str) -> tuple[float, float]:
    """Energy of the operators inside and outside of layers, in pJ."""
    inside = [row for row in result.operators if re.match(r"layers\.\d+\.", row.name)]
    outside = [row for row in result.operators if row not in inside]
    assert inside
    assert outside
    both = [fsum(row.energy_pj[component] for row in rows) for rows in (inside, outside)]
    return both[0], both[1]


def check_array_and_dram(accelerator: Accelerator, rows: tuple[OperatorRow, ...]) -> None:
    """Array energy is exactly MACs x pJ/MAC (but for softmax within an array), DRAM energy at least bytes x
    pJ/bit, on every operator."""
    technology = technology_of(accelerator)
    mac_zj = EnergyModel(accelerator).costs.mac
    kind = accelerator.technology.dram
    read, write = (
        8 * technology.value(f"dram.{kind}.{way}_pj_per_bit")
        if kind and accelerator.dram.kind != "ideal"
        else 0
        for way in ("read", "write")
    )
    for row in rows:
        in_the_array = row.kind == "softmax" and row.fused_into and row.energy_pj["array"] > 0
        assert in_the_array or row.energy_pj["array"] == row.macs * mac_zj / ZJ_PER_PJ
        least = row.dram_read_bytes * read + row.dram_write_bytes * write
        assert row.energy_pj["dram"] >= least * (1 - SAME)
        assert (row.energy_pj["dram"] > 0) == (least > 0)


@given(accelerators(), workloads, fidelities)
@settings(max_examples=30, deadline=None)
def test_every_operator_pays_for_its_macs_and_its_bytes(
    description: dict[str, Any], workload: OperatorGraph, fidelity: Fidelity
) -> None:
    """`check_array_and_dram` on small machines of every kind."""
    result = run(description, workload, fidelity)
    check_array_and_dram(Accelerator.model_validate(description), result.operators)


@pytest.mark.parametrize("name", preset_names())
def test_every_operator_of_bert_pays_on_every_preset(name: str) -> None:
    """The same on the shipped machines, with a real model at a fixed kind of memory."""
    accelerator = tw.load_accelerator(name, ["technology.dram=lpddr4"])
    result = tw.simulate(accelerator, tw.load_workload("bert-base", ["seq=32"]), "analytic")
    check_array_and_dram(accelerator, result.operators)


@given(accelerators(), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**6))
@settings(max_examples=60, deadline=None)
def test_a_buffer_read_more_never_costs_less(
    description: dict[str, Any], macs: int, cycles: int, extra: int
) -> None:
    """Reads of one buffer added to any run: its energy grows by exactly their cost, nothing falls."""
    accelerator = Accelerator.model_validate(description)
    model, before = EnergyModel(accelerator), Actions(macs=macs, vector={"add": macs})
    for name in accelerator.buffers:
        fewer = model.run_zj(before, cycles)
        more = model.run_zj(before + Actions(buffer_read_bytes={name: extra}), cycles)
        assert more[name] - fewer[name] == extra * model.costs.buffer_read[name] > 0
        assert all(more[component] >= fewer[component] for component in fewer)


def test_energy_without_fast_forward_and_at_cycle_fidelity_is_the_same() -> None:
    """Skipped repetitions are charged in full, and stepping every PE charges what the events do."""
    machine = tw.load_accelerator("teaching-4x4")
    graph = tw.load_workload("gemm", ["m=20", "k=12", "n=9"])
    event = tw.simulate(machine, graph)
    assert tw.simulate(machine, graph, fast_forward=False).energy_j == event.energy_j
    assert tw.simulate(machine, graph, "cycle").energy_j == event.energy_j
