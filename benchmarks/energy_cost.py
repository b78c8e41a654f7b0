"""What energy and area add to the CPU time of a run: the same with and without, each in its own process.

python -m benchmarks.energy_cost [--runs 9 | --show]

Without means that no action is charged and no table read. Processes with and without take turns, and their
medians are compared: first of the whole process, as `tilewright run` is one (start-up, reading descriptions
and technology tables, one run), then of a further run in the same process, as in a sweep.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.measure import RESULTS, circumstances, measure
from benchmarks.show import place

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator
    from tilewright.workloads.graph import OperatorGraph

CASES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("tpu-v1", "bert-base", ()),
    ("gemmini-default", "bert-base", ("seq=512",)),
    ("many-core-server", "bert-base", ()),
    ("tpu-v3-core", "gpt2", ("seq=128", "generate=32")),
)


class NoEnergy:
    """Stands in for `EnergyModel`, and its `charge` for `Assembly._member_energies`: no work."""

    def __init__(self, _accelerator: object) -> None:
        self.area_mm2: Mapping[str, float] = {}

    def sources(self) -> tuple[()]:
        return ()

    @staticmethod
    def charge(_assembly: object, _step: object, members: Sequence[object]) -> list[dict[str, int]]:
        return [{} for _ in members]


def child(with_energy: bool, further: int, accelerator: str, workload: str, overrides: list[str]) -> None:
    """Simulate; print the CPU seconds that a further run takes, the least of some."""
    import tilewright as tw
    from tilewright.sim import assemble

    if not with_energy:
        vars(assemble)["EnergyModel"] = NoEnergy
        setattr(assemble.Assembly, "_member_energies", NoEnergy.charge)  # noqa: B010
    machine, graph = tw.load_accelerator(accelerator), tw.load_workload(workload, overrides)
    assert bool(tw.simulate(machine, graph).energy_j["total"]) == with_energy
    print(min((_further(machine, graph) for _ in range(further)), default=0.0))


def _further(machine: Accelerator, graph: OperatorGraph) -> float:
    import tilewright as tw
    from tilewright.dataflows.chosen import forget

    forget()  # the mapper searches anew
    begin = time.process_time()
    tw.simulate(machine, graph)
    return time.process_time() - begin


def compare(accelerator: str, workload: str, overrides: tuple[str, ...], runs: int) -> dict[str, object]:
    """Median CPU seconds with and without energy, of a process with one run and of a further run."""
    process: dict[str, list[float]] = {"with": [], "without": []}
    again: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(runs):
        for which in process:
            command = [sys.executable, "-m", "benchmarks.energy_cost", "--child", which]
            what = (accelerator, workload, *overrides)
            process[which].append(measure([*command, "0", *what])[0].cpu_s)
            again[which].append(float(measure([*command, "3", *what])[1]))
    return {
        "case": " ".join((accelerator, workload, *overrides)),
        "process_cpu_s": {which: median(times) for which, times in process.items()},
        "further_run_cpu_s": {which: median(times) for which, times in again.items()},
    }


def table(rows: list[dict[str, object]]) -> str:
    """A line per case: CPU seconds with energy, and how many per cent it adds."""
    lines = [f"{'process':>9}{'added':>8}{'further run':>13}{'added':>8}"]
    for row in rows:
        cells = ""
        for key, width in (("process_cpu_s", 7), ("further_run_cpu_s", 11)):
            times = row[key]
            assert isinstance(times, dict)
            cells += f"{times['with']:{width}.3f} s{times['with'] / times['without'] - 1:8.1%}"
        lines.append(f"{cells}  {row['case']}")
    return "\n".join(lines)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=9, help="runs of each, for the medians (default: 9)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=RESULTS / "energy-cost.json")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what was kept")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        which, further, accelerator, workload, *overrides = options.child
        child(which == "with", int(further), accelerator, workload, overrides)
        return 0
    if options.show:
        kept = json.loads(options.out.read_text())
        print(f"{place(kept['circumstances'])}\n\n{table(kept['rows'])}")
        return 0
    rows = [compare(*case, options.runs) for case in CASES]
    print(table(rows))
    options.out.write_text(json.dumps({"circumstances": circumstances(), "rows": rows}, indent=1) + "\n")
    print(f"written to {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
