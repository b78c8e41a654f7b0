"""The repository's layout: folders at the top, one package, imports that go one way."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

SHIPPED = {".py", ".typed", ".yaml", ".csv", ".npy", ".vlt"}
"""Files of these kinds are in the wheel."""
ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("arch", "dataflows", "explore", "rtl", "sim", "workloads")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def tree_files() -> list[Path]:
    """Every file of the project: those at the top, and those in its folders; links are not followed."""
    found = [file for file in ROOT.iterdir() if file.is_file()]
    for folder in (*FOLDERS, "tilewright", "tests", "benchmarks", "docs", "examples", ".ci"):
        for parent, folders, names in os.walk(ROOT / folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            found += [Path(parent) / name for name in names]
    return found


def packages_on_disk() -> set[str]:
    """Dotted names of the folders that hold an `__init__.py`, as they are imported."""
    homes = {folder: ROOT / folder for folder in (*FOLDERS, "tilewright")}
    found = set()
    for folder, home in homes.items():
        prefix = ("tilewright",) if folder != "tilewright" else ()
        for file in tree_files():
            if file.name == "__init__.py" and file.is_relative_to(home):
                found.add(".".join((*prefix, *file.parent.relative_to(ROOT).parts)))
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_facade_links_to_the_real_folder(folder: str) -> None:
    """Each of the six folders stands at the top, and the package holds a relative link to it."""
    link = ROOT / "tilewright" / folder
    assert (ROOT / folder / "__init__.py").is_file()
    assert not (ROOT / folder).is_symlink()
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder


def test_imports_go_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No module imports from a layer above its own."""
    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS


def test_contract_covers_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract speaks about every part of the package, and the modules behind the links are seen."""
    contract = PROJECT["tool"]["importlinter"]["contracts"][0]
    layers = {name.strip() for layer in contract["layers"] for name in layer.split("|")}
    monkeypatch.syspath_prepend(ROOT)
    graph = grimp.build_graph("tilewright", cache_dir=None)
    assert graph.find_children("tilewright") - {"tilewright.__main__"} == layers
    assert {"tilewright.sim.result", "tilewright.arch.accelerator"} <= graph.modules


def test_every_package_is_listed() -> None:
    """`[tool.setuptools] packages` names the packages on disk, no more and no fewer, in order."""
    assert SETUPTOOLS["packages"] == sorted(packages_on_disk())


def test_every_folder_is_mapped() -> None:
    """`package-dir` sends each part of the package to the folder of its name."""
    mapping = {f"tilewright.{folder}": folder for folder in FOLDERS}
    assert SETUPTOOLS["package-dir"] == {"tilewright": "tilewright"} | mapping


def test_ruff_checks_each_file_once() -> None:
    """The links do not lead the linter to a file twice."""
    command = [sys.executable, "-m", "ruff", "check", "--show-files"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    real = [Path(name).resolve() for name in shown if name.endswith(".py")]
    assert len(real) == len(set(real))
    assert set(real) == {file for file in tree_files() if file.suffix == ".py"}


def test_nothing_outside_the_repository_is_needed() -> None:
    """No file speaks of a folder beside the repository."""
    outside = f"..{'/'}shared"
    assert [file for file in tree_files() if outside.encode() in file.read_bytes()] == []


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    """A wheel holds every module and every data file under `tilewright/`, and no other top-level name."""
    source = tmp_path / "source"
    for file in tree_files():
        copy = source / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    parts = [(folder, f"tilewright/{folder}") for folder in FOLDERS] + [("tilewright", "tilewright")]
    wanted = {
        file.relative_to(ROOT).as_posix().replace(folder, home, 1)
        for folder, home in parts
        for file in tree_files()
        if file.is_relative_to(ROOT / folder)
        and file.suffix in {".py", ".typed", ".yaml", ".csv", ".npy", ".vlt"}
    }
    assert held == wanted
