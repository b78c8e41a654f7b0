"""From a study's point back to what can be run: its YAML, its command, its result."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import load_accelerator, to_yaml
from tilewright.description.errors import InputError
from tilewright.explore.study.fpga_text import PointFpga, point_fpga
from tilewright.explore.study.view import POINT, StudyView, StudyWorkload, text_of, title_of
from tilewright.sim.result import Result


def point_accelerator(view: StudyView, row: int) -> Accelerator:
    """The machine of a point. Raises `InputError` where its description is no longer valid."""
    return load_accelerator(view.accelerator, _overrides(view, row, "arch."))


def point_yaml(view: StudyView, row: int) -> str:
    """The machine of a point as a file that every command takes."""
    point = view.frame[POINT].iloc[row]
    return f"# point {point} of the study {view.name}\n{to_yaml(point_accelerator(view, row))}"


def point_command(view: StudyView, row: int, workload: StudyWorkload) -> str:
    """The command that runs a point again."""
    own = point_workload(view, row, workload)
    arch = (f"arch.{text}" for text in _overrides(view, row, "arch."))
    words = [view.accelerator, own.workload, *arch, *own.overrides]
    fidelity = str(view.frame["fidelity"].iloc[row])
    return shlex.join(["tilewright", "run", *words, *([f"--fidelity={fidelity}"] * (fidelity != "event"))])


def point_workload(view: StudyView, row: int, workload: StudyWorkload) -> StudyWorkload:
    """One of the study's workloads as a point runs it: overrides `workload.KEY=VALUE`, the space's own, then
    the point's."""
    own = view.run_by(row, workload)
    texts = (
        *(text.removeprefix("workload.") for text in own.overrides), *_overrides(view, row, "workload.")
    )  # fmt: skip
    return replace(own, overrides=tuple(f"workload.{text}" for text in texts))


def point_result(view: StudyView, row: int, workload: StudyWorkload) -> Result:
    """A point run once more, at the fidelity of its row, for what a study does not keep: when each operator
    ran. Raises `InputError` as `simulate` does."""
    from tilewright.sim.run import Options, simulate
    from tilewright.workloads.load import load_workload

    own = point_workload(view, row, workload)
    graph = load_workload(own.workload, own.overrides)
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


def point_facts(view: StudyView, row: int) -> dict[str, object]:
    """What a page tells of a point that was clicked."""
    fpga = fpga_facts(view, row)
    return {
        "point": str(view.frame[POINT].iloc[row]),
        "parameters": {key: _shown(value) for key, value in view.values(row).items()},
        "figures": {title_of(o.name): text_of(o.name, view.number(row, o.name)) for o in view.objectives},
        "commands": [point_command(view, row, workload) for workload in view.workloads],
        **({} if fpga is None else {"fpga": asdict(fpga)}),
    }


def fpga_facts(view: StudyView, row: int) -> PointFpga | None:
    """What a point's attention unit takes on FPGAs; None in a study without units."""
    return point_fpga(view.fpga, str(view.frame[POINT].iloc[row]), arch_overrides(view, row))


def arch_overrides(view: StudyView, row: int) -> list[str]:
    """`KEY=VALUE` of a point's accelerator, without the prefix."""
    return _overrides(view, row, "arch.")


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _overrides(view: StudyView, row: int, prefix: str) -> list[str]:
    """`KEY=VALUE` of one kind, without the prefix."""
    chosen: Mapping[str, object] = {k: v for k, v in view.values(row).items() if k.startswith(prefix)}
    return [f"{key.removeprefix(prefix)}={_shown(value)}" for key, value in chosen.items()]
