"""Points of a space: what is varied, one choice of it, and the name under which its results are kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from importlib.resources.abc import Traversable

Value = bool | int | float | str | None | list["Value"] | dict[str, "Value"]
"""What YAML can say."""
Chosen = tuple[tuple[str, Value], ...]
WORKLOAD = "workload"
"""The parameter that is the workload itself; those of its keys begin with `workload.`."""
DIGEST_BYTES = 16
_MODELS = ("arch", "workloads", "dataflows", "sim")
"""Packages that decide what a point's figures are."""
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Point:
    """One choice: override keys with their values, in the order of the space. Keys whose condition is not met
    are left out."""

    values: Chosen

    @property
    def canonical(self) -> str:
        """The same text for the same choice, whatever its order: a JSON object."""
        return _encode(dict(self.values))

    def overrides(self, prefix: str) -> tuple[str, ...]:
        """Its `KEY=VALUE` of one prefix (`arch`, `workload`), as on the command line."""
        start = f"{prefix}."
        return tuple(f"{key}={override_text(value)}" for key, value in self.values if key.startswith(start))


@dataclass(frozen=True)
class Axis:
    """One parameter: its values, or an interval of numbers."""

    key: str
    values: tuple[Value, ...]
    """Empty for an interval."""
    low: float = 0.0
    high: float = 0.0
    when: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    """Earlier parameters, and the values of each for which this one is there."""

    @property
    def is_interval(self) -> bool:
        """Whether any number between `low` and `high` will do."""
        return not self.values

    def is_there(self, chosen: Mapping[str, Value]) -> bool:
        """Whether its condition is met by what was chosen before it."""
        return all(key in chosen and chosen[key] in allowed for key, allowed in self.when)

    def at(self, share: float) -> Value:
        """The value at a share (0 to 1, without 1) of the way from the first to the last."""
        if self.is_interval:
            return self.low + share * (self.high - self.low)
        return self.values[int(share * len(self.values))]


def override_text(value: Value) -> str:
    """A value as an override has it: YAML in one line."""
    return _encode(value)


def parse_point(canonical: str) -> dict[str, Value]:
    """The choice behind `Point.canonical`."""
    found: dict[str, Value] = json.loads(canonical)
    return found


def grid(axes: Sequence[Axis]) -> Iterator[Point]:
    """Every combination, the last axis fastest, but workloads slowest: making a graph costs more than reading
    an accelerator, and the last ones made are kept."""
    of_workload: set[str] = set()
    for axis in axes:
        if axis.key.partition(".")[0] == WORKLOAD and all(key in of_workload for key, _ in axis.when):
            of_workload.add(axis.key)
    order = sorted(axes, key=lambda axis: axis.key not in of_workload)
    home = {axis.key: place for place, axis in enumerate(axes)}
    straight = order == list(axes)
    for chosen in _combinations(order, {}):
        items = tuple(chosen.items())
        yield Point(items if straight else tuple(sorted(items, key=lambda item: home[item[0]])))


def _combinations(axes: Sequence[Axis], chosen: dict[str, Value]) -> Iterator[dict[str, Value]]:
    if not axes:
        yield chosen
        return
    axis, *rest = axes
    if not axis.is_there(chosen):
        yield from _combinations(rest, chosen)
        return
    if not rest:
        for value in axis.values:
            yield chosen | {axis.key: value}
        return
    for value in axis.values:
        yield from _combinations(rest, chosen | {axis.key: value})


def grid_size(axes: Sequence[Axis]) -> int:
    """How many points `grid` has."""
    if any(axis.when for axis in axes):
        return sum(1 for _ in _combinations(axes, {}))
    size = 1
    for axis in axes:
        size *= len(axis.values)
    return size


def keys(study_digest: str, fidelity: str, version: str = "") -> Callable[[str], bytes]:
    """What turns a point's canonical text into the key of its row: a hash of what the point is a change of
    (`study_digest`), the point, the fidelity and `version`, by default `model_version()`."""
    start = blake2b(
        f"{study_digest}\n{fidelity}\n{version or model_version()}\n".encode(), digest_size=DIGEST_BYTES
    )

    def key(canonical: str) -> bytes:
        state = start.copy()
        state.update(canonical.encode())
        return state.digest()

    return key


def digest(text: str) -> str:
    """A hash of a text, in hexadecimal."""
    return hashed(text.encode())


def hashed(content: bytes) -> str:
    """A hash of a file's content, in hexadecimal."""
    return blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


@cache
def model_version() -> str:
    """A hash of the source and the data of the packages that figures come from: two installations with the
    same one give the same figures."""
    state = blake2b(digest_size=DIGEST_BYTES)
    for package in _MODELS:
        for name, part in sorted(_model_files(files(f"tilewright.{package}"), package)):
            state.update(f"{name}\n".encode())
            state.update(part.read_bytes())
    return state.hexdigest()


def _model_files(folder: Traversable, above: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        name = f"{above}/{entry.name}"
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _model_files(entry, name)
        elif name.endswith((".py", ".yaml", ".csv", ".npy")):
            yield name, entry
