"""What every compression technique is: a description with a `transform`, and where it comes from.

A technique is a module that defines its description (a frozen pydantic model with `kind`, its sizes and
`transform`) and one `Compression` that says what it is, given to `register`. The built-in ones and a user's
own take the same path. A pass changes what the graph does and stores; what it does to the accuracy was
measured by others, see `quality`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

from tilewright.description.documented import Documented
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.registry import Registry

Share = Annotated[float, Field(gt=0, lt=1)]
"""A part of a whole: more than nothing, less than all."""


class Technique(Documented, ABC):
    """Base of every technique's description; each subclass adds `kind` and its own sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, validate_default=True)

    @abstractmethod
    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The compressed graph. Raises `InputError` where the technique finds nothing to work on."""


@dataclass(frozen=True)
class Compression:
    """One compression technique."""

    kind: str
    """What `workload.compression` says."""
    title: str
    changes: str
    """What of a model it changes, in a few words."""
    citation: str
    hardware: str
    """What an accelerator must support for the technique to pay, and what it does on one that does not."""
    oracle: str
    """Against what it is tested, and where."""
    technique: type[Technique]


COMPRESSIONS: Registry[Compression] = Registry("compression", "tilewright.workloads.compression")

register = COMPRESSIONS.register
"""Makes a technique known by its kind, which can be taken once, and returns it."""
