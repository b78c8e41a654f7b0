"""The `array` block of an accelerator description: what a core multiplies with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tilewright.arch.block import Block, Count, Cycles, Side

ElementType = Literal["int4", "int8", "int16", "int32", "fp8", "fp16", "bf16", "fp32"]
Dataflow = Literal["weight_stationary", "output_stationary", "input_stationary"]

ELEMENT_BITS: dict[str, int] = {
    "int4": 4, "int8": 8, "int16": 16, "int32": 32, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32,
}  # fmt: skip


class Structured(Block):
    """Support for N:M sparse weights: PEs hold only the `n` weights kept of each `m` along a column, and pick
    their inputs by the weights' indices (Mishra et al., arXiv:2104.08378; Jeong et al., "VEGETA", HPCA 2023,
    arXiv:2302.08687)."""

    n: Count = 2
    """Weights that are kept of a group, at most; matrices with fewer take as long."""
    m: Annotated[int, Field(ge=2, le=64)] = 4
    """Weights of a group."""
    select_cycles: Cycles = 1
    """Pipeline stages of the selection, paid once per tile."""

    @model_validator(mode="after")
    def _keeps_a_part(self) -> Structured:
        if self.n >= self.m:
            raise ValueError(f"`n` ({self.n}) must be less than `m` ({self.m}), or nothing is left out")
        return self


class Flexible(Block):
    """Networks that bring any operand to any PE and add up any PEs' products (Kwon et al., "MAERI", ASPLOS
    2018; Qin et al., "SIGMA", HPCA 2020), where a systolic array hands both on from PE to PE."""

    latency_cycles: Cycles = 0
    """Stages of both networks, from a tile's last operands to its last result."""
    by_head: bool = False
    """Whether what attention wrote head by head is multiplied head by head as well (a layer's output
    projection): each head keeps to an equal share of the PEs, all heads side by side, and PEs that this
    leaves over do what is left of a tile when the shares' cycles are full. Else all PEs are one pool."""


class Array(Block):
    """The array of one core, systolic unless it is `flexible`."""

    rows: Side
    """Processing elements down a column."""
    cols: Side
    """Processing elements along a row."""
    count: Count = 1
    """Equal arrays in a core; the folds of a tile are dealt out among them."""
    dataflow: Dataflow
    """Which operand stays in the processing elements during a fold."""
    operand: ElementType = "int8"
    """Element type of both multiplicands; tensors of element type `native` are stored in it."""
    accumulator: ElementType = "int32"
    """Element type of the running sums."""
    fold_overlap: bool = False
    """Whether the next fold streams in right behind this one, so that fill and drain skew
    (rows + cols - 2 cycles) is paid once per run of folds instead of once per fold."""
    stationary_buffers: Literal[1, 2] = 1
    """Registers for the stationary operand in each PE: with 2, the next fold's operand is loaded while this
    fold streams. Means nothing for an output-stationary array."""
    output_drain: Literal["ideal", "exposed", "shadow"] = "ideal"
    """How an output-stationary array's sums leave it: at no cost (the bare closed form), down the columns in
    `rows` cycles after each fold, or in the shadow of the next fold. Means nothing for other dataflows."""
    structured: Structured | None = None
    """Which N:M sparse weights it runs in n/m of the time. Without it, zeros are multiplied."""
    flexible: Flexible | None = None
    """Lets PEs take any part of a tile, so that edges cost nothing: ceil(m k n / PEs) cycles a tile. How
    often operands pass is still as `dataflow`, `rows` and `cols` have it; `fold_overlap`,
    `stationary_buffers` and `output_drain` mean nothing. Without it, edge folds take as long as full ones."""
    exp_macs: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Multiply-accumulates in which a PE takes an exponential (FuseMax: 6). With it, the order `fusemax` of
    `mapper.attention` leaves the scores in the PEs: these find the maximum, take the exponentials and add
    them up; the vector unit keeps each row's statistics and rescales."""
    exp_pieces: Annotated[int, Field(gt=0, le=1000)] | None = None
    """Pieces of the exponential's linear interpolation in an array with upward paths (FSA: 8), which the
    order `fsa` needs."""

    @model_validator(mode="after")
    def _flexible_is_not_systolic(self) -> Array:
        needs = ("structured", "exp_macs", "exp_pieces")
        clash = next((name for name in needs if getattr(self, name) is not None), None)
        if self.flexible is not None and clash is not None:
            raise ValueError(f"`{clash}` needs the paths of a systolic array; leave it or `flexible` out")
        return self

    @model_validator(mode="after")
    def _structured_weights_stay(self) -> Array:
        if self.structured is not None and self.dataflow == "input_stationary":
            raise ValueError(
                "`structured` needs a weight- or output-stationary array: where inputs are stationary, a "
                "PE has no others to pick from"
            )
        return self

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates per cycle of one core."""
        return self.rows * self.cols * self.count
