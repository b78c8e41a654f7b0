"""Sweeps: the points of a space, each evaluated once and kept.

The same sweep again does what is left to do. Points go from their source to the store one chunk at a time, so
that memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tilewright.explore.evaluate import Base, Evaluate, Fidelity, Outcome, evaluate_chunk
from tilewright.explore.executors import Executor, executor
from tilewright.explore.methods import GENERATION, Search, points
from tilewright.explore.points import Point, digest, keys, model_version
from tilewright.explore.space_load import LoadedSpace, definition_text
from tilewright.explore.store import Known, SpaceRecord, Store

CHUNK = 10_000
"""Points looked up in the store, and at most evaluated by one call, at once."""
TASK_S = 0.5
"""What one call aims to take: as much as is lost when everything is killed."""
_QUEUED = 3
"""Calls per worker that are under way or waiting."""


@dataclass
class Progress:
    """How far a sweep has come."""

    total: int
    done: int = 0
    """Points looked at: evaluated now, or found in the store."""
    evaluated: int = 0
    failed: int = 0
    """Of those evaluated now or kept from before."""


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Summary:
    """What a sweep did."""

    progress: Progress
    changes: tuple[str, ...]
    """What is different from the sweep that used the folder before."""
    confirmed: tuple[int, int] | None = None
    """Of the ladder: points that have a bound, and those of them that were simulated."""


@dataclass
class Engine:
    """Brings points into the store."""

    base: Base
    study_digest: str
    space: int
    """The space's number in the store."""
    store: Store
    workers: Executor
    constraints: frozenset[str] = frozenset()
    """Texts of the conditions that hold now: a point that another one ruled out is looked at again."""
    retry_failed: bool = False
    progress: Progress = field(default_factory=lambda: Progress(0))
    report: Report = lambda _: None
    evaluate: Evaluate = evaluate_chunk
    _flying: dict[Future[Any], tuple[str, list[Work]]] = field(default_factory=dict)
    _pace_s: float = TASK_S
    """Seconds per point, as last seen."""

    def run(self, wanted: Iterable[Point], fidelity: Fidelity) -> None:
        """Have every point in the store when this returns."""
        try:
            for chunk in chunks(wanted, CHUNK):
                self._start(self._missing(chunk, fidelity), fidelity)
            while self._flying:
                self._collect(fidelity)
        except KeyboardInterrupt:
            self._rescue(fidelity)
            raise

    def keys(self, chunk: Sequence[Point], fidelity: Fidelity) -> list[bytes]:
        """The points' keys."""
        return [work.key for work in self._work(chunk, fidelity)]

    def _work(self, chunk: Sequence[Point], fidelity: Fidelity) -> list[Work]:
        key = keys(self.study_digest, fidelity)
        return [Work(key(text), text, point) for point in chunk for text in (point.canonical,)]

    def _missing(self, chunk: Sequence[Point], fidelity: Fidelity) -> list[Work]:
        """Those of a chunk that must be evaluated; the others are counted, and taken over into this space."""
        named = {work.key: work for work in self._work(chunk, fidelity)}
        known = self.store.known(list(named))
        kept = {key: row for key, row in known.items() if self.is_settled(row)}
        strangers = [key for key, row in kept.items() if row.space != self.space]
        if strangers:
            self.store.adopt(strangers, self.space)
        self.progress.done += len(chunk) - len(named) + len(kept)
        self.progress.failed += sum(row.status == "failed" for row in kept.values())
        self.report(self.progress)
        return [work for key, work in named.items() if key not in kept]

    def is_settled(self, row: Known) -> bool:
        """Whether a row need not be made again."""
        if row.status == "failed":
            return not self.retry_failed
        return row.status == "done" or row.note in self.constraints

    def _start(self, work: Sequence[Work], fidelity: Fidelity) -> None:
        done = 0
        while done < len(work):
            while len(self._flying) >= _QUEUED * self.workers.width:
                self._collect(fidelity)
            share = -(-len(work) // self.workers.width)
            size = max(1, min(int(TASK_S / max(self._pace_s, 1e-6)), share, CHUNK))
            self._submit(list(work[done : done + size]), fidelity)
            done += size

    def _submit(self, work: list[Work], fidelity: Fidelity) -> None:
        todo = [each.point for each in work]
        future = self.workers.submit(self.evaluate, self.base, todo, fidelity, model_version())
        self._flying[future] = (fidelity, work)

    def _collect(self, fidelity: Fidelity) -> None:
        """Keep what has been finished since, waiting for something if need be."""
        ready, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        finished: list[tuple[Work, Outcome]] = []
        lost: list[Work] = []
        # in the order of submission, so that one process numbers its rows the same each time
        for future in [each for each in self._flying if each in ready]:
            _, work = self._flying.pop(future)
            error = future.exception()
            if error is None:
                finished += zip(work, future.result(), strict=True)
            elif self.workers.is_lost(error):
                lost += work
            else:
                raise error
        self._keep(finished, fidelity)
        if lost:
            self._one_by_one(lost, fidelity)

    def _keep(self, finished: Sequence[tuple[Work, Outcome]], fidelity: Fidelity) -> None:
        if not finished:
            return
        rows = [(work.key, work.text, outcome) for work, outcome in finished]
        self.store.put(self.space, fidelity, rows)
        spent = sum(outcome.seconds for _, outcome in finished) / len(finished)
        self._pace_s = max(spent, self._pace_s / 8)  # calls grow step by step, as points may differ
        self.progress.done += len(finished)
        self.progress.evaluated += len(finished)
        self.progress.failed += sum(outcome.status == "failed" for _, outcome in finished)
        self.report(self.progress)

    def _one_by_one(self, lost: list[Work], fidelity: Fidelity) -> None:
        """Evaluate what was under way when a worker died, alone: so the point that kills workers is known."""
        for _, work in self._flying.values():
            lost += work
        self._flying.clear()
        self.workers.restart()
        for each in lost:
            future = self.workers.submit(self.evaluate, self.base, [each.point], fidelity, model_version())
            error = future.exception()
            if error is None:
                outcome = future.result()[0]
            elif self.workers.is_lost(error):
                self.workers.restart()
                note = "the process that worked on it died, twice (killed, or out of memory?)"
                outcome = Outcome("failed", None, note, 0.0)
            else:
                raise error
            self._keep([(each, outcome)], fidelity)

    def _rescue(self, fidelity: Fidelity) -> None:
        """After Ctrl-C: drop what waits, keep what is under way."""
        for future in list(self._flying):
            if future.cancel():
                del self._flying[future]
        while self._flying:
            self._collect(fidelity)


@dataclass(frozen=True, slots=True)
class Work:
    """A point to evaluate."""

    key: bytes
    text: str
    """The point's canonical text."""
    point: Point


def sweep(
    loaded: LoadedSpace,
    folder: Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    retry_failed: bool = False,
    report: Report = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Evaluate what a space asks for and `folder` does not have yet.

    `jobs` local processes (by default one per core), or the workers of `dask`; see `executors.executor`.
    `report` is called as points finish, `tell` with what a user should know. Raises `InputError`, and
    `KeyboardInterrupt` once everything finished is stored.
    """
    with Store(folder, create=True) as store:
        number, before = store.use(record(loaded))
        changes = tuple(differences(before, loaded)) if before else ()
        for change in changes:
            tell(change)
        workers = executor(jobs or len(os.sched_getaffinity(0)), dask)
        try:
            engine = Engine(
                loaded.base, loaded.digest, number, store, workers,
                frozenset(rule.text for rule in loaded.constraints), retry_failed,
                Progress(loaded.size), report,
            )  # fmt: skip
            confirmed = _work(engine, loaded)
        finally:
            workers.close()
        return Summary(engine.progress, changes, confirmed)


def _work(engine: Engine, loaded: LoadedSpace) -> tuple[int, int] | None:
    fidelity = loaded.space.fidelity
    if fidelity == "ladder":
        from tilewright.explore.climb import climb

        found = climb(engine, loaded)
        return len(found.simulated), int(found.simulated.sum())
    if loaded.is_known_beforehand:
        engine.run(points(loaded), fidelity)
    else:
        search(engine, loaded, fidelity)
    return None


def search(engine: Engine, loaded: LoadedSpace, fidelity: Fidelity) -> None:
    """Let a search ask for points until the budget is spent."""
    asked, budget = 0, loaded.space.budget or 0
    searcher = Search(loaded)
    while asked < budget:
        some = searcher.ask(min(GENERATION[loaded.space.method], budget - asked))
        allowed = [point for point in some if loaded.is_wanted(dict(point.values))]
        engine.progress.done += len(some) - len(allowed)
        engine.run(allowed, fidelity)
        kept = engine.store.results(engine.keys(some, fidelity))
        found = [kept.get(key) for key in engine.keys(some, fidelity)]
        searcher.tell(some, [row.row if row else None for row in found])
        asked += len(some)


def chunks(wanted: Iterable[Point], size: int) -> Iterator[list[Point]]:
    """Up to `size` points at a time."""
    source = iter(wanted)
    while chunk := list(islice(source, size)):
        yield chunk


def record(loaded: LoadedSpace) -> SpaceRecord:
    """The space as the store notes it."""
    definition = definition_text(loaded)
    together = digest(f"{definition}\n{loaded.digest}\n{model_version()}")
    folder = str(Path(loaded.source).resolve().parent)
    return SpaceRecord(together, definition, loaded.source, folder, loaded.digest, model_version())


def differences(before: SpaceRecord, loaded: LoadedSpace) -> Iterator[str]:
    """What changed since another space was swept into the same folder, a sentence each."""
    from tilewright.description.yaml_text import parse

    old, new = _flat(parse(before.definition, "study").data), _flat(loaded.definition)
    for key in dict.fromkeys((*old, *new)):
        if old.get(key) != new.get(key):
            yield f"the space changed: {key} was {_shown(old.get(key))}, now {_shown(new.get(key))}"
    if before.base != loaded.digest and old.get("accelerator") == new.get("accelerator"):
        yield "the accelerator or a workload changed: no point can be taken over"
    if before.model != model_version():
        yield "tilewright changed: no point can be taken over"


def _flat(definition: Any) -> dict[str, Any]:  # noqa: ANN401 - as YAML has it
    """The definition with each parameter by itself."""
    rest = {key: value for key, value in definition.items() if key != "parameters"}
    return rest | {f"parameters.{key}": value for key, value in definition["parameters"].items()}


def _shown(value: Any) -> str:  # noqa: ANN401 - as YAML has it
    import json

    return "not there" if value is None else json.dumps(value, ensure_ascii=False)
