"""Accelerators by name or from a file: the shipped presets, their schema, and the way back to YAML."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.dram_standards import standards
from tilewright.arch.fpga_results import with_measured_fpga
from tilewright.arch.technology import with_technology_file
from tilewright.description.errors import InputError
from tilewright.description.names import unknown, unknown_message
from tilewright.description.reading import read, read_text
from tilewright.description.yaml_text import dump

_SUFFIXES = (".yaml", ".yml", ".json")


def load_accelerator(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Accelerator:
    """Return the accelerator of a preset's name or of a YAML file, with `KEY=VALUE` overrides put in.

    Keys are dotted, with or without `arch.` in front: `array.rows=32`. Raises InputError with every mistake
    at once; a name that is neither a preset nor a file gets the closest preset's.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, str) and name in preset_names():
        return _completed(read(Accelerator, preset_text(name), name, overrides), Path())
    accelerator = read(Accelerator, _file_text(name_or_path), name, overrides)
    return _completed(accelerator, Path(name).parent)


def _completed(accelerator: Accelerator, folder: Path) -> Accelerator:
    """With what other files say of it, which are named relative to `folder`."""
    return with_measured_fpga(with_technology_file(accelerator, folder), folder)


@lru_cache(maxsize=1)
def preset_names() -> tuple[str, ...]:
    """Return the names of the shipped accelerators, sorted."""
    folder = files("tilewright.arch") / "presets"
    return tuple(
        sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    )


def preset_text(name: str) -> str:
    """Return the YAML text of a preset, comments and all. Raises InputError for an unknown name."""
    if name not in preset_names():
        raise unknown("accelerator", name, preset_names())
    return (files("tilewright.arch") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")


def accelerator_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of an accelerator description, for editors.

    A banked DRAM that names a `standard` may leave out what the standard fills in.
    """
    schema = Accelerator.model_json_schema()
    banked = schema["$defs"]["BankedDram"]
    filled = [key for key in banked["required"] if key != "kind"]
    banked["required"] = ["kind"]
    banked["anyOf"] = [{"required": ["standard"]}, {"required": filled}]
    banked["properties"]["standard"] |= {"anyOf": [{"enum": list(standards())}, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def to_yaml(accelerator: Accelerator) -> str:
    """Return the resolved description as YAML, every default and every figure of a DRAM standard written out.

    Reading it gives an equal accelerator.
    """
    return dump(accelerator.model_dump(mode="json"))


def _file_text(name_or_path: str | Path) -> str:
    name = str(name_or_path)
    path = Path(name)
    looks_like_a_file = path.suffix in _SUFFIXES or len(path.parts) > 1 or isinstance(name_or_path, Path)
    if looks_like_a_file or (name and path.exists()):
        return read_text(path)
    raise InputError(f"{unknown_message('accelerator', name, preset_names())}; it is no file either")
