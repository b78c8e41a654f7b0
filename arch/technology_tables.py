"""The shape of a technology file: what may be said, and what each figure must say about itself.

The shipped tables (`technology/*.yaml`), a user's technology file and the `technology.figures` of an
accelerator all have this shape. Everything may be left out of a user's; what is given there replaces the
shipped figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from tilewright.description.documented import Documented
from tilewright.description.errors import InputError, Problem

Confidence = Literal["high", "medium", "low", "user"]

UNITS = {
    "_pj": "pJ",
    "_um2": "um2",
    "_pj_per_bit": "pJ/bit",
    "_um2_per_bit": "um2/bit",
    "_pj_per_bit_mm": "pJ/bit/mm",
    "_um2_per_bit_mm": "um2/bit/mm",
    "_nw_per_um2": "nW/um2",
    "_mw_per_channel": "mW/channel",
    "_gb_per_s": "GB/s",
    "_bytes": "B",
    "_fraction": "1",
    "_factor": "1",
    "adds": "operations",
    "multiplies": "operations",
    "compares": "operations",
}
"""Unit of a figure by the ending of its key; the longest ending that fits counts."""


class _Table(Documented):
    """Base of every part: frozen, no unknown keys, and written out without what it does not say."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _without_gaps(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in write(self).items() if value is not None}


class Figure(_Table):
    """One number and where it comes from."""

    value: Annotated[float, Field(ge=0)]
    unit: str
    """Must be the unit that the key's name ends in."""
    node_nm: PositiveFloat | None = None
    """Node that it holds for; none for what does not scale with the logic's node (DRAM, ratios)."""
    source: Annotated[str, Field(min_length=1)]
    """Paper and table, or tool and version; or a key of `sources`."""
    confidence: Confidence = "user"


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _or_one(schema: dict[str, Any]) -> None:
    """Let the JSON Schema of a list of figures take a single one, too."""
    several = dict(schema)
    schema.clear()
    schema["anyOf"] = [several["items"], several]


Figures = Annotated[
    tuple[Figure, ...], BeforeValidator(_as_tuple), Field(min_length=1, json_schema_extra=_or_one)
]
"""One figure, or several of the same thing at different nodes."""


class Operation(_Table):
    """One arithmetic operation on one element."""

    energy_pj: Figures | None = None
    area_um2: Figures | None = None


class Accumulators(_Table):
    """Multiply-accumulates by accumulator type, where one is known as a whole; else multiply + add."""

    int16: Operation | None = None
    int32: Operation | None = None
    fp16: Operation | None = None
    bf16: Operation | None = None
    fp32: Operation | None = None


class Arithmetic(_Table):
    """The operations on one element type."""

    add: Operation | None = None
    multiply: Operation | None = None
    mac: Accumulators | None = None


class ElementTypes(_Table):
    """Arithmetic by element type."""

    int4: Arithmetic | None = None
    int8: Arithmetic | None = None
    int16: Arithmetic | None = None
    int32: Arithmetic | None = None
    fp8: Arithmetic | None = None
    fp16: Arithmetic | None = None
    bf16: Arithmetic | None = None
    fp32: Arithmetic | None = None


class Comparator(_Table):
    """Magnitude comparison, by bit of the operands."""

    energy_pj_per_bit: Figures | None = None
    area_um2_per_bit: Figures | None = None


class Steps(_Table):
    """A function of the vector unit as the simpler operations it takes."""

    adds: Figures | None = None
    multiplies: Figures | None = None
    compares: Figures | None = None


class Functions(_Table):
    """The vector unit's functions."""

    exp: Steps | None = None
    divide: Steps | None = None
    sqrt: Steps | None = None
    tanh: Steps | None = None


class Register(_Table):
    """A flip-flop."""

    energy_pj_per_bit: Figures | None = None
    """Of taking up and giving out one bit."""
    clock_pj_per_bit: Figures | None = None
    """Of a clock edge that is not gated away, whether or not the bit changes; per cycle."""
    area_um2_per_bit: Figures | None = None


class Logic(_Table):
    """All standard-cell logic."""

    area_factor: Figures | None = None
    """What cell areas are multiplied by (1 as shipped), for layout density and cells sized for the clock."""
    leakage_nw_per_um2: Figures | None = None
    control_fraction: Figures | None = None
    """Area of control and sequencing, of the area of arrays, vector units and buffers."""


class Sram(_Table):
    """What the CACTI grid is multiplied by (1 as shipped), for users with a memory compiler's figures."""

    energy_factor: Figures | None = None
    area_factor: Figures | None = None
    leakage_factor: Figures | None = None


class DramKind(_Table):
    """One kind of memory."""

    read_pj_per_bit: Figures | None = None
    """Without row activation."""
    write_pj_per_bit: Figures | None = None
    activate_pj: Figures | None = None
    """Of activating and precharging one row of one channel."""
    row_bytes: Figures | None = None
    background_mw_per_channel: Figures | None = None
    """Standby and refresh."""
    channel_gb_per_s: Figures | None = None
    """Peak of one channel, to tell how many a flat memory's bandwidth takes."""


class DramKinds(_Table):
    """Memories by kind."""

    generic: DramKind | None = None
    ddr3: DramKind | None = None
    ddr4: DramKind | None = None
    lpddr4: DramKind | None = None
    lpddr5: DramKind | None = None
    hbm2: DramKind | None = None
    hbm2e: DramKind | None = None


class Wire(_Table):
    """On-chip wires with repeaters."""

    energy_pj_per_bit_mm: Figures | None = None
    area_um2_per_bit_mm: Figures | None = None
    """Cells of the repeaters; the wires themselves run above other logic."""


class Router(_Table):
    """A router of a network between cores."""

    energy_pj_per_bit: Figures | None = None
    """Of passing one bit from an input to an output, its buffering, arbitration and clock included."""
    area_um2_per_bit: Figures | None = None
    """Of one input, with its part of the crossbar, per bit of a link's width."""


class Tables(_Table):
    """A technology file."""

    sources: dict[str, str] | None = None
    """Full citations by short key, for figures' `source`."""
    arithmetic: ElementTypes | None = None
    comparator: Comparator | None = None
    functions: Functions | None = None
    register_: Register | None = Field(default=None, alias="register")
    logic: Logic | None = None
    sram: Sram | None = None
    wire: Wire | None = None
    router: Router | None = None
    dram: DramKinds | None = None

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _units_are_those_of_the_keys(self) -> Tables:
        problems = []
        for path, figures in flatten(self):
            wanted = unit_of(path)
            bad = [figure.unit for figure in figures if figure.unit != wanted]
            problems += [Problem(f"its unit is {wanted!r}, not {unit!r}", key=path) for unit in bad]
            nodes = [figure.node_nm for figure in figures]
            if len(set(nodes)) < len(nodes):
                problems.append(Problem("two figures for the same node", key=path))
        if problems:
            raise InputError(*problems)
        return self


def unit_of(path: str) -> str:
    """Unit of the figure at a dotted path."""
    name = path.rpartition(".")[2]
    endings = [ending for ending in UNITS if name.endswith(ending)]
    return UNITS[max(endings, key=len)]


def flatten(table: _Table, prefix: str = "") -> Iterator[tuple[str, tuple[Figure, ...]]]:
    """Every figure that a table gives, by dotted path, in the order of the fields."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        path = f"{prefix}{field.alias or name}"
        if isinstance(value, _Table):
            yield from flatten(value, f"{path}.")
        elif isinstance(value, tuple):
            yield path, value
