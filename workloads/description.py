"""What every workload's description has in common: frozen pydantic models with a `family`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo, field_validator

from tilewright.description.documented import Documented, Title
from tilewright.workloads.compression.choice import CompressionChoice, compress
from tilewright.workloads.graph import OperatorGraph

ElementType = Literal["native", "int4", "int8", "int16", "int32", "fp8", "fp16", "bf16", "fp32"]
Activation = Literal["relu", "tanh", "gelu", "gelu_new", "quick_gelu", "silu"]


Size = Annotated[int, Field(gt=0, lt=2**31)]
"""A positive whole number of a size that a machine might meet."""

Layers = Annotated[int, Field(gt=0, le=16384)]
"""A number of layers; each has rows of its own in a result."""

MOST_GENERATED = 16384
"""Each generated token is a stretch of the graph of its own, so that their number is bounded."""


class Block(Documented):
    """Base of every part of a description: frozen, and no key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, validate_default=True)


class Workload(Block, ABC):
    """A description that can be lowered. Each subclass adds its `family` and its sizes."""

    name: Title = ""
    """What to call it in results; by default its family."""
    element: ElementType = "native"
    """Element type of weights and activations; `native` is the accelerator's operand type."""

    @abstractmethod
    def lower(self) -> OperatorGraph:
        """The operator graph, checked against `workloads.rules`; as the model is before any compression."""

    def graph(self) -> OperatorGraph:
        """The operator graph that is run: lowered, and compressed if the description says so."""
        return self.lower()

    @property
    def title(self) -> str:
        """The name, or the family where there is none."""
        return self.name or str(getattr(self, "family", type(self).__name__))


class Model(Workload):
    """A transformer: a workload with a batch of sequences."""

    batch: Size = 1
    """Sequences worked on at the same time."""
    compression: tuple[CompressionChoice, ...] = ()
    """Compression techniques, applied in order."""

    def graph(self) -> OperatorGraph:
        """The operator graph that is run: lowered, then compressed by one technique after the other."""
        return compress(self.lower(), self.compression)


class DecoderRun(Model):
    """How a decoder is run: over a prompt, one token at a time, or both."""

    phase: Literal["prefill", "decode"] = "prefill"
    """`prefill`: all tokens of the sequence at once, filling the KV cache. `decode`: one token, whose
    attention reads a KV cache that holds the whole sequence, the token itself included."""
    generate: Annotated[int, Field(ge=0, le=MOST_GENERATED)] = 0
    """With n > 0: prefill, then n - 1 decode steps, so that n tokens come out. Logits are worked out for the
    last position only, and each token is the arg-max. 0: just the phase, with the logits of all its
    tokens."""

    @field_validator("generate")
    @classmethod
    def _generation_starts_with_prefill(cls, generate: int, info: ValidationInfo) -> int:
        if generate and info.data.get("phase") == "decode":
            raise ValueError("generation starts with a prefill: leave `phase` out, or set `generate` to 0")
        return generate


def divisor_of(name: str) -> AfterValidator:
    """Validates that a size divides the size in field `name`, which stands before it; None passes."""

    def divides(value: int | None, info: ValidationInfo) -> int | None:
        size = info.data.get(name)
        if value is not None and size is not None and size % value:
            raise ValueError(f"must divide `{name}` ({size}), which {value} does not")
        return value

    return AfterValidator(divides)


def within_positions(name: str, generated: bool = False) -> AfterValidator:
    """Validates that a sequence fits the learned positions in field `name`, which stands before it; with
    `generated`, what is generated after it as well."""

    def fits(tokens: int, info: ValidationInfo) -> int:
        if name in info.data:
            rows = info.data[name] - info.data.get("position_offset", 0)
            need_positions(tokens, info.data.get("generate", 0) if generated else 0, rows, name)
        return tokens

    return AfterValidator(fits)


def need_positions(tokens: int, generate: int, positions: int, name: str) -> None:
    """Raise a ValueError if a prompt and the tokens read back after it exceed the learned positions."""
    fed_back = max(generate - 1, 0)
    if tokens + fed_back > positions:
        generated = f" and {fed_back} generated ones" if fed_back else ""
        raise ValueError(f"{tokens} tokens{generated} exceed the model's {positions} learned `{name}`")
