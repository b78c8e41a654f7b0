"""What sweeps cost: design points per CPU second, a million points end to end, memory, and the overhead.

    python -m benchmarks.sweep_speed
    python -m benchmarks.sweep_speed --part overhead

- `rates`: an encoder layer of BERT-base (512 tokens) at `analytic`, a chunk of 10,000 points on one core: the
  closed forms alone (`tilewright.sim.batch.answers`), and with everything that makes rows of them
  (`evaluate_chunk` in `tilewright.explore.evaluation.evaluate`). Array, clock, lanes, DRAM bandwidth and
  scratchpad vary.
- `sweeps`: `tilewright sweep` of such points, in three sizes: CPU and wall time with two processes, the peak
  memory of the largest process, the size of the store. The front is found and printed as well.
- `overhead`: `event` points of a small GEMM, bare (`evaluate` in a loop, every tenth point, before and after)
  and as a sweep with one process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT, circumstances, described, measure

LAYER = """
accelerator: gemmini-default
workloads:
  - workload: encoder_block
    overrides: [workload.d=768, workload.heads=12, workload.ffn=3072, workload.seq=512]
parameters:
  arch.buffers.scratchpad.capacity_bytes: {values: [131072, 262144, 524288, 1048576]}
  arch.array.rows: {range: [4, 128, 4]}
  arch.array.cols: {range: [4, 128, 4]}
  arch.vector.lanes: {log2: [2, 6]}
  arch.clock_mhz: {range: [400, 1000, 100]}
  arch.dram.bytes_per_cycle: {values: [4, 8, 12, 16, 24, 32, 64]}
objectives: [{name: latency_s}, {name: energy_j.total}]
fidelity: analytic
"""
ONE_SCRATCHPAD = "arch.buffers.scratchpad.capacity_bytes=262144"
SIZES = {
    15_680: (ONE_SCRATCHPAD, *(f"arch.array.{side}=16,32,48,64,80,96,112,128" for side in ("rows", "cols"))),
    125_440: (ONE_SCRATCHPAD, "arch.array.rows=8,16,24,32,40,48,56,64,72,80,88,96,104,112,120,128"),
    1_003_520: (),
}
"""Points of a sweep, and what makes the space smaller."""
SMALL = """
accelerator: gemmini-default
workloads: [{{workload: gemm, overrides: [workload.m=64, workload.k=64, workload.n=64]}}]
parameters:
  arch.array.rows: {{values: [8, 16, 32, 64]}}
  arch.array.cols: {{values: [8, 16, 32, 64]}}
  arch.clock_mhz: {{range: [1, {clocks}]}}
