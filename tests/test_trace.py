"""The Perfetto trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.sim.result import CounterSample, Result, Slice
from tilewright.sim.trace import energy_counters, tracks, write_trace


def _written(result: Result, path: Path, limit: int = 100_000) -> dict[str, Any]:
    write_trace(result, path, limit)
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def _tracks(data: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The slices of each track, by the track's name."""
    names = {e["tid"]: e["args"]["name"] for e in data["traceEvents"] if e["name"] == "thread_name"}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names.values()}
    for event in data["traceEvents"]:
        if event["ph"] == "X":
            found[names[event["tid"]]].append(event)
    return found


def test_a_track_for_each_resource_holds_its_busy_cycles(
    result_of: Callable[..., Result], tmp_path: Path
) -> None:
    """The busy time of a track is what the result says of the unit, and one us is one cycle."""
    result = result_of(traced=True)
    data = _written(result, tmp_path / "t.json")
    found = _tracks(data)
    assert set(found) == {"operators", "operators (2)", "array", "vector", "dram"}
    for unit in ("array", "vector", "dram"):
        assert sum(event["dur"] for event in found[unit]) == result.units[unit]["busy"]
    assert sum(len(found[name]) for name in ("operators", "operators (2)")) == len(result.operators)
    assert data["otherData"]["time_unit"] == "1 us in this file = 1 cycle at 500 MHz"
    assert data["otherData"]["left_out"] == {}


def test_slices_on_a_track_never_overlap(result_of: Callable[..., Result], tmp_path: Path) -> None:
    """Operators that overlap in time, as with prefetching, stand on a second track."""
    for events in _tracks(_written(result_of(traced=True), tmp_path / "t.json")).values():
        assert events
        for first, second in pairwise(events):
            assert first["ts"] + first["dur"] <= second["ts"]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20))))
def test_tracks_hold_every_slice_once_on_as_few_tracks_as_possible(spans: list[tuple[int, int]]) -> None:
    """As many tracks as slices that run at one instant at most; empty slices are dropped."""
    slices = [Slice("r", str(i), start, start + length) for i, (start, length) in enumerate(spans)]
    lanes = tracks(slices)
    kept = [piece for piece in slices if piece.end > piece.start]
    assert sorted(p.name for lane in lanes for p in lane) == sorted(p.name for p in kept)
    for lane in lanes:
        assert all(first.end <= second.start for first, second in pairwise(lane))
    assert len(lanes) == max((sum(p.start <= t < p.end for p in kept) for t in range(71)), default=0)


def test_power_over_time_is_the_energy(result: Result) -> None:
    """The area under the power counter is the energy counter at each sample, and the run's in the end."""
    samples = energy_counters(result)
    power = [sample for sample in samples if sample.counter == "power (W)"]
    energy = [sample for sample in samples if sample.counter == "energy (J)"]
    assert [sample.time for sample in power] == [sample.time for sample in energy]
    assert len({sample.time for sample in power}) == len(power)
    under = 0.0
    for now, after, so_far in zip(power, power[1:], energy[1:], strict=False):
        under += now.value * (after.time - now.time) / (result.clock_mhz * 1e6)
        assert so_far.value == pytest.approx(under)
    assert energy[-1].value == pytest.approx(result.energy_j["total"])
    assert (power[-1].time, power[-1].value) == (result.cycles, 0.0)


def test_power_of_two_operators_at_once_is_their_sum(result: Result) -> None:
    """1 pJ a cycle at 500 MHz is 0.5 mW; an operator of no length adds its energy at once."""
    rows = [
        replace(result.operators[0], start=start, end=end, energy_pj={"total": energy})
        for start, end, energy in ((0, 100, 100.0), (50, 100, 200.0), (100, 100, 7.0))
    ]
    samples = energy_counters(replace(result, operators=tuple(rows)))
    values = {(sample.counter, sample.time): sample.value for sample in samples}
    assert values == pytest.approx(
        {
            ("power (W)", 0): 0.5e-3, ("power (W)", 50): 2.5e-3, ("power (W)", 100): 0.0,
            ("energy (J)", 0): 0.0, ("energy (J)", 50): 50e-12, ("energy (J)", 100): 307e-12,
        }
    )  # fmt: skip


def test_counters_and_the_process_name_are_there(result_of: Callable[..., Result], tmp_path: Path) -> None:
    """Each sample is a `C` event at its cycle."""
    events = _written(result_of(traced=True), tmp_path / "t.json")["traceEvents"]
    assert [(e["ts"], e["args"]) for e in events if e["name"] == "scratchpad bytes"] == [
        (0, {"value": 0}),
        (150, {"value": 4096}),
    ]
    assert events[0]["args"] == {"name": "toy-bert on toy"}


def test_fast_forwarded_slices_say_so(result: Result, tmp_path: Path) -> None:
    """A slice that stands for many says how many."""
    traced = replace(result, slices=(Slice("array", "fold", 0, 640, 64), Slice("array", "fold", 640, 650)))
    names = [event["name"] for event in _tracks(_written(traced, tmp_path / "t.json"))["array"]]
    assert names == ["fold x 64 identical (fast-forwarded)", "fold"]


def test_what_is_beyond_the_limit_is_left_out_and_told(result: Result, tmp_path: Path) -> None:
    """The first slices in time stay, whatever order they came in; the file says what is missing."""
    slices = tuple(Slice("array", str(i), i, i + 1) for i in reversed(range(5000)))
    counters = tuple(CounterSample("bytes", i, i) for i in range(1001))
    run = replace(result, slices=slices, counters=counters)
    data = _written(run, tmp_path / "t.json", limit=1000)
    assert [event["ts"] for event in _tracks(data)["array"]] == list(range(1000))
    assert data["otherData"]["left_out"] == {
        "array": "the last 4,000 of 5,000",
        "bytes": "the last 1 of 1,001",
    }


def test_the_same_result_gives_the_same_bytes(result_of: Callable[..., Result], tmp_path: Path) -> None:
    """No clock, no hash order."""
    for name in ("a.json", "b.json"):
        write_trace(result_of(traced=True), tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_run_without_a_trace_still_shows_its_operators(result: Result, tmp_path: Path) -> None:
    """`analytic` records no slices, but knows when its operators ran."""
    found = _tracks(_written(result, tmp_path / "t.json"))
    assert set(found) == {"operators", "operators (2)"}
