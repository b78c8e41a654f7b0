"""A study's folder as the figures see it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from tilewright.description.errors import InputError
from tilewright.explore.space.load import LoadedSpace, read_space
from tilewright.explore.study.fpga import read_fpga
from tilewright.explore.study.view import POINT, Objective, StudyView, StudyWorkload
from tilewright.explore.sweep.methods import is_feasible
from tilewright.explore.sweep.store import FILE, Kept, Store

_SHOWN = ("latency_s", "cycles", "utilization", "stalls.", "energy_j.", "area_mm2.", "edp_js", "tokens_per_s")
"""Figures that pages show, besides the objectives; beginnings of their keys."""


def open_view(folder: str | Path) -> StudyView:
    """The space that was worked on last, and what there is of it now; also while a sweep runs.

    Raises `InputError` where there is no study.
    """
    folder = Path(folder)
    with Store(folder) as store:
        last = store.last_space()
        if last is None:
            raise InputError(
                f"{folder}: no sweep has begun here; `tilewright sweep SPACE.yaml -o {folder}` does"
            )
        number, record = last
        loaded = read_space(record.definition, record.source, Path(record.folder))
        rows, failures, counts = _best_rows(store.rows(number, as_they_arrived=True), loaded)
        fpga = read_fpga(folder, store, loaded, record)
    space = loaded.space
    return StudyView(
        name=Path(record.source).stem,
        accelerator=loaded.base.accelerator,
        workloads=tuple(
            StudyWorkload(each.label, each.workload, tuple(each.overrides), each.weight)
            for each in loaded.base.workloads
        ),
        parameters=tuple(space.parameters),
        objectives=tuple(Objective(each.name, each.goal == "maximize") for each in space.objectives),
        frame=_frame(rows, tuple(space.parameters)),
        failures=tuple(failures),
        final="event" if space.fidelity == "ladder" else space.fidelity,
        facts={"space": record.definition, "points_by_status": counts, "model_version": record.model},
        fpga=fpga,
        folder=folder,
        choices=dict(loaded.base.choices),
    )


def stamp(folder: Path) -> str:
    """Changes whenever a row is written to the study."""
    found = []
    for name in (FILE, f"{FILE}-wal"):
        try:
            status = (folder / name).stat()
        except OSError:  # no log, or one that has just been taken into the file
            continue
        if status.st_size:
            found.append(f"{name}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join(found)


def _wanted(loaded: LoadedSpace) -> tuple[set[str], tuple[str, ...]]:
    """Whole keys, and beginnings of keys, that a view keeps."""
    named = {each.name for each in loaded.space.objectives}
    return named, (*_SHOWN, *(f"{each.label}:{key}" for each in loaded.base.workloads for key in _SHOWN[:1]))


def _best_rows(
    kept: Iterable[Kept], loaded: LoadedSpace
) -> tuple[list[dict[str, object]], list[tuple[str, str]], dict[str, int]]:
    """A row per point, the simulated one where there are two; the failures; how many of each status."""
    best: dict[str, dict[str, object]] = {}
    failures: list[tuple[str, str]] = []
    counts: Counter[str] = Counter()
    wanted = _wanted(loaded)
    for each in kept:
        counts[f"{each.fidelity} {each.status}"] += 1
        name = json.dumps(each.values, sort_keys=True)
        if each.status == "failed":
            failures.append((", ".join(f"{key}={value}" for key, value in each.values.items()), each.note))
        elif each.row is not None and (name not in best or each.fidelity != "analytic"):
            best.pop(name, None)  # the better row counts from when it finished
            feasible = is_feasible(each.values, each.row, loaded.constraints)
            best[name] = _row(each, wanted) | {"feasible": feasible}
    return list(best.values()), failures, dict(sorted(counts.items()))


def _row(kept: Kept, wanted: tuple[set[str], tuple[str, ...]]) -> dict[str, object]:
    names, beginnings = wanted
    values = {key: _cell(value) for key, value in kept.values.items()}
    figures: Mapping[str, object] = kept.row or {}
    shown = {k: v for k, v in figures.items() if k in names or k.startswith(beginnings)}
    state = {POINT: str(kept.number), "fidelity": kept.fidelity}
    return state | values | shown


def _cell(value: object) -> object:
    """Lists, mappings and null as the YAML that an override takes: a table's cells are compared and counted,
    and None there is a parameter whose condition is not met."""
    return json.dumps(value) if value is None or isinstance(value, list | dict) else value


def _frame(rows: list[dict[str, object]], parameters: tuple[str, ...]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for column in (POINT, "fidelity", "feasible", *parameters):
        if column not in frame:
            frame[column] = pd.Series([None] * len(frame), dtype=object)
    return frame
