"""The GEMMs of one BERT-base layer on ZigZag and on tilewright: CPU time per design point, and latency.

    python -m benchmarks.zigzag
    python -m benchmarks.zigzag --reuse benchmarks/results/zigzag.json

ZigZag (`zigzag-dse` 3.9.1 and its undeclared `six`, both from PyPI) runs in a virtual environment of its own.
Its API is called once per design point with its defaults (LOMA, `lpf_limit` 6, uneven mappings), for the
lowest latency, in one process; imports are not counted. Given are the five different GEMMs of the layer once;
both sides' cycles are summed as often as each occurs (4 projections, 12 heads, 2 of the feed-forward block).

The accelerator is the preset `gemmini-default` (16 x 16 int8, weight stationary, 256 KiB scratchpad, 64 KiB
accumulator, flat DRAM), and others with larger arrays and less or more DRAM bandwidth. Where the two differ:

- Spatial mapping: none; n along the columns, k along the rows on both sides, two weights in each PE.
- DRAM latency is 0 here, as ZigZag has none. Each GEMM starts and ends in DRAM on both sides.
- Ports. In tilewright all banks of a buffer are one bandwidth. ZigZag rounds each operand's transfer up to
  whole cycles of its port, so that one shared port would halve its speed. It gets a port per operand and
  direction instead, each of the scratchpad's as wide as all of tilewright's banks, of the accumulator's half
  as wide: never less than tilewright's.
- Loops. ZigZag cuts a dimension at its (merged) prime factors, in any order of loops, and may keep an operand
  in a single buffer. tilewright's tiles are multiples of the array or parts of the dimension, ragged ones
  too; the sums stay on chip, so that k is the innermost loop; operands pass through two slots, or stay.
- Fill and drain of the array: both count them, once per GEMM.

What is compared. `analytic` gives cycles that no mapping of tilewright's undercuts; its speed is that of a
sweep's own evaluation (`evaluate_chunk`), a row of figures per point. `event` finds a mapping and simulates
it: that is the latency of the best mapping. Both are shown with their CPU time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import RESULTS, ROOT, circumstances, described

REQUIREMENTS = ("zigzag-dse==3.9.1", "six==1.17.0")
DESIGNS = ((16, 16), (16, 8), (16, 4), (32, 32), (32, 16))
"""Rows and columns of the array, and DRAM's bytes per cycle."""
GEMMS = (
    ("projection", 4, 512, 768, 768),
    ("scores", 12, 512, 64, 512),
    ("context", 12, 512, 512, 64),
    ("up", 1, 512, 768, 3072),
    ("down", 1, 512, 3072, 768),
)
"""Name, how often, m, k, n."""
RATE_SPACE = """
accelerator: gemmini-default
workloads:
{workloads}
parameters:
  arch.array.rows: {{range: [4, 64, 4]}}
  arch.array.cols: {{range: [4, 64, 4]}}
  arch.dram.bytes_per_cycle: {{range: [4, 32, 4]}}
  arch.clock_mhz: {{values: [400, 600, 800, 1000]}}
  arch.vector.lanes: {{values: [16, 32]}}
objectives: [{{name: latency_s}}]
fidelity: analytic
"""

# One line of JSON per design point: CPU seconds, and the cycles of the best mapping of each GEMM.
RUN_ZIGZAG = """
import json, logging, sys, time
from zigzag.api import get_hardware_performance_zigzag
logging.disable(logging.CRITICAL)
workload, *designs = sys.argv[1:]
for accelerator, mapping in zip(designs[::2], designs[1::2]):
    begin = time.process_time()
    found = get_hardware_performance_zigzag(
        workload, accelerator, mapping, opt="latency", dump_folder=accelerator + ".out",
        loma_show_progress_bar=False)
    spent = time.process_time() - begin
    best = [layer.latency_total2 for layer, _ in found[2][0][1]]
    print("RESULT", json.dumps({"cpu_s": spent, "cycles": best}), flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """What a design point took, and what came out."""

    cpu_s: float
    cycles: tuple[float, ...]
    """Of each GEMM in `GEMMS`."""

    @property
    def layer(self) -> float:
        """Cycles of the layer's GEMMs, one after the other."""
        return sum(times * cycles for (_, times, *_), cycles in zip(GEMMS, self.cycles, strict=True))


def zigzag_workload() -> list[dict[str, object]]:
    """The GEMMs as ZigZag's YAML has them."""
    bits = {"I": 8, "W": 8, "O": 32, "O_final": 8}
    return [
        {
            "id": number, "name": name, "operator_type": "Gemm", "equation": "O[b][k]+=I[b][c]*W[c][k]",
            "dimension_relations": [], "loop_dims": ["B", "C", "K"], "loop_sizes": [m, k, n],
            "operand_precision": bits, "operand_source": {},
        }
        for number, (name, _, m, k, n) in enumerate(GEMMS)
    ]  # fmt: skip


