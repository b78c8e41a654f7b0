"""Rows at `analytic`: batched or alone, they are what a single run says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.explore.evaluation.batch import analytic_outcomes
from tilewright.explore.evaluation.evaluate import Base, BaseWorkload, evaluate_chunk
from tilewright.explore.evaluation.points import Point, Value, model_version

LAYER = BaseWorkload("layer", "encoder_block", ("workload.d=32", "workload.heads=2", "workload.seq=16"), 1.0)
TINY = BaseWorkload("tiny", "gemm", ("workload.m=40", "workload.k=24", "workload.n=56"), 2.0)


def base(accelerator: str = "gemmini-default", *, early: tuple[str, ...] = ()) -> Base:
    return Base(accelerator, (LAYER,), early, ("latency_s", "energy_j.dram", "area_mm2.total"))


def points(**axes: list[object]) -> list[Point]:
    """Equally long axes, a point per place; `__` stands for a dot."""
    keys = [key.replace("__", ".") for key in axes]
    return [Point(tuple(zip(keys, values, strict=True))) for values in zip(*axes.values(), strict=True)]


SOME = points(
    arch__array__rows=[4, 8, 16, 4],
    arch__clock_mhz=[500, 700.5, 500, 100],
    arch__buffers__scratchpad__capacity_bytes=[65536, 65536, 8192, 8192],
    workload__ffn=[64, 64, 64, 128],
)


@pytest.mark.parametrize("accelerator", ["gemmini-default", "flat", "sanger"])
def test_rows_are_single_runs(accelerator: str) -> None:
    """Also where points share nothing, where attention may run fused, and on a sparse unit."""
    chosen = points(
        arch__array__rows=[4, 8, 16, 4],
        arch__clock_mhz=[500, 700.5, 500, 100],
        workload__ffn=[64, 64, 64, 128],
    )
    for point, outcome in zip(chosen, analytic_outcomes(base(accelerator), chosen), strict=True):
        machine = tw.load_accelerator(accelerator, point.overrides("arch"))
        own = tw.simulate(
            machine,
            tw.load_workload("encoder_block", [*LAYER.overrides, *point.overrides("workload")]),
            "analytic",
        )
        assert outcome.row is not None, outcome.note
        assert outcome.row["cycles"] == own.cycles
        assert outcome.row["latency_s"] == pytest.approx(own.latency_s)
        assert outcome.row["energy_j.total"] == pytest.approx(own.energy_j["total"])
        assert outcome.row["energy_j.dram"] == pytest.approx(own.energy_j["dram"])
        assert outcome.row["area_mm2.total"] == pytest.approx(own.area_mm2["total"])


def test_chunks_do_not_matter() -> None:
    """All points at once give the rows that each gives by itself."""
    together = analytic_outcomes(base(), SOME)
    alone = [analytic_outcomes(base(), [point])[0] for point in SOME]
    assert [each.row for each in together] == [each.row for each in alone]


MIXED: dict[str, list[Value]] = {
    "arch.array.rows": [4, 8, 0, 16],
    "arch.array.cols": [4, 16],
    "arch.clock_mhz": [500, 700.5, -1],
    "arch.dram.bytes_per_cycle": [4, 16.5],
    "arch.array.dataflow": ["weight_stationary", "output_stationary", "no_such"],
    "arch.buffers.scratchpad.capacity_bytes": [16, 8192, 65536],
    "arch.array.count": [1, 2],
    "workload.seq": [16, 24],
    "workload.attention.kind": ["dense", "linformer"],
}


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={k: st.sampled_from(v) for k, v in MIXED.items()}), max_size=12
    )
)
@settings(max_examples=25, deadline=None)
def test_scattered_points_do_not_matter(chosen: list[dict[str, Value]]) -> None:
    """Points that share little, lack keys, can't be read or have no room for a tile: each is as if alone,
    to the bit."""
    some = [Point(tuple((key, each[key]) for key in MIXED if key in each)) for each in chosen]
    limit = base(early=("area_mm2.total < 0.7", "arch.array.rows < 16"))
    together = analytic_outcomes(limit, some)
    alone = [analytic_outcomes(limit, [point])[0] for point in some]
    found, expected = ([(each.status, each.row, each.note) for each in all_] for all_ in (together, alone))
    assert found == expected


def test_a_point_fails_for_itself() -> None:
    """Values that the description refuses, and buffers too small for any tile, are that point's failure."""
    chosen = points(
        arch__array__rows=[0, 8, 8],
        arch__buffers__scratchpad__capacity_bytes=[65536, 65536, 16],
        workload__ffn=[64] * 3,
    )
    outcomes = analytic_outcomes(base(), chosen)
    assert [each.status for each in outcomes] == ["failed", "done", "failed"]
    assert "array.rows" in outcomes[0].note
    assert "no tile" in outcomes[2].note


def test_early_conditions_prune() -> None:
    """What the accelerator alone rules out says which condition did."""
    outcomes = evaluate_chunk(
        base(early=("arch.array.rows * 2 <= 16",)), SOME[:3], "analytic", model_version()
    )
    assert [each.status for each in outcomes] == ["done", "done", "pruned"]
    assert outcomes[2].note == "arch.array.rows * 2 <= 16"


def test_several_workloads_add_up() -> None:
    """Weighted by how often each runs."""
    both = Base("gemmini-default", (LAYER, TINY), (), ())
    row = analytic_outcomes(both, points(arch__clock_mhz=[800]))[0].row
    assert row is not None
    machine = tw.load_accelerator("gemmini-default", ["clock_mhz=800"])
    layer = tw.simulate(machine, tw.load_workload(LAYER.workload, LAYER.overrides), "analytic").cycles
    tiny = tw.simulate(machine, tw.load_workload(TINY.workload, TINY.overrides), "analytic").cycles
    assert row["cycles"] == layer + 2 * tiny
    assert row["layer:cycles"] == layer


def test_rows_are_plain_numbers() -> None:
    """What the store can write as JSON."""
    row = analytic_outcomes(base(), SOME[:1])[0].row
    assert row is not None
    assert all(type(value) in (int, float) for value in row.values())
