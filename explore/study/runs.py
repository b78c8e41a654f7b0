"""Points run in full, kept in their study: a row has totals, a page wants to know when each operator ran."""

from __future__ import annotations

import json
from collections.abc import Callable

from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import Base, BaseWorkload
from tilewright.explore.evaluation.points import Axis, Point, Value, keys
from tilewright.explore.space.content import base_digest
from tilewright.explore.study.points import point_result, point_workload
from tilewright.explore.study.view import POINT, StudyView, StudyWorkload
from tilewright.explore.sweep.store import Store
from tilewright.sim.result import Result

Tell = Callable[[str], None]
"""Hears what is about to be done."""


def kept_result(view: StudyView, row: int, workload: StudyWorkload, tell: Tell = lambda _: None) -> Result:
    """As `point_result`; in a study with a folder each point is run once, and what came of it is kept."""
    told = f"running point {view.frame[POINT].iloc[row]} for its timeline"
    if view.folder is None:
        tell(told)
        return point_result(view, row, workload)
    from tilewright.sim.saved import load_result

    key = _key(view, row, workload)
    with Store(view.folder) as store:
        kept = store.run(key)
    if kept is not None:
        return load_result(kept, str(view.folder))
    tell(told)
    result = point_result(view, row, workload)
    try:
        with Store(view.folder) as store:
            store.keep_run(key, json.dumps(result.to_dict(), separators=(",", ":")))
    except InputError:  # a study that may only be read
        pass
    return result


def _key(view: StudyView, row: int, workload: StudyWorkload) -> bytes:
    """Of all that the run depends on, as a sweep's own keys: also of what files hold that are named."""
    own = point_workload(view, row, workload)
    base = Base(view.accelerator, (BaseWorkload(own.label, own.workload, own.overrides, 1.0),))
    values: list[tuple[str, Value]] = [(key, str(value)) for key, value in view.values(row).items()]
    digest = base_digest(base, [Axis(key, (value,)) for key, value in values])
    return keys(digest, f"{view.frame['fidelity'].iloc[row]} run")(Point(tuple(values)).canonical)