def zigzag_accelerator(size: int, dram_bytes: int) -> dict[str, object]:
    """`gemmini-default` as ZigZag's YAML has it: memories from the innermost out, sizes and widths in bit."""
    array = ["D1", "D2"]
    reads, writes = ("O, tl", "O, th"), ("O, fl", "O, fh")
    every = [f"{name}, {way}" for name in ("I1", "I2", "O") for way in ("fh", "tl")]
    return {
        "name": "gemmini",
        "memories": {
            "registers": _memory(
                16, [], ["I2"], _port("r_port_1", 8, "I2, tl"), _port("w_port_1", 8, "I2, fh")
            ),
            "accumulator": _memory(
                8 * 65536, array, ["O"], _port("r_port_1", 1024, *reads), _port("w_port_1", 1024, *writes)
            ),
            "scratchpad": _memory(
                8 * 262144, array, ["I1", "I2"], _port("r_port_1", 512, "I1, tl"),
                _port("r_port_2", 512, "I2, tl"), _port("w_port_1", 512, "I1, fh", "I2, fh"),
            ),
            "dram": _memory(
                10**12, array, ["I1", "I2", "O"],
                _port("rw_port_1", 8 * dram_bytes, *every, "O, fl", "O, th"),
            ),
        },
        "operational_array": {
            "dimensions": array, "sizes": [size, size], "systolic_dimensions": array, "unit_energy": 0.04,
            "unit_area": 1.0,
        },
    }  # fmt: skip


def _memory(bits: int, dimensions: list[str], operands: list[str], *ports: dict[str, Any]) -> dict[str, Any]:
    """Costs are of energy and area, which are not looked at."""
    costs = {"r_cost": 1.0, "w_cost": 1.0, "area": 0.0, "latency": 1}
    return {
        "size": bits,
        **costs,
        "operands": operands,
        "ports": list(ports),
        "served_dimensions": dimensions,
    }


def _port(name: str, bits: int, *allocation: str) -> dict[str, Any]:
    kind = {"r": "read", "w": "write", "rw": "read_write"}[name.split("_")[0]]
    return {
        "name": name, "type": kind, "bandwidth_min": 8, "bandwidth_max": bits, "allocation": list(allocation)
    }  # fmt: skip


def zigzag_mapping(size: int) -> list[dict[str, object]]:
    """Weight stationary: n along the columns, k along the rows."""
    spatial = {"D1": [f"K, {size}"], "D2": [f"C, {size}"]}
    links = {"O": "O", "W": "I2", "I": "I1"}
    return [{"name": "default", "spatial_mapping": spatial, "memory_operand_links": links}]


def prepare(venv: Path) -> Path:
    """Create ZigZag's virtual environment if it is not there; return its Python."""
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(REQUIREMENTS)} into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def run_zigzag(python: Path, designs: Sequence[tuple[int, int]]) -> list[Answer]:
    """All design points in one process."""
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        # JSON is YAML, and keeps the order of the memories
        (where / "gemms.yaml").write_text(json.dumps(zigzag_workload()))
        files: list[str] = []
        for number, (size, dram_bytes) in enumerate(designs):
            accelerator, mapping = where / f"accelerator{number}.yaml", where / f"mapping{number}.yaml"
            accelerator.write_text(json.dumps(zigzag_accelerator(size, dram_bytes)))
            mapping.write_text(json.dumps(zigzag_mapping(size)))
            files += [str(accelerator), str(mapping)]
        command = [str(python), "-c", RUN_ZIGZAG, str(where / "gemms.yaml"), *files]
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"ZigZag ended with exit code {done.returncode}:\n{done.stderr[-2000:]}")
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return [Answer(found["cpu_s"], tuple(found["cycles"])) for found in map(json.loads, lines)]


def run_tilewright(designs: Sequence[tuple[int, int]], fidelity: str) -> list[Answer]:
    """Each design point by itself, nothing kept from one to the next but imports."""
    import tilewright as tw
    from tilewright.dataflows.chosen import forget

    answers = []
    _simulated(tw, (8, 8), fidelity)  # imports
    forget()
    for design in designs:
        begin = time.process_time()
        cycles = _simulated(tw, design, fidelity)
        answers.append(Answer(time.process_time() - begin, cycles))
    return answers


def _simulated(tw: Any, design: tuple[int, int], fidelity: str) -> tuple[float, ...]:  # noqa: ANN401 - a module
    size, dram_bytes = design
    values = {"array.rows": size, "array.cols": size, "dram.bytes_per_cycle": dram_bytes}
    overrides = [f"{key}={value}" for key, value in values.items()]
    accelerator = tw.load_accelerator("gemmini-default", [*overrides, "dram.latency_cycles=0"])
    graphs = [tw.load_workload("gemm", [f"m={m}", f"k={k}", f"n={n}"]) for _, _, m, k, n in GEMMS]
    return tuple(tw.simulate(accelerator, graph, fidelity).cycles for graph in graphs)


