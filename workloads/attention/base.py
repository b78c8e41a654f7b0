"""What every attention mechanism is: a description, a reference in numpy, a lowering, and its source.

A mechanism is a module that defines its parameters (a frozen pydantic model with `kind` and the paper's
defaults), `reference` (what it computes, on plain arrays), `lower` (what it costs, as operators), and one
`Mechanism` that binds them, given to `register`. The built-in ones and a user's own take the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import AttentionBias, Heads
from tilewright.workloads.operators import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.float64]
else:
    Values = "NDArray[np.float64]"  # numpy is not needed to describe or lower a workload

Taxonomy = Literal[
    "dense",
    "fixed pattern",
    "combined patterns",
    "learnable pattern",
    "memory",
    "low rank",
    "kernel",
    "recurrence",
    "downsampling",
    "cache eviction",
    "sparse",
]
"""Classes of Tay et al., "Efficient Transformers: A Survey" (arXiv:2009.06732), figure 2 and table 1, and of
what came after it."""


class Parameters(BaseModel):
    """Base of every mechanism's description; each subclass adds `kind` and its own sizes."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


@dataclass(frozen=True, slots=True)
class Site:
    """Where an attention layer stands: all that the model around it fixes."""

    heads: Heads
    bias: AttentionBias
    causal: bool
    """Whether a token may only see itself and earlier ones."""
    context: int
    """Tokens seen in all: those of this run, or in a decode step the cache's, the new one included."""
    decode: bool = False
    """Whether this is one new token against a cache."""
    rope: Tensor | None = None
    """Table of rotary angles, if the model has them."""


@dataclass(frozen=True)
class Mechanism:
    """One attention mechanism."""

    kind: str
    """What `workload.attention.kind` says."""
    title: str
    taxonomy: tuple[Taxonomy, ...]
    complexity: str
    """In the paper's letters, per layer."""
    citation: str
    oracle: str
    """The public implementation that its reference agrees with (package and version), or how else it is
    checked."""
    parameters: type[Parameters]
    lower: Callable[[GraphBuilder, Tensor, Site, Any], Tensor]
    """`lower(b, x, site, parameters)`: the whole sublayer on x [batch, tokens, width], projections included,
    up to and including the output projection; returns [batch, tokens, width]. Raises `InputError` where the
    mechanism makes no sense (saying why)."""
    encode: bool = True
    """Whether it can look both ways."""
    causal: bool = True
    """Whether it can be causal."""
    decode: bool = False
    """Whether it can take one token against a cache."""


_REGISTERED: dict[str, Mechanism] = {}


def register(mechanism: Mechanism) -> Mechanism:
    """Make a mechanism known by its kind; a kind can be taken once."""
    known = _REGISTERED.get(mechanism.kind)
    if known is not None and known is not mechanism:
        raise ValueError(f"attention kind {mechanism.kind!r} is taken by {known.title}")
    _REGISTERED[mechanism.kind] = mechanism
    return mechanism


def registered() -> dict[str, Mechanism]:
    """The mechanisms registered so far, by kind."""
    return dict(_REGISTERED)
