"""Why one point is better than another: time by stall cause, energy and area by component, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.description.errors import InputError
from tilewright.explore.study.points import point_figures
from tilewright.explore.study.view import POINT, StudyView, text_of, title_of
from tilewright.sim.render import component_name, state_name
from tilewright.sim.summary import BUSY

_PARTED = ("cycles", "latency_s", "stalls.", "energy_j.", "area_mm2.")


@dataclass(frozen=True, slots=True)
class Breakdown:
    """One quantity of several points, in parts that add up."""

    quantity: str
    """`latency_s`, `energy_j` or `area_mm2`."""
    names: tuple[str, ...]
    """Of the points."""
    parts: tuple[str, ...]
    """Stall causes (`busy` first) or components, largest first."""
    amounts: tuple[tuple[float, ...], ...]
    """By part, by point."""

    @property
    def totals(self) -> tuple[float, ...]:
        """By point."""
        return tuple(float(sum(column)) for column in zip(*self.amounts, strict=True))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Points beside each other."""

    names: tuple[str, ...]
    points: tuple[str, ...]
    parameters: tuple[tuple[str, tuple[str, ...]], ...]
    """Those that differ: title, by point."""
    objectives: tuple[tuple[str, tuple[str, ...]], ...]
    breakdowns: tuple[Breakdown, ...]
    """Time, energy, area; without what the study has no figures of."""
    reasons: tuple[str, ...]
    """A sentence for each quantity of each point but the first, against the first."""


def comparison(view: StudyView, rows: Sequence[int], names: Sequence[str]) -> Comparison:
    """The points of some rows; the first is what the others are held against."""
    values = [view.values(row) for row in rows]
    differing = [k for k in view.parameters if len({str(each.get(k)) for each in values}) > 1]
    figures = [_row_figures(view, row) for row in rows]
    energy_area = (_components(figures, names, quantity) for quantity in ("energy_j", "area_mm2"))
    found = (_time(figures, names), *energy_area)
    breakdowns = tuple(each for each in found if each.parts)
    return Comparison(
        names=tuple(names),
        points=tuple(str(view.frame[POINT].iloc[row]) for row in rows),
        parameters=tuple(
            (title_of(k), tuple(str(each.get(k, "none")) for each in values)) for k in differing
        ),
        objectives=tuple(
            (title_of(o.name), tuple(text_of(o.name, view.number(row, o.name)) for row in rows))
            for o in view.objectives
        ),
        breakdowns=breakdowns,
        reasons=tuple(_reason(each, place) for each in breakdowns for place in range(1, len(rows))),
    )


def _row_figures(view: StudyView, row: int) -> dict[str, float]:
    """A row's figures with all parts. Where a study keeps totals only (`analytic` points, which may be
    millions), the point is run again; where that fails, there are no parts."""
    own = {key: view.number(row, key) for key in map(str, view.frame) if key.startswith(_PARTED)}
    if any(key.startswith("stalls.") and np.isfinite(value) for key, value in own.items()):
        return own
    try:
        return point_figures(view, row)
    except InputError:
        return {}


def _time(figures: Sequence[Mapping[str, float]], names: Sequence[str]) -> Breakdown:
    """Seconds in which the array works, or waits and for what; workloads count by their weights."""
    stalls = dict.fromkeys(key for each in figures for key in each if key.startswith("stalls."))
    parts: dict[str, list[float]] = {BUSY: [], **{key.partition(".")[2]: [] for key in stalls}}
    for each in figures:
        cycles = each.get("cycles", 0.0)
        second = each.get("latency_s", 0.0) / cycles if cycles else 0.0
        waits = {key.partition(".")[2]: _known(each, key) for key in stalls}
        for state, amount in {BUSY: cycles - sum(waits.values()), **waits}.items():
            parts[state].append(amount * second)
    return _breakdown("latency_s", names, parts)


def _components(figures: Sequence[Mapping[str, float]], names: Sequence[str], quantity: str) -> Breakdown:
    start = f"{quantity}."
    keys = dict.fromkeys(key for each in figures for key in each if key.startswith(start))
    parts = {key.removeprefix(start): [_known(each, key) for each in figures] for key in keys}
    parts.pop("total", None)
    return _breakdown(quantity, names, parts)


def _known(figures: Mapping[str, float], key: str) -> float:
    value = figures.get(key, 0.0)
    return value if np.isfinite(value) else 0.0


def _breakdown(quantity: str, names: Sequence[str], parts: Mapping[str, Sequence[float]]) -> Breakdown:
    """Largest first, the working array before all; without what is nothing for every point."""
    used = [name for name, amounts in parts.items() if any(amounts)]
    used.sort(key=lambda name: (name != BUSY, -sum(parts[name])))
    return Breakdown(quantity, tuple(names), tuple(used), tuple(tuple(parts[n]) for n in used))


def _reason(breakdown: Breakdown, place: int) -> str:
    """`knee takes 1.80 times the time of fastest: weight stall +1.2 ms, busy -0.3 ms.`"""
    base, other = breakdown.totals[0], breakdown.totals[place]
    name, against = breakdown.names[place], breakdown.names[0]
    what = {"latency_s": "time", "energy_j": "energy", "area_mm2": "area"}[breakdown.quantity]
    if not base or abs(other / base - 1) < 0.005:
        return f"{name} takes the same {what} as {against}."
    parts = zip(breakdown.parts, breakdown.amounts, strict=True)
    changes = sorted(
        ((amounts[place] - amounts[0], part) for part, amounts in parts), key=lambda c: -abs(c[0])
    )
    told = [change for change in changes[:3] if abs(change[0]) >= 0.05 * abs(changes[0][0])]
    label = state_name if breakdown.quantity == "latency_s" else component_name
    listed = ", ".join(
        f"{label(part)} {'+' if amount > 0 else '-'}{_text(breakdown, abs(amount))}" for amount, part in told
    )
    return f"{name} takes {other / base:.2f} times the {what} of {against}: {listed}."


def _text(breakdown: Breakdown, amount: float) -> str:
    return text_of(breakdown.quantity, amount)
