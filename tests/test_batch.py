"""Many machines at once: the batched analytic answer is each machine's own, and a bound on every run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import preset_names
from tilewright.dataflows.columns import COLUMNS, Column
from tilewright.dataflows.estimate import may_be_columns
from tilewright.dataflows.plan import Schema, schemas
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import description_figures
from tilewright.sim.batch import answers
from tilewright.workloads.graph import OperatorGraph

POINTS = 4
BUFFERS = {
    "scratchpad": {"holds": ["input", "weight"], "capacity_bytes": 4000, "width_bytes": 16},
    "accumulator": {"holds": ["output"], "capacity_bytes": 3000, "width_bytes": 32},
}
WORKLOADS = (
    ("encoder_block", ("d=16", "heads=2", "ffn=40", "seq=9")),
    ("gpt2", ("layers=2", "seq=5", "generate=1", "d=12", "heads=3", "ffn=20", "vocab=30", "positions=32")),
    ("gemm", ("m=30", "k=17", "n=23")),
)


def column(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=POINTS, max_size=POINTS)


@st.composite
def machines(draw: st.DrawFn) -> tuple[Accelerator, OperatorGraph, dict[str, Column]]:
    """A machine, a workload, and columns for some of the keys that may be columns."""
    name, overrides = draw(st.sampled_from(WORKLOADS))
    accelerator = Accelerator.model_validate(
        {
            "name": "random",
            "clock_mhz": 700,
            "cores": draw(st.sampled_from([1, 2])),
            "array": {
                "rows": 4,
                "cols": 4,
                "dataflow": draw(
                    st.sampled_from(["weight_stationary", "output_stationary", "input_stationary"])
                ),
                "fold_overlap": draw(st.booleans()),
                "stationary_buffers": draw(st.sampled_from([1, 2])),
            },
            "vector": {"lanes": 4},
            "buffers": draw(st.sampled_from([{}, BUFFERS])),
            "dram": {"kind": "flat", "bytes_per_cycle": 8, "latency_cycles": 5},
            "dma": {"buffering": draw(st.sampled_from(["double", "single"]))},
            "mapper": {
                "effort": 0,
                "resident_fractions": draw(st.sampled_from([(), (0.5,)])),
                "attention": draw(st.sampled_from([("unfused",), ("unfused", "flash")])),
            },
            "technology": {"clock_gating": draw(st.booleans())},
        }
    )
    workload = tw.load_workload(name, overrides)
    sides, rates = st.integers(1, 9), st.sampled_from([1.0, 2.5, 8.0, 100.0])
    drawn = {
        "array.rows": column(sides),
        "array.cols": column(sides),
        "array.count": column(st.integers(1, 2)),
        "clock_mhz": column(st.sampled_from([200.0, 900.0])),
        "dram.bytes_per_cycle": column(rates),
        "dram.latency_cycles": column(st.integers(0, 40)),
        "vector.lanes": column(st.integers(1, 20)),
    }
    keys = draw(
        st.lists(st.sampled_from(may_be_columns(divisions(workload, accelerator))), min_size=1, unique=True)
    )
    return accelerator, workload, {key: np.array(draw(drawn[key])) for key in keys}


def divisions(workload: OperatorGraph, accelerator: Accelerator) -> list[Schema]:
    return list(schemas(workload, accelerator))


def one(accelerator: Accelerator, columns: dict[str, Column], index: int) -> Accelerator:
    """The machine of one row of the columns, read like any other description."""
    described = accelerator.model_dump()
    for key, values in columns.items():
        block, _, name = key.rpartition(".")
        (described[block] if block else described)[name] = values[index].item()
    return Accelerator.model_validate(described)


def looked_up(result: dict[str, Any], key: str) -> float:
    """`energy_j.array` in the nested result."""
    here: Any = result
    for part in key.split("."):
        here = here[part]
    return float(here)


@given(machines())
@settings(max_examples=30, deadline=None)
def test_each_row_is_that_machines_own_answer(
    drawn: tuple[Accelerator, OperatorGraph, dict[str, Column]],
) -> None:
    """Cycles to the cycle, the rest up to the rounding of floating point."""
    accelerator, workload, columns = drawn
    try:
        found = answers(divisions(workload, accelerator), columns).results
    except InputError:
        with pytest.raises(InputError):
            tw.simulate(one(accelerator, columns, 0), workload, "analytic")
        return
    for index in range(POINTS):
        machine = one(accelerator, columns, index)
        own = tw.simulate(machine, workload, "analytic").to_dict() | description_figures(machine)
        assert found["cycles"][index] == own["cycles"]
        for key, values in found.items():
            assert values[index] == pytest.approx(looked_up(own, key), rel=1e-9), key


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_has_its_own_answer(name: str) -> None:
    """Whatever unit or order of attention it has: a sweep says of it what a run says."""
    accelerator = tw.load_accelerator(name)
    workload = tw.load_workload("encoder_block", ["d=128", "heads=2", "ffn=256", "seq=64"])
    columns = {"clock_mhz": np.array([accelerator.clock_mhz])}
    found = answers(divisions(workload, accelerator), columns).results
    own = tw.simulate(accelerator, workload, "analytic").to_dict() | description_figures(accelerator)
    for key, values in found.items():
        assert values[0] == pytest.approx(looked_up(own, key), rel=1e-9), key


@given(machines())
@settings(max_examples=20, deadline=None)
def test_bounds_hold_for_every_run(drawn: tuple[Accelerator, OperatorGraph, dict[str, Column]]) -> None:
    """No simulated run has fewer cycles or less energy, in any component's sum, than its bound; area is
    exact."""
    accelerator, workload, columns = drawn
    try:
        bounds = answers(divisions(workload, accelerator), columns).bounds
        runs = [tw.simulate(one(accelerator, columns, index), workload) for index in range(POINTS)]
    except InputError:
        return
    for index, run in enumerate(runs):
        result = run.to_dict()
        assert bounds["cycles"][index] <= run.cycles
        for key in ("latency_s", "energy_j.total"):
            assert bounds[key][index] <= looked_up(result, key) * (1 + 1e-12)
        assert bounds["area_mm2.total"][index] == pytest.approx(run.area_mm2["total"], rel=1e-12)


def test_which_keys_may_be_columns() -> None:
    """All on a plain machine; not the array's where attention may run fused; none on a sparse unit."""
    workload = tw.load_workload("encoder_block", ["d=16", "heads=2", "ffn=40", "seq=9"])
    assert may_be_columns(divisions(workload, tw.load_accelerator("gemmini-default"))) == COLUMNS
    fused = may_be_columns(divisions(workload, tw.load_accelerator("flat")))
    assert "array.rows" not in fused
    assert "clock_mhz" in fused
    assert may_be_columns(divisions(workload, tw.load_accelerator("sanger"))) == ()
