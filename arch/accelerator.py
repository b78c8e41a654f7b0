"""The accelerator description: one frozen pydantic model per block of the YAML file.

Times are in cycles of the accelerator's clock unless a name says otherwise. The description states what the
machine has; what a workload costs on it is worked out in `tilewright.dataflows`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tilewright.arch.array import Array
from tilewright.arch.block import Block, Bytes, Count, Cycles, Rate
from tilewright.arch.dram import Dram
from tilewright.arch.fpga import Fpga
from tilewright.arch.network import MOST_CORES, Network
from tilewright.arch.scaling import uncovered
from tilewright.arch.sparse import AttentionUnit
from tilewright.arch.streaming_unit import Streaming, unit_sizes
from tilewright.arch.technology_tables import Tables
from tilewright.description.documented import Name
from tilewright.description.errors import InputError, Problem

Operand = Literal["input", "weight", "output"]


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
    row_sum: Rate | None = None
    """Adding up one element of a row of a softmax or norm, where the sum goes across lanes. Left out: that of
    `add`."""


class Vector(Block):
    """The vector unit of one core: softmax, norms, activations, residuals, sorts, gathers."""

    lanes: Count
    """Elements worked on in parallel."""
    startup_cycles: Cycles = 0
    """Pipeline fill paid once per tile."""
    fused_exp: bool = False
    """Whether softmax's exp(c x - maximum) is one operation of `cycles.exp`, masks included: the subtraction
    takes no cycles of its own, nor, where scores and softmax run fused, do scaling and masking."""
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


class Dma(Block):
    """The engine that moves tiles between DRAM and the buffers, in program order."""

    request_cycles: Cycles = 0
    """Cycles for which each transfer holds the engine besides those of its data."""
    prefetch_bytes: Annotated[int, Field(ge=0, le=2**50)] = 16384
    """Room in its own FIFO for the first operands of the next operator, fetched while this one finishes."""
    buffering: Literal["double", "single"] = "double"
    """`double`: a tile's operands are loaded while the tile before is worked on, its result stored while the
    next ones are. `single`: one after another; a load waits until the tile before has been worked on and its
    result stored. (In fused attention and chains the vector unit still works beside the array.)"""
    operand_slots: Annotated[int, Field(ge=2, le=16)] = 2
    """Tiles of each operand of a matmul for which there is room at once: with more than two, loads run on
    further (a FIFO of so many tiles). Only with `buffering: double`. Of matmuls that run fused, only those
    have more than two whose tiles the workload prescribes, as far as they fit."""
    store_share: Annotated[float, Field(ge=0.01, le=0.99)] | None = None
    """Share of the bandwidth that stores have on a channel of their own, so that loads, which have the rest,
    never wait for a result. Left out: one engine serves both in turn, at the whole bandwidth."""

    @model_validator(mode="after")
    def _two_channels_need_two_slots(self) -> Dma:
        if self.store_share is not None and self.buffering == "single":
            raise ValueError("`store_share` needs `buffering: double`: else loads wait for stores anyway")
        if self.operand_slots > 2 and self.buffering == "single":
            raise ValueError("`operand_slots` above 2 needs `buffering: double`: else there is one slot")
        return self


class Host(Block):
    """Link to a host in whose memory activations are, so that DRAM holds weights only."""

    bytes_per_cycle: Rate
    """Bandwidth per cycle of the accelerator's clock. Not more than DRAM's counts."""
    latency_cycles: Cycles = 0
    """From the request to the last beat, besides the transfer itself. Not less than DRAM's counts."""


AttentionOrder = Literal["unfused", "flat", "flash", "fusemax", "fsa"]
ChainOrder = Literal["unfused", "fused"]