objectives: [{{name: latency_s}}, {{name: energy_j.total}}]
"""
CHUNK = 10_000
SAMPLED = 10
"""Every so many points are also evaluated bare."""


def rates(runs: int = 3) -> dict[str, float]:
    """Points per CPU second, the best of some runs: of the closed forms, and of the rows."""
    from tilewright.explore.evaluation import batch
    from tilewright.explore.evaluation.evaluate import evaluate_chunk
    from tilewright.explore.evaluation.points import Point, model_version
    from tilewright.explore.space.load import LoadedSpace
    from tilewright.explore.sweep.methods import points
    from tilewright.sim.batch import answers

    loaded = _loaded(LAYER)
    # spread over the space, so that all scratchpads are in it; points share groups as in a sweep's chunk
    chosen = list(islice(points(loaded), 0, None, loaded.size // CHUNK))[:CHUNK]

    def closed_forms(space: LoadedSpace, some: list[Point]) -> None:
        for group, members in batch._groups(space.base, some):
            own = [some[index] for index in members]
            divisions = batch._divisions(space.base, space.base.workloads[0], group)
            answers(divisions, batch._columns(space.base, group, own))

    found = {
        "closed_forms": lambda: closed_forms(loaded, chosen),
        "rows": lambda: evaluate_chunk(loaded.base, chosen, "analytic", model_version()),
    }
    spent = {name: [_cpu_s(call) for _ in range(runs + 1)][1:] for name, call in found.items()}
    return {name: round(CHUNK / min(each)) for name, each in spent.items()}


def sweeps(jobs: int = 2) -> list[dict[str, Any]]:
    """`tilewright sweep` in three sizes."""
    found = []
    for size, overrides in SIZES.items():
        print(f"sweeping {size:,} points", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            space, study = Path(scratch) / "space.yaml", Path(scratch) / "study"
            space.write_text(LAYER)
            words = [sys.executable, "-m", "tilewright", "sweep", str(space), "-o", str(study), *overrides]
            cost, front = measure([*words, "--jobs", str(jobs), "--format", "json"])
            stored = sum(file.stat().st_size for file in study.iterdir())
        record = asdict(cost) | {"points": size, "jobs": jobs, "store_mib": stored / 2**20}
        found.append(record | {"circumstances": circumstances()})
        assert front.strip(), "a front is printed"
    return found


def overhead(count: int = 10_000) -> dict[str, float]:
    """CPU milliseconds per point: bare, and in a sweep."""
    from tilewright.explore.evaluation.evaluate import evaluate
    from tilewright.explore.sweep.methods import points
    from tilewright.explore.sweep.sweep import sweep

    loaded = _loaded(SMALL.format(clocks=count // 16))
    chosen = list(points(loaded))
    sample = chosen[::SAMPLED]
    evaluate(loaded.base, sample[0])  # imports

    def bare() -> None:
        for point in sample:
            evaluate(loaded.base, point)

    with tempfile.TemporaryDirectory() as scratch:
        before = _cpu_s(bare)
        whole = _cpu_s(lambda: sweep(loaded, Path(scratch) / "study", jobs=1))
        after = _cpu_s(bare)  # before and after, as a shared machine does not keep its speed
        again = _cpu_s(lambda: sweep(loaded, Path(scratch) / "study", jobs=1))
    bare_ms, swept_ms = 1e3 * (before + after) / 2 / len(sample), 1e3 * whole / len(chosen)
    return {
        "points": len(chosen), "bare_ms": bare_ms, "swept_ms": swept_ms,
        "overhead": swept_ms / bare_ms - 1, "again_ms": 1e3 * again / len(chosen),
    }  # fmt: skip


def _cpu_s(call: Any) -> float:  # noqa: ANN401 - called without arguments
    from tilewright.dataflows.chosen import forget

    forget()
    begin = time.process_time()
    call()
    return time.process_time() - begin


def _loaded(definition: str) -> Any:  # noqa: ANN401 - imported late, see `measure`
    from tilewright.explore.space.load import load_space

    with tempfile.TemporaryDirectory() as scratch:
        space = Path(scratch) / "space.yaml"
        space.write_text(definition)
        return load_space(space)


PARTS = {"rates": rates, "sweeps": sweeps, "overhead": overhead}


def table(record: dict[str, Any]) -> str:
    """All parts, as far as they were measured."""
    lines: list[str] = [described(record["circumstances"])]
    if rate := record.get("rates"):
        lines += [
            "BERT-base layer at analytic, one core, design points per CPU second:",
            f"{rate['closed_forms']:12,}  closed forms",
            f"{rate['rows']:12,}  with all that makes rows of them",
        ]
    if found := record.get("sweeps"):
        lines += [f"tilewright sweep --jobs {found[0]['jobs']}:"]
        lines += [f"{'points':>12}{'CPU s':>8}{'wall s':>8}{'peak MiB':>10}{'store MiB':>11}{'load':>7}"]
        lines += [
            f"{each['points']:12,}{each['cpu_s']:8.1f}{each['wall_s']:8.1f}{each['peak_rss_mib']:10.0f}"
            f"{each['store_mib']:11.0f}{each['circumstances']['load_average']:7.1f}"
            for each in found
        ]
    if cost := record.get("overhead"):
        lines += [
            f"{cost['points']:,} event points of a small GEMM, CPU time of each: "
            f"{cost['bare_ms']:.2f} ms bare, {cost['swept_ms']:.2f} ms in a sweep",
            f"overhead {100 * cost['overhead']:.1f} %; the same sweep again, {cost['again_ms']:.3f} ms each",
        ]
    return "\n".join(lines)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    help_text = "measure only this one (repeatable); the others stay as they were kept"
    parser.add_argument("--part", choices=PARTS, action="append", help=help_text)
    parser.add_argument("--here", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--show", action="store_true", help="print what is kept, measure nothing")
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=RESULTS / "sweep-speed.json")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(PARTS[options.here]()))
        return 0
    record: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if options.show:
        print(table(record))
        return 0
    for part in options.part or PARTS:
        print(f"measuring: {part}", file=sys.stderr)
        record[part] = sweeps() if part == "sweeps" else _apart(part)
        record["circumstances"] = circumstances()
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    print(f"written to {options.out}", file=sys.stderr)
    return 0


def _apart(part: str) -> Any:  # noqa: ANN401 - as JSON has it
    """Measured in a process of its own: this one stays small, see `benchmarks.measure`."""
    command = [sys.executable, "-m", "benchmarks.sweep_speed", "--here", part]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    sys.exit(main())
