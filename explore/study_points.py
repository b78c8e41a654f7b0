"""From a study's point back to what can be run: its YAML, its command, its result, the presets like it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import load_accelerator, preset_names, to_yaml
from tilewright.dataflows.memory import peak_bytes_per_cycle
from tilewright.description.errors import InputError
from tilewright.explore.pareto import nearest
from tilewright.explore.study_view import POINT, StudyView, StudyWorkload, text_of, title_of
from tilewright.sim.result import Result

_UNLIMITED = 1e15
PRESETS = 3
"""Shipped machines shown beside a front."""


def point_accelerator(view: StudyView, row: int) -> Accelerator:
    """The machine of a point. Raises `InputError` where its description is no longer valid."""
    return load_accelerator(view.accelerator, _overrides(view, row, "arch."))


def point_yaml(view: StudyView, row: int) -> str:
    """The machine of a point as a file that every command takes."""
    point = view.frame[POINT].iloc[row]
    return f"# point {point} of the study {view.name}\n{to_yaml(point_accelerator(view, row))}"


def point_command(view: StudyView, row: int, workload: StudyWorkload) -> str:
    """The command that runs a point again."""
    arch = (f"arch.{text}" for text in _overrides(view, row, "arch."))
    words = [
        view.accelerator,
        workload.workload,
        *arch,
        *_workload_overrides(view, row, workload, "workload."),
    ]
    fidelity = str(view.frame["fidelity"].iloc[row])
    return shlex.join(["tilewright", "run", *words, *([f"--fidelity={fidelity}"] * (fidelity != "event"))])


def point_result(view: StudyView, row: int, workload: StudyWorkload) -> Result:
    """A point run once more, at the fidelity of its row, for what a study does not keep: when each operator
    ran. Raises `InputError` as `simulate` does."""
    from tilewright.sim.run import Options, simulate
    from tilewright.workloads.load import load_workload

    graph = load_workload(workload.workload, _workload_overrides(view, row, workload))
    fidelity = str(view.frame["fidelity"].iloc[row])
    if fidelity not in ("analytic", "event", "cycle"):
        raise InputError(f"a point of the fidelity {fidelity!r} can't be run again")
    return simulate(graph, point_accelerator(view, row), Options(fidelity))  # type: ignore[arg-type]


def point_figures(view: StudyView, row: int) -> dict[str, float]:
    """Cycles, latency, stalls, energy and area of a point in all their parts, by running it again: sums over
    the workloads by their weights."""
    sums: dict[str, float] = {}
    area: dict[str, float] = {}
    for workload in view.workloads:
        result = point_result(view, row, workload)
        own: dict[str, float] = {"cycles": result.cycles, "latency_s": result.latency_s}
        own |= {f"stalls.{cause}": cycles for cause, cycles in result.stalls.items()}
        own |= {f"energy_j.{component}": energy_j for component, energy_j in result.energy_j.items()}
        for key, value in own.items():
            sums[key] = sums.get(key, 0.0) + workload.weight * value
        area = {f"area_mm2.{component}": size for component, size in result.area_mm2.items()}
    return sums | area


def preset_figures(view: StudyView, number: int = PRESETS) -> dict[str, dict[str, float]]:
    """The shipped machines most like the knee's, by peak MACs per second, memory bandwidth and buffers, and
    what the study's objectives are for them on the same work, at `analytic` fidelity.

    A machine that can't run the work is left out, as are objectives that aren't time, energy, area or EDP,
    and studies whose points run different work.
    """
    if view.knee is None or any(key.startswith("workload.") for key in view.parameters):
        return {}
    machines = {name: load_accelerator(name) for name in preset_names()}
    own = _size(point_accelerator(view, view.knee))
    order = nearest(own, [_size(machine) for machine in machines.values()], len(machines))
    found: dict[str, dict[str, float]] = {}
    for name in [list(machines)[place] for place in order]:
        try:
            found[name] = _figures(view, machines[name])
        except InputError:
            continue
        if len(found) == number:
            break
    return found


def _size(machine: Accelerator) -> tuple[float, float, float]:
    """Peak MACs/s, memory bytes/s, bytes on chip: how large a machine is. What is ideal, and so unlimited,
    counts as very large: it is like other ideal ones only."""
    clock_hz = machine.clock_mhz * 1e6
    bandwidth = min(peak_bytes_per_cycle(machine.dram, machine.clock_mhz), _UNLIMITED)
    capacity = machine.cores * sum(buffer.capacity_bytes for buffer in machine.buffers.values())
    return machine.macs_per_cycle * clock_hz, bandwidth * clock_hz, float(capacity or _UNLIMITED)


def _figures(view: StudyView, machine: Accelerator) -> dict[str, float]:
    from tilewright.sim.run import Options, simulate
    from tilewright.workloads.load import load_workload

    latency_s = energy_j = area_mm2 = 0.0
    for workload in view.workloads:
        result = simulate(load_workload(workload.workload, workload.overrides), machine, Options("analytic"))
        latency_s += workload.weight * result.latency_s
        energy_j += workload.weight * result.energy_j["total"]
        area_mm2 = result.area_mm2["total"]
    return {
        "latency_s": latency_s, "energy_j.total": energy_j, "area_mm2.total": area_mm2,
        "edp_js": latency_s * energy_j,
    }  # fmt: skip


def point_facts(view: StudyView, row: int) -> dict[str, object]:
    """What a page tells of a point that was clicked."""
    return {
        "point": str(view.frame[POINT].iloc[row]),
        "parameters": {key: _shown(value) for key, value in view.values(row).items()},
        "figures": {title_of(o.name): text_of(o.name, view.number(row, o.name)) for o in view.objectives},
        "commands": [point_command(view, row, workload) for workload in view.workloads],
    }


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _overrides(view: StudyView, row: int, prefix: str) -> list[str]:
    """`KEY=VALUE` of one kind, without the prefix."""
    chosen: Mapping[str, object] = {k: v for k, v in view.values(row).items() if k.startswith(prefix)}
    return [f"{key.removeprefix(prefix)}={_shown(value)}" for key, value in chosen.items()]


def _workload_overrides(view: StudyView, row: int, workload: StudyWorkload, prefix: str = "") -> list[str]:
    """The space's own, then the point's."""
    given = [f"{prefix}{text.removeprefix('workload.')}" for text in workload.overrides]
    return given + [f"{prefix}{text}" for text in _overrides(view, row, "workload.")]
