"""Sweeps: the points of a space, each evaluated once and kept.

The same sweep again does what is left to do. Points go from their source to the store one chunk at a time, so
that memory does not grow with their number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

from tilewright.explore.evaluation.batch import structure
from tilewright.explore.evaluation.evaluate import Base, Evaluate, Fidelity, Outcome, evaluate_chunk
from tilewright.explore.evaluation.points import Point, digest, keys, model_version
from tilewright.explore.space.load import LoadedSpace, definition_text
from tilewright.explore.sweep.claims import Claims
from tilewright.explore.sweep.executors import Executor, executor
from tilewright.explore.sweep.methods import GENERATION, Search, check_installed, points
from tilewright.explore.sweep.store import Known, SpaceRecord, Store

CHUNK = 10_000
"""Points looked up in the store, and at most evaluated by one call, at once."""
TOGETHER = 400
"""Points of a group that are wanted at `analytic`: they take some times as long as the group by itself."""
AHEAD = 40_000
"""Points that are drawn for it at most."""
TASK_S = 0.5
"""What one call aims to take: as much as is lost when everything is killed."""
_QUEUED = 3
"""Calls per worker that are under way or waiting."""
_POLL_S = 0.2
"""Between two looks at what another sweep on the same folder is evaluating."""


@dataclass
class Progress:
    """How far a sweep has come."""

    total: int
    done: int = 0
    """Points looked at: evaluated now, or found in the store."""
    points: int = 0
    """Different ones among those."""
    evaluated: int = 0
    failed: int = 0
    """Of those evaluated now or kept from before."""


Report = Callable[[Progress], None]
Tell = Callable[[str], None]
Numbered = tuple[int, Point]
"""A point, and its number."""


@dataclass(frozen=True)
class Summary:
    """What a sweep did."""

    points: int
    """Different points that the space has, as far as its method went."""
    evaluated: int
    """Those of them that were not in the store."""
    failed: int
    changes: tuple[str, ...]
    """What is different from the sweep that used the folder before."""
    climbed: Climbed | None = None
    """Of the ladder."""


@dataclass(frozen=True)
class Climbed:
    """How the ladder found the front."""

    bounded: int
    """Points that have a bound."""
    simulated: int
    """Those of them that were simulated, now or before."""
    now: int


@dataclass
class Engine:
    """Brings points into the store."""

    base: Base
    study_digest: str
    space: int
    """The space's number in the store."""
    store: Store
    workers: Executor
    claims: Claims
    constraints: frozenset[str] = frozenset()
    """Texts of the conditions that hold now: a point that another one ruled out is looked at again."""
    retry_failed: bool = False
    progress: Progress = field(default_factory=lambda: Progress(0))
    report: Report = lambda _: None
    tell: Tell = lambda _: None
    evaluate: Evaluate = evaluate_chunk
    _flying: dict[Future[Any], Call] = field(default_factory=dict)
    _looked: int = 0
    """`Store.changes` when the store was looked into last."""
    _pace_s: float = TASK_S
    """Seconds per point, as last seen."""

    def run(self, wanted: Iterable[Numbered], fidelity: Fidelity) -> None:
        """Have every point in the store, under its number, when this returns."""
        try:
            elsewhere, waiting = list[Work](), Waiting(fidelity)
            for chunk in chunks(wanted, CHUNK):
                waiting.add(self._missing([*elsewhere, *self._work(chunk, fidelity)]))
                elsewhere = self._start(waiting.taken(), fidelity) if waiting.is_enough else []
            elsewhere += self._start(waiting.taken(), fidelity)
            while self._flying or elsewhere:
                if self._flying:
                    self._collect(fidelity)
                else:
                    sleep(_POLL_S)
                elsewhere = self._start(self._missing(elsewhere), fidelity)
        except KeyboardInterrupt:
            self._rescue(fidelity)
            raise

    def keys(self, chunk: Sequence[Point], fidelity: Fidelity) -> list[bytes]:
        """The points' keys."""
        key = keys(self.study_digest, fidelity)
        return [key(point.canonical) for point in chunk]

    def _work(self, chunk: Sequence[Numbered], fidelity: Fidelity) -> list[Work]:
        key = keys(self.study_digest, fidelity)
        self.progress.points = max([self.progress.points, *(number for number, _ in chunk)])
        return [
            Work(key(text), number, text, point) for number, point in chunk for text in (point.canonical,)
        ]

    def _missing(self, work: Sequence[Work]) -> list[Work]:
        """What of it must be evaluated; the rest is counted, and taken over into this space."""
        self._looked = self.store.changes
        named = {each.key: each for each in work}
        known = self.store.known(list(named))
        kept = {key: row for key, row in known.items() if self.is_settled(row)}
        strangers = {
            key: named[key].number
            for key, row in kept.items()
            if (row.space, row.number) != (self.space, named[key].number)
        }
        if strangers:
            self.store.adopt(strangers, self.space)
        self.progress.done += len(work) - len(named) + len(kept)
        self.progress.failed += sum(row.status == "failed" for row in kept.values())
        self.report(self.progress)
        return [each for key, each in named.items() if key not in kept]

    def is_settled(self, row: Known) -> bool:
        """Whether a row need not be made again."""
        if row.status == "failed":
            return not self.retry_failed
        return row.status == "done" or row.note in self.constraints

    def _start(self, work: Sequence[Work], fidelity: Fidelity) -> list[Work]:
        """Have it evaluated; what is left to another sweep comes back."""
        done, elsewhere = 0, list[Work]()
        while done < len(work):
            while len(self._flying) >= _QUEUED * self.workers.width:
                self._collect(fidelity)
            share = -(-len(work) // self.workers.width)
            size = max(1, min(int(TASK_S / max(self._pace_s, 1e-6)), share, CHUNK))
            elsewhere += self._submit(work[done : done + size], fidelity)
            done += size
        return elsewhere

    def _submit(self, work: Sequence[Work], fidelity: Fidelity) -> list[Work]:
        """Start a call for what no other sweep is at or has finished since; the rest comes back."""
        claim, mine = self.claims.claim([each.key for each in work])
        if self.store.changes != self._looked:  # after claiming: who gives up a claim has stored before
            mine -= {key for key, row in self.store.known(list(mine)).items() if self.is_settled(row)}
        own = [each for each in work if each.key in mine]
        if not own:
            self.claims.release(claim)
            return list(work)
        todo = [each.point for each in own]
        future = self.workers.submit(self.evaluate, self.base, todo, fidelity, model_version())
        self._flying[future] = Call(own, claim)
        return [each for each in work if each.key not in mine]

    def _collect(self, fidelity: Fidelity) -> None:
        """Keep what has been finished since, waiting for something if need be."""
        ready, _ = wait(self._flying, return_when=FIRST_COMPLETED)
        finished: list[tuple[Work, Outcome]] = []
        claims: list[int] = []
        lost: list[Call] = []
        # in the order of submission, so that one process keeps its rows in the same order each time
        for future in [each for each in self._flying if each in ready]:
            call = self._flying.pop(future)
            error = future.exception()
            if error is None:
                finished += zip(call.work, future.result(), strict=True)
                claims.append(call.claim)
            elif self.workers.is_lost(error):
                lost.append(call)
            else:
                raise error
        self._keep(finished, fidelity)
        for claim in claims:
            self.claims.release(claim)
        if lost:
            self._one_by_one(lost, fidelity)

    def _keep(self, finished: Sequence[tuple[Work, Outcome]], fidelity: Fidelity) -> None:
        if not finished:
            return
        rows = [(work.key, work.number, work.text, outcome) for work, outcome in finished]
        self.store.put(self.space, fidelity, rows)
        spent = sum(outcome.seconds for _, outcome in finished) / len(finished)
        self._pace_s = max(spent, self._pace_s / 8)  # calls grow step by step, as points may differ
        self.progress.done += len(finished)
        self.progress.evaluated += len(finished)
        self.progress.failed += sum(outcome.status == "failed" for _, outcome in finished)
        self.report(self.progress)

    def _one_by_one(self, lost: list[Call], fidelity: Fidelity) -> None:
        """Evaluate what was under way when a worker died, alone: so the point that kills workers is known."""
        lost += self._flying.values()
        self._flying.clear()
        self.workers.restart()
        for call in lost:
            for each in call.work:
                self._keep([(each, self._alone(each, fidelity))], fidelity)
            self.claims.release(call.claim)

    def _alone(self, each: Work, fidelity: Fidelity) -> Outcome:
        future = self.workers.submit(self.evaluate, self.base, [each.point], fidelity, model_version())
        error = future.exception()
        if error is None:
            found: Outcome = future.result()[0]
            return found
        if not self.workers.is_lost(error):
            raise error
        self.workers.restart()
        note = "the process that worked on it died, twice (killed, or out of memory?)"
        return Outcome("failed", None, note, 0.0)

    def _rescue(self, fidelity: Fidelity) -> None:
        """After Ctrl-C: drop what waits, keep what is under way; at the next one, drop that as well."""
        try:
            for future in list(self._flying):
                if future.cancel():
                    del self._flying[future]
            if self._flying:
                under_way = sum(len(call.work) for call in self._flying.values())
                points = f"{under_way:,} point{'s' * (under_way != 1)}"
                self.tell(f"finishing {points} under way; Ctrl-C again leaves them")
            while self._flying:
                self._collect(fidelity)
        except KeyboardInterrupt:
            self.workers.abandon()
            raise


@dataclass(frozen=True, slots=True)
class Work:
    """A point to evaluate."""

    key: bytes
    number: int
    """In the order in which the space yields points, from 1."""
    text: str
    """The point's canonical text."""
    point: Point


class Waiting:
    """Points that are about to be evaluated, by what they have in common.

    At `analytic` points that share all but columns are one calculation (see `evaluation.batch`). A random
    sequence scatters them, so that it is read ahead until they come in numbers.
    """

    def __init__(self, fidelity: Fidelity) -> None:
        self._scattered = fidelity == "analytic"
        self._groups: dict[str, list[Work]] = {}
        self._number = 0

    def add(self, work: Sequence[Work]) -> None:
        """Let these wait as well."""
        self._number += len(work)
        for each in work:
            self._groups.setdefault(structure(each.point) if self._scattered else "", []).append(each)

    @property
    def is_enough(self) -> bool:
        """Whether to begin."""
        wanted = min(TOGETHER * len(self._groups), AHEAD) if self._scattered else 0
        return self._number >= wanted

    def taken(self) -> list[Work]:
        """All of them, group by group."""
        found = [each for group in self._groups.values() for each in group]
        self._groups, self._number = {}, 0
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """Points that are evaluated together."""

    work: list[Work]
    claim: int
    """See `Claims`."""


def sweep(
    loaded: LoadedSpace,
    folder: Path,
    *,
    jobs: int | None = None,
    dask: str | None = None,
    retry_failed: bool = False,
    report: Report = lambda _: None,
    tell: Tell = lambda _: None,
) -> Summary:
    """Evaluate what a space asks for and `folder` does not have yet.

    `jobs` local processes (by default one per core), or the workers of `dask`; see `executors.executor`.
    `report` is called as points finish, `tell` with what a user should know. Raises `InputError`, and
    `KeyboardInterrupt` once everything finished is stored.
    """
    check_installed(loaded.space.method)  # this and the next may refuse: before there is a folder
    workers = executor(jobs or len(os.sched_getaffinity(0)), dask)
    try:
        with Store(folder, create=True) as store, closing(Claims(folder)) as claims:
            number, before = store.use(record(loaded))
            changes = tuple(differences(before, loaded)) if before else ()
            for change in changes:
                tell(change)
            engine = Engine(
                loaded.base, loaded.digest, number, store, workers, claims,
                frozenset(rule.text for rule in loaded.constraints), retry_failed,
                Progress(loaded.size), report, tell,
            )  # fmt: skip
            climbed = _work(engine, loaded)
    finally:
        workers.close()
    progress, simulated = engine.progress, climbed.now if climbed else 0
    return Summary(progress.points, progress.evaluated - simulated, progress.failed, changes, climbed)


def _work(engine: Engine, loaded: LoadedSpace) -> Climbed | None:
    fidelity = loaded.space.fidelity
    if fidelity == "ladder":
        from tilewright.explore.sweep.climb import climb

        return climb(engine, loaded)
    if loaded.is_known_beforehand:
        engine.run(enumerate(points(loaded), 1), fidelity)
    else:
        search(engine, loaded, fidelity)
    return None


def search(engine: Engine, loaded: LoadedSpace, fidelity: Fidelity) -> None:
    """Let a search ask for points until the budget is spent. They are numbered as it asks for them first.

    It may take another course than in an earlier sweep, as where a point that failed was tried again with
    success: then points of the old course, whose numbers others have now, no longer belong to the space.
    """
    asked, budget = 0, loaded.space.budget or 0
    numbers: dict[bytes, int] = {}
    searcher = Search(loaded)
    while asked < budget:
        some = searcher.ask(min(GENERATION[loaded.space.method], budget - asked))
        allowed = [point for point in some if loaded.is_wanted(dict(point.values))]
        engine.progress.done += len(some) - len(allowed)
        names = engine.keys(allowed, fidelity)
        before = len(numbers)
        for name in names:
            numbers.setdefault(name, len(numbers) + 1)
        engine.store.dismiss(engine.space, {name: n for name, n in numbers.items() if n > before})
        engine.run(((numbers[name], each) for name, each in zip(names, allowed, strict=True)), fidelity)
        names = engine.keys(some, fidelity)
        kept = engine.store.results(names)
        found = [kept.get(name) for name in names]
        searcher.tell(some, [row.row if row else None for row in found])
        asked += len(some)


T = TypeVar("T")


def chunks(wanted: Iterable[T], size: int) -> Iterator[list[T]]:
    """Up to `size` at a time."""
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
