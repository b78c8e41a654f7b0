"""The comparison with SCALE-Sim, with its side taken from the measurements that are kept."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KEPT = sorted((ROOT / "benchmarks" / "results").glob("scalesim-*.json"))


def compare(kept: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "benchmarks.scalesim", "--runs", "1", "--reuse", str(kept), "--out", str(out), *options]
    return subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("kept", KEPT, ids=lambda file: file.stem)
def test_compute_cycles_equal_scalesim(kept: Path, tmp_path: Path) -> None:
    """On a bare array, each GEMM of a BERT-base layer takes the cycles that SCALE-Sim 3.0.0 measured."""
    saved = json.loads(kept.read_text())
    array = ("--size", str(saved["size"]), "--dataflow", saved["dataflow"])
    done = compare(kept, tmp_path / "new.json", *array)
    assert "compute cycles equal for 30 of 30 GEMMs\n" in done.stdout
    assert done.returncode == 0
    written = json.loads((tmp_path / "new.json").read_text())
    assert written["scalesim"] == saved["scalesim"]
    assert written["tilewright"]["cycles"] == saved["scalesim"]["cycles"]


def test_differing_cycles_are_a_failure(tmp_path: Path) -> None:
    """A GEMM whose cycles differ is named, and the exit code is 1."""
    saved = json.loads((ROOT / "benchmarks" / "results" / "scalesim-128-ws.json").read_text())
    saved["scalesim"]["cycles"][0] += 1
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(saved))
    done = compare(kept, tmp_path / "new.json")
    assert done.stdout.endswith("equal for 29 of 30 GEMMs\n  query: 32,185 against 32,184\n")
    assert done.returncode == 1


def test_measurement_of_another_array_is_refused(tmp_path: Path) -> None:
    """A kept measurement stands in only for the same GEMMs on the same array."""
    kept = ROOT / "benchmarks" / "results" / "scalesim-128-ws.json"
    done = compare(kept, tmp_path / "new.json", "--size", "64")
    assert done.stderr.endswith("scalesim-128-ws.json can't be reused: its size is 128, not 64\n")
    assert done.returncode == 1
    assert not (tmp_path / "new.json").exists()
