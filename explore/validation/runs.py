"""Running what the cases of validation suites ask for: every distinct simulation once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import load_accelerator
from tilewright.arch.load import preset_names as accelerator_names
from tilewright.description.errors import InputError, Problem
from tilewright.description.overrides import SOURCE as OVERRIDES
from tilewright.description.prefixes import split_overrides
from tilewright.explore.evaluation.evaluate import description_figures
from tilewright.explore.processes import process_pool
from tilewright.explore.validation.load import ResolvedCase
from tilewright.explore.validation.metrics import metric_value
from tilewright.explore.validation.suite import Fidelity
from tilewright.sim.run import Options, simulate
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.load import preset_names as workload_names

Progress = Callable[[int, int], None]
"""Told how many runs of how many are done."""
Answer = Mapping[str, float | str]
"""By metric: the figure, or what is wrong with asking for it."""


@dataclass(frozen=True)
class Key:
    """What is simulated, by name; files as they are found from here."""

    accelerator: str
    workload: str | None
    arch_overrides: tuple[str, ...]
    workload_overrides: tuple[str, ...]
    fidelity: Fidelity


@dataclass
class Run:
    """A simulation and the cases, by their number, that ask for its figures."""

    key: Key
    accelerator: Accelerator
    graph: OperatorGraph | None
    """None where no workload is run."""
    metrics: dict[int, str] = field(default_factory=dict)


def predictions(
    cases: Sequence[ResolvedCase], jobs: int = 1, progress: Progress | None = None
) -> list[float]:
    """The predicted figure of each case, in order; where a case has a baseline, that one's over its own.

    Raises `InputError` with every case's mistakes; descriptions that can't be read are found before anything
    is simulated.
    """
    baselines = [case.baseline for case in cases if case.baseline is not None]
    figures = iter(_figures([*cases, *baselines], jobs, progress))
    own = [next(figures) for _ in cases]
    return [
        figure if case.baseline is None else next(figures) / figure
        for case, figure in zip(cases, own, strict=True)
    ]


def measurements(cases: Sequence[ResolvedCase]) -> list[float]:
    """The measured figure of each case, in order; where it is to be obtained from the RTL, it is.

    Raises `InputError` with every case's mistakes.
    """
    by_rtl = [number for number, case in enumerate(cases) if case.measured == "rtl"]
    found: dict[int, float] = {}
    problems: list[Problem] = []
    for run in _prepared([cases[number] for number in by_rtl]):
        from tilewright.explore.unit_measured import measured_cycles

        assert run.graph is not None
        try:
            cycles = measured_cycles(run.accelerator, run.graph)
        except InputError as error:
            problems += (cases[by_rtl[n]].place("measured", error.problems[0].message) for n in run.metrics)
        else:
            found |= {by_rtl[n]: float(cycles) for n in run.metrics}
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return [found[n] if case.measured == "rtl" else case.measured for n, case in enumerate(cases)]


def _figures(cases: Sequence[ResolvedCase], jobs: int, progress: Progress | None) -> list[float]:
    """The figure of each case by itself."""
    runs = _prepared(cases)
    found = {number: case.predicted for number, case in enumerate(cases) if case.predicted is not None}
    problems: list[Problem] = []
    for done, (run, answer) in enumerate(zip(runs, _answers(runs, jobs), strict=True), 1):
        for number, metric in run.metrics.items():
            value = answer[metric]
            if isinstance(value, str):
                problems.append(cases[number].place("metric", value))
            else:
                found[number] = value
        if progress:
            progress(done, len(runs))
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return [found[number] for number in range(len(cases))]


def _prepared(cases: Sequence[ResolvedCase]) -> list[Run]:
    """The distinct runs, loaded; `InputError` with the mistakes of all cases."""
    runs: dict[Key, Run] = {}
    problems: list[Problem] = []
    for number, case in enumerate(cases):
        if case.predicted is not None:
            continue
        try:
            key = _key(case)
            if key not in runs:
                runs[key] = _loaded(key, case)
            runs[key].metrics[number] = case.metric
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*dict.fromkeys(problems))
    return list(runs.values())


def _key(case: ResolvedCase) -> Key:
    try:
        arch, workload = split_overrides(case.overrides)
    except InputError as error:
        raise InputError(*(case.place("overrides", p.message) for p in error.problems)) from None
    if workload and case.workload is None:
        message = f"{workload[0]!r} is an override of a workload, and this case has none"
        raise InputError(case.place("overrides", message))
    accelerator = _found(case.accelerator, accelerator_names(), case.folder)
    named = None if case.workload is None else _found(case.workload, workload_names(), case.folder)
    return Key(accelerator, named, tuple(arch), tuple(workload), case.fidelity)


def _found(name: str, presets: Sequence[str], folder: Path | None) -> str:
    """A preset's name as it is; a file's as seen from the suite's folder, if it is there."""
    if name in presets or folder is None or not (folder / name).exists():
        return name
    return str(folder / name)


def _loaded(key: Key, case: ResolvedCase) -> Run:
    problems: list[Problem] = []
    accelerator = graph = None
    try:
        accelerator = load_accelerator(key.accelerator, key.arch_overrides)
    except InputError as error:
        problems += _placed(error, case, "accelerator")
    try:
        graph = load_workload(key.workload, key.workload_overrides) if key.workload is not None else None
    except InputError as error:
        problems += _placed(error, case, "workload")
    if problems or accelerator is None:
        raise InputError(*problems)
    return Run(key, accelerator, graph)


def _placed(error: InputError, case: ResolvedCase, key: str) -> Iterator[Problem]:
    """The mistakes of a description, where the suite names it; those inside a file stay where they are."""
    for problem in error.problems:
        if problem.source == OVERRIDES:
            named = f"{problem.key}: " if problem.key else ""
            yield case.place("overrides", f"in {problem.excerpt!r}: {named}{problem.message}")
        elif problem.source:
            yield problem
        else:
            yield case.place(key, problem.message)


def _answers(runs: Sequence[Run], jobs: int) -> Iterator[Answer]:
    if jobs == 1 or len(runs) < 2:
        for run in runs:
            yield _answer(run.accelerator, run.graph, run.key.fidelity, list(run.metrics.values()))
        return
    keys, metrics = [run.key for run in runs], [list(run.metrics.values()) for run in runs]
    with process_pool(min(jobs, len(runs)), finish=False) as pool:
        yield from pool.map(_reloaded_answer, keys, metrics)


def _reloaded_answer(key: Key, metrics: Sequence[str]) -> Answer:
    """`_answer` in another process."""
    graph = None if key.workload is None else load_workload(key.workload, key.workload_overrides)
    return _answer(load_accelerator(key.accelerator, key.arch_overrides), graph, key.fidelity, metrics)


def _answer(
    accelerator: Accelerator, graph: OperatorGraph | None, fidelity: Fidelity, metrics: Sequence[str]
) -> Answer:
    figures = description_figures(accelerator)
    if graph is not None:
        try:
            figures |= simulate(graph, accelerator, Options(fidelity)).to_dict()
        except InputError as error:
            return dict.fromkeys(metrics, f"this can't be run: {error.problems[0].message}")
    return {metric: _figure(figures, metric, simulated=graph is not None) for metric in metrics}


def _figure(figures: Mapping[str, object], metric: str, *, simulated: bool) -> float | str:
    try:
        return metric_value(figures, metric)
    except InputError as error:
        hint = "" if simulated else " (what a run gives needs a `workload`)"
        return f"{error.problems[0].message}{hint}"
