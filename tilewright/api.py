"""The Python interface: what `import tilewright as tw` offers, and what the command line is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tilewright.description.errors import InputError
from tilewright.description.names import folder_path

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator
    from tilewright.explore.study.study import Study
    from tilewright.explore.validation.validation import Validation
    from tilewright.rtl.deliver import Delivery
    from tilewright.sim.result import Fidelity, Result
    from tilewright.workloads.graph import OperatorGraph


def load_accelerator(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Accelerator:
    """A preset, or a YAML file, with dotted overrides such as `array.rows=32`. Raises `InputError`.

    Or a point of a study: `STUDY@BEST`, `STUDY@BEST:energy_j.total`, `STUDY@front:2`, `STUDY@17`.
    """
    from tilewright.arch import load

    return load.load_accelerator(*expand_point(name_or_path, _checked(overrides)))


def expand_point(name_or_path: str | Path, overrides: Sequence[str] = ()) -> tuple[str | Path, list[str]]:
    """What `STUDY@POINT` stands for: an accelerator's name and overrides; any other name stays as it is."""
    if not isinstance(name_or_path, str) or "@" not in name_or_path:
        return name_or_path, list(overrides)
    from tilewright.explore.study.study import expand_accelerator

    return expand_accelerator(name_or_path, overrides)


def load_workload(name_or_path: str | Path, overrides: Sequence[str] = ()) -> OperatorGraph:
    """A preset, a YAML file, a Hugging Face `config.json`, an ONNX file or a SCALE-Sim CSV, as operators.

    `overrides` are dotted keys into the description, such as `seq=512`. Or what a point of a study was run
    with: `STUDY@BEST` and so on, as in `load_accelerator`. Raises `InputError`.
    """
    from tilewright.workloads import load

    return load.load_workload(*expand_work(name_or_path, _checked(overrides)))


def expand_work(name_or_path: str | Path, overrides: Sequence[str] = ()) -> tuple[str | Path, list[str]]:
    """What `STUDY@POINT` stands for where a workload is asked for; any other name stays as it is."""
    if not isinstance(name_or_path, str) or "@" not in name_or_path:
        return name_or_path, list(overrides)
    from tilewright.explore.study.study import expand_workload

    return expand_workload(name_or_path, overrides)


def simulate(
    accelerator: Accelerator,
    workload: OperatorGraph,
    fidelity: Fidelity = "event",
    *,
    seed: int = 0,
    fast_forward: bool = True,
    trace: bool = False,
) -> Result:
    """Run a workload on an accelerator.

    `seed` draws the data of `cycle` fidelity; `fast_forward=False` runs every tile of every copy; `trace`
    keeps each unit's slices for `tilewright.sim.trace`. Raises `InputError` for what can't be run.
    """
    from tilewright.sim import run

    _check(accelerator, "load_accelerator")
    _check(workload, "load_workload")
    return run.simulate(workload, accelerator, run.Options(fidelity, seed, fast_forward, trace))


def validate(*suites: str | Path, jobs: int = 1) -> Validation:
    """Hold predictions against the measured figures of validation suites: shipped names or YAML files.

    Without any, all shipped suites. `jobs` processes share the runs. Raises `InputError` for a bad suite.
    """
    from tilewright.explore.validation import validation

    _check_jobs(jobs)
    return validation.validate(suites, jobs)


def sweep(
    space: str | Path,
    out: str | Path,
    overrides: Sequence[str] = (),
    *,
    jobs: int | None = None,
    dask: str | None = None,
    retry_failed: bool = False,
) -> Study:
    """Evaluate the points of a space file that the folder `out` does not have yet.

    `overrides` are parameters to vary, `arch.KEY=V1,V2`; `jobs` local processes (by default one per core) or
    a Dask cluster (a scheduler's address, or a cluster's YAML file) do the work. A point that fails is a row
    with its error. Raises `InputError`.
    """
    from tilewright.explore.space.load import load_space
    from tilewright.explore.study.study import Study
    from tilewright.explore.sweep.sweep import sweep

    _check_jobs(jobs)
    folder = folder_path(out)
    sweep(load_space(space, _checked(overrides)), folder, jobs=jobs, dask=dask, retry_failed=retry_failed)
    return Study(out)


def generate_verilog(accelerator: Accelerator, directory: str | Path, *, vcd: bool = False) -> Delivery:
    """Write the Verilog of an accelerator's streaming attention unit, with a test bench and FPGA scripts.

    `directory` appears whole or not at all, and replaces one that was written before; `vcd` adds a waveform
    of the test bench's run. Raises `InputError` for an accelerator without such a unit, and where files would
    be lost that were added to the directory or changed.
    """
    from tilewright.explore import unit_rtl
    from tilewright.rtl.deliver import write_content

    _check(accelerator, "load_accelerator")
    return write_content(unit_rtl.content(accelerator), folder_path(directory), vcd=vcd)


def _check(described: object, loader: Literal["load_accelerator", "load_workload"]) -> None:
    """Raise `InputError` unless `described` is what `loader` returns: names are not looked up here."""
    from tilewright.arch.accelerator import Accelerator
    from tilewright.workloads.graph import OperatorGraph

    wanted = Accelerator if loader == "load_accelerator" else OperatorGraph
    if not isinstance(described, wanted):
        named = isinstance(described, str | Path)
        given = repr(described) if named else f"of type {type(described).__name__}"
        raise InputError(f"expected what {loader} returns, not {given}")


def _checked(overrides: Sequence[str]) -> list[str]:
    """`overrides` as a list. Raises `InputError` for one string, or for what holds something else."""
    if isinstance(overrides, str | Mapping):
        raise InputError(f"overrides: must be a list of 'KEY=VALUE', not {overrides!r}")
    for each in (found := list(overrides)):
        if not isinstance(each, str):
            raise InputError(f"overrides: must be a list of 'KEY=VALUE', not of {each!r}")
    return found


def _check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: must be at least 1, not {jobs}")
