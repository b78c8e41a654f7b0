"""The sweep benchmarks measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tilewright as tw
from tilewright.arch.dram import FlatDram
from tilewright.explore.space.load import load_space

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules, which are no part of the installed package."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import sweep_speed, zigzag

    return {"sweep_speed": sweep_speed, "zigzag": zigzag}


def test_zigzag_is_given_the_preset(benchmarks: dict[str, ModuleType]) -> None:
    """ZigZag's memories are as large as those of gemmini-default and move no less per cycle."""
    given = benchmarks["zigzag"].zigzag_accelerator(16, 16)["memories"]
    preset = tw.load_accelerator("gemmini-default")
    for name, buffer in preset.buffers.items():
        assert given[name]["size"] == 8 * buffer.capacity_bytes
        moved = sum(port["bandwidth_max"] for port in given[name]["ports"])
        assert moved >= 8 * buffer.bytes_per_cycle
    assert isinstance(preset.dram, FlatDram)
    assert given["dram"]["ports"][0]["bandwidth_max"] == 8 * preset.dram.bytes_per_cycle
    assert list(given) == ["registers", "accumulator", "scratchpad", "dram"]


def test_gemms_are_those_of_a_bert_base_layer(benchmarks: dict[str, ModuleType]) -> None:
    """Their MACs, as often as they occur, are the matmuls of tilewright's own encoder block."""
    macs = sum(times * m * k * n for _, times, m, k, n in benchmarks["zigzag"].GEMMS)
    layer = tw.load_workload("encoder_block", ["d=768", "heads=12", "ffn=3072", "seq=512"])
    assert macs == tw.simulate(tw.load_accelerator("gemmini-default"), layer, "analytic").macs


def test_sizes_of_the_swept_spaces(benchmarks: dict[str, ModuleType], tmp_path: Path) -> None:
    """The sweeps have as many points as the table says."""
    module = benchmarks["sweep_speed"]
    space = tmp_path / "space.yaml"
    space.write_text(module.LAYER)
    assert {size: load_space(space, list(words)).size for size, words in module.SIZES.items()} == {
        size: size for size in module.SIZES
    }


def test_zigzag_result_of_other_designs_is_refused(tmp_path: Path) -> None:
    """A kept measurement stands in only for the same design points."""
    saved = json.loads((ROOT / "benchmarks" / "results" / "zigzag.json").read_text())
    saved["designs"][0] = [8, 8]
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(saved))
    command = [
        "-m",
        "benchmarks.zigzag",
        "--runs",
        "1",
        "--reuse",
        str(kept),
        "--out",
        str(tmp_path / "new.json"),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "can't be reused: its designs are [[8, 8]" in done.stderr
