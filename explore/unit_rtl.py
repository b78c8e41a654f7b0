"""The attention unit in both realisations: the simulator's jobs in the RTL, the RTL's runs in the simulator.

`sim` and `rtl` know nothing of one another; here, and in tests, they meet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.streaming_unit import Streaming, UnitSizes, unit_sizes
from tilewright.dataflows import attention_jobs, attention_unit
from tilewright.description.errors import InputError
from tilewright.rtl.job import Job
from tilewright.rtl.unit_run import Gaps

if TYPE_CHECKING:
    from tilewright.rtl.deliver import Content


def sizes_of(accelerator: Accelerator) -> UnitSizes:
    """Of an accelerator's attention unit. Raises `InputError` if it has none that there is Verilog for."""
    unit = accelerator.attention_unit
    if not isinstance(unit, Streaming):
        has = "has no attention unit" if unit is None else f"has an attention unit of kind {unit.kind!r}"
        raise InputError(
            f"{accelerator.name} {has}, and Verilog is written of the streaming one: add "
            "`attention_unit: {kind: streaming}` and `array.count: 2`, as in the preset attention-unit"
        )
    return unit_sizes(unit, accelerator.array)


def content(accelerator: Accelerator) -> Content:
    """All that `tilewright rtl` writes of an accelerator. Raises `InputError` as `sizes_of`."""
    from tilewright.arch.load import to_yaml
    from tilewright.rtl.deliver import unit_content

    sizes = sizes_of(accelerator)
    expected = partial(expected_cycles, sizes)
    return unit_content(sizes, accelerator.name, to_yaml(accelerator), expected, cycle_formula(sizes))


def simulator_job(job: Job) -> attention_jobs.Job:
    """A job of the RTL as the simulator knows it."""
    rows = None
    if job.bitmap is not None:
        rows = tuple(sum(1 << at for at, bit in enumerate(row) if bit) for row in job.bitmap.tolist())
    return attention_jobs.Job(job.queries, job.keys, job.low, job.high, rows)


def rtl_job(job: attention_jobs.Job, parameters: UnitSizes, scale: int = 1) -> Job:
    """A job of the simulator as the RTL knows it; the scale changes nothing about its cycles."""
    bits = None
    if job.bitmap is not None:
        count = -(-job.keys // parameters.cols)
        bits = np.array([[bool(row >> at & 1) for at in range(count)] for row in job.bitmap])
    return Job(job.queries, job.keys, scale, job.low, job.high, bits)


def timing_of(gaps: Gaps) -> attention_jobs.Timing:
    """The pauses of a run of the RTL as the simulator knows them."""
    return attention_jobs.Timing({name: tuple(map(int, each)) for name, each in gaps.items()})


def expected_cycles(sizes: UnitSizes, jobs: Sequence[Job], gaps: Gaps) -> int:
    """What the simulator's closed rules say for a run of the RTL."""
    return attention_unit.cycles(sizes, [simulator_job(job) for job in jobs], timing_of(gaps)).cycles


def cycle_formula(sizes: UnitSizes) -> str:
    """Markdown: the cycles of a job on a unit of these sizes, streams without pauses."""
    every = attention_unit.period(sizes)
    one = attention_unit.least_cycles(sizes, [attention_jobs.unmasked(sizes.rows, sizes.cols)])
    examples = []
    for length in (4 * sizes.cols, 16 * sizes.cols, 64 * sizes.cols):
        if length > sizes.max_keys:
            continue
        job = attention_jobs.unmasked(length, length)
        cycles = attention_unit.cycles(sizes, [job]).cycles
        busy = attention_unit.visits(sizes, job) * sizes.head_dim / cycles
        examples.append(f"| {length:,} | {cycles:,} | {100 * busy:.1f} % |")
    return _FORMULA.format(every=every, one=one, examples="\n".join(examples), **asdict(sizes))


_FORMULA = """\
With streams that never pause, a job that visits `n` tiles of {cols} keys, over all its tiles of {rows}
queries, takes

    cycles = {one} + {every} (n - 1)

from the offer of its command to the last beat of O: {every} a tile, which is what the slowest stage takes,
and {one} for the first one from end to end. Tiles that the mask leaves out take none. This is the least;
waits for bitmap words, for tiles cut short, and all that pauses of the streams bring are in the rules of
docs/attention-unit.md, by which the test bench's number was made (`attention_unit.cycles` in
`tilewright.dataflows`). For instance, without a mask:

| queries = keys | cycles | value array busy |
|---:|---:|---:|
{examples}
"""
