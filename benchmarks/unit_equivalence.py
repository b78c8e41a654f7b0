"""One attention unit, four times: recurrence, SimPy, stepped registers and RTL, on random configurations.

python -m benchmarks.unit_equivalence [--count 1000] [--seed 0]

Each configuration is a unit, one to three heads with masks of any kind, and pauses on every stream. All must
take the same number of cycles; the stepped simulation and the RTL must give the numpy model's O, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tilewright.arch.streaming_unit import UnitSizes
from tilewright.dataflows import attention_unit
from tilewright.explore.unit_rtl import simulator_job, timing_of
from tilewright.rtl.cosim import unit_simulator
from tilewright.rtl.example import STREAMS, beats_of
from tilewright.rtl.job import Job, tiles
from tilewright.rtl.model import attention
from tilewright.rtl.streams import Cycles
from tilewright.rtl.unit_run import Head, random_head, run_heads
from tilewright.sim import attention_unit as event
from tilewright.sim.attention_beats import Tensors
from tilewright.sim.attention_stepped import step_jobs

UNITS = (
    UnitSizes(4, 4, 4, max_keys=1024, output_columns=4),
    UnitSizes(3, 4, 10, operand_bits=4, max_keys=1000, fifo_depth=2, output_columns=16),
    UnitSizes(1, 4, 5, operand_bits=16, probability_bits=12, max_keys=4096, score_banks=4),
    UnitSizes(4, 8, 16, probability_bits=16, exponent_fraction_bits=10, max_keys=2048, output_columns=33),
    UnitSizes(8, 4, 8, probability_bits=4, exponent_fraction_bits=4, max_keys=512, fifo_depth=3),
    UnitSizes(5, 8, 12, score_banks=4, max_keys=4096, fifo_depth=8, output_columns=24),
    UnitSizes(8, 8, 32, output_columns=32),
    UnitSizes(2, 16, 24, max_keys=4096),
)
"""Every parameter at several values; few units, since each is compiled once."""


@dataclass(frozen=True)
class Configuration:
    """A unit and what is run on it."""

    sizes: UnitSizes
    heads: tuple[Head, ...]
    gaps: dict[str, Cycles]


@dataclass(frozen=True)
class Answer:
    """Cycles by whom, and who gives another O than the model."""

    cycles: dict[str, int]
    wrong: tuple[str, ...]

    @property
    def equal(self) -> bool:
        return len(set(self.cycles.values())) == 1 and not self.wrong


def configurations(count: int, seed: int = 0, units: Sequence[UnitSizes] = UNITS) -> Iterator[Configuration]:
    """`count` random ones, unit after unit in turn; the first ones are the same for every count."""
    for number in range(count):
        yield configuration(units[number % len(units)], np.random.default_rng((seed, number)))


def configuration(sizes: UnitSizes, rng: np.random.Generator) -> Configuration:
    """A random run of this unit."""
    heads = tuple(random_head(sizes, _job(sizes, rng), rng) for _ in range(rng.integers(1, 4)))
    stalled = rng.choice([0.0, 0.02, 0.3], len(STREAMS)) * (rng.random() < 0.85)
    longest = int(rng.choice([1, 5, 60]))
    beats = beats_of(sizes, heads)
    gaps = {
        name: np.where(rng.random(beats[name]) < share, rng.integers(1, longest + 1, beats[name]), 0)
        for name, share in zip(STREAMS, stalled, strict=True)
        if share
    }
    if "command" in gaps:
        gaps["command"][0] = 0  # cycle 0 is the one in which the first command is offered
    return Configuration(sizes, heads, gaps)


def _job(sizes: UnitSizes, rng: np.random.Generator) -> Job:
    queries = int(rng.integers(1, 4 * sizes.rows + 1))
    keys = int(rng.integers(1, 40 * sizes.cols if rng.random() < 0.1 else 8 * sizes.cols)) + 1
    queries, keys = min(queries, sizes.max_keys), min(keys, sizes.max_keys)
    scale = int(rng.choice([0, 1, 1 << 15, (1 << 16) - 1, int(rng.integers(1 << 16))]))
    kind = rng.choice(["full", "causal", "window", "band"])
    if kind == "full":
        job = Job.full(queries, keys, scale)
    elif kind == "causal":
        job = Job.causal(queries, keys, scale)
    elif kind == "window":
        job = Job.window(queries, keys, scale, int(rng.integers(keys)), int(rng.integers(keys)))
    else:
        low, high = (int(bound) for bound in rng.integers(-keys - queries, keys + queries + 1, 2))
        job = Job(queries, keys, scale, low, high)
    if rng.random() < 0.4:
        shape = tiles(queries, sizes.rows), tiles(keys, sizes.cols)
        job = job.with_bitmap(rng.random(shape) < rng.choice([0.1, 0.5, 0.9]))
    return job


def answer(chosen: Configuration) -> Answer:
    """Everybody's answer."""
    sizes, heads, gaps = chosen.sizes, chosen.heads, chosen.gaps
    jobs, timing = [simulator_job(head.job) for head in heads], timing_of(gaps)
    rtl = run_heads(unit_simulator(sizes), sizes, heads, gaps)
    tensors = [Tensors(head.q, head.k, head.v, head.job.scale) for head in heads]
    stepped, stepped_outputs = step_jobs(sizes, jobs, tensors, timing)
    cycles = {
        "recurrence": attention_unit.cycles(sizes, jobs, timing).cycles,
        "event": event.run_jobs(sizes, jobs, timing).cycles,
        "stepped": stepped.cycles,
        "rtl": rtl.cycles,
    }
    wanted = [attention(sizes, head.job, head.q, head.k, head.v) for head in heads]
    outputs = {"stepped": stepped_outputs, "rtl": rtl.outputs}
    wrong = [
        name
        for name, found in outputs.items()
        if not all(np.array_equal(o, right) for o, right in zip(found, wanted, strict=True))
    ]
    return Answer(cycles, tuple(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="configurations (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (default: %(default)s)")
    chosen = parser.parse_args()
    equal, cycles, kinds = 0, 0, Counter[str]()
    for number, each in enumerate(configurations(chosen.count, chosen.seed)):
        found = answer(each)
        equal += found.equal
        cycles += found.cycles["rtl"]
        kinds["jobs"] += len(each.heads)
        kinds["with pauses"] += bool(each.gaps)
        if not found.equal:
            print(f"configuration {number}: {found.cycles} {' '.join(found.wrong)}: {each.sizes}")
    print(
        f"{equal:,} of {chosen.count:,} configurations equal in cycles and output: {kinds['jobs']:,} heads, "
        f"{kinds['with pauses']:,} configurations with pauses, {cycles:,} cycles"
    )
    return 0 if equal == chosen.count else 1


if __name__ == "__main__":
    sys.exit(main())
