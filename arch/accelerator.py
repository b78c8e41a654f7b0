"""The accelerator description: one frozen pydantic model per block of the YAML file.

Times are in cycles of the accelerator's clock unless a name says otherwise. The description states what the
machine has; what a workload costs on it is worked out in `tilewright.dataflows`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tilewright.arch.dram_standards import complete_from_standard
from tilewright.arch.scaling import uncovered
from tilewright.arch.technology_tables import Tables
from tilewright.description.errors import InputError, Problem

ElementType = Literal["int4", "int8", "int16", "int32", "fp8", "fp16", "bf16", "fp32"]
Dataflow = Literal["weight_stationary", "output_stationary", "input_stationary"]
Operand = Literal["input", "weight", "output"]

ELEMENT_BITS: dict[str, int] = {
    "int4": 4, "int8": 8, "int16": 16, "int32": 32, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32,
}  # fmt: skip


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


class Block(BaseModel):
    """Base of every part of the description: frozen, and no key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Array(Block):
    """The systolic array of one core."""

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

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates per cycle of one core."""
        return self.rows * self.cols * self.count


class VectorCycles(Block):
    """Cycles that one lane takes for one primitive operation on one element (a reciprocal throughput)."""

    add: Rate = 1.0
    multiply: Rate = 1.0
    compare: Rate = 1.0
    exp: Rate = 4.0
    divide: Rate = 8.0
    sqrt: Rate = 8.0
    tanh: Rate = 8.0
    """Also the cost of erf and of the logistic function."""
    move: Rate = 1.0
    """Copying one element (gathers, scatters, layout changes)."""


class Vector(Block):
    """The vector unit of one core: softmax, norms, activations, residuals, sorts, gathers."""

    lanes: Count
    """Elements worked on in parallel."""
    startup_cycles: Cycles = 0
    """Pipeline fill paid once per tile."""
    cycles: VectorCycles = VectorCycles()


class Buffer(Block):
    """One on-chip SRAM of a core. A machine without buffers has unlimited, free ones."""

    capacity_bytes: Bytes
    """Of one core."""
    holds: Annotated[tuple[Operand, ...], Field(min_length=1)]
    """Operands that live here; a buffer that holds several shares its capacity and ports among them. The
    input and the vector unit's data are `input`; running sums and results are `output`."""
    banks: Count = 1
    """Equal parts with ports of their own; their bandwidth is pooled."""
    ports: Count = 1
    """Ports of each bank."""
    width_bytes: Bytes
    """Bytes that one port moves per cycle."""

    @property
    def bytes_per_cycle(self) -> int:
        """Peak bandwidth over all banks and ports."""
        return self.banks * self.ports * self.width_bytes


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


class Dma(Block):
    """The engine that moves tiles between DRAM and the buffers, in program order."""

    prefetch_bytes: Annotated[int, Field(ge=0, le=2**50)] = 16384
    """Room in its own FIFO for the first operands of the next operator, fetched while this one finishes."""


class Mapper(Block):
    """How hard the mapper searches."""

    effort: Annotated[int, Field(ge=0, le=6)] = 3
    """Each level tries all the tilings of the level below and more."""
    resident_fractions: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.0, 0.5, 0.75)
    """Shares of each buffer to try for keeping whole tensors between operators; the rest holds tiles."""


def _covered_node(node_nm: float) -> float:
    message = uncovered(node_nm)
    if message:
        raise InputError(message)
    return node_nm


class TechnologyChoice(Block):
    """What the accelerator is made in: where its energy, power and area come from."""

    node_nm: Annotated[
        float, AfterValidator(_covered_node), Field(json_schema_extra={"minimum": 7, "maximum": 65})
    ] = 28.0
    """Node of the logic and the SRAM; figures of other nodes are scaled (Stillmaker and Baas 2017, 65 to 7
    nm)."""
    clock_gating: bool = True
    """Whether registers that take nothing up get no clock. Without it every register bit costs each cycle."""
    dram: Literal["generic", "ddr3", "ddr4", "lpddr4", "lpddr5", "hbm2", "hbm2e"] | None = None
    """Kind of memory whose energy is charged. Left out: that of `dram.standard`, else `generic`."""
    file: str | None = None
    """A technology file, relative to this description's folder or else the current one; its figures replace
    the shipped ones. Reading the description turns it into `figures`."""
    figures: Tables | None = None
    """Figures that replace the shipped ones, and those of `file`."""


COMPONENTS = (
    "array", "registers", "vector", "network", "control", "dram", "dram_background", "leakage", "clock",
    "total",
)  # fmt: skip
"""Names of the other components in tables of energy and area; no buffer may take one."""


class Accelerator(Block):
    """A transformer accelerator: equal cores in lock step, and one memory behind them."""

    name: str
    """What results call it."""
    description: str = ""
    """A sentence for lists."""
    clock_mhz: Rate
    """The one clock to which all cycles refer."""
    cores: Count = 1
    """Cores work on the same operator, each on its own part; operands that they share are fetched once."""
    array: Array
    vector: Vector
    buffers: dict[str, Buffer] = {}
    """On-chip memories of each core, by name. Empty: unlimited and free."""
    dram: Dram
    dma: Dma = Dma()
    mapper: Mapper = Mapper()
    technology: TechnologyChoice = TechnologyChoice()
    """What it is made in; see docs/energy.md."""

    @model_validator(mode="after")
    def _no_buffer_takes_another_name(self) -> Accelerator:
        taken = [name for name in self.buffers if name in COMPONENTS]
        if taken:
            message = f"{taken[0]!r} is the name of another component; call the buffer something else"
            raise InputError(Problem(message, key=f"buffers.{taken[0]}"))
        return self

    @model_validator(mode="after")
    def _every_operand_has_a_home(self) -> Accelerator:
        if not self.buffers:
            return self
        for operand in ("input", "weight", "output"):
            homes = [name for name, buffer in self.buffers.items() if operand in buffer.holds]
            if len(homes) != 1:
                found = f"{', '.join(homes)} do" if homes else "none does"
                message = f"exactly one of them must hold {operand!r}; {found}"
                raise InputError(Problem(message, key="buffers"))
        return self

    @property
    def macs_per_cycle(self) -> int:
        """Peak multiply-accumulates per cycle of all cores."""
        return self.cores * self.array.macs_per_cycle

    def home(self, operand: Operand) -> str | None:
        """Name of the buffer that holds `operand`; None if the machine has unlimited buffers."""
        return next((name for name, buffer in self.buffers.items() if operand in buffer.holds), None)
