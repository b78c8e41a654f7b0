"""How fast the compiled attention unit runs, and how busy its arrays are on a long sequence.

python -m benchmarks.cosim [--size 8] [--head-dim 64] [--seq 1024]
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.dataflows import attention_jobs, attention_unit
from tilewright.rtl.cosim import unit_simulator
from tilewright.rtl.job import Job, scale_for
from tilewright.rtl.unit_run import random_head, run_heads

LEAST_CYCLES = 100_000
"""Simulated at least, so that the time can be trusted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8, help="rows and columns (default: %(default)s)")
    parser.add_argument("--head-dim", type=int, default=64)
    parser.add_argument("--seq", type=int, default=1024, help="queries and keys (default: %(default)s)")
    chosen = parser.parse_args()
    sizes = UnitSizes(chosen.size, chosen.size, chosen.head_dim)
    for line in report(sizes, chosen.seq):
        print(line)


def report(sizes: UnitSizes, seq: int) -> list[str]:
    """Lines on the build, the speed, and the utilisation, of one head without a mask."""
    start = time.perf_counter()
    unit = unit_simulator(sizes)
    built_s = time.perf_counter() - start
    job = Job.full(seq, seq, scale_for(sizes, 2.0 ** (4 - sizes.score_bits)))
    expected = attention_unit.cycles(sizes, [attention_jobs.unmasked(seq, seq)]).cycles
    rng = np.random.default_rng(0)
    heads = [random_head(sizes, job, rng)] * max(1, -(-LEAST_CYCLES // expected))
    start = time.process_time()
    run = run_heads(unit, sizes, heads)
    speed = run.cycles / (time.process_time() - start)
    one = run_heads(unit, sizes, heads[:1])
    active = {name: 100 * one.trace.active[f"{name}_active"] / one.cycles for name in ("score", "value")}
    fsa = 100 * 2 * sizes.rows / (5 * sizes.rows + 11)
    return [
        f"{sizes.rows} x {sizes.cols} PEs twice, head dimension {sizes.head_dim}, {seq:,} keys",
        f"ready to run after {built_s:.1f} s ({unit.engine})",
        f"{run.cycles:,} cycles simulated at {speed:,.0f} cycles/s of CPU, packing of beats included",
        f"one head: {one.cycles:,} cycles; the simulator says {expected:,}",
        f"busy: score array {active['score']:.1f} %, value array {active['value']:.1f} % of all cycles; "
        f"FSA's one array, by its 5 N + 11 cycles a tile: {fsa:.1f} %",
    ]


if __name__ == "__main__":
    main()
