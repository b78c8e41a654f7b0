"""A study: a folder that sweeps wrote to, as rows, a table, a front, and machines to work on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from tilewright.description.errors import InputError
from tilewright.description.names import nearest
from tilewright.explore.evaluation.points import WORKLOAD, Value, override_text
from tilewright.explore.space.load import LoadedSpace, read_space
from tilewright.explore.space.schema import Goal, Objective
from tilewright.explore.study.fpga import StudyFpga, UnitOfPoints, read_fpga, units_of
from tilewright.explore.study.unmet import unmet
from tilewright.explore.sweep.methods import costs_of, is_feasible
from tilewright.explore.sweep.pareto import non_dominated
from tilewright.explore.sweep.store import Kept, SpaceRecord, Store

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 10_000
"""Rows looked at together."""
STATE = ("point", "fidelity", "status", "feasible", "error", "seconds")
"""Columns besides the parameters and the figures. `point` is the point's number, as after the `@` of
`STUDY@<number>`; `error` is why there are no figures."""


class Study:
    """The space that was swept last into a folder, and its points. Raises `InputError` where none is."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        with Store(self.folder) as store:
            last = store.last_space()
        if last is None:
            raise InputError(f"{self.folder}: no sweep has begun here")
        self._number: int = last[0]
        self.record: SpaceRecord = last[1]

    def __repr__(self) -> str:
        return f"Study({str(self.folder)!r})"

    @cached_property
    def loaded(self) -> LoadedSpace:
        """The space, with what it names as it is today."""
        return read_space(self.record.definition, self.record.source, Path(self.record.folder))

    @property
    def _final(self) -> str:
        """The fidelity of rows that may be on a front."""
        fidelity = self.loaded.space.fidelity
        return "event" if fidelity == "ladder" else fidelity

    @property
    def parameters(self) -> tuple[str, ...]:
        """Override keys that are varied."""
        return tuple(self.loaded.space.parameters)

    def rows(self) -> Iterator[dict[str, object]]:
        """Each point as a flat dictionary, by number: `STATE`, its values by override key, its figures by
        result key; `fpga.<target>.<figure>` where a study has units that Verilog is written of. A
        point evaluated at two fidelities has two rows."""
        with Store(self.folder) as store:
            fpga = self._fpga(store)
            for kept in store.rows(self._number):
                yield self._row(kept, fpga)

    def _fpga(self, store: Store) -> StudyFpga:
        return read_fpga(self.folder, store, self.loaded, self.record)

    def _row(self, kept: Kept, fpga: StudyFpga) -> dict[str, object]:
        row = kept.row or {}
        feasible = kept.row is not None and is_feasible(kept.values, row, self.loaded.constraints)
        state = (kept.number, kept.fidelity, kept.status, feasible, kept.note, kept.seconds)
        values = {key: kept.values.get(key) for key in self.parameters}
        cells = fpga.columns(None if kept.row is None else arch_overrides(kept.values))
        return {**dict(zip(STATE, state, strict=True)), **values, **row, **cells}

    def to_frame(self) -> pd.DataFrame:
        """All rows; columns as in `rows`."""
        import pandas as pd

        rows = list(self.rows())
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*STATE, *self.parameters])

    def front(self, objectives: Mapping[str, Goal] | None = None) -> pd.DataFrame:
        """The points that meet the constraints and that no other one dominates, best in the first objective
        first; bounds alone (the ladder's `analytic` rows) are on no front.

        `objectives` are columns of `to_frame` and their goals, in the place of the space's own:
        `{"latency_s": "minimize", "fpga.ecp5.lut4": "minimize"}`. A point whose cell is empty is on no front;
        a ladder simulated only what its own objectives called for. Raises `InputError` for what is no column
        of numbers.
        """
        import pandas as pd

        rows = self.front_rows(objectives)
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*STATE, *self.parameters])

    def front_rows(self, objectives: Mapping[str, Goal] | None = None) -> list[dict[str, object]]:
        """The rows of `front`."""
        asked = self.loaded.space.objectives if objectives is None else self._asked(objectives)
        with Store(self.folder) as store:
            fpga = self._fpga(store)
            numbers, costs = np.empty(0, np.int64), np.empty((0, len(asked)))
            for some, theirs in self._candidates(store, asked, fpga):
                numbers, costs = np.concatenate((numbers, some)), np.concatenate((costs, theirs))
                best = non_dominated(costs)
                numbers, costs = numbers[best], costs[best]
            places = sorted(range(len(numbers)), key=lambda place: (*costs[place], numbers[place]))
            rows = (store.row(self._number, int(numbers[place])) for place in places)
            return [self._row(kept, fpga) for kept in rows if kept is not None]

    def _asked(self, objectives: Mapping[str, Goal]) -> tuple[Objective, ...]:
        """As a space has them. Raises `InputError` for what no point can be compared by."""
        if not objectives:
            raise InputError(f"{self.folder}: a front needs an objective")
        rows = (row for row in self.rows() if row["fidelity"] == self._final)
        done = next((row for row in rows if row["status"] == "done"), {})
        for name, goal in objectives.items():
            if goal not in get_args(Goal):
                raise InputError(f"objective {name!r}: the goal is minimize or maximize, not {goal!r}")
            if name in STATE or (done and name not in done):
                meant = nearest(name, done.keys() - set(STATE))
                hint = f", did you mean {meant!r}?" if meant else ""
                raise InputError(f"{self.folder}: points have no figure {name!r}{hint}")
            if isinstance(done.get(name), str | list | dict):
                raise InputError(f"{self.folder}: points can't be compared by {name!r}, which is no number")
        return tuple(Objective(name=name, goal=goal) for name, goal in objectives.items())

    def unmet(self) -> list[str]:
        """Constraints that no point of the study meets."""
        with Store(self.folder) as store:
            return unmet(self.loaded, store.rows(self._number))

    def front_units(self) -> tuple[list[UnitOfPoints], list[tuple[int, str]]]:
        """The different attention units of the front, best in the first objective first, and points that have
        none that Verilog is written of, with the reason. Raises `InputError` as `check_unchanged`."""
        self.check_unchanged()
        with Store(self.folder) as store:
            fpga = self._fpga(store)
        numbers = [int(str(row["point"])) for row in self.front_rows()]
        return units_of(fpga, ((number, self.overrides(number)) for number in numbers))

    def overrides(self, number: int) -> list[str]:
        """What a point changes about the accelerator, as `KEY=VALUE` without `arch.`."""
        return arch_overrides(self._kept(number)[0].values)

    def check_unchanged(self) -> None:
        """Raise `InputError` if what the points are changes of has changed: they would be other machines."""
        if self.loaded.digest != self.record.base:
            raise InputError(
                f"{self.folder}: the accelerator or a workload of this study has changed since; sweep again"
            )

    def _candidates(
        self, store: Store, objectives: Sequence[Objective], fpga: StudyFpga
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Numbers and costs, all to be minimized, of points that may be on the front; a few rows at a time,
        as a study may have millions."""
        measured = any(each.name.startswith("fpga.") for each in objectives)
        signs = np.array([-1.0 if each.goal == "maximize" else 1.0 for each in objectives])
        source = store.rows(self._number, self._final)

        def cells(kept: Kept) -> Mapping[str, object]:
            return fpga.columns(arch_overrides(kept.values)) if measured else {}

        while chunk := list(islice(source, _AT_ONCE)):
            found = [
                (kept.number, costs)
                for kept in chunk
                if kept.row is not None
                and (costs := costs_of(kept.values, {**kept.row, **cells(kept)}, objectives))
                and is_feasible(kept.values, kept.row, self.loaded.constraints)
            ]
            if found:
                numbers, costs_found = zip(*found, strict=True)
                yield np.array(numbers), np.array(costs_found) * signs

    def best(self, objective: str = "") -> dict[str, object]:
        """The front's best row in one objective (by default the first); of equal ones, by the others."""
        rows, objectives = self.front_rows(), list(self.loaded.space.objectives)
        if not rows:
            raise InputError(f"{self.folder}: no point of this study meets its constraints yet")
        names = [each.name for each in objectives]
        if objective and objective not in names:
            meant = nearest(objective, names)
            hint = f", did you mean {meant!r}?" if meant else f"; it has {', '.join(names)}"
            raise InputError(f"{self.folder}: the study has no objective {objective!r}{hint}")
        objectives.sort(key=lambda each: each.name != (objective or names[0]))

        def costs(row: dict[str, object]) -> list[float]:
            found = costs_of({}, row, objectives)
            assert found is not None
            goals = [each.goal for each in objectives]
            return [-cost if goal == "maximize" else cost for cost, goal in zip(found, goals, strict=True)]

        return min(rows, key=costs)

    def row(self, number: int) -> dict[str, object]:
        """The row of the point with a number; where it was simulated after its bound, that one."""
        return self._row(*self._kept(number))

    def _kept(self, number: int) -> tuple[Kept, StudyFpga]:
        with Store(self.folder) as store:
            kept, fpga = store.row(self._number, number), self._fpga(store)
        if kept is None:
            raise InputError(f"{self.folder}: there is no point {number}")
        return kept, fpga

    def chosen(self, which: str) -> dict[str, object]:
        """A row by what stands after the `@`: `BEST`, `BEST:<objective>`, `front:<place>` (from 1, as the
        table of `tilewright sweep` lists them), or a point's number."""
        head, _, rest = which.partition(":")
        if head == "BEST":
            return self.best(rest)
        if head == "front" and rest.isdigit():
            rows = self.front_rows()
            if not 1 <= int(rest) <= len(rows):
                raise InputError(f"{self.folder}: there is no {which!r}; points of the front: {len(rows)}")
            return rows[int(rest) - 1]
        if which.isdigit():
            return self.row(int(which))
        raise InputError(
            f"{self.folder}@{which}: after the `@` stands BEST, BEST:OBJECTIVE, front:PLACE or a point's "
            "number"
        )


def arch_overrides(values: Mapping[str, Value]) -> list[str]:
    """`KEY=VALUE` of the accelerator, without `arch.`, of a choice."""
    return [
        f"{key.removeprefix('arch.')}={override_text(value)}"
        for key, value in values.items()
        if key.startswith("arch.")
    ]


def split_point(name: str) -> tuple[Path, str] | None:
    """The folder and the point that `STUDY@POINT` names; None for any other name.

    Raises `InputError` where there is neither such a folder nor a file that is called so.
    """
    folder, at, which = name.rpartition("@")
    if at and Path(folder).is_dir():
        return Path(folder), which
    if at and not Path(name).exists():
        raise InputError(f"{name!r}: no such file, and no folder {folder!r} of a study (STUDY@POINT)")
    return None


def expand_workload(name: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """What `STUDY@POINT` stands for as a workload: what the point was run with, its overrides before
    `overrides`; any other name comes back as it is.

    Raises `InputError`, also where the study runs several workloads, and as `expand_accelerator`.
    """
    found = split_point(name)
    if found is None:
        return name, list(overrides)
    folder, which = found
    study = Study(folder)
    row = study.chosen(which)
    study.check_unchanged()
    workloads = study.loaded.base.run_by(row.get(WORKLOAD))
    if len(workloads) > 1:
        names = ", ".join(each.label for each in workloads)
        raise InputError(f"{name}: a point of this study runs several workloads ({names}): name one of them")
    values = {key: row[key] for key in study.parameters}
    return workloads[0].workload, [*workloads[0].overrides, *workload_overrides(values), *overrides]


def workload_overrides(values: Mapping[str, object]) -> list[str]:
    """`workload.KEY=VALUE` of a row or a choice."""
    return [f"{key}={override_text(value)}" for key, value in values.items()  # type: ignore[arg-type]
            if key.startswith(f"{WORKLOAD}.") and value is not None]  # fmt: skip


def expand_accelerator(name: str, overrides: Sequence[str]) -> tuple[str, list[str]]:
    """What `STUDY@POINT` stands for: the study's accelerator, with the point's overrides before `overrides`.

    Any other name comes back as it is. Raises `InputError`, also where the study's accelerator has changed
    since, so that the point would be another machine.
    """
    found = split_point(name)
    if found is None:
        return name, list(overrides)
    folder, which = found
    study = Study(folder)
    number = int(str(study.chosen(which)["point"]))
    study.check_unchanged()
    return study.loaded.base.accelerator, [*study.overrides(number), *overrides]
