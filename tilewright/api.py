"""The Python interface: what `import tilewright as tw` offers, and what the command line is made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.arch.accelerator import Accelerator
    from tilewright.explore.validation import Validation
    from tilewright.sim.result import Fidelity, Result
    from tilewright.workloads.graph import OperatorGraph


def load_accelerator(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Accelerator:
    """A preset, or a YAML file, with dotted overrides such as `array.rows=32`. Raises `InputError`."""
    from tilewright.arch import load

    return load.load_accelerator(name_or_path, overrides)


def load_workload(name_or_path: str | Path, overrides: Sequence[str] = ()) -> OperatorGraph:
    """A preset, a YAML file, a Hugging Face `config.json` or a GEMM topology CSV, lowered to operators.

    `overrides` are dotted keys into the description, such as `seq=512`. Raises `InputError`.
    """
    from tilewright.workloads import load

    return load.load_workload(name_or_path, overrides)


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

    return run.simulate(workload, accelerator, run.Options(fidelity, seed, fast_forward, trace))


def validate(*suites: str | Path, jobs: int = 1) -> Validation:
    """Hold predictions against the measured figures of validation suites: shipped names or YAML files.

    Without any, all shipped suites. `jobs` processes share the runs. Raises `InputError` for a bad suite.
    """
    from tilewright.explore import validation

    return validation.validate(suites, jobs)
