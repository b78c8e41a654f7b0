"""The `analytic` answer for many machines at once: the columns of a sweep's rows.

Equal, point by point, to what `simulate(..., fidelity="analytic")` says; no run is put together, no operator
has a row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from tilewright.arch.energy import ZJ_PER_J, Actions, EnergyModel, peak_power_w
from tilewright.dataflows.columns import Column, Columns
from tilewright.dataflows.estimate import ColumnEstimate, column_estimates
from tilewright.dataflows.least import Needs
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.plan import Schema
from tilewright.sim.work import Work, works


@dataclass(frozen=True)
class Answers:
    """Of all machines: a value, or a column of values, by result key."""

    fits: Column
    """Whether there is room for a tile of each operator; where there is not, the rest means nothing."""
    results: Mapping[str, Column]
    """What each machine's own `analytic` run says."""
    bounds: Mapping[str, Column]
    """What no run of it undercuts, whichever division of the buffers it settles for: `cycles`, `latency_s`,
    `energy_j.total`, `area_mm2.total`."""


def answers(divisions: Sequence[Schema], columns: Mapping[str, Column]) -> Answers:
    """Cycles, time, energy, power, area and traffic of an accelerator with columns in place of some values
    (`tilewright.dataflows.estimate.may_be_columns`). `divisions`: all of `tilewright.dataflows.plan.schemas`.
    Raises `InputError` if no tile fits the buffers."""
    rows = len(next(iter(columns.values())))
    accelerator = Columns(divisions[0].machine, columns).accelerator  # divisions are of one machine
    energy = EnergyModel(accelerator)
    found: list[dict[str, Column]] = []
    for each in column_estimates(divisions, columns):
        found.append({key: _column(value, rows) for key, value in _results(each, energy).items()})
    machine = {key: _column(value, rows) for key, value in _machine_figures(energy).items()}
    chosen = np.argmin(np.stack([each["cycles"] for each in found]), axis=0)
    results = {key: np.stack([each[key] for each in found])[chosen, np.arange(rows)] for key in found[0]}
    bounded = ("cycles", "latency_s", "energy_j.total")
    bounds = {key: np.min(np.stack([each[key] for each in found]), axis=0) for key in bounded}
    bounds["area_mm2.total"] = machine["area_mm2.total"]
    results |= machine
    fits = np.isfinite(results["cycles"])
    results["cycles"] = np.where(fits, results["cycles"], 0).astype(np.int64)
    return Answers(fits, results, bounds)


def _column(value: Any, rows: int) -> Column:  # noqa: ANN401 - a number or a column
    return np.broadcast_to(np.asarray(value), (rows,))


def _results(each: ColumnEstimate, energy: EnergyModel) -> dict[str, Any]:
    accelerator = energy.accelerator
    actions, useful_macs = _actions(each, energy)
    fits = np.isfinite(each.cycles)
    cycles = np.where(fits, each.cycles, 0.0)
    parts = {name: value / ZJ_PER_J for name, value in energy.run_zj(actions, cast(int, cycles)).items()}
    seconds = each.cycles / (np.asarray(accelerator.clock_mhz) * 1e6)
    total = np.where(fits, sum(parts.values()), np.inf)
    return {
        "cycles": each.cycles,
        "latency_s": seconds,
        "utilization": useful_macs / (each.cycles * accelerator.macs_per_cycle),
        "energy_j.total": total,
        **{f"energy_j.{name}": value for name, value in parts.items()},
        "traffic_bytes.dram.read": actions.dram_read_bytes,
        "traffic_bytes.dram.write": actions.dram_write_bytes,
    }


def _machine_figures(energy: EnergyModel) -> dict[str, Any]:
    """What does not depend on the work."""
    accelerator = energy.accelerator
    area, power = energy.area_mm2, peak_power_w(accelerator)
    return {
        "area_mm2.total": sum(area.values()),
        **{f"area_mm2.{name}": value for name, value in area.items()},
        "clock_mhz": accelerator.clock_mhz,
        "peak_macs_per_cycle": accelerator.macs_per_cycle,
        "peak_power_w.total": sum(power.values()),
        **{f"peak_power_w.{name}": value for name, value in power.items()},
    }


def _actions(each: ColumnEstimate, energy: EnergyModel) -> tuple[Actions, int]:
    """What all regions do, and the useful MACs."""
    machine, operators = each.schema.machine, each.schema.cut.graph.operators
    whole, useful = Actions(), 0
    for group in each.schema.groups:
        for step in group.steps:
            needs, _ = each.regions[step.request]
            members = [operators[index] for index in step.region.operators]
            done = works(members, step.request.spec, None, machine.array, machine.cores)
            whole += _region_actions(needs, done, machine, energy).times(group.times)
            useful += group.times * sum(work.useful_macs for work in done)
    return whole, useful


def _region_actions(needs: Needs, done: list[Work], machine: Machine, energy: EnergyModel) -> Actions:
    made = Actions(
        buffer_read_bytes=dict(zip(machine.names, needs.read, strict=True)),
        buffer_write_bytes=dict(zip(machine.names, needs.written, strict=True)),
        dram_read_bytes=needs.dram_read,
        dram_write_bytes=needs.dram_write,
        dram_activations=energy.least_activations(needs.dram_read + needs.dram_write),
        link_bytes=sum(needs.link_bytes),
        router_bytes=needs.router_bytes,
    )
    for work in done:
        made += Actions(
            macs=work.macs + work.array_steps,
            vector=work.vector,
            predictor_macs=work.predictor_macs,
            predictor=work.predictor,
        )
    return made
