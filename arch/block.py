"""What every block of an accelerator's description has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field, PositiveFloat

from tilewright.description.documented import Documented


def _not_tiny(rate: float) -> float:
    if rate < 1e-6:
        raise ValueError(f"must be at least 1e-06, not {rate:g}")
    return rate


# Beyond these limits lie slips of the keyboard, and times that no longer fit 64 bits.
Side = Annotated[int, Field(gt=0, le=2**16)]
Count = Annotated[int, Field(gt=0, le=10**6)]
Bytes = Annotated[int, Field(gt=0, le=2**50)]
Cycles = Annotated[int, Field(ge=0, le=10**9)]
Rate = Annotated[PositiveFloat, Field(le=1e9), AfterValidator(_not_tiny)]
Nanoseconds = Annotated[PositiveFloat, Field(le=1e6)]


class Block(Documented):
    """Base of every part of the description: frozen, and no key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)
