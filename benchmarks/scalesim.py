"""The GEMMs of one BERT-base layer on SCALE-Sim v3 and on tilewright: equal compute cycles, and at what cost?

    python -m benchmarks.scalesim --size 128
    python -m benchmarks.scalesim --size 32 --reuse benchmarks/results/scalesim-32-ws.json

SCALE-Sim 3.0.0 (PyPI) runs in a virtual environment of its own, because it needs an older numpy. It is
given its cheapest settings: no trace files, no progress output, bandwidth mode CALC (memory never stalls the
array). One layer takes it minutes and gigabytes, so `--reuse` takes its side of an earlier result instead of
running it again; tilewright is always run.

Exit code 1 if any GEMM's compute cycles differ.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, ROOT, Cost, circumstances, measure, typical

REQUIREMENTS = ("scalesim==3.0.0", "numpy==2.3.5")
DATAFLOWS = {"ws": "weight_stationary", "os": "output_stationary", "is": "input_stationary"}

# What `scalesim/scale.py` does, but without its trace files and progress bars, and a GEMM at a time: given
# all of them in one topology, it keeps every GEMM's traces in memory to the end.
RUN_SCALESIM = """
import gc, sys
from scalesim.scale_sim import scalesim
config, layout, *topologies = sys.argv[1:]
for topology in topologies:
    run = scalesim(save_disk_space=True, verbose=False, config=config, topology=topology, layout=layout,
                   input_type_gemm=True)
    run.run_scale(top_path=topology + ".out")
    del run
    gc.collect()
"""

# Memories have SCALE-Sim's default sizes; in mode CALC they do not change the compute cycles.
CONFIG = """
[general]
run_name = run
[architecture_presets]
ArrayHeight = {size}
ArrayWidth = {size}
IfmapSramSzkB = 1024
FilterSramSzkB = 1024
OfmapSramSzkB = 1024
IfmapOffset = 0
FilterOffset = 10000000
OfmapOffset = 20000000
Dataflow = {dataflow}
Bandwidth = 10
ReadRequestBuffer = 32
WriteRequestBuffer = 32
[layout]
IfmapCustomLayout = False
FilterCustomLayout = False
IfmapSRAMBankBandwidth = 10
IfmapSRAMBankNum = 10
IfmapSRAMBankPort = 2
FilterSRAMBankBandwidth = 10
FilterSRAMBankNum = 10
FilterSRAMBankPort = 2
[sparsity]
SparsitySupport = false
[run_presets]
InterfaceBandwidth = CALC
UseRamulatorTrace = False
"""


@dataclass(frozen=True)
class Gemm:
    """C[m, n] = A[m, k] B[k, n]."""

    name: str
    m: int
    n: int
    k: int


@dataclass(frozen=True)
class Side:
    """One simulator's run of all the GEMMs."""

    version: str
    cost: Cost
    cycles: tuple[int, ...]
    """Compute cycles of each GEMM."""
    circumstances: dict[str, object]
    startup_cpu_s: float | None = None
    """CPU seconds of the same command on a single 1 x 1 x 1 GEMM."""


