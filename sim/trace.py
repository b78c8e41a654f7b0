"""A result as a Chrome trace (JSON), which https://ui.perfetto.dev and chrome://tracing open.

Format: "Trace Event Format", Google (the `X`, `C` and `M` events). Its time unit is the microsecond; here one
microsecond stands for one cycle.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tilewright.sim.result import CounterSample, Result, Slice

SLICES_PER_RESOURCE = 100_000
"""A trace viewer takes this many without trouble; what is beyond is left out, and the file says so."""
OPERATORS = "operators"
_PID = 1
_Item = TypeVar("_Item", Slice, CounterSample)


def write_trace(result: Result, path: str | Path, limit: int = SLICES_PER_RESOURCE) -> None:
    """Write `result` to `path`, one track per resource and one for the operators.

    The same result gives the same bytes. `limit` caps the slices of each resource and the samples of each
    counter; `otherData.left_out` says what was beyond it. A run without `trace=True` has only operators.
    """
    left_out: dict[str, str] = {}
    events = list(_events(result, limit, left_out))
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"displayTimeUnit":"ns",\n"otherData":')
        file.write(_compact(_other_data(result, left_out)))
        file.write(',\n"traceEvents":[\n')
        file.write(",\n".join(map(_compact, events)))
        file.write("\n]}\n")


def tracks(slices: Iterable[Slice]) -> list[list[Slice]]:
    """`slices` of one resource dealt out so that no two on a track overlap, on as few tracks as possible.

    Empty slices are dropped. A resource that does one thing at a time fills one track.
    """
    lanes: list[list[Slice]] = []
    for piece in sorted(slices, key=lambda s: (s.start, -s.end)):
        if piece.end <= piece.start:
            continue
        free = next((lane for lane in lanes if lane[-1].end <= piece.start), None)
        if free is None:
            lanes.append([piece])
        else:
            free.append(piece)
    return lanes


def _events(result: Result, limit: int, left_out: dict[str, str]) -> Iterator[dict[str, object]]:
    yield _metadata("process_name", 0, "name", f"{result.workload} on {result.accelerator}")
    tid = 0
    for resource, slices in _by_resource(result).items():
        kept = _capped(sorted(slices, key=lambda s: s.start), resource, limit, left_out)
        for lane_number, lane in enumerate(tracks(kept)):
            tid += 1
            number = f" ({lane_number + 1})" if lane_number else ""
            yield _metadata("thread_name", tid, "name", resource + number)
            yield _metadata("thread_sort_index", tid, "sort_index", tid)
            for piece in lane:
                yield _slice_event(piece, tid)
    for counter, samples in _by_counter([*result.counters, *energy_counters(result)]).items():
        for sample in _capped(samples, counter, limit, left_out):
            yield {
                "name": counter, "ph": "C", "pid": _PID, "ts": sample.time, "args": {"value": sample.value},
            }  # fmt: skip


def _by_resource(result: Result) -> dict[str, list[Slice]]:
    """Slices by resource in order of appearance, operators first."""
    groups: dict[str, list[Slice]] = {
        OPERATORS: [Slice(OPERATORS, row.name, row.start, row.end) for row in result.operators]
    }
    if any(piece.resource == OPERATORS for piece in result.slices):
        groups[OPERATORS] = []
    for piece in result.slices:
        groups.setdefault(piece.resource, []).append(piece)
    return groups


def energy_counters(result: Result) -> list[CounterSample]:
    """Power in W, and the energy in J since the start, a sample wherever an operator starts or ends.

    An operator's energy is spread evenly from its start to its end; one without a length adds its energy at
    once. Energy is a straight line between two samples.
    """
    steps: dict[int, list[float]] = {}
    """By time: change of power in pJ per cycle, operators that start less those that end, energy at once."""
    for row in result.operators:
        energy, length = row.energy_pj.get("total", 0.0), row.end - row.start
        rate = energy / length if length else 0.0
        for time, sign in ((row.start, 1), (row.end, -1)):
            step = steps.setdefault(time, [0.0, 0, 0.0])
            step[0] += sign * rate
            step[1] += sign
        steps[row.end][2] += 0.0 if length else energy
    watts = result.clock_mhz * 1e-6
    samples: list[CounterSample] = []
    rate, running, energy, last = 0.0, 0.0, 0.0, 0
    for time, (change, count, at_once) in sorted(steps.items()):
        energy += rate * (time - last) + at_once
        running += count
        rate = rate + change if running else 0.0  # exactly nothing where nothing runs
        last = time
        samples.append(CounterSample("power (W)", time, rate * watts))
        samples.append(CounterSample("energy (J)", time, energy * 1e-12))
    return samples


def _by_counter(samples: Iterable[CounterSample]) -> dict[str, list[CounterSample]]:
    groups: dict[str, list[CounterSample]] = {}
    for sample in samples:
        groups.setdefault(sample.counter, []).append(sample)
    return groups


def _capped(items: Sequence[_Item], name: str, limit: int, left_out: dict[str, str]) -> Sequence[_Item]:
    if len(items) > limit:
        left_out[name] = f"the last {len(items) - limit:,} of {len(items):,}"
    return items[:limit]


def _slice_event(piece: Slice, tid: int) -> dict[str, object]:
    name = piece.name if piece.count == 1 else f"{piece.name} x {piece.count} identical (fast-forwarded)"
    return {
        "name": name, "ph": "X", "pid": _PID, "tid": tid, "ts": piece.start, "dur": piece.end - piece.start,
    }  # fmt: skip


def _metadata(kind: str, tid: int, key: str, value: str | int) -> dict[str, object]:
    return {"name": kind, "ph": "M", "pid": _PID, "tid": tid, "args": {key: value}}


def _other_data(result: Result, left_out: dict[str, str]) -> dict[str, object]:
    return {
        "time_unit": f"1 us in this file = 1 cycle at {result.clock_mhz:g} MHz",
        "accelerator": result.accelerator,
        "workload": result.workload,
        "fidelity": result.fidelity,
        "cycles": result.cycles,
        "macs": result.macs,
        "useful_macs": result.useful_macs,
        "left_out": left_out,
    }


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
