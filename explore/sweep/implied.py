"""What constraints say of a point before it is simulated.

Only points that meet the constraints can be on a front, so bounds need to hold for those alone. Bounds on
energy and time say nothing about power, their quotient, by themselves: a point may draw less than its bounds
do, if it takes longer. But one that draws less than P on average *must* take longer: its energy is what its
work takes, at least W, and static power S all the while, so that W + S t <= P t, or t >= W / (P - S).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.explore.evaluation.evaluate import BOUNDED, EXACT
from tilewright.explore.evaluation.expressions import Condition
from tilewright.explore.evaluation.points import Value

POWER = "average_power_w"
STATIC = ("peak_power_w.leakage", "peak_power_w.clock", "peak_power_w.dram_background")
"""What is drawn all the time; rows of `analytic` have them where `figures_wanted` asked for them."""
SLACK = 1e-9
"""Relative: energies are sums of many parts."""
Bounds = dict[str, object]


def figures_wanted(rules: Sequence[Condition]) -> tuple[str, ...]:
    """Keys, besides those of the rules, that rows should have for the sharpest bounds."""
    return STATIC if any(POWER in rule.keys for rule in rules) else ()


def implied(
    values: Mapping[str, Value], row: Mapping[str, object], rules: Sequence[Condition]
) -> Bounds | None:
    """A row's figures, with the bounds (`bound:<key>`) that hold for it if it meets the rules; None where it
    can't meet them."""
    figures: Bounds = dict(row)
    exact = {**values, **{key: value for key, value in row.items() if key.startswith(EXACT)}}
    limits = {key: _limit(rules, key, exact) for key in (*BOUNDED, POWER)}
    power_w = limits[POWER]
    if power_w is not None and not _stretch(figures, power_w):
        return None
    for key in BOUNDED:
        limit, bound = limits[key], figures.get(f"bound:{key}")
        if limit is None or not isinstance(bound, int | float):
            continue
        room = SLACK * abs(limit)
        if bound < limit - room if key == "tokens_per_s" else bound > limit + room:
            return None
    return figures


def _limit(rules: Sequence[Condition], key: str, exact: Mapping[str, object]) -> float | None:
    """The sharpest limit that rules set a key: from above, for tokens per second from below."""
    from_above = key != "tokens_per_s"
    found = [
        limit
        for rule in rules
        if key in rule.keys
        for limit in rule.limits(key, exact, from_above=from_above)
    ]
    return (min(found) if from_above else max(found)) if found else None


def _stretch(figures: Bounds, power_w: float) -> bool:
    """Let the bounds be those of a run that takes as long as it must to draw no more than `power_w`; whether
    any does."""
    energy, time = figures.get("bound:energy_j.total"), figures.get("bound:latency_s")
    if not isinstance(energy, int | float) or not isinstance(time, int | float) or time <= 0:
        return True
    parts = [figures.get(key) for key in STATIC]
    static_w = sum(part for part in parts if isinstance(part, int | float))
    work = energy - static_w * time - SLACK * energy
    spare_w = power_w * (1 + SLACK) - static_w
    if work <= 0:
        return True
    if spare_w <= 0:
        return False
    least = work / spare_w
    if least > time:
        figures["bound:latency_s"] = least
        figures["bound:energy_j.total"] = energy = work + static_w * least
        figures["bound:edp_js"] = energy * least
        for key, longer in (("bound:cycles", least / time), ("bound:tokens_per_s", time / least)):
            bound = figures.get(key)
            if isinstance(bound, int | float):
                figures[key] = bound * longer
    return True
