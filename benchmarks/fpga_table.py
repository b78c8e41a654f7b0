"""Attention units on FPGAs: what was measured, as a table, and measuring it again.

    python -m benchmarks.fpga_table                     the shipped measurements, in Markdown
    python -m benchmarks.fpga_table --measure UNIT@TARGET …     measure, and put into arch/fpga_measured.yaml

A unit is `ROWSxCOLS` of the preset `attention-unit`, followed by any overrides:
`4x4,array.operand=int4@up5k`. An 8x8 takes some minutes of CPU, most of it place and route.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import tilewright as tw
from tilewright.arch.fpga import Measured
from tilewright.arch.fpga_results import shipped_measurements
from tilewright.rtl.fpga import synthesise
from tilewright.rtl.fpga_targets import TARGETS

ROWS = Path(__file__).resolve().parent.parent / "arch" / "fpga_measured.yaml"
HEADING = """\
# Attention units synthesised, placed and routed with open tools; rows as in `resources.TARGET.json`.
# Written by `python -m benchmarks.fpga_table --measure`.
"""
KEYS = 1024
"""Keys and queries of the head at which utilisation is taken."""
COLUMNS = ("unit", "device", "LUTs", "FFs", "DSPs", "block RAMs", "fmax", "busy", "a head takes")


def overrides_of(unit: str) -> list[str]:
    """`8x8,array.operand=int4` as overrides of the preset."""
    size, *more = unit.split(",")
    rows, cols = size.split("x")
    return [f"array.rows={rows}", f"array.cols={cols}", f"vector.lanes={rows}", *more]


def measure(unit: str, target: str) -> dict[str, Any]:
    """Take a unit through the flow; its row."""
    overrides = overrides_of(unit)
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / "unit"
        tw.generate_verilog(tw.load_accelerator("attention-unit", overrides), folder)
        resources = synthesise(folder, target, lambda text: print(text, file=sys.stderr, flush=True))
    settings = " ".join(f"arch.{override}" for override in overrides)
    command = f"tilewright rtl attention-unit {settings} -o build --synth {target}"
    return {**json.loads(resources.to_json()), "bitstream": None, "source": command}


def store(row: dict[str, Any]) -> None:
    """Put a row into the file, in the place of one of the same unit and target."""
    rows = yaml.safe_load(ROWS.read_text(encoding="utf-8"))["units"]
    kept = [old for old in rows if (old["target"], old["parameters"]) != (row["target"], row["parameters"])]
    kept.append(row)
    kept.sort(key=lambda each: (each["target"], each["parameters"]["rows"], each["source"]))
    text = yaml.safe_dump({"units": kept}, sort_keys=False, width=110, allow_unicode=True)
    ROWS.write_text(HEADING + text, encoding="utf-8")


def table(rows: Sequence[Measured]) -> str:
    """Markdown: a line per measured unit."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---|---|{'---:|' * (len(COLUMNS) - 2)}"]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)])


def _cells(row: Measured) -> Iterator[str]:
    size = row.parameters
    yield f"{size['rows']}×{size['cols']} int{size['operand_bits']}, D = {size['head_dim']}"
    yield TARGETS[row.target].title
    for kind in ("lut", "ff", "dsp", "bram"):
        used, there = getattr(row, kind), row.available.get(kind)
        yield f"{used:,} ({100 * used / there:.0f} %)" if there else f"{used:,}"
    yield f"{row.fmax_mhz:.1f} MHz" if row.fmax_mhz else "–"
    accelerator = tw.load_accelerator("attention-unit", _overrides(row))
    head = tw.load_workload("attention", [f"seq={KEYS}", "heads=1", f"head_dim={size['head_dim']}"])
    result = tw.simulate(accelerator, head)
    yield f"{100 * result.utilization:.1f} %"
    yield f"{1e3 * result.latency_s:.2f} ms" if row.fmax_mhz else "–"


def _overrides(row: Measured) -> list[str]:
    """Of the preset, that make this unit on this device."""
    size = row.parameters
    array = [f"array.{name}={size[name]}" for name in ("rows", "cols")]
    unit = [
        f"attention_unit.{name}={value}"
        for name, value in size.items()
        if name not in ("rows", "cols", "operand_bits")
    ]
    device = [f"fpga.target={row.target}"] if row.fmax_mhz else []
    return [
        *array,
        f"array.operand=int{size['operand_bits']}",
        f"vector.lanes={size['rows']}",
        *unit,
        *device,
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--measure", nargs="+", metavar="UNIT@TARGET", default=[])
    for each in parser.parse_args(arguments).measure:
        unit, target = each.split("@")
        store(measure(unit, target))
    shipped_measurements.cache_clear()
    print(table(shipped_measurements()))


if __name__ == "__main__":
    main()
