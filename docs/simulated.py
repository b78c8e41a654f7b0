"""Simulations that several tables show: each is run once in a process."""

from __future__ import annotations

from functools import cache

import tilewright as tw
from tilewright.sim.result import Fidelity, Result


@cache
def simulated(
    accelerator: str,
    workload: str,
    *,
    machine: tuple[str, ...] = (),
    model: tuple[str, ...] = (),
    fidelity: Fidelity = "event",
) -> Result:
    """A workload, with the overrides `model`, on an accelerator with the overrides `machine`."""
    return tw.simulate(tw.load_accelerator(accelerator, machine), tw.load_workload(workload, model), fidelity)