def bert_base_layer(seq: int = 512, d: int = 768, heads: int = 12, ffn: int = 3072) -> list[Gemm]:
    """The 30 GEMMs of one layer of BERT-base: 4 projections, 2 per head, 2 of the feed-forward block."""
    projections = [Gemm(name, seq, d, d) for name in ("query", "key", "value")]
    scores = [Gemm(f"scores{head}", seq, seq, d // heads) for head in range(heads)]
    context = [Gemm(f"context{head}", seq, d // heads, seq) for head in range(heads)]
    after = [Gemm("output", seq, d, d), Gemm("up", seq, ffn, d), Gemm("down", seq, d, ffn)]
    return projections + scores + context + after


def topology(gemms: Sequence[Gemm]) -> str:
    """SCALE-Sim's GEMM topology CSV, which tilewright reads as well."""
    rows = [f"{gemm.name}, {gemm.m}, {gemm.n}, {gemm.k}," for gemm in gemms]
    return "\n".join(["Layer, M, N, K,", *rows, ""])


def prepare(venv: Path) -> Path:
    """Create SCALE-Sim's virtual environment if it is not there; return its Python."""
    python = venv / "bin" / "python"
    if not python.exists():
        print(f"installing {' '.join(REQUIREMENTS)} into {venv}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
    return python


def run_scalesim(python: Path, gemms: Sequence[Gemm], size: int, dataflow: str) -> Side:
    """Run SCALE-Sim once on every GEMM, all in one process."""
    with tempfile.TemporaryDirectory() as scratch:
        where = Path(scratch)
        config, layout = where / "scale.cfg", where / "layout.csv"
        config.write_text(CONFIG.format(size=size, dataflow=dataflow))
        layout.write_text("Layer,\n")
        files = [where / f"{gemm.name}.csv" for gemm in gemms]
        for file, gemm in zip(files, gemms, strict=True):
            file.write_text(topology([gemm]))
        arguments = map(str, [config, layout, *files])
        cost, _ = measure([str(python), "-c", RUN_SCALESIM, *arguments], cwd=where)
        cycles = tuple(reported_cycles(where / f"{gemm.name}.csv.out" / "run") for gemm in gemms)
    return Side(", ".join(REQUIREMENTS), cost, cycles, circumstances())


def reported_cycles(run: Path) -> int:
    """Compute cycles of a run of one GEMM. The report gives the last cycle's index, so one is added."""
    _, row = csv.reader((run / "COMPUTE_REPORT.csv").read_text().splitlines())
    # LayerID, Total Cycles (incl. prefetch), Total Cycles, Stall Cycles, ...
    total, stalls = int(float(row[2])), int(float(row[3]))
    return total - stalls + 1


def run_tilewright(gemms: Sequence[Gemm], size: int, dataflow: str, runs: int) -> Side:
    """Run the same topology on the preset `bare-array`, whose folds do not overlap either."""
    array = {"rows": size, "cols": size, "dataflow": DATAFLOWS[dataflow]}
    overrides = [f"arch.array.{key}={value}" for key, value in array.items()]
    with tempfile.TemporaryDirectory() as scratch:
        one, all_of_them = Path(scratch) / "one.csv", Path(scratch) / "bert.csv"
        one.write_text(topology([Gemm("one", 1, 1, 1)]))
        all_of_them.write_text(topology(gemms))
        run = [sys.executable, "-m", "tilewright", "run", "bare-array"]
        commands = [[*run, str(file), *overrides, "--format", "json"] for file in (one, all_of_them)]
        # in turns, so that both see the same machine
        measured = [[measure(command) for command in commands] for _ in range(runs)]
    startup, cost = (typical([cost for cost, _ in column]) for column in zip(*measured, strict=True))
    result: dict[str, Any] = json.loads(measured[0][1][1])
    cycles = tuple(operator["cycles"] for operator in result["operators"])
    return Side(result["provenance"]["version"], cost, cycles, circumstances(), startup.cpu_s)


def setting(gemms: Sequence[Gemm], size: int, dataflow: str) -> dict[str, object]:
    """What two results must agree on to be comparable."""
    return {"size": size, "dataflow": dataflow, "gemms": [asdict(gemm) for gemm in gemms]}


def reused(file: Path, wanted: dict[str, object]) -> Side:
    """SCALE-Sim's side of an earlier result of the same GEMMs on the same array."""
    saved = json.loads(file.read_text())
    for key, value in wanted.items():
        if saved[key] != value:
            raise SystemExit(f"{file} can't be reused: its {key} is {saved[key]}, not {value}")
    return side(saved["scalesim"])


def side(saved: dict[str, Any]) -> Side:
    """A side as it was saved."""
    return Side(**saved | {"cost": Cost(**saved["cost"]), "cycles": tuple(saved["cycles"])})


def table(gemms: Sequence[Gemm], theirs: Side, ours: Side) -> str:
    """Costs side by side, and every GEMM whose cycles differ."""
    lines = [f"{'':24}{'CPU s':>10}{'wall s':>10}{'peak MiB':>10}{'compute cycles':>16}"]
    for name, run in (("SCALE-Sim 3.0.0", theirs), (f"tilewright {ours.version}", ours)):
        cost = run.cost
        numbers = f"{cost.cpu_s:10.2f}{cost.wall_s:10.2f}{cost.peak_rss_mib:10.0f}{sum(run.cycles):16,}"
        lines.append(f"{name:24}{numbers}")
    ratio = theirs.cost.cpu_s / ours.cost.cpu_s
    lines.append(f"{ratio:,.0f} times less CPU time; {ours.startup_cpu_s:.2f} s of tilewright's are start-up")
    rows = list(zip(gemms, theirs.cycles, ours.cycles, strict=True))
    differing = [f"  {gemm.name}: {a:,} against {b:,}" for gemm, a, b in rows if a != b]
    lines.append(f"compute cycles equal for {len(rows) - len(differing)} of {len(rows)} GEMMs")
    return "\n".join(lines + differing)


def arguments() -> argparse.Namespace:
    """The command line's options."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    option = parser.add_argument
    option("--size", type=int, default=128, help="rows and columns of the array (default: 128)")
    option("--dataflow", choices=DATAFLOWS, default="ws", help="default: ws")
    option("--runs", type=int, default=5, help="runs of tilewright, for the medians (default: 5)")
    option("--reuse", type=Path, metavar="FILE.json", help="take SCALE-Sim's side from this result")
    option("--out", type=Path, metavar="FILE.json", help="default: in benchmarks/results/")
    option("--venv", type=Path, default=ROOT / ".venv-scalesim", help="default: .venv-scalesim")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    size, dataflow, gemms = options.size, options.dataflow, bert_base_layer()
    record = setting(gemms, size, dataflow)
    if options.reuse:
        theirs = reused(options.reuse, record)
    else:
        theirs = run_scalesim(prepare(options.venv), gemms, size, dataflow)
    ours = run_tilewright(gemms, size, dataflow, options.runs)
    print(table(gemms, theirs, ours))

    ratio = round(theirs.cost.cpu_s / ours.cost.cpu_s, 1)
    record |= {"cpu_ratio": ratio, "scalesim": asdict(theirs), "tilewright": asdict(ours)}
    out = options.out or RESULTS / f"scalesim-{size}-{dataflow}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {out}", file=sys.stderr)
    return 0 if theirs.cycles == ours.cycles else 1


if __name__ == "__main__":
    sys.exit(main())
