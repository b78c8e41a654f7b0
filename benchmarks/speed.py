"""What tilewright's own commands cost: CPU seconds and peak memory, start-up included.

python -m benchmarks.speed [--runs 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import RESULTS, Cost, circumstances, measure, typical

COMMANDS = (
    "--help",
    "run gemmini-default bert-base workload.seq=512 arch.array.rows=32 arch.array.cols=32",
    "run gemmini-default bert-base workload.seq=512 arch.array.rows=128 arch.array.cols=128",
    "run tpu-v3-core llama-2-7b workload.seq=2048 workload.generate=128",
)


def table(costs: dict[str, Cost]) -> str:
    """A row per command."""
    rows = [f"{'CPU s':>8}{'wall s':>8}{'peak MiB':>10}  command"]
    for command, cost in costs.items():
        numbers = f"{cost.cpu_s:8.2f}{cost.wall_s:8.2f}{cost.peak_rss_mib:10.0f}"
        rows.append(f"{numbers}  tilewright {command}")
    return "\n".join(rows)


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, for the medians (default: 5)")
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=RESULTS / "speed.json")
    options = parser.parse_args()
    costs: dict[str, Cost] = {}
    for command in COMMANDS:
        print(f"measuring: tilewright {command}", file=sys.stderr)
        words = [sys.executable, "-m", "tilewright", *command.split()]
        costs[command] = typical([measure(words)[0] for _ in range(options.runs)])
    print(table(costs))
    record = {"circumstances": circumstances(), "costs": {name: asdict(cost) for name, cost in costs.items()}}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"written to {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
