"""What the report's figures show, as plain data; `figures` draws it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from tilewright.sim.result import OperatorRow, Result
from tilewright.sim.summary import BUSY, operator_groups

RESOLUTION = 800
"""Bars and bins across a figure: about one for every pixel column of a wide page."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of the timeline: an operator, or neighbours that would share a pixel."""

    kind: str
    start: int
    end: int
    name: str
    count: int
    running_cycles: int
    """Lengths of its operators, added up; less than its own where it spans gaps."""


@dataclass(frozen=True, slots=True)
class TimelineData:
    """Operators over time, a row per kind."""

    total_cycles: int
    kinds: tuple[str, ...]
    """In order of first appearance."""
    bars: tuple[Bar, ...]
    """At most `2 * RESOLUTION + 1` per kind."""


def timeline_data(result: Result) -> TimelineData:
    """Every operator with a length; neighbours of a kind that fit in 1/RESOLUTION of the run are one bar."""
    timed = [row for row in result.operators if row.end > row.start]
    kinds = tuple(dict.fromkeys(row.kind for row in timed))
    pixel = result.cycles / RESOLUTION
    bars = [bar for kind in kinds for bar in _joined([row for row in timed if row.kind == kind], pixel)]
    return TimelineData(result.cycles, kinds, tuple(bars))


def _joined(rows: Iterable[OperatorRow], pixel: float) -> list[Bar]:
    bars: list[Bar] = []
    for row in sorted(rows, key=lambda r: r.start):
        last = bars[-1] if bars else None
        length = row.end - row.start
        if last and max(row.end, last.end) - last.start <= pixel:
            name = f"{last.name.partition(' … ')[0]} … {row.name}"
            end, running = max(row.end, last.end), last.running_cycles + length
            bars[-1] = Bar(row.kind, last.start, end, name, last.count + 1, running)
        else:
            bars.append(Bar(row.kind, row.start, row.end, row.name, 1, length))
    return bars


@dataclass(frozen=True, slots=True)
class UtilizationData:
    """Shares of each time bin, 0 to 1; all have the same length but `edges`, which has one more."""

    edges: tuple[float, ...]
    """In cycles, from 0 to the end of the run."""
    array: tuple[float, ...]
    """Peak MACs that were useful."""
    vector: tuple[float, ...]
    dram: tuple[float, ...]
    average: float
    """Useful MACs over peak MACs of the whole run."""


def utilization_data(result: Result, bins: int = 240) -> UtilizationData:
    """How much of the array's peak, and of the vector unit's and the DRAM's time, is used as time goes by.

    An operator's work is spread evenly over the time it has for itself: from the end of the operator before
    it to its own end, or longer where its work does not fit in there.
    """
    bins = max(1, min(bins, result.cycles))
    peak = max(1, result.peak_macs_per_cycle)
    edges = np.linspace(0, max(1, result.cycles), bins + 1)
    rows = result.operators
    return UtilizationData(
        edges=tuple(edges.tolist()),
        array=_spread(rows, [row.useful_macs / peak for row in rows], edges),
        vector=_spread(rows, [row.vector_busy_cycles for row in rows], edges),
        dram=_spread(rows, [row.dram_busy_cycles for row in rows], edges),
        average=result.utilization,
    )


def _spread(rows: Sequence[OperatorRow], amounts: Sequence[float], edges: np.ndarray) -> tuple[float, ...]:
    """Each operator's amount of busy cycles, spread over its window, as a share of each bin. What is fused
    into another one shares that one's window."""
    windows: list[tuple[float, float, float]] = []
    whole = dict.fromkeys((row.name for row in rows), 0.0)
    for row, amount in zip(rows, amounts, strict=True):
        whole[row.fused_into if row.fused_into in whole else row.name] += amount
    previous_end = 0.0
    for row in rows:
        amount = whole[row.name]
        start = max(0.0, min(max(row.start, previous_end), row.end - amount))
        previous_end = max(previous_end, row.end)
        if amount > 0 and row.end > start:
            windows.append((start, row.end, amount))
    busy = np.zeros(len(edges) - 1)
    for start, end, amount in windows:
        first, last = np.searchsorted(edges, (start, end), side="right") - 1
        last = min(int(last), len(busy) - 1)
        part = slice(int(first), last + 1)
        overlap = np.minimum(edges[part.start + 1 : last + 2], end) - np.maximum(edges[part], start)
        busy[part] += amount * np.maximum(overlap, 0.0) / (end - start)
    return tuple(np.minimum(busy / np.diff(edges), 1.0).tolist())


