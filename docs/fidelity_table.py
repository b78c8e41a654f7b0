"""How far the analytic answer lies below the simulated one, as Markdown: python -m docs.fidelity_table"""

from __future__ import annotations

from docs.simulated import simulated

WORKLOAD = "bert-base"
ACCELERATORS = (
    "bare-array", "gemmini-default", "edge-npu-small", "edge-npu-large", "eyeriss-like", "tpu-v1",
    "tpu-v3-core", "flat", "sanger", "many-core-server",
)  # fmt: skip


def row(accelerator: str) -> str:
    """One machine's line of the table."""
    analytic, event = simulated(accelerator, WORKLOAD, fidelity="analytic"), simulated(accelerator, WORKLOAD)
    cycles = analytic.cycles / event.cycles - 1
    energy = analytic.energy_j["total"] / event.energy_j["total"] - 1
    return f"| {accelerator} | {event.cycles:,} | {cycles:+.1%} | {energy:+.1%} |"


def main() -> None:
    """Print the table."""
    print(f"| {WORKLOAD} on | `event` cycles | `analytic` cycles | `analytic` energy |")
    print("|---|---:|---:|---:|")
    for accelerator in ACCELERATORS:
        print(row(accelerator))


if __name__ == "__main__":
    main()
