"""What a sweep would do, without doing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tilewright.explore.evaluation.points import Point, keys, model_version
from tilewright.explore.space.load import LoadedSpace
from tilewright.explore.sweep.methods import check_installed, points
from tilewright.explore.sweep.store import FILE, Store
from tilewright.explore.sweep.sweep import CHUNK, chunks, differences

KEPT = "are there already"
FAILED_KEPT = "failed before, and stay so without --retry-failed"
FAILED = "would run: failed before"
RULED_OUT = "would run: a constraint that no longer holds ruled them out"
CHANGED = "would run: the accelerator or a workload changed"
UPDATED = "would run: tilewright changed"
NEW = "would run: new"
SEARCHED = "would run, or are there already: the search chooses as it goes"
_REASONS = (KEPT, FAILED_KEPT, FAILED, RULED_OUT, CHANGED, UPDATED, NEW, SEARCHED)


@dataclass(frozen=True)
class Forecast:
    """What a sweep would do."""

    total: int
    chosen_as_it_goes: bool
    reasons: Mapping[str, int]
    """Points by what would become of them."""
    seconds: float | None
    """Of one core; None where nothing has run yet, or nothing is left."""
    changes: tuple[str, ...]
    """See `sweep.differences`."""


def forecast(loaded: LoadedSpace, folder: Path, *, retry_failed: bool = False) -> Forecast:
    """Go through a space's points and look each up in `folder`, which need not be there. Of the ladder, its
    first rung. Raises `InputError`."""
    check_installed(loaded.space.method)
    reasons = dict.fromkeys(_REASONS, 0)
    store = Store(folder) if (folder / FILE).is_file() else None
    fidelity = "analytic" if loaded.space.fidelity == "ladder" else loaded.space.fidelity
    if not loaded.is_known_beforehand:
        reasons[SEARCHED] = loaded.size
    elif store is None:
        reasons[NEW] = sum(1 for _ in points(loaded))
    else:
        for chunk in chunks(points(loaded), CHUNK):
            _sort(store, loaded, chunk, fidelity, retry_failed, reasons)
    changes: tuple[str, ...] = ()
    mean = None
    if store is not None:
        last, mean = store.last_space(), store.mean_seconds(fidelity)
        changes = tuple(differences(last[1], loaded)) if last else ()
        store.close()
    to_run = sum(count for reason, count in reasons.items() if reason.startswith("would run"))
    seconds = mean * to_run if mean is not None and to_run else None
    return Forecast(sum(reasons.values()), not loaded.is_known_beforehand, reasons, seconds, changes)


def _sort(
    store: Store,
    loaded: LoadedSpace,
    chunk: list[Point],
    fidelity: str,
    retry_failed: bool,
    reasons: dict[str, int],
) -> None:
    texts = [point.canonical for point in chunk]
    rules = {rule.text for rule in loaded.constraints}
    left = []
    key = keys(loaded.digest, fidelity)
    known = store.known([key(text) for text in texts])
    for text in texts:
        row = known.get(key(text))
        if row is None:
            left.append(text)
        elif row.status == "failed":
            reasons[FAILED if retry_failed else FAILED_KEPT] += 1
        else:
            reasons[KEPT if row.status == "done" or row.note in rules else RULED_OUT] += 1
    for base, model in store.circumstances():
        if left and (base, model) != (loaded.digest, model_version()):
            other = keys(base, fidelity, model)
            found = store.known([other(text) for text in left])
            reason = UPDATED if base == loaded.digest else CHANGED
            reasons[reason] += len(found)
            left = [text for text in left if other(text) not in found]
    reasons[NEW] += len(left)
