"""Whether a folder may be replaced by a new unit: only if nothing in it is anybody else's.

`attention_unit.json` lists the files that were written with it, with their hashes, so that what was added or
changed since is known. What our own commands make of them, or those that the folder's README names, can be
made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from tilewright.description.errors import InputError
from tilewright.rtl.verilog import TOP

MARK = f"{TOP}.json"
"""File by which a folder of ours is known."""
_MADE = (
    f"{TOP}.vcd", "tb.vvp", "obj_dir/*", "synth_*.log", "place_*.log", "pack_*.log", "ecp5*.json",
    "ice40*.json", "xilinx*.json", "ecp5.config", "ice40.asc", f"{TOP}.*.bit", f"{TOP}.*.bin",
    "resources.*.json",
)  # fmt: skip
"""Paths of what is made of a unit."""
_NAMED = 3
"""Files that a message names."""


def digests(texts: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of each file by its path."""
    return {name: _digest(text.encode()) for name, text in sorted(texts.items())}


def check_replaceable(target: Path) -> None:
    """Raise `InputError` if replacing `target` would lose anything that is not a unit's as it was written."""
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"can't write {target}: it is no directory")
    if any(target.iterdir()):
        lost = sorted(_not_ours(target))
        if lost:
            more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            raise InputError(
                f"{target} would be replaced, and holds what `tilewright rtl` did not write so: "
                f"{', '.join(lost[:_NAMED])}{more}; move that away, or name another directory"
            )
    if Path.cwd().is_relative_to(target):
        raise InputError(f"{target} would be replaced and is the working directory: name another one")


def _not_ours(folder: Path) -> Iterator[str]:
    """Paths of files that were added or changed."""
    known = _written(folder)
    made = (MARK, *_MADE) if known else ()
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            yield name
        elif path.is_dir() or any(fnmatchcase(name, pattern) for pattern in made):
            continue
        elif name not in known:
            yield name
        elif _digest(path.read_bytes()) != known[name]:
            yield f"{name} (changed)"


def _written(folder: Path) -> dict[str, str]:
    """What was written, by path; nothing where there is no such list."""
    try:
        described = json.loads((folder / MARK).read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in described["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()
