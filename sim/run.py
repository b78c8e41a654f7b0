"""From a workload and an accelerator to a result, at each of the three fidelities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.streaming_unit import Streaming
from tilewright.dataflows.estimate import estimate
from tilewright.dataflows.layout import Step
from tilewright.dataflows.least import Needs
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Request
from tilewright.dataflows.plan import Plan, plan
from tilewright.dataflows.specs import ChainSpec, MatmulSpec, StreamSpec, UnitSpec
from tilewright.dataflows.tiling import Tiling
from tilewright.description.errors import InputError
from tilewright.sim import functional
from tilewright.sim.array_model import TimedArrays
from tilewright.sim.assemble import Assembly
from tilewright.sim.attention_region import (
    STEPPED_UNIT_CYCLES,
    event_cost,
    least_stream_cost,
    step_region,
)
from tilewright.sim.cost import Cost, least_cost, run_cost
from tilewright.sim.event import RegionRun, run_region
from tilewright.sim.functional import Values
from tilewright.sim.result import Fidelity, Result
from tilewright.sim.stepped import SteppedArray
from tilewright.workloads.graph import OperatorGraph

STEPPED_CYCLES = 2_000_000
"""Longest run that `cycle` fidelity takes on: it needs some tens of microseconds a cycle."""


@dataclass(frozen=True)
class Options:
    """How to run. Raises `InputError` for an unknown fidelity or a seed that is no natural number."""

    fidelity: Fidelity = "event"
    seed: int = 0
    fast_forward: bool = True
    trace: bool = False

    def __post_init__(self) -> None:
        """Check what a caller without a type checker may have got wrong."""
        if self.fidelity not in get_args(Fidelity):
            known = ", ".join(get_args(Fidelity))
            raise InputError(f"fidelity: must be one of {known}, not {self.fidelity!r}")
        if not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise InputError(f"seed: must be an integer of at least 0, not {self.seed!r}")


def simulate(graph: OperatorGraph, accelerator: Accelerator, options: Options = Options()) -> Result:
    """Run a workload.

    Raises `InputError` if a buffer is too small for any tile, or if `cycle` fidelity can't run the workload.
    """
    if options.fidelity == "analytic":
        answer = estimate(graph, accelerator)
        machine = answer.schema.machine
        costs = {each: _least_cost(each, *region, machine) for each, region in answer.regions.items()}
        return Assembly(answer.schema, costs, options).result()
    if options.fidelity == "cycle":
        return _stepped(graph.expand(), accelerator, options)
    the_plan = plan(graph, accelerator)
    if options.fast_forward:
        costs = {request: _event_cost(the_plan, request, options) for request in the_plan.mappings}
        return Assembly(the_plan.schema, costs, options).result()
    return Assembly(the_plan.schema, _each_run(the_plan, options), options).result()


def _least_cost(request: Request, needs: Needs, cycles: int, machine: Machine) -> Cost:
    if isinstance(request.spec, StreamSpec):
        return least_stream_cost(request.spec, cycles, machine)
    return least_cost(request, needs, cycles, machine)


def _run(the_plan: Plan, request: Request, options: Options, array: SteppedArray | None = None) -> RegionRun:
    machine = the_plan.schema.machine
    return run_region(
        the_plan.mappings[request].program,
        machine.buffers,
        request.credit_bytes,
        machine.dram_cycles(request.prefetch_bytes),
        fast_forward=options.fast_forward and array is None,
        trace=options.trace,
        arrays=array.attach if array else TimedArrays,
    )


def _event_cost(the_plan: Plan, request: Request, options: Options) -> Cost:
    if isinstance(request.spec, StreamSpec):
        machine, fast = the_plan.schema.machine, options.fast_forward
        return event_cost(request.spec, machine, fast_forward=fast, trace=options.trace)
    run = _run(the_plan, request, options)
    return run_cost(run, request, the_plan.mappings[request], the_plan.schema.machine)


def _each_run(the_plan: Plan, options: Options) -> dict[Request, Cost]:
    """Every region run as often as it occurs, tick by tick; equal requests must come out alike."""
    costs: dict[Request, Cost] = {}
    for group in the_plan.schema.groups:
        for _ in range(group.times):
            for step in group.steps:
                cost = _event_cost(the_plan, step.request, options)
                if costs.setdefault(step.request, cost) != cost:
                    raise AssertionError(f"two runs of one region differ: {step.request}")
    return costs


def _stepped(graph: OperatorGraph, accelerator: Accelerator, options: Options) -> Result:
    """`cycle`: the plan's regions in order, with real data in the arrays."""
    if isinstance(accelerator.attention_unit, Streaming):
        return _stepped_unit(graph, accelerator, options)
    functional.check(graph)
    the_plan = plan(graph, accelerator)
    if the_plan.cycles > STEPPED_CYCLES:
        raise InputError(
            f"`cycle` fidelity steps every PE on every cycle; {graph.name} takes {the_plan.cycles:,} cycles, "
            f"more than the {STEPPED_CYCLES:,} that are practical; use fidelity event, which gives the same"
        )
    steps = [step for group in the_plan.schema.groups for _ in range(group.times) for step in group.steps]
    if any(isinstance(step.request.spec, ChainSpec | UnitSpec) for step in steps):
        raise InputError(
            "`cycle` fidelity steps one matmul at a time: leave `unfused` alone in mapper.attention and "
            "mapper.chains and `attention_unit` out, or use fidelity event"
        )
    matmuls = iter([step for step in steps if isinstance(step.request.spec, MatmulSpec)])
    costs: dict[Request, Cost] = {}

    def run_step(step: Step, array: SteppedArray | None = None) -> None:
        run = _run(the_plan, step.request, options, array)
        cost = run_cost(run, step.request, the_plan.mappings[step.request], the_plan.schema.machine)
        if costs.setdefault(step.request, cost) != cost:
            raise AssertionError(f"two runs of one region differ: {step.request}")

    def matmul(a: Values, b: Values) -> Values:
        step = next(matmuls)
        spec, tiling = step.request.spec, the_plan.mappings[step.request].tiling
        assert isinstance(spec, MatmulSpec)
        assert isinstance(tiling, Tiling)
        array = SteppedArray(the_plan.schema.machine, spec, tiling, a, b)
        run_step(step, array)
        return array.c

    inputs = functional.random_inputs(graph, options.seed)
    values = functional.run(graph, inputs, matmul)
    for step in steps:
        if not isinstance(step.request.spec, MatmulSpec):
            run_step(step)
    return Assembly(the_plan.schema, costs, options, _outputs(graph, inputs, values)).result()


