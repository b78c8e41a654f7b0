"""What holds for every unit that predicts: its pieces add up, and the machine's laws hold with it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import Array
from tilewright.dataflows.sparse.base import Selection
from tilewright.sim.result import Result
from tilewright.workloads.pairs import Head

UNITS: dict[str, dict[str, Any]] = {
    "sanger": {"threshold": 0.05, "rows": 3, "split": 4, "predictor_macs": 16},
    "energon": {"rows": 2, "predictor_macs": 16, "selector": 2},
    "dota": {"keep": 0.3, "rank": 3, "rows": 5, "parallel": 2, "keys_per_cycle": 2, "predictor_macs": 16},
    "fact": {"keep": 0.3, "rows": 3, "predictor_adds": 8, "selector": 3},
}
KEEPS_ALL: dict[str, dict[str, Any]] = {
    "sanger": {"bits": 8, "threshold": 1e-12},
    "energon": {"alphas": [-1.0, -1.0]},
    "dota": {"keep": 1.0},
    "fact": {"keep": 1.0},
}
kinds = st.sampled_from(sorted(UNITS))


def description(kind: str, array: dict[str, Any], bandwidth: float = 8.0, cores: int = 1) -> dict[str, Any]:
    return {
        "name": "random",
        "clock_mhz": 1000,
        "cores": cores,
        "array": {"dataflow": "output_stationary", **array},
        "vector": {"lanes": 4},
        "attention_unit": {"kind": kind, **UNITS[kind]},
        "buffers": {
            "all": {"capacity_bytes": 2**16, "holds": ["input", "weight", "output"], "width_bytes": 64}
        },
        "dram": {"kind": "flat", "bytes_per_cycle": bandwidth, "latency_cycles": 7},
    }


def selected(kind: str, fields: dict[str, Any], each: Head, array: Array) -> Selection:
    accelerator = Accelerator.model_validate(
        description(kind, array.model_dump()) | {"attention_unit": {"kind": kind, **fields}}
    )
    module = import_module(f"tilewright.dataflows.sparse.{kind}")
    chosen = module.select(accelerator.attention_unit, each, accelerator.array)
    assert isinstance(chosen, Selection)
    return chosen


heads = st.builds(
    lambda seed, queries, extra, width, causal: _head(seed, queries, queries + extra, width, causal=causal),
    st.integers(0, 999),
    st.integers(1, 12),
    st.integers(0, 9),
    st.integers(1, 9),
    st.booleans(),
)
arrays = st.builds(
    lambda rows, cols, count, overlap: Array(
        rows=rows, cols=cols, count=count, dataflow="output_stationary", fold_overlap=overlap
    ),
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 2),
    st.booleans(),
)


def _head(seed: int, queries: int, keys: int, width: int, *, causal: bool) -> Head:
    rng = np.random.default_rng(seed)
    seen = np.tri(queries, keys, keys - queries, dtype=bool) if causal else np.ones((queries, keys), bool)
    return Head(rng.standard_normal((queries, width)), rng.standard_normal((keys, width)), seen)


@given(kind=kinds, each=heads, array=arrays)
@settings(max_examples=80, deadline=None)
def test_pieces_add_up(kind: str, each: Head, array: Array) -> None:
    """Pieces have all queries, all kept pairs, and their MACs for scores and context; only visible pairs are
    kept, at least one of each query; no piece's array beats its peak."""
    chosen = selected(kind, UNITS[kind], each, array)
    kept = int(chosen.kept.sum())
    assert sum(piece.queries for piece in chosen.pieces) == len(each.query)
    assert sum(piece.scores for piece in chosen.pieces) == kept
    assert sum(piece.macs for piece in chosen.pieces) == 2 * kept * each.key.shape[1]
    assert not (chosen.kept & ~each.seen).any()
    assert chosen.kept.any(axis=1).all()
    for piece in chosen.pieces:
        assert piece.array_cycles * array.macs_per_cycle >= piece.macs
        assert piece.streaming_cycles <= piece.array_cycles
        assert piece.predict_cycles > 0


