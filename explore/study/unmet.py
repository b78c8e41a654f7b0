"""Which constraints leave a study without a front."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice
from operator import attrgetter

from tilewright.explore.evaluation.evaluate import EXACT
from tilewright.explore.evaluation.expressions import Condition
from tilewright.explore.space.draws import shuffled_points
from tilewright.explore.space.load import LoadedSpace
from tilewright.explore.sweep.implied import implied
from tilewright.explore.sweep.store import Kept

LOOKED_AT = 100_000
"""Points of a space that are tried, at most, for a constraint on its keys."""


def unmet(loaded: LoadedSpace, rows: Iterator[Kept]) -> list[str]:
    """Texts of constraints that some points break and none is known to meet. `rows`: those of the space, by
    number."""
    left = {rule.text: rule for rule in loaded.constraints}
    broken = set[str]()
    for _, same in groupby(rows, attrgetter("number")):
        kept = [*same][-1]
        if kept.status == "pruned":
            broken.add(kept.note)
        elif kept.row is not None:
            met = {text for text, rule in left.items() if _may_meet(loaded, kept, rule)}
            broken |= left.keys() - met
            left = {text: rule for text, rule in left.items() if text not in met}
    return [text for text in left if text in broken] + _of_keys(loaded)


def _may_meet(loaded: LoadedSpace, kept: Kept, rule: Condition) -> bool:
    figures = {**kept.values, **(kept.row or {})}
    if loaded.space.fidelity == "ladder" and kept.fidelity == "analytic":
        exact = all(key in kept.values or key.startswith(EXACT) for key in rule.keys)
        if not exact:  # bounds
            return implied(kept.values, kept.row or {}, [rule]) is not None
    return rule.keys <= figures.keys() and bool(rule.holds(figures))


def _of_keys(loaded: LoadedSpace) -> list[str]:
    """Of the constraints on parameters, which decide what a point of the space is."""
    named = {axis.key for axis in loaded.axes}
    left = [rule for rule in loaded.constraints if rule.keys <= named]
    if not left:
        return []
    for point in islice(shuffled_points(loaded.axes, loaded.space.seed), LOOKED_AT):
        values = dict(point.values)
        left = [rule for rule in left if rule.keys <= values.keys() and not rule.holds(values)]
    return [rule.text for rule in left]
