"""Reading a space file: every key and name in it checked, and its parameters as axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tilewright.arch.load import load_accelerator
from tilewright.arch.load import preset_names as accelerator_names
from tilewright.description.errors import InputError, Problem
from tilewright.description.names import nearest
from tilewright.description.overrides import SOURCE as OVERRIDES
from tilewright.description.prefixes import PREFIXES, split_overrides
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import Document, dump, parse, parse_value
from tilewright.explore.evaluation.evaluate import BOUNDED, EXACT, KNOWN, Base, BaseWorkload, machine_figures
from tilewright.explore.evaluation.expressions import Condition, condition
from tilewright.explore.evaluation.points import WORKLOAD, Axis, Value, grid, grid_size, override_text
from tilewright.explore.space.axes import MOST_STEPS, axis_of, is_number, listed, steps
from tilewright.explore.space.content import base_digest
from tilewright.explore.space.schema import Parameter, Space, SpaceWorkload
from tilewright.workloads.load import describe_workload, load_workload
from tilewright.workloads.load import preset_names as workload_names

_WRONG = "must be "
"""How the messages of a key's own rules begin; what depends on other keys is found when the point is run."""


@dataclass(frozen=True)
class LoadedSpace:
    """A space file that can be used."""

    space: Space
    """With the parameters that the command line added."""
    source: str
    """The file, as named."""
    base: Base
    axes: tuple[Axis, ...]
    constraints: tuple[Condition, ...]

    @cached_property
    def digest(self) -> str:
        """Of what a point is a change of: the resolved accelerator and workloads."""
        return base_digest(self.base, self.axes)

    @property
    def definition(self) -> dict[str, Any]:
        """The space as plain data, without what it leaves out."""
        return self.space.model_dump(mode="json", exclude_none=True)

    @property
    def is_known_beforehand(self) -> bool:
        """Whether its points do not depend on what earlier ones gave."""
        return self.space.method in ("grid", "random", "sobol")

    def is_wanted(self, values: dict[str, Value]) -> bool:
        """Whether a choice meets the constraints that ask for its keys only."""
        return all(rule.holds(values) for rule in self._of_keys if rule.keys <= values.keys())

    @cached_property
    def _of_keys(self) -> list[Condition]:
        named = {axis.key for axis in self.axes}
        return [rule for rule in self.constraints if rule.keys <= named]

    @property
    def size(self) -> int:
        """How many points a sweep looks at; of a grid without those that no constraint on keys allows."""
        if self.space.budget is not None:
            return self.space.budget
        if not self._of_keys:
            return grid_size(self.axes)
        return sum(1 for point in grid(self.axes) if self.is_wanted(dict(point.values)))


def load_space(path: str | Path, overrides: Sequence[str] = ()) -> LoadedSpace:
    """The space of a YAML file; `overrides` are `KEY=V1,V2`, parameters in the place of the file's or beside
    them. Raises `InputError` with all mistakes."""
    return read_space(read_text(path), str(path), Path(path).parent, overrides)


def read_space(text: str, source: str, folder: Path, overrides: Sequence[str] = ()) -> LoadedSpace:
    """As `load_space`, for a space's text; files that it names are looked for in `folder`."""
    document = parse(text, source)
    space = read(Space, document, source)
    space = _with_parameters(space, overrides)
    check = _Checker(space, document, folder, {text.partition("=")[0] for text in overrides})
    problems = [*check.workload_problems()]
    if not problems:
        problems = [*check.problems()]
    if problems:
        raise InputError(*dict.fromkeys(problems))
    base = check.base()
    return LoadedSpace(space, source, base, check.axes, check.conditions)


def definition_text(loaded: LoadedSpace) -> str:
    """The space as YAML."""
    return dump(loaded.definition)


def _with_parameters(space: Space, overrides: Sequence[str]) -> Space:
    if not overrides:
        return space
    split_overrides([text for text in overrides if not text.startswith(f"{WORKLOAD}=")])
    parameters = dict(space.parameters)
    for override in overrides:
        key, _, text = override.partition("=")
        try:
            values = parse_value(f"[{text}]")
        except InputError as error:
            raise InputError(Problem(error.problems[0].message, OVERRIDES, key=key)) from None
        if not isinstance(values, list) or not values:
            raise InputError(f"override {override!r} names no value; write {key}=V1,V2")
        before = parameters.get(key)
        parameters[key] = Parameter(values=tuple(values), when=before.when if before else None)
    return space.model_copy(update={"parameters": parameters})