@given(kind=kinds, each=heads, array=arrays)
@settings(max_examples=40, deadline=None)
def test_a_predictor_that_lets_all_through_keeps_all(kind: str, each: Head, array: Array) -> None:
    """At the ends of their parameters the units are dense: all visible pairs, all keys and values."""
    chosen = selected(kind, KEEPS_ALL[kind], each, array)
    assert np.array_equal(chosen.kept, each.seen)
    assert sum(piece.loads_values for piece in chosen.pieces) == len(each.key)


@given(
    kind=kinds,
    rows=st.integers(1, 5),
    cols=st.integers(1, 5),
    overlap=st.booleans(),
    cores=st.integers(1, 3),
    heads=st.integers(1, 3),
    seq=st.integers(1, 14),
    bandwidth=st.sampled_from([0.7, 8.0, 100.0]),
)
@settings(max_examples=30, deadline=None)
def test_laws_hold_with_a_unit(
    kind: str, rows: int, cols: int, overlap: bool, cores: int, heads: int, seq: int, bandwidth: float
) -> None:
    """The analytic answer never exceeds the simulated one, units' cycles add up to the total, and
    fast-forwarding changes nothing."""
    array = {"rows": rows, "cols": cols, "fold_overlap": overlap}
    machine = Accelerator.model_validate(description(kind, array, bandwidth, cores))
    workload = tw.load_workload("attention", [f"heads={heads}", f"seq={seq}", "head_dim=4"])
    analytic, event = (tw.simulate(machine, workload, fidelity) for fidelity in ("analytic", "event"))
    assert analytic.cycles <= event.cycles
    assert tw.simulate(machine, workload, fast_forward=False).cycles == event.cycles
    for result in (analytic, event):
        for states in result.units.values():
            assert sum(states.values()) == result.cycles
            assert min(states.values()) >= 0


def run(kind: str, *overrides: str) -> Result:
    accelerator = tw.load_accelerator(kind, list(overrides))
    return tw.simulate(accelerator, tw.load_workload("attention", ["heads=2", "seq=128"]))


@pytest.mark.parametrize(
    ("kind", "slow"),
    [
        ("sanger", "predictor_macs=64"),
        ("energon", "predictor_macs=8"),
        ("dota", "predictor_macs=4"),
        ("fact", "predictor_adds=32"),
    ],
)
def test_a_slow_predictor_is_waited_for(kind: str, slow: str) -> None:
    """A predictor of less throughput makes the preset slower, and the array waits for it."""
    fast, late = run(kind), run(kind, f"attention_unit.{slow}")
    assert late.cycles > fast.cycles
    assert late.stalls["prediction_stall"] > fast.stalls["prediction_stall"]


@pytest.mark.parametrize("kind", sorted(UNITS))
def test_the_unit_pays_off_where_little_matters(kind: str) -> None:
    """At 512 tokens, on the score model, each preset is faster with its unit than dense, fused or not."""
    workload = tw.load_workload("attention", ["heads=2", "seq=512"])
    without = ["attention_unit=null", "mapper.attention=[unfused, flash]"]
    sparse = tw.simulate(tw.load_accelerator(kind), workload)
    dense = tw.simulate(tw.load_accelerator(kind, without), workload)
    assert sparse.cycles < dense.cycles


@pytest.mark.parametrize("kind", sorted(UNITS))
def test_prediction_is_charged(kind: str) -> None:
    """Prediction takes energy and keeps its unit busy; a predictor of multipliers takes area as well."""
    result = run(kind)
    assert result.energy_j["predictor"] > 0
    assert result.units["predictor"]["busy"] > 0
    assert (result.area_mm2.get("predictor", 0) > 0) == (kind != "fact")
