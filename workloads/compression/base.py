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

from pydantic import BaseModel, ConfigDict, Field

from tilewright.workloads.graph import OperatorGraph

Share = Annotated[float, Field(gt=0, lt=1)]
"""A part of a whole: more than nothing, less than all."""


class Technique(BaseModel, ABC):
    """Base of every technique's description; each subclass adds `kind` and its own sizes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    @abstractmethod
    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The compressed graph. Raises `InputError` where the technique finds nothing to work on."""


@dataclass(frozen=True)
class Compression:
    """One compression technique."""

    kind: str
    """What `workload.compression` says."""
    title: str
    citation: str
    hardware: str
    """What an accelerator must support for the technique to pay, and what it does on one that does not."""
    technique: type[Technique]


_REGISTERED: dict[str, Compression] = {}


def register(compression: Compression) -> Compression:
    """Make a technique known by its kind; a kind can be taken once."""
    known = _REGISTERED.get(compression.kind)
    if known is not None and known is not compression:
        raise ValueError(f"compression kind {compression.kind!r} is taken by {known.title}")
    _REGISTERED[compression.kind] = compression
    return compression


def registered() -> dict[str, Compression]:
    """The techniques registered so far, by kind."""
    return dict(_REGISTERED)
