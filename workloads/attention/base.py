"""What every attention mechanism is: a description, a reference in numpy, a lowering, and its source.

A mechanism is a module that defines its parameters (a frozen pydantic model with `kind` and the paper's
defaults), `reference` (what it computes, on plain arrays), `lower` (what it costs, as operators), and one
`Mechanism` that binds them, given to `register`. The built-in ones and a user's own take the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict

from tilewright.description.documented import Documented
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.layers import AttentionBias, Heads
from tilewright.workloads.operators import Tensor
from tilewright.workloads.registry import Registry

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


class Parameters(Documented):
    """Base of every mechanism's description; each subclass adds `kind` and its own sizes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, validate_default=True)

    def of_layer(self, number: int) -> Parameters:  # noqa: ARG002 - for those that override it
        """The same as the layer of that number in its stack has them; a mechanism overrides this where layers
        differ. Equal ones are lowered once."""
        return self


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
    qk_norm: bool = False
    """Whether queries and keys are normalised head by head (Qwen3)."""
    position_bias: Tensor | None = None
    """Table [buckets, heads] of biases by relative position, which are added to the scores; these are then
    not scaled (T5)."""
    field: str = "attention"
    """The description's field that chose the mechanism, for messages."""


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
    position_bias: bool = False
    """Whether it can add a bias by relative position to each score."""
    own_projections: bool = False
    """Whether queries and keys don't come from `sublayer.project`, so that there is no place to normalise
    them."""


MECHANISMS: Registry[Mechanism] = Registry("attention", "tilewright.workloads.attention")

register = MECHANISMS.register
"""Makes a mechanism known by its kind, which can be taken once, and returns it."""
