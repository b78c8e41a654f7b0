"""What every attention mechanism costs to simulate over long sequences: CPU seconds, peak memory, cycles.

python -m benchmarks.long [KIND ...] [--accelerator gemmini-default] [--show]

An `encoder_block` of BERT's sizes with each mechanism at its defaults, causal where it can be nothing else,
at 65,536 and at 1,048,576 tokens, in a process of its own, which is stopped after 60 s of CPU or at 4 GiB.
Only runs of all mechanisms are kept in results/.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measure import RESULTS, CommandError, Cost, Limits, circumstances, measure

TOKENS = (65_536, 1_048_576)
SIZES = ("workload.d=768", "workload.heads=12", "workload.ffn=3072")
MOST_CPU_S = 5.0
MOST_PEAK_MIB = 500.0
STOP = Limits(cpu_s=60, address_space_gib=4)


@dataclass(frozen=True)
class Row:
    """One mechanism over one length."""

    kind: str
    complexity: str
    tokens: int
    causal: bool
    cost: Cost | None
    """None where it was refused or stopped."""
    cycles: int | None
    reason: str = ""
    """Why there is none."""

    @property
    def within(self) -> bool:
        """Whether it keeps the limits."""
        cost = self.cost
        return cost is not None and cost.cpu_s < MOST_CPU_S and cost.peak_rss_mib < MOST_PEAK_MIB


def mechanisms() -> list[dict[str, str]]:
    """Those that are registered, as the command line lists them."""
    _, listed = measure([sys.executable, "-m", "tilewright", "list", "attention", "--format", "json"])
    found: list[dict[str, str]] = json.loads(listed)
    return found


def run(mechanism: dict[str, str], tokens: int, accelerator: str) -> Row:
    """Simulate one, or find out why it can't be."""
    kind, complexity, causal = mechanism["kind"], mechanism["complexity"], mechanism["encode"] != "yes"
    words = [sys.executable, "-m", "tilewright", "run", accelerator, "encoder_block", *SIZES]
    words += [f"workload.seq={tokens}", f"workload.attention.kind={kind}", "--format", "json"]
    if causal:
        words.append("workload.causal=true")
    try:
        cost, out = measure(words, limits=STOP)
    except CommandError as error:
        return Row(kind, complexity, tokens, causal, None, None, _reason(error))
    return Row(kind, complexity, tokens, causal, cost, json.loads(out)["cycles"])


def _reason(error: CommandError) -> str:
    """Why there is no result, in a line."""
    if error.exit_code in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"stopped after {STOP.cpu_s} s of CPU"
    if "MemoryError" in error.said:
        return f"stopped at {STOP.address_space_gib} GiB"
    return "refused: " + error.said.split("\n", 1)[0].removeprefix("error: ")


def table(rows: list[Row]) -> str:
    """A line per row; a star where a limit is not kept."""
    lines = [
        f"{'mechanism':18}{'causal':8}{'tokens':>10}{'CPU s':>9}{'peak MiB':>10}{'cycles':>20}  complexity"
    ]
    for row in rows:
        begin = f"{row.kind:18}{'yes' if row.causal else 'no':8}{row.tokens:>10,}"
        if row.cost is None:
            lines.append(f"{begin}  {row.reason}")
            continue
        star = " " if row.within else "*"
        cost = f"{row.cost.cpu_s:>8.2f}{star}{row.cost.peak_rss_mib:>10.0f}"
        lines.append(f"{begin}{cost}{row.cycles:>20,}  {row.complexity}")
    beyond = sum(row.cost is not None and not row.within for row in rows)
    limits = f"{MOST_CPU_S:g} s of CPU and {MOST_PEAK_MIB:g} MiB, start-up included"
    return "\n".join([*lines, "", f"{beyond} of {len(rows)} not within {limits} (*)"])


def show(file: Path) -> None:
    """Print the measurements that a file keeps."""
    kept = json.loads(file.read_text())
    print(f"{kept['accelerator']}, {kept['circumstances']['date']}, {kept['circumstances']['cpu']}\n")
    print(table([Row(**{**row, "cost": row["cost"] and Cost(**row["cost"])}) for row in kept["rows"]]))


def main() -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help="mechanisms (default: all, and keep the results)"
    )
    parser.add_argument("--accelerator", default="gemmini-default", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE.json", default=RESULTS / "long.json")
    parser.add_argument("--show", action="store_true", help="print the measurements that are kept")
    options = parser.parse_args()
    if options.show:
        show(options.out)
        return 0
    known = mechanisms()
    unknown = sorted(set(options.kinds) - {each["kind"] for each in known})
    if unknown:
        parser.error(f"no such mechanism: {', '.join(unknown)}")
    rows = []
    for mechanism in known:
        for tokens in TOKENS if not options.kinds or mechanism["kind"] in options.kinds else ():
            print(f"measuring: {mechanism['kind']} at {tokens:,}", file=sys.stderr)
            rows.append(run(mechanism, tokens, options.accelerator))
    print(table(rows))
    if not options.kinds:
        kept = {"accelerator": options.accelerator, "rows": [asdict(row) for row in rows]}
        record = {"circumstances": circumstances(), **kept}
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(f"written to {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
