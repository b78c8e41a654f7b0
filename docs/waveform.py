"""A waveform of the attention unit as text: one row a signal, one column a cycle.

    python -m docs.waveform [FILE.vcd]

Without a file: one head of 4 queries and 8 keys, two K tiles, through a 4x4 unit of head dimension 8, in
Amaranth's simulator, streams without pauses. A file is one that `tilewright rtl … --vcd` wrote; its first
cycles are shown.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.cosim_python import PythonSimulator
from tilewright.rtl.job import Job
from tilewright.rtl.unit import AttentionUnit
from tilewright.rtl.unit_run import random_head, run_heads

CLOCK = "top.clk"
ROWS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("q taken", ("top.q__valid", "top.q__ready")),
    ("k taken", ("top.k__valid", "top.k__ready")),
    ("score pass", ("top.k_pop",)),
    ("exponential", ("top.controller.exponentials.valid",)),
    ("v taken", ("top.v__valid", "top.v__ready")),
    ("value pass", ("top.v_pop",)),
    ("o taken", ("top.o__valid", "top.o__ready")),
)
"""Signals by path, whose conjunction is a row."""
MOST_CYCLES = 80
LOW, HIGH = "_", "█"
RULER = 10


def recorded() -> str:
    """The VCD of the run described above."""
    unit = UnitSizes(rows=4, cols=4, head_dim=8, max_keys=512, output_columns=16)
    head = random_head(unit, Job.full(4, 8, 1), np.random.default_rng(1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "unit.vcd"
        run_heads(PythonSimulator(lambda: AttentionUnit(unit), vcd=path), unit, [head])
        return path.read_text(encoding="utf-8")


def cycles(vcd: str, wanted: Sequence[str], clock: str = CLOCK) -> Iterator[Mapping[str, bool]]:
    """Of one-bit signals by path: their values in each cycle, as they are when the clock rises."""
    header, changes = vcd.split("$enddefinitions $end", 1)
    names = _identifiers(header)
    missing = [name for name in (*wanted, clock) if name not in names]
    if missing:
        raise SystemExit(f"no signal {missing[0]} in the waveform")
    now: dict[str, str] = {}
    before: dict[str, str] = {}
    for line in changes.splitlines():
        if line.startswith("#"):
            before = dict(now)
        elif line[:1] in {"0", "1"}:
            now[line[1:]] = line[0]
            if line == f"1{names[clock]}" and before.get(names[clock]) == "0":
                yield {name: before.get(names[name]) == "1" for name in wanted}
    yield {name: now.get(names[name]) == "1" for name in wanted}  # no edge follows the last beat


def _identifiers(header: str) -> dict[str, str]:
    """Of each signal by its path, from the outermost module with a clock on."""
    scopes: list[str] = []
    found: dict[str, str] = {}
    for line in header.splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            scopes.append(words[2])
        elif words[:1] == ["$upscope"]:
            scopes.pop()
        elif words[:1] == ["$var"]:
            path = ".".join([*scopes[1:], words[4].removeprefix("\\")])
            found.setdefault(path, words[3])
    return found


def drawing(vcd: str) -> str:
    """The rows, under a ruler of cycles."""
    wanted = sorted({name for _, names in ROWS for name in names})
    seen = list(cycles(vcd, wanted))[:MOST_CYCLES]
    width = max(len(title) for title, _ in ROWS) + 2
    ruler = "".join(f"{at:<{RULER}}" for at in range(0, len(seen), RULER))
    lines = ["cycle".ljust(width) + ruler.rstrip()]
    for title, names in ROWS:
        levels = (HIGH if all(cycle[name] for name in names) else LOW for cycle in seen)
        lines.append(title.ljust(width) + "".join(levels))
    return "\n".join(lines)


def main() -> None:
    """Print the drawing."""
    print(drawing(Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else recorded()))


if __name__ == "__main__":
    main()
