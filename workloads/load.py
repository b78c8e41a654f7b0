"""Finding a workload by name or file, and reading its description."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from tilewright.description.errors import InputError
from tilewright.description.names import unknown_message
from tilewright.description.reading import read, read_text
from tilewright.description.schema import closed
from tilewright.description.yaml_text import dump, parse
from tilewright.workloads.catalogue import FAMILIES, any_workload, family_model
from tilewright.workloads.compression.quality import as_metadata, published
from tilewright.workloads.description import Model, Workload
from tilewright.workloads.graph import OperatorGraph

MOST_MACS = 2**56
"""Of one operator."""
MOST_ELEMENTS = 2**50
"""Of one tensor."""
_YAML_SUFFIXES = (".yaml", ".yml")


def load_workload(name_or_path: str | Path, overrides: Sequence[str] = ()) -> OperatorGraph:
    """The operator graph of a workload: see `describe_workload`."""
    described = describe_workload(name_or_path, overrides)
    graph = described.graph()
    _check_countable(graph, str(name_or_path))
    return replace(graph, metadata={**graph.metadata, **_published(described)})


def _published(described: Workload) -> Mapping[str, str]:
    """Published accuracy, if the description is a shipped workload but for how it is run and compressed."""
    name = described.name
    if not isinstance(described, Model) or name not in preset_names():
        return {}
    rows = published(name, described.compression)
    if not rows:
        return {}
    how = {"batch": described.batch, "compression": described.compression}
    if hasattr(described, "seq"):
        how["seq"] = described.seq
    preset: Workload = _read(preset_text(name), name)
    return as_metadata(rows) if preset.model_copy(update=how) == described else {}


def describe_workload(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Workload:
    """The resolved description of a preset, a YAML file, a Hugging Face config.json (or the folder of one),
    an ONNX file, or a SCALE-Sim topology CSV.

    `overrides` are `KEY=VALUE` with or without `workload.` before the key. Raises InputError.
    """
    name = str(name_or_path)
    _refuse_other_family(overrides)
    if isinstance(name_or_path, str) and name in preset_names():
        return _read(preset_text(name), name, overrides)
    path = Path(name)
    if name and (path / "config.json").is_file():
        path /= "config.json"
    if path.suffix == ".json":
        from tilewright.workloads.hugging_face import read_config

        return _read_converted(read_config(path), str(path), overrides)
    if path.suffix == ".csv":
        from tilewright.workloads.topology import read_topology

        return _read_converted(read_topology(path), name, overrides)
    if path.suffix == ".onnx":
        from tilewright.workloads.onnx_import import read_onnx

        return _read_converted(read_onnx(path), name, overrides)
    looks_like_a_file = path.suffix in _YAML_SUFFIXES or len(path.parts) > 1 or isinstance(name_or_path, Path)
    if looks_like_a_file or path.is_file():
        return _read(read_text(path), name, overrides)
    raise InputError(f"{unknown_message('workload', name, preset_names())}; it is no file either")


def _refuse_other_family(overrides: Sequence[str]) -> None:
    """Raise InputError for an override of `family`: what it left of a description would be a misnomer."""
    for text in overrides:
        if text.partition("=")[0].strip().removeprefix("workload.") == "family":
            raise InputError(
                f"override {text!r}: a workload's family can't be changed; name another workload"
            )


def _check_countable(graph: OperatorGraph, name: str) -> None:
    """Raise InputError for sizes whose products would not fit the 64 bits of the mapper's sums."""
    op = max(graph.operators, key=lambda each: each.macs)
    if op.macs > MOST_MACS:
        raise InputError(f"{name}: {op.name} has {op.macs:,} MACs, more than the {MOST_MACS:,} allowed")
    tensor = max(graph.tensors.values(), key=lambda each: each.elements)
    if tensor.elements > MOST_ELEMENTS:
        size = f"{tensor.elements:,} elements, more than the {MOST_ELEMENTS:,} allowed"
        raise InputError(f"{name}: tensor {tensor.name} has {size}")


def preset_names() -> tuple[str, ...]:
    """Names of the shipped workloads, sorted."""
    return tuple(sorted(_presets()))


def preset_text(name: str) -> str:
    """The YAML of a shipped workload."""
    return _presets()[name].read_text(encoding="utf-8")


def workload_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a workload's YAML file, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tilewright workload"}
    return {**head, **closed(any_workload().json_schema())}


def to_yaml(model: Workload) -> str:
    """The resolved description as YAML that loads back to an equal one."""
    data = model.model_dump(mode="json")
    ordered = {key: data[key] for key in ("name", "family")} | data
    return dump(ordered)


@cache
def _presets() -> dict[str, Traversable]:
    folder = files("tilewright.workloads") / "presets"
    return {
        entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")
    }


def _read(text: str, source: str, overrides: Sequence[str] = ()) -> Workload:
    """A description by the model of its family; what is wrong with it is said with all families in view."""
    document = parse(text, source)
    data = document.data
    family = data.get("family") if isinstance(data, Mapping) else None
    if isinstance(family, str) and family in FAMILIES:
        try:
            return read(family_model(family), document, source, overrides, "workload")
        except InputError:
            pass  # the messages of all families together also know which other family has a key
    return read(any_workload(), document, source, overrides, "workload")


def _read_converted(data: dict[str, Any], source: str, overrides: Sequence[str]) -> Workload:
    """A description that was not written as YAML: its own mistakes have no lines and columns."""
    try:
        return _read(json.dumps(data), source, overrides)
    except InputError as error:
        plain = (
            replace(problem, line=0, column=0, excerpt="") if problem.source == source else problem
            for problem in error.problems
        )
        raise InputError(*plain) from None
