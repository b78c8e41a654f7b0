"""What the tests of sparse-attention units share: runs that keep the laws."""

from __future__ import annotations

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.sim.result import Result
from tilewright.workloads.graph import OperatorGraph


def lawful(machine: Accelerator, graph: OperatorGraph) -> Result:
    """The simulated run, no shorter than the analytic one nor than its MACs take; all cycles add up."""
    event, analytic = tw.simulate(machine, graph), tw.simulate(machine, graph, fidelity="analytic")
    assert analytic.cycles <= event.cycles
    assert all(sum(states.values()) == event.cycles for states in event.units.values())
    assert event.cycles * machine.macs_per_cycle >= event.macs >= event.useful_macs
    return event
