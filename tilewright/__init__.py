"""tilewright: a simulator and design-space explorer for transformer accelerators.

The names in `__all__` are the public interface. They load on first use, so that importing the package (and
`tilewright --help`) stays fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilewright.api import generate_verilog, load_accelerator, load_workload, simulate, sweep, validate
    from tilewright.arch.accelerator import Accelerator
    from tilewright.description.errors import InputError
    from tilewright.explore.study.study import Study
    from tilewright.explore.validation.validation import Validation
    from tilewright.sim.result import Result
    from tilewright.workloads.graph import OperatorGraph

__version__ = "0.1.0"
__all__ = [
    "Accelerator",
    "InputError",
    "OperatorGraph",
    "Result",
    "Study",
    "Validation",
    "__version__",
    "generate_verilog",
    "load_accelerator",
    "load_workload",
    "simulate",
    "sweep",
    "validate",
]

_HOME = {
    "Accelerator": "tilewright.arch.accelerator",
    "InputError": "tilewright.description.errors",
    "OperatorGraph": "tilewright.workloads.graph",
    "Result": "tilewright.sim.result",
    "Study": "tilewright.explore.study.study",
    "Validation": "tilewright.explore.validation.validation",
    "generate_verilog": "tilewright.api",
    "load_accelerator": "tilewright.api",
    "load_workload": "tilewright.api",
    "simulate": "tilewright.api",
    "sweep": "tilewright.api",
    "validate": "tilewright.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tilewright' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """For completion and `help`: the public names, loaded or not."""
    return sorted({*globals(), *__all__})
