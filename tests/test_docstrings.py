"""Examples in docstrings."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tilewright"
FOLDERS = ("arch", "dataflows", "explore", "rtl", "sim", "workloads", "description", "cli")
MODULES = [
    ".".join(("tilewright", *path.relative_to(PACKAGE).with_suffix("").parts))
    for folder in FOLDERS
    for path in sorted((PACKAGE / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_there_are_examples() -> None:
    """The folders are read at all: an empty list would pass every test of it."""
    assert "tilewright.arch.network" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    """What stands behind `>>>` gives what is written below it."""
    found = doctest.testmod(import_module(module))
    assert found.attempted > 0
    assert found.failed == 0