class Mapper(Block):
    """How hard the mapper searches, and what it may fuse."""

    effort: Annotated[int, Field(ge=0, le=6)] = 3
    """Each level tries all the tilings of the level below and more."""
    slack: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a matmul's least cycles that may be given away for fewer bytes from and to DRAM. At 0 cycles
    come first and bytes decide among equals; above, a larger machine may be slower by as much."""
    resident_fractions: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = (0.0, 0.5, 0.75)
    """Shares of each buffer to try for keeping whole tensors between operators; the rest holds tiles."""
    attention: Annotated[tuple[AttentionOrder, ...], Field(min_length=1)] = ("unfused",)
    """Ways to run scores, softmax and context, of which the best is taken; only in `unfused` the scores are a
    tensor of their own. `flat`: whole rows of scores at a time (FLAT). `flash`: tiles of scores, with running
    maximum and sum (FlashAttention). `fusemax`: the same, with the array a tile ahead of the softmax
    (FuseMax). `fsa`: the same, softmax and all within an array of `exp_pieces` (SystolicAttention)."""
    flat_spills: bool = False
    """Whether `flat` may have scores of rows that are too long for the buffers lie in DRAM."""
    chains: Annotated[tuple[ChainOrder, ...], Field(min_length=1)] = ("unfused",)
    """The same for two matmuls with at most element-wise work between them (a feed-forward network); `fused`:
    tiles of the first one's result stay on chip."""


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
    "array", "registers", "vector", "predictor", "network", "control", "dram", "dram_background", "leakage",
    "clock", "links", "routers", "total",
)  # fmt: skip
"""Names of the other components in tables of energy and area; no buffer may take one."""


class Accelerator(Block):
    """A transformer accelerator: equal cores in lock step, and one memory behind them."""

    name: Name
    """What results call it."""
    description: str = ""
    """A sentence for lists."""
    clock_mhz: Rate
    """The one clock to which all cycles refer. With `fpga`, reading the description puts in the measured one,
    whatever stands here."""
    cores: Count = 1
    """Cores work on the same operator, each on its own part; operands that they share are fetched once."""
    network: Network | None = None
    """What joins the cores and the memory; by default everything reaches every core at no cost."""
    array: Array
    vector: Vector
    attention_unit: AttentionUnit | None = None
    """How attention is run without the pairs that do not matter; by default dense, as any other matmul."""
    buffers: dict[str, Buffer] = {}  # noqa: RUF012 - pydantic copies it
    """On-chip memories of each core, by name. Empty: unlimited and free."""
    dram: Dram
    dma: Dma = Dma()
    host: Host | None = None
    """Where activations come from and go to when they do not stay on chip; by default DRAM."""
    mapper: Mapper = Mapper()
    technology: TechnologyChoice = TechnologyChoice()
    """What it is made in; see docs/energy.md."""
    fpga: Fpga | None = None
    """The device that runs its streaming attention unit, with measured clock and area (docs/rtl.md)."""

    @model_validator(mode="after")
    def _no_buffer_takes_another_name(self) -> Accelerator:
        taken = [name for name in self.buffers if name in COMPONENTS]
        if taken:
            message = f"{taken[0]!r} is the name of another component; call the buffer something else"
            raise InputError(Problem(message, key=f"buffers.{taken[0]}"))
        return self

    @model_validator(mode="after")
    def _network_fits_its_cores(self) -> Accelerator:
        network = self.network
        if network is not None and self.cores > MOST_CORES:
            message = f"networks are simulated for up to {MOST_CORES} cores, not {self.cores}; leave it out"
            raise InputError(Problem(message, key="network"))
        if network is not None and network.memory_cores > self.cores:
            message = f"{network.memory_cores} memory cores, but only {self.cores} cores; give fewer"
            raise InputError(Problem(message, key="network.memory_cores"))
        return self

    @model_validator(mode="after")
    def _fsa_has_its_array(self) -> Accelerator:
        array = self.array
        if "fsa" not in self.mapper.attention:
            return self
        if array.exp_pieces is None or array.rows != array.cols or array.count != 1:
            found = "" if array.exp_pieces is None else f", not {array.count} of {array.rows} x {array.cols}"
            message = f"`fsa` needs one square array with `array.exp_pieces`{found}"
            raise InputError(Problem(message, key="mapper.attention"))
        return self

    @model_validator(mode="after")
    def _streaming_unit_can_be_built(self) -> Accelerator:
        unit = self.attention_unit
        if not isinstance(unit, Streaming):
            return self
        unit_sizes(unit, self.array)
        if self.cores != 1 or self.buffers or self.dram.kind != "ideal":
            message = (
                "a streaming unit is one core fed by ideal streams: leave `cores` at 1, `buffers` empty and "
                "`dram.kind` ideal"
            )
            raise InputError(Problem(message, key="attention_unit"))
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
