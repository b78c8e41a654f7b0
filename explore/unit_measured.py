"""Cycles of an attention workload, measured on the attention unit's own RTL."""

from __future__ import annotations

import numpy as np

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.attention_region import jobs_of
from tilewright.dataflows.plan import plan
from tilewright.dataflows.specs import StreamSpec
from tilewright.description.errors import InputError
from tilewright.explore.unit_rtl import rtl_job, sizes_of
from tilewright.rtl.cosim import unit_simulator
from tilewright.rtl.unit_run import random_head, run_heads
from tilewright.workloads.graph import OperatorGraph


def measured_cycles(accelerator: Accelerator, graph: OperatorGraph) -> int:
    """Simulate the RTL on all heads of a layer's attention, with random data and streams that never pause.

    Raises `InputError` for an accelerator without a streaming unit, and for any work beside the attention.
    """
    parameters = sizes_of(accelerator)
    the_plan = plan(graph, accelerator)
    steps = [step for group in the_plan.schema.groups for _ in range(group.times) for step in group.steps]
    spec = steps[0].request.spec
    if len(steps) != 1 or not isinstance(spec, StreamSpec):
        raise InputError(
            f"the RTL is the attention unit's alone, and {graph.name} has more in it: take the workload "
            "`attention`"
        )
    rng = np.random.default_rng(0)
    jobs = [rtl_job(job, parameters) for job in jobs_of(spec, the_plan.schema.machine.array)]
    heads = [random_head(parameters, job, rng) for job in jobs]
    return run_heads(unit_simulator(parameters), parameters, heads).cycles
