"""Reading a space file: every key and name in it checked, and its parameters as axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tilewright.arch.load import load_accelerator, to_yaml
from tilewright.arch.load import preset_names as accelerator_names
from tilewright.description.errors import InputError, Problem
from tilewright.description.names import nearest
from tilewright.description.overrides import SOURCE as OVERRIDES
from tilewright.description.prefixes import PREFIXES, split_overrides
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import Document, dump, parse, parse_value
from tilewright.explore.evaluate import BOUNDED, EXACT, KNOWN, Base, BaseWorkload, machine_figures
from tilewright.explore.expressions import Condition, condition
from tilewright.explore.points import Axis, Value, digest, grid, grid_size, override_text
from tilewright.explore.space import Parameter, Space
from tilewright.workloads.load import describe_workload, load_workload
from tilewright.workloads.load import preset_names as workload_names

MOST_STEPS = 1_000_000
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
        parts = [to_yaml(load_accelerator(self.base.accelerator))]
        for each in self.base.workloads:
            graph = load_workload(each.workload, each.overrides)
            described = describe_workload(each.workload, each.overrides).model_dump_json()
            parts += [f"{each.label} {each.weight!r}", described]
            parts.append(repr((graph.operators, sorted(graph.tensors.items()), graph.repeats)))
        return digest("\n".join(parts))

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
    check = _Checker(space, document, folder)
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
    split_overrides(overrides)
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

    def workload_problems(self) -> Iterator[Problem]:
        """What is wrong with the names of accelerator and workloads, which all else hangs on."""
        try:
            load_accelerator(self.accelerator)
        except InputError as error:
            yield from self._outside(error, ("accelerator",))
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

    def problems(self) -> Iterator[Problem]:
        """What is wrong with parameters, constraints and objectives."""
        seen: set[str] = set()
        for key, parameter in self.space.parameters.items():
            yield from self._key_problems(key, parameter, seen)
            seen.add(key)
        if self.space.method == "grid":
            for axis in self.axes:
                if axis.is_interval:
                    message = "a grid can't enumerate all numbers in between: add a step, or list `values`"
                    yield self._at(("parameters", axis.key, "range"), message)
        known = self._result_keys | self.space.parameters.keys()
        for number, text in enumerate(self.space.constraints):
            yield from self._constraint_problems(text, number, known)
        for number, objective in enumerate(self.space.objectives):
            yield from self._objective_problems(objective.name, number)

    def _key_problems(self, key: str, parameter: Parameter, seen: set[str]) -> Iterator[Problem]:
        try:
            split_overrides([f"{key}=0"])
        except InputError as error:
            message = error.problems[0].message.replace(f"{key}=0", key).replace("override ", "parameter ")
            yield self._at(("parameters", key), message, at_key=True)
            return
        for other in parameter.when or ():
            if other not in seen:
                hint = nearest(other, seen)
                meant = f", did you mean {hint!r}?" if hint else ""
                message = f"no parameter above this one is called {other!r}{meant}"
                yield self._at(("parameters", key, "when", other), message, at_key=True)
                return
        if parameter.range is not None and _steps(parameter.range) > MOST_STEPS:
            message = f"more than {MOST_STEPS:,} values: take a larger step"
            yield self._at(("parameters", key, "range"), message)
            return
        yield from self._value_problems(_axis(key, parameter))

    def _value_problems(self, axis: Axis) -> Iterator[Problem]:
        """What the description says of a key that is not there, or of a value that it never can have."""
        context = [(other, allowed[0]) for other, allowed in axis.when]
        tried = axis.values or (axis.low, axis.high)
        numbers = list(enumerate(tried))
        for number, value in numbers if len(numbers) <= 64 else (numbers[0], numbers[-1]):
            for problem in self._said_of((*context, (axis.key, value)), axis.key):
                unknown = problem.message.startswith("unknown key")
                if unknown:
                    yield self._at(("parameters", axis.key), problem.message, at_key=True)
                    return
                if problem.message.startswith(_WRONG) and axis.key.endswith(f".{problem.key}"):
                    parameter = self.space.parameters[axis.key]
                    kind = next(k for k in ("values", "range", "log2") if getattr(parameter, k) is not None)
                    where = (kind, number) if kind == "values" else (kind,)
                    yield self._at(("parameters", axis.key, *where), problem.message)

    def _said_of(self, chosen: Sequence[tuple[str, Value]], key: str) -> list[Problem]:
        """The problems of the description that `key` belongs to, with these values; of workloads those of all
        alike."""
        texts = [f"{name}={override_text(value)}" for name, value in chosen]
        try:
            if key.startswith("arch."):
                load_accelerator(self.accelerator, [text for text in texts if text.startswith("arch.")])
            else:
                own = [text for text in texts if text.startswith("workload.")]
                for entry in self.space.workloads:
                    name = self._found(entry.workload, workload_names())
                    describe_workload(name, (*entry.overrides, *own))
        except InputError as error:
            return list(error.problems)
        return []

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

    def _objective_problems(self, name: str, number: int) -> Iterator[Problem]:
        known = self._result_keys
        where = ("objectives", number, "name")
        if not _is_known(name, known):
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
        return tuple(_axis(key, parameter) for key, parameter in self.space.parameters.items())

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(map(condition, self.space.constraints))

    def base(self) -> Base:
        """What is evaluated at each point."""
        workloads = tuple(
            BaseWorkload(label, self._found(entry.workload, workload_names()), entry.overrides, entry.weight)
            for entry, label in zip(self.space.workloads, self._labels, strict=True)
        )
        machine = machine_figures(load_accelerator(self.accelerator)).keys() | {
            key for key in self.space.parameters if key.startswith("arch.")
        }
        early = tuple(rule.text for rule in self.conditions if rule.keys <= machine)
        figures = {key for rule in self.conditions for key in rule.keys} | {
            o.name for o in self.space.objectives
        }
        return Base(self.accelerator, workloads, early, tuple(sorted(figures)))

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
        return isinstance(data, dict) and key in (data.get("parameters") or {})


def _axis(key: str, parameter: Parameter) -> Axis:
    when = tuple((other, _listed(allowed)) for other, allowed in (parameter.when or {}).items())
    if parameter.values is not None:
        return Axis(key, tuple(map(_plain, parameter.values)), when=when)
    if parameter.log2 is not None:
        low, high = parameter.log2
        return Axis(key, tuple(2**exponent for exponent in range(low, high + 1)), when=when)
    assert parameter.range is not None
    low, high, *step = parameter.range
    if not step and not (isinstance(low, int) and isinstance(high, int)):
        return Axis(key, (), float(low), float(high), when)
    by = step[0] if step else 1
    count = _steps(parameter.range)
    return Axis(key, tuple(_plain(round(low + by * n, 12)) for n in range(min(count, MOST_STEPS))), when=when)


def _steps(ends: tuple[Any, ...]) -> int:
    low, high, *step = ends
    by = step[0] if step else 1
    return int((high - low) / by + 1e-9) + 1


def _plain(value: Any) -> Value:  # noqa: ANN401 - as YAML has it
    """2.0 is 2: one value, one spelling."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _listed(value: Any) -> tuple[Value, ...]:  # noqa: ANN401 - as YAML has it
    return tuple(map(_plain, value)) if isinstance(value, list) else (_plain(value),)


def _is_known(key: str, known: set[str]) -> bool:
    return key in known or any(start[-1] in ".:" and key.startswith(start) for start in known)


def _unknown_figure(what: str, key: str, known: set[str]) -> str:
    meant = nearest(key, known)
    hint = f", did you mean {meant!r}?" if meant else ""
    if not hint and key.partition(".")[0] not in PREFIXES:
        hint = f"; known: {', '.join(sorted(KNOWN))}"
    return f"unknown {what} {key!r}{hint}"