@dataclass(frozen=True, slots=True)
class StallData:
    """What each unit did with the run's cycles."""

    units: tuple[str, ...]
    states: tuple[str, ...]
    """`busy` first, then the stall causes, the commonest over all units first."""
    shares: Mapping[str, tuple[float, ...]]
    """By state: its share of all cycles for each of `units`; a unit's shares add up to 1."""
    cycles: Mapping[str, tuple[int, ...]]


def stall_data(result: Result) -> StallData:
    """Busy cycles and stall causes of every unit."""
    units = tuple(result.units)
    totals: dict[str, int] = {BUSY: 0}
    for states in result.units.values():
        for state, amount in states.items():
            totals[state] = totals.get(state, 0) + amount
    causes = sorted((s for s in totals if s != BUSY and totals[s]), key=lambda s: -totals[s])
    ordered = (BUSY, *causes)
    cycles = {state: tuple(result.units[unit].get(state, 0) for unit in units) for state in ordered}
    whole = max(1, result.cycles)
    shares = {state: tuple(part / whole for part in cycles[state]) for state in ordered}
    return StallData(units, ordered, shares, cycles)


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A group of operators under the roofs."""

    label: str
    kind: str
    macs_per_dram_byte: float | None
    """None where nothing came from or went to the DRAM."""
    macs_per_cycle: float
    share: float
    """Of all cycles."""


@dataclass(frozen=True, slots=True)
class RooflineData:
    """Operators with MACs, under the array's and the DRAM's peak."""

    points: tuple[RooflinePoint, ...]
    peak_macs_per_cycle: int
    peak_dram_bytes_per_cycle: float | None

    def roof(self, macs_per_dram_byte: float) -> float:
        """The most MACs per cycle that the machine can reach at this intensity."""
        if self.peak_dram_bytes_per_cycle is None:
            return float(self.peak_macs_per_cycle)
        return min(self.peak_macs_per_cycle, macs_per_dram_byte * self.peak_dram_bytes_per_cycle)


def roofline_data(result: Result) -> RooflineData:
    """Intensity against speed, a point per operator group (Williams et al., CACM 52(4), 2009).

    Speed is MACs (useful or not) over the group's own time (`OperatorGroup.own_cycles`), so that a point
    never lies above its roof because a neighbour hid part of its time. Matmuls that are fused are one point.
    """
    groups = [g for g in operator_groups(_whole(result.operators), result.cycles) if g.macs and g.own_cycles]
    points = tuple(
        RooflinePoint(
            label=group.label,
            kind=group.kind,
            macs_per_dram_byte=group.macs / group.dram_bytes if group.dram_bytes else None,
            macs_per_cycle=group.macs / group.own_cycles,
            share=group.share,
        )
        for group in groups
    )
    return RooflineData(points, result.peak_macs_per_cycle, result.peak_dram_bytes_per_cycle)


def _whole(rows: Sequence[OperatorRow]) -> list[OperatorRow]:
    """Matmuls that are fused into others added to them."""
    macs: dict[str, int] = {}
    for row in rows:
        name = row.fused_into or row.name
        macs[name] = macs.get(name, 0) + row.macs
    return [replace(row, macs=macs[row.name]) for row in rows if not row.fused_into]


@dataclass(frozen=True, slots=True)
class TrafficData:
    """Bytes read and written, for each memory."""

    memories: tuple[str, ...]
    read_bytes: tuple[int, ...]
    write_bytes: tuple[int, ...]


def traffic_data(result: Result) -> TrafficData:
    """The traffic of each memory, in the result's order."""
    return TrafficData(
        tuple(result.traffic_bytes),
        tuple(moved.read for moved in result.traffic_bytes.values()),
        tuple(moved.write for moved in result.traffic_bytes.values()),
    )


@dataclass(frozen=True, slots=True)
class KindData:
    """Cycles that the operators of each kind add to the run, most first."""

    kinds: tuple[str, ...]
    cycles: tuple[int, ...]
    counts: tuple[int, ...]
    """Operators of the kind."""
    total_cycles: int


def kind_data(result: Result) -> KindData:
    """Time by operator kind; adds up to the cycles of the run."""
    by_kind = {
        kind: list(rows)
        for kind, rows in groupby(sorted(result.operators, key=lambda r: r.kind), key=lambda r: r.kind)
    }
    cycles = {kind: sum(row.cycles for row in rows) for kind, rows in by_kind.items()}
    kinds = sorted(by_kind, key=lambda kind: -cycles[kind])
    return KindData(
        tuple(kinds),
        tuple(cycles[kind] for kind in kinds),
        tuple(len(by_kind[kind]) for kind in kinds),
        result.cycles,
    )
