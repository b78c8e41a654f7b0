"""Shipped machines beside a study's front: the same work, at the same fidelity, each run once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import load_accelerator, preset_names
from tilewright.dataflows.memory import peak_bytes_per_cycle
from tilewright.description.errors import InputError
from tilewright.explore.evaluation.evaluate import Base, BaseWorkload, Fidelity, Outcome, evaluate_chunk
from tilewright.explore.evaluation.points import WORKLOAD, Point, keys, model_version
from tilewright.explore.space.content import base_digest
from tilewright.explore.study.points import point_accelerator, point_workload
from tilewright.explore.study.runs import Tell
from tilewright.explore.study.view import StudyView
from tilewright.explore.sweep.pareto import nearest
from tilewright.explore.sweep.store import NO_SPACE, Store

NUMBER = 5
"""Machines that are shown."""
_UNLIMITED = 1e15
_NOWHERE = Point(())


@dataclass(frozen=True)
class Presets:
    """What is known of the machines nearest to a front."""

    figures: Mapping[str, Mapping[str, float]]
    """Result keys of those that can run the work, nearest first."""
    refused: Mapping[str, str]
    """Nearer ones that can't, and why."""
    missing: bool
    """Whether some have not been run yet."""
    work: str = ""
    """What they run, in words, where points run different work; empty where all run the same."""


def find_presets(
    view: StudyView, number: int = NUMBER, *, run: bool = True, tell: Tell = lambda _: None
) -> Presets:
    """The `number` shipped machines most like the knee's, by peak MACs per second, memory bandwidth and
    buffers, of those that can run the knee's work. Results are kept in the study's folder, where there is
    one; without `run`, only those that are there already are found. `tell` is called before each run.
    """
    figures: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    work = knee_work(view)
    own = {} if view.knee is None else _numbers(view.values(view.knee), f"{WORKLOAD}.")
    for name in nearest_presets(view):
        if len(figures) == number:
            break
        outcome = _kept(view, work, name)
        if outcome is None and run:
            tell(f"running shipped machines beside the front: {name} ({len(figures) + 1} of {number})")
            outcome = _run(view, work, name)
        if outcome is None:
            return Presets(figures, refused, missing=True, work=_in_words(view))
        if outcome.row is None:
            refused[name] = outcome.note
        else:
            figures[name] = own | _numbers(outcome.row)
    return Presets(figures, refused, missing=False, work=_in_words(view))


def _numbers(row: Mapping[str, object], start: str = "") -> dict[str, float]:
    return {
        key: value for key, value in row.items() if isinstance(value, int | float) and key.startswith(start)
    }


def nearest_presets(view: StudyView) -> list[str]:
    """All shipped machines, that most like the knee's first; none without a knee."""
    if view.knee is None or not view.workloads:
        return []
    sizes = _sizes()
    own = _size(point_accelerator(view, view.knee))
    order = nearest(own, list(sizes.values()), len(sizes))
    return [list(sizes)[place] for place in order]


@cache
def _sizes() -> dict[str, tuple[float, float, float]]:
    return {name: _size(load_accelerator(name)) for name in preset_names()}


def _size(machine: Accelerator) -> tuple[float, float, float]:
    """Peak MACs/s, memory bytes/s, bytes on chip: how large a machine is. What is ideal, and so unlimited,
    counts as very large: it is like other ideal ones only."""
    clock_hz = machine.clock_mhz * 1e6
    bandwidth = min(peak_bytes_per_cycle(machine.dram, machine.clock_mhz), _UNLIMITED)
    capacity = machine.cores * sum(buffer.capacity_bytes for buffer in machine.buffers.values())
    return machine.macs_per_cycle * clock_hz, bandwidth * clock_hz, float(capacity or _UNLIMITED)


def knee_work(view: StudyView) -> tuple[BaseWorkload, ...]:
    """What the knee runs, and what machines are compared on: a study may run other work at other points."""
    if view.knee is None:
        return ()
    own = (point_workload(view, view.knee, each) for each in view.workloads)
    return tuple(BaseWorkload(each.label, each.workload, each.overrides, each.weight) for each in own)


def _in_words(view: StudyView) -> str:
    """The parameters of the knee that say what work it does: `workload=deit-tiny, workload.seq=128`."""
    values = {} if view.knee is None else view.values(view.knee)
    own = {key: value for key, value in values.items() if key.partition(".")[0] == WORKLOAD}
    return ", ".join(f"{key}={value}" for key, value in own.items())


def _base(view: StudyView, work: tuple[BaseWorkload, ...], name: str) -> Base:
    return Base(name, work, figures=tuple(sorted(each.name for each in view.objectives)))


def _fidelity(view: StudyView) -> Fidelity:
    return "analytic" if view.fidelity == "analytic" else "event"


def _key(view: StudyView, base: Base) -> bytes:
    return keys(base_digest(base, ()), _fidelity(view))(_NOWHERE.canonical)


def _kept(view: StudyView, work: tuple[BaseWorkload, ...], name: str) -> Outcome | None:
    """What became of a machine before."""
    if view.folder is None:
        return None
    key = _key(view, _base(view, work, name))
    with Store(view.folder) as store:
        found = store.results([key]).get(key)
    return None if found is None else Outcome(found.status, found.row, found.note, found.seconds)


def _run(view: StudyView, work: tuple[BaseWorkload, ...], name: str) -> Outcome:
    base, fidelity = _base(view, work, name), _fidelity(view)
    outcome = evaluate_chunk(base, [_NOWHERE], fidelity, model_version())[0]
    if view.folder is not None:
        try:
            with Store(view.folder) as store:
                store.put(NO_SPACE, fidelity, [(_key(view, base), 0, _NOWHERE.canonical, outcome)])
        except InputError:  # a study that may only be read
            pass
    return outcome
