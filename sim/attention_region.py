"""Attention regions on the streaming unit: their cost at each fidelity, and what their operators do."""

from __future__ import annotations

import numpy as np

from tilewright.arch.array import Array
from tilewright.dataflows.attention_jobs import UnitRun
from tilewright.dataflows.attention_region import jobs_of, sizes_of, streamed_bytes, tiles_of
from tilewright.dataflows.layout import Step
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.sparse.program import UnitTiling
from tilewright.dataflows.specs import StreamSpec
from tilewright.sim import functional
from tilewright.sim.attention_beats import Tensors
from tilewright.sim.attention_numbers import SCALE_LIMIT, host_scale
from tilewright.sim.attention_stepped import step_jobs
from tilewright.sim.attention_unit import run_jobs
from tilewright.sim.cost import Cost
from tilewright.sim.functional import Values
from tilewright.sim.result import Slice
from tilewright.workloads.graph import OperatorGraph

STEPPED_UNIT_CYCLES = 200_000
"""Longest run that `cycle` fidelity takes on: it needs some tenths of a millisecond a cycle."""


def event_cost(spec: StreamSpec, machine: Machine, *, fast_forward: bool = True, trace: bool = False) -> Cost:
    """Of a run in SimPy."""
    sizes, jobs = sizes_of(spec, machine.array), jobs_of(spec, machine.array)
    return _cost(spec, machine, run_jobs(sizes, jobs, fast_forward=fast_forward), trace=trace)


def least_stream_cost(spec: StreamSpec, cycles: int, machine: Machine) -> Cost:
    """By the closed form."""
    sizes, jobs = sizes_of(spec, machine.array), jobs_of(spec, machine.array)
    tiles = tiles_of(sizes, jobs)[1]
    rest = {"unattributed": cycles - tiles * sizes.score_beats}
    return _cost(spec, machine, UnitRun(cycles, (), tiles, rest))


def _cost(spec: StreamSpec, machine: Machine, run: UnitRun, *, trace: bool = False) -> Cost:
    """The array is busy where the score array takes a key; a tile keeps the lanes for as many cycles as it
    has keys."""
    sizes, jobs = sizes_of(spec, machine.array), jobs_of(spec, machine.array)
    read, written = streamed_bytes(sizes, jobs)
    lanes = run.tiles * sizes.cols
    return Cost(
        cycles=run.cycles,
        array={"busy": run.tiles * sizes.score_beats, **run.stalls},
        vector={"busy": lanes, "idle": run.cycles - lanes},
        dram={"busy": 0, "idle": run.cycles},
        dram_read_bytes=read,
        dram_write_bytes=written,
        link_read_bytes=0,
        link_write_bytes=0,
        router_bytes=0,
        buffer_read_bytes=(),
        buffer_write_bytes=(),
        tiling=UnitTiling(spec.unit.kind),
        predictor={"busy": 0, "idle": run.cycles},
        slices=(Slice("array", "attention unit", 0, run.cycles, run.tiles),) if trace else (),
    )


def step_region(
    step: Step, graph: OperatorGraph, machine: Machine, seed: int
) -> tuple[Cost, dict[str, Values]]:
    """`cycle`: the region on random integers; inputs and output by their tensors' names."""
    spec, members = step.request.spec, [graph.operators[i] for i in step.region.operators]
    assert isinstance(spec, StreamSpec)
    first, second = members[0], next(op for op in members[1:] if op.kind == "matmul")
    sizes, jobs = sizes_of(spec, machine.array), jobs_of(spec, machine.array)
    names = (*first.inputs[:2], second.inputs[1])
    random, most = np.random.default_rng(seed), 2 ** (sizes.operand_bits - 1)
    values = {name: random.integers(-most, most, graph.tensors[name].shape) for name in names}
    query, key = functional.matmul_operands(first, [values[name] for name in names[:2]])
    shape = spec.second.shape
    weights = np.broadcast_to(np.int64(0), (shape.batch, shape.m, shape.k))
    _, value = functional.matmul_operands(second, [weights, values[names[2]]])
    scale = _scale(spec, machine.array)
    tensors = []
    for number, job in enumerate(jobs):
        batch, group = divmod(number, len(jobs) // shape.batch)
        rows = slice(group * job.queries, (group + 1) * job.queries)
        q, k, v = (_widened(x, sizes.head_dim) for x in (query[batch, rows], key[batch].T, value[batch]))
        tensors.append(Tensors(q, k, v, scale))
    run, outs = step_jobs(sizes, jobs, tensors)
    made = np.stack(outs).reshape(shape.batch, shape.m, -1)[:, :, : shape.n]
    out = functional.matmul_output(second, made, [weights, values[names[2]]], graph)
    return _cost(spec, machine, run), {**values, second.outputs[0]: out}


def _scale(spec: StreamSpec, array: Array) -> int:
    """Such that scores of random integers come out with a deviation of one, or as near as the unit can."""
    sizes = sizes_of(spec, array)
    factor = 12 / 4**sizes.operand_bits / spec.first.shape.k**0.5
    try:
        return host_scale(sizes, factor)
    except ValueError:
        return SCALE_LIMIT - 1


def _widened(part: Values, dim: int) -> Values:
    """With zeros up to the unit's head dimension."""
    return np.pad(part, ((0, 0), (0, dim - part.shape[1])))