def _stepped_unit(graph: OperatorGraph, accelerator: Accelerator, options: Options) -> Result:
    """`cycle` on a streaming attention unit: attention alone."""
    the_plan = plan(graph, accelerator)
    steps = [step for group in the_plan.schema.groups for step in group.steps]
    if len(steps) != 1 or not isinstance(steps[0].request.spec, StreamSpec):
        raise InputError(
            "`cycle` fidelity steps the streaming attention unit alone: take the workload `attention`, set "
            "arch.attention_unit=null, or use fidelity event, which takes the same cycles"
        )
    if the_plan.cycles > STEPPED_UNIT_CYCLES:
        raise InputError(
            f"`cycle` fidelity steps every register on every cycle; {graph.name} takes {the_plan.cycles:,} "
            f"cycles, more than the {STEPPED_UNIT_CYCLES:,} that are practical; use fidelity event, which "
            "gives the same"
        )
    cost, values = step_region(steps[0], graph, the_plan.schema.machine, options.seed)
    return Assembly(the_plan.schema, {steps[0].request: cost}, options, values).result()


def _outputs(
    graph: OperatorGraph, inputs: Mapping[str, Values], values: Mapping[str, Values]
) -> dict[str, Values]:
    """What went in and what came out."""
    return {name: np.asarray(values[name]) for name in (*inputs, *graph.outputs)}
