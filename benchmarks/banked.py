"""How far banked DRAM departs from "more is never worse": `python -m benchmarks.banked`.

With flat DRAM more bandwidth or buffer never costs a cycle (tests/test_laws.py). With banks and rows more
channels may: the pieces of a transfer fall onto them in another way. This compares each machine with the
next larger one, over a grid of standards, channels and buffers, and prints how often and by how much the
larger one is slower.
"""

from __future__ import annotations

from collections.abc import Iterable

import tilewright as tw
from tilewright.arch.dram_standards import standards

WORKLOADS = {
    "gemm 500 x 300 x 700": ("gemm", ["m=500", "k=300", "n=700"]),
    "encoder_block d=192 seq=100": ("encoder_block", ["d=192", "heads=3", "ffn=500", "seq=100"]),
    "gpt2 layer, decode at 300": ("gpt2", ["layers=1", "seq=300", "phase=decode", "vocab=1000"]),
}
CHANNELS = (1, 2, 4, 8)
SCRATCHPAD_KIB = (64, 96, 128, 256, 512)


def cycles(workload: str, standard: str, channels: int, kib: int) -> int:
    """One run on Gemmini with another memory."""
    overrides = [
        "dram.kind=banked", f"dram.standard={standard}", f"dram.channels={channels}",
        f"buffers.scratchpad.capacity_bytes={kib * 1024}",
    ]  # fmt: skip
    accelerator = tw.load_accelerator("gemmini-default", overrides)
    return tw.simulate(accelerator, tw.load_workload(*WORKLOADS[workload])).cycles


def worse(pairs: Iterable[tuple[int, int]]) -> tuple[int, int, float]:
    """(pairs, those in which the larger machine is slower, the largest loss)."""
    losses = [after / before - 1 for before, after in pairs]
    return len(losses), sum(loss > 0 for loss in losses), max(losses)


def main() -> None:
    """Print a row per workload and kind of enlargement."""
    print(f"{'workload':30} {'more':10} {'pairs':>6} {'slower':>7} {'by at most':>11}")
    for workload in WORKLOADS:
        grid = {
            (standard, channels, kib): cycles(workload, standard, channels, kib)
            for standard in standards()
            for channels in CHANNELS
            for kib in SCRATCHPAD_KIB
        }
        by_channels = [
            (grid[s, CHANNELS[i], kib], grid[s, CHANNELS[i + 1], kib])
            for s in standards()
            for i in range(len(CHANNELS) - 1)
            for kib in SCRATCHPAD_KIB
        ]
        by_buffer = [
            (grid[s, c, SCRATCHPAD_KIB[i]], grid[s, c, SCRATCHPAD_KIB[i + 1]])
            for s in standards()
            for c in CHANNELS
            for i in range(len(SCRATCHPAD_KIB) - 1)
        ]
        for what, pairs in (("channels", by_channels), ("buffer", by_buffer)):
            count, slower, loss = worse(pairs)
            print(f"{workload:30} {what:10} {count:6} {slower:7} {max(0.0, loss):10.2%}")


if __name__ == "__main__":
    main()