@dataclass(frozen=True)
class _Checker:
    """Looks a space over once its form is right; what is wrong is placed in the file."""

    space: Space
    document: Document
    folder: Path
    replaced: set[str]
    """Parameters that the command line gives."""

    def workload_problems(self) -> Iterator[Problem]:
        """What is wrong with the names of accelerator and workloads, which all else hangs on."""
        try:
            load_accelerator(self.accelerator)
        except InputError as error:
            yield from self._outside(error, ("accelerator",))
        yield from self._choice_problems()
        labels: set[str] = set()
        for number, (entry, label) in enumerate(zip(self.space.workloads, self._labels, strict=True)):
            wrong = [text for text in entry.overrides if not text.startswith("workload.")]
            if wrong:
                yield self._at(
                    ("workloads", number, "overrides"), f"{wrong[0]!r} does not start with workload."
                )
                continue
            if label in labels:
                message = f"two workloads are called {label!r}: give each a `name` of its own"
                yield self._at(("workloads", number), message)
            labels.add(label)
            try:
                load_workload(self._found(entry.workload, workload_names()), entry.overrides)
            except InputError as error:
                yield from self._outside(error, ("workloads", number, "workload"))

    def _choice_problems(self) -> Iterator[Problem]:
        """What is wrong with the parameter that is the workload itself, or with there being none."""
        parameter, given = self.space.parameters.get(WORKLOAD), self.space.workloads
        where = ("parameters", WORKLOAD)
        if parameter is None:
            if not given:
                message = "names no workload: list them here, or as the `values` of a parameter `workload`"
                yield self._at(("workloads",), message)
        elif len(given) > 1:
            message = f"a parameter `workload` takes the place of one workload, here are {len(given)}"
            yield self._at(("workloads",), message)
        elif parameter.values is None or parameter.when:
            message = "takes `values`, the names of presets or files, and nothing else"
            yield self._at(where, message, at_key=True)
        else:
            for number, value in enumerate(parameter.values):
                yield from self._name_problems(value, (*where, "values", number))

    def _name_problems(self, value: object, where: tuple[str | int, ...]) -> Iterator[Problem]:
        """What is wrong with a value of the parameter `workload`."""
        if not isinstance(value, str):
            yield self._at(where, f"must be a preset's name or a file, not {value!r}")
            return
        overrides = self.space.workloads[0].overrides if self.space.workloads else ()
        try:
            load_workload(self._found(value, workload_names()), overrides)
        except InputError as error:
            yield from self._outside(error, where)

    def problems(self) -> Iterator[Problem]:
        """What is wrong with parameters, constraints and objectives."""
        seen, wrong = set[str](), False
        for key, parameter in self.space.parameters.items():
            found = [*self._key_problems(key, parameter, seen)]
            yield from found
            wrong = wrong or bool(found)
            seen.add(key)
        if self.space.method == "grid":
            for axis in self.axes:
                if axis.is_interval:
                    message = "a grid can't enumerate all numbers in between: add a step, or list `values`"
                    yield self._at(("parameters", axis.key, "range"), message)
        known = self._result_keys | self.space.parameters.keys()
        if wrong:  # what asks for a parameter by its right name is not to blame
            known |= {f"{prefix}." for prefix in PREFIXES}
        for number, text in enumerate(self.space.constraints):
            yield from self._constraint_problems(text, number, known)
        names = [objective.name for objective in self.space.objectives]
        for number, name in enumerate(names):
            if name in names[:number]:
                message = f"{name!r} is an objective already: it has one goal, and stands here once"
                yield self._at(("objectives", number, "name"), message)
            else:
                yield from self._objective_problems(name, number, known)

    def _key_problems(self, key: str, parameter: Parameter, seen: set[str]) -> Iterator[Problem]:
        if key == WORKLOAD:
            return
        try:
            split_overrides([f"{key}=0"])
        except InputError as error:
            message = error.problems[0].message.replace(f"{key}=0", key).replace("override ", "parameter ")
            yield self._at(("parameters", key), message, at_key=True)
            return
        wrong = [*self._when_problems(key, parameter.when or {}, seen)]
        yield from wrong
        if wrong:
            return
        if parameter.range is not None and steps(parameter.range) > MOST_STEPS:
            message = f"more than {MOST_STEPS:,} values: take a larger step"
            yield self._at(("parameters", key, "range"), message)
            return
        axis = axis_of(key, parameter)
        texts = [override_text(value) for value in axis.values if parameter.values is not None]
        for number, text in enumerate(texts):
            if text in texts[:number]:
                yield self._at(("parameters", key, "values", number), f"{text} stands here twice")
                return
        yield from self._value_problems(axis)

    def _when_problems(self, key: str, when: dict[str, Any], seen: set[str]) -> Iterator[Problem]:
        for other, allowed in when.items():
            where = ("parameters", key, "when", other)
            if other not in seen:
                hint = nearest(other, seen)
                meant = f", did you mean {hint!r}?" if hint else ""
                message = f"no parameter above this one is called {other!r}{meant}"
                yield self._at(where, message, at_key=True)
            elif other == WORKLOAD:
                for number, name in enumerate(listed(allowed)):
                    place = (*where, number) if isinstance(allowed, list) else where
                    yield from self._unless_named(name, place)

    def _unless_named(self, name: Value, where: tuple[str | int, ...]) -> Iterator[Problem]:
        """A problem with a workload that is neither among the parameter's values nor known otherwise: values
        may be missing here only because the command line asked for fewer."""
        values = [value for value, _ in self.choices]
        is_file = isinstance(name, str) and self._found(name, ()) != name
        if not is_file and name not in (*values, *workload_names()):
            hint = nearest(str(name), (*values, *workload_names()))
            meant = f", did you mean {hint!r}?" if hint else ""
            yield self._at(where, f"the parameter `workload` is never {name!r}{meant}")

    def _value_problems(self, axis: Axis) -> Iterator[Problem]:
        """What the description says of a key that is not there, or of a value that it never can have."""
        context = [(other, allowed[0]) for other, allowed in axis.when]
        tried = axis.values or (axis.low, axis.high)
        numbers = list(enumerate(tried))
        for number, value in numbers if len(numbers) <= 64 else (numbers[0], numbers[-1]):
            for problem in self._said_of((*context, (axis.key, value)), axis.key, all_of_them=number == 0):
                unknown = problem.message.startswith("unknown key")
                if unknown:
                    yield self._at(("parameters", axis.key), problem.message, at_key=True)
                    return
                if problem.message.startswith(_WRONG) and axis.key.endswith(f".{problem.key}"):
                    parameter = self.space.parameters[axis.key]
                    kind = next(k for k in ("values", "range", "log2") if getattr(parameter, k) is not None)
                    where = (kind, number) if kind == "values" else (kind,)
                    yield self._at(("parameters", axis.key, *where), problem.message)

    def _said_of(self, chosen: Sequence[tuple[str, Value]], key: str, *, all_of_them: bool) -> list[Problem]:
        """The problems of the description that `key` belongs to, with these values; of workloads those of all
        alike, or of the first."""
        texts = [f"{name}={override_text(value)}" for name, value in chosen]
        if key.startswith("arch."):
            try:
                load_accelerator(self.accelerator, [text for text in texts if text.startswith("arch.")])
            except InputError as error:
                return list(error.problems)
            return []
        own = [text for text in texts if text.startswith("workload.")]
        places = self._run_with(key)
        for each in places if all_of_them else places[:1]:
            try:
                describe_workload(each.workload, (*each.overrides, *own))
            except InputError as error:
                if not self.choices:
                    return list(error.problems)
                return [_in(each.label, problem) for problem in error.problems]
        return []

    def _run_with(self, key: str) -> list[BaseWorkload]:
        """The workloads for which a parameter may be there."""
        workloads = self.base().workloads
        if not self.choices:
            return list(workloads)
        allowed = self._allowed_with(key)
        return [
            replace(workloads[0], label=name, workload=found)
            for name, found in self.choices
            if name in allowed
        ]

    def _allowed_with(self, key: str) -> set[str]:
        """Values of the parameter `workload` that a parameter's conditions allow, and those of what they ask
        for in turn."""
        allowed = {name for name, _ in self.choices}
        for other, values in (self.space.parameters[key].when or {}).items():
            allowed &= set(map(str, listed(values))) if other == WORKLOAD else self._allowed_with(other)
        return allowed

    def _constraint_problems(self, text: str, number: int, known: set[str]) -> Iterator[Problem]:
        where = ("constraints", number)
        try:
            rule = condition(text)
        except InputError as error:
            yield self._at(where, error.problems[0].message)
            return
        for key in sorted(rule.keys):
            if not _is_known(key, known):
                yield self._at(where, _unknown_figure("key", key, known))

    def _objective_problems(self, name: str, number: int, known: set[str]) -> Iterator[Problem]:
        where = ("objectives", number, "name")
        if name in self.space.parameters:
            texts = [v for v in axis_of(name, self.space.parameters[name]).values if not is_number(v)]
            if texts:
                yield self._at(where, f"points can't be compared by {name!r}: {texts[0]!r} is no number")
        elif not _is_known(name, known):
            yield self._at(where, _unknown_figure("objective", name, known))
        elif self.space.fidelity == "ladder" and not name.startswith((*BOUNDED, *EXACT)):
            message = f"{name!r} has no lower bound to climb the ladder by; use `fidelity: event`"
            yield self._at(where, message)

    @cached_property
    def _result_keys(self) -> set[str]:
        """Figures that rows are known to have, and the beginnings (`stalls.`) of those that depend on the
        run."""
        figures = machine_figures(load_accelerator(self.accelerator))
        keys = {*KNOWN, *figures}
        if len(self._labels) > 1:
            keys |= {f"{label}:" for label in self._labels}
        return keys

    @property
    def accelerator(self) -> str:
        """As it is found from here."""
        return self._found(self.space.accelerator, accelerator_names())

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(axis_of(key, parameter) for key, parameter in self.space.parameters.items())

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(map(condition, self.space.constraints))

    @cached_property
    def choices(self) -> tuple[tuple[str, str], ...]:
        """Values of the parameter `workload`, and where each is found; none where there is no such one."""
        parameter = self.space.parameters.get(WORKLOAD)
        names = parameter.values if parameter is not None and parameter.values is not None else ()
        return tuple((name, self._found(name, workload_names())) for name in names if isinstance(name, str))

    def base(self) -> Base:
        """What is evaluated at each point."""
        workloads = tuple(
            BaseWorkload(label, self._found(entry.workload, workload_names()), entry.overrides, entry.weight)
            for entry, label in zip(self.space.workloads, self._labels, strict=True)
        )
        if self.choices:
            given = self.space.workloads[0] if self.space.workloads else SpaceWorkload(workload=WORKLOAD)
            found = self.choices[0][1]
            workloads = (BaseWorkload(given.name or WORKLOAD, found, given.overrides, given.weight),)
        machine = machine_figures(load_accelerator(self.accelerator)).keys() | {
            key for key in self.space.parameters if key.startswith("arch.")
        }
        early = tuple(rule.text for rule in self.conditions if rule.keys <= machine)
        figures = {key for rule in self.conditions for key in rule.keys} | {
            o.name for o in self.space.objectives
        }
        return Base(self.accelerator, workloads, early, tuple(sorted(figures)), self.choices)

    @cached_property
    def _labels(self) -> list[str]:
        return [entry.name or Path(entry.workload).stem for entry in self.space.workloads]

    def _found(self, name: str, presets: Sequence[str]) -> str:
        """A preset's name as it is; a file's as it is found from anywhere."""
        if name in presets or not (self.folder / name).exists():
            return name
        return str((self.folder / name).resolve())

    def _outside(self, error: InputError, path: tuple[str | int, ...]) -> Iterator[Problem]:
        for problem in error.problems:
            if problem.source and problem.source != OVERRIDES:
                yield problem
            else:
                excerpt = f"in {problem.excerpt!r}: " if problem.source == OVERRIDES else ""
                yield self._at(path, f"{excerpt}{problem.message}")

    def _at(self, path: tuple[str | int, ...], message: str, *, at_key: bool = False) -> Problem:
        if len(path) > 1 and path[0] == "parameters" and not self._is_written(str(path[1])):
            return Problem(message, OVERRIDES, key=str(path[1]))
        return self.document.problem(message, path, ".".join(map(str, path)), at_key=at_key)

    def _is_written(self, key: str) -> bool:
        data = self.document.data
        return isinstance(data, dict) and key in (data.get("parameters") or {}) and key not in self.replaced


def _in(workload: str, problem: Problem) -> Problem:
    """With the workload that has it, where there are several to choose from."""
    hint = ""
    if problem.message.startswith("unknown key"):
        hint = "; `when: {workload: …}` keeps a parameter to the workloads that have it"
    return replace(problem, message=f"{problem.message} (in {workload}{hint})")


def _is_known(key: str, known: set[str]) -> bool:
    return key in known or any(start[-1] in ".:" and key.startswith(start) for start in known)


def _unknown_figure(what: str, key: str, known: set[str]) -> str:
    meant = nearest(key, known)
    hint = f", did you mean {meant!r}?" if meant else ""
    if not hint and key.partition(".")[0] not in PREFIXES:
        hint = f"; known: {', '.join(sorted(KNOWN))}"
    return f"unknown {what} {key!r}{hint}"
