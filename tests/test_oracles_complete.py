"""Every mechanism is compared with a public implementation, and `make test-oracles` installs what for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tilewright.workloads.attention.choice import mechanisms

TESTS = Path(__file__).parent
PACKAGE = "tilewright.workloads.attention."
REQUIREMENTS = (TESTS / "oracles" / "requirements.txt").read_text().lower().replace("_", "-")
OURS = {kind: each for kind, each in mechanisms().items() if each.lower.__module__.startswith(PACKAGE)}
MAKEFILE = (TESTS.parent / "Makefile").read_text()


@pytest.mark.parametrize("kind", OURS)
def test_every_mechanism_has_an_oracle(kind: str) -> None:
    """A test against the public implementation that its text names, which reads the case frozen for the tests
    that run without it; these read it, too."""
    oracle = (TESTS / "oracles" / f"test_{kind}.py").read_text()
    assert f'"{kind}.npz"' in oracle
    assert (TESTS / "data" / "oracles" / f"{kind}.npz").is_file()
    assert f'"{kind}.npz"' in (TESTS / f"test_attention_{kind}.py").read_text()


@pytest.mark.parametrize("kind", OURS)
def test_the_named_versions_are_installed(kind: str) -> None:
    """What a mechanism's `oracle` names is pinned, in the requirements or the Makefile, to that version."""
    named = re.findall(r"([\w-]+) (\d+\.\d+\.\d+)", OURS[kind].oracle)
    assert named
    for package, version in named:
        assert f"{package}=={version}" in REQUIREMENTS + MAKEFILE


@pytest.mark.parametrize(
    "path", sorted((TESTS / "data" / "oracles").glob("*.npz")), ids=lambda path: path.stem
)
def test_every_frozen_case_has_its_origin(path: Path) -> None:
    """A test of the same name compares the stored arrays with the public implementation's."""
    assert f'"{path.name}"' in (TESTS / "oracles" / f"test_{path.stem}.py").read_text()