def sweep_rate(runs: int) -> float:
    """Design points, of all five GEMMs, per CPU second of a sweep's evaluation; the best of some runs."""
    from tilewright.explore.evaluation.evaluate import evaluate_chunk
    from tilewright.explore.evaluation.points import model_version
    from tilewright.explore.space.load import load_space
    from tilewright.explore.sweep.methods import points

    entries = [
        f"  - {{name: {name}, workload: gemm, weight: {times}, "
        f"overrides: [workload.m={m}, workload.k={k}, workload.n={n}]}}"
        for name, times, m, k, n in GEMMS
    ]
    with tempfile.TemporaryDirectory() as scratch:
        space = Path(scratch) / "space.yaml"
        space.write_text(RATE_SPACE.format(workloads="\n".join(entries)))
        loaded = load_space(space)
        chosen = list(points(loaded))
    spent = []
    for _ in range(runs + 1):  # the first one imports
        begin = time.process_time()
        outcomes = evaluate_chunk(loaded.base, chosen, "analytic", model_version())
        spent.append(time.process_time() - begin)
        assert all(outcome.status == "done" for outcome in outcomes)
    return len(chosen) / min(spent[1:])


def table(record: dict[str, Any]) -> str:
    """A row per design point, and the speeds."""
    sides = {name: [answer(each) for each in record[name]] for name in ("zigzag", "analytic", "event")}
    names = "".join(f"{name:>11}" for name, *_ in GEMMS)
    heads = f"{'':>7}{'DRAM':>10}{'cycles of the layer':^39}  event's cycles by ZigZag's"
    columns = f"{'array':>7}{'B/cycle':>10}{'ZigZag':>13}{'event':>13}{'analytic':>13}{'layer':>9}{names}"
    lines = [described(record["circumstances"]), heads, columns]
    for row, (size, dram_bytes) in enumerate(record["designs"]):
        theirs, ours, least = (sides[name][row] for name in ("zigzag", "event", "analytic"))
        ratios = [a / b for a, b in zip(ours.cycles, theirs.cycles, strict=True)]
        numbers = f"{theirs.layer:13,.0f}{ours.layer:13,.0f}{least.layer:13,.0f}"
        shown = "".join(f"{ratio:11.3f}" for ratio in ratios)
        lines.append(
            f"{f'{size} x {size}':>7}{dram_bytes:10}{numbers}{ours.layer / theirs.layer:9.3f}{shown}"
        )
    theirs_s, event_s = (median(each.cpu_s for each in sides[name]) for name in ("zigzag", "event"))
    rate = record["analytic_points_per_cpu_s"]
    return "\n".join(
        [
            *lines,
            "CPU time of a design point:",
            f"{theirs_s:12.6f} s  ZigZag",
            f"{event_s:12.6f} s  tilewright event, {theirs_s / event_s:,.0f} times less",
            f"{1 / rate:12.6f} s  tilewright analytic, in a sweep, {theirs_s * rate:,.0f} times less",
        ]
    )


def answer(saved: dict[str, Any]) -> Answer:
    """As it was saved."""
    return Answer(saved["cpu_s"], tuple(saved["cycles"]))


def setting() -> dict[str, object]:
    """What two results must agree on to be comparable."""
    return {"designs": [list(each) for each in DESIGNS], "gemms": [list(each) for each in GEMMS]}


def reused(file: Path) -> dict[str, Any]:
    """ZigZag's side of an earlier result."""
    saved: dict[str, Any] = json.loads(file.read_text())
    for key, value in setting().items():
        if saved[key] != value:
            raise SystemExit(f"{file} can't be reused: its {key} are {saved[key]}, not {value}")
    return {key: saved[key] for key in ("zigzag", "zigzag_circumstances")}


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    option = parser.add_argument
    option("--runs", type=int, default=3, help="runs of tilewright's sweep (default: 3)")
    option("--reuse", type=Path, metavar="FILE.json", help="take ZigZag's side from this result")
    option("--show", action="store_true", help="print the result that is kept, measure nothing")
    option("--out", type=Path, metavar="FILE.json", default=RESULTS / "zigzag.json")
    option("--venv", type=Path, default=ROOT / ".venv-zigzag", help="default: .venv-zigzag")
    options = parser.parse_args()
    if options.show:
        print(table(json.loads(options.out.read_text())))
        return 0
    theirs = reused(options.reuse) if options.reuse else None
    record = {"requirements": list(REQUIREMENTS), **setting(), "circumstances": circumstances()}
    record["analytic_points_per_cpu_s"] = round(sweep_rate(options.runs))
    for fidelity in ("analytic", "event"):
        record[fidelity] = [asdict(each) for each in run_tilewright(DESIGNS, fidelity)]
    if theirs is None:
        answers = run_zigzag(prepare(options.venv), DESIGNS)
        theirs = {"zigzag": [asdict(each) for each in answers], "zigzag_circumstances": circumstances()}
    record |= theirs
    print(table(record))
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
