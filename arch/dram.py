"""The memory behind an accelerator's cores: the three ways in which a description may state it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from tilewright.arch.block import Block, Bytes, Count, Cycles, Nanoseconds, Rate
from tilewright.arch.dram_standards import complete_from_standard


class IdealDram(Block):
    """Memory that always has the operand ready: no time, but its traffic is counted."""

    kind: Literal["ideal"]


class FlatDram(Block):
    """Memory with one bandwidth and one latency, whatever the addresses."""

    kind: Literal["flat"]
    bytes_per_cycle: Rate
    """Sustained bandwidth of all channels together, per cycle of the accelerator's clock."""
    latency_cycles: Cycles = 0
    """From the request to the last beat, besides the transfer itself."""


class BankedDram(Block):
    """Memory with channels, banks and rows, whose time depends on how requests fall onto them.

    `standard` fills in whatever the description leaves out, from `dram_standards.yaml`.
    """

    kind: Literal["banked"]
    standard: str | None = None
    """One of the shipped standards, e.g. `ddr4-2400`."""
    channels: Count
    """Parts with command and data buses of their own."""
    banks: Count
    """Banks of one channel (all bank groups together)."""
    row_bytes: Bytes
    """Bytes that one activation opens (a page of one channel)."""
    bus_bytes: Bytes
    """Width of one channel's data bus."""
    transfers_per_second: Annotated[PositiveFloat, Field(ge=1, le=1e15)]
    """Transfers per second on each data pin (2,400e6 for DDR4-2400)."""
    burst_length: Count
    """Transfers of one column command."""
    t_rcd_ns: Nanoseconds
    """From an activation to the first column command."""
    t_rp_ns: Nanoseconds
    """Length of a precharge."""
    t_cl_ns: Nanoseconds
    """From a column command to its first beat."""
    t_ras_ns: Nanoseconds
    """From an activation to the earliest precharge."""
    t_rfc_ns: Annotated[float, Field(ge=0, le=1e6)]
    """Length of one refresh."""
    t_refi_ns: Nanoseconds
    """Time between refreshes."""
    interleave: Literal["channel-bank-row", "bank-channel-row", "row"] = "channel-bank-row"
    """What changes first as the address grows by `interleave_bytes`: the channel, then the bank; the bank,
    then the channel; or `row`: a channel's rows are filled bank by bank and the channel changes last."""
    interleave_bytes: Bytes = 256
    """Bytes that stay in one channel and bank before the address moves on."""

    @field_validator("t_refi_ns")
    @classmethod
    def _refreshes_end(cls, t_refi_ns: float, info: ValidationInfo) -> float:
        t_rfc_ns = info.data.get("t_rfc_ns", 0)
        if t_rfc_ns >= t_refi_ns:
            raise ValueError(
                f"`t_refi_ns` ({t_refi_ns:g}) must exceed `t_rfc_ns` ({t_rfc_ns:g}), "
                "or the memory does nothing but refresh"
            )
        return t_refi_ns

    @model_validator(mode="before")
    @classmethod
    def _from_standard(cls, data: object) -> object:
        return complete_from_standard(data)


Dram = Annotated[IdealDram | FlatDram | BankedDram, Field(discriminator="kind")]
