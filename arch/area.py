"""Area of an accelerator by component, from its description alone.

Counted are cells and SRAM macros: the arrays' multiply-accumulators and registers, the vector lanes, the
buffers, a share for control, and the network's routers and repeaters. Not counted: memory interfaces and
their PHYs, pads, host interfaces, the white space of a layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, sqrt

from tilewright.arch.accelerator import Accelerator, Buffer
from tilewright.arch.array import ELEMENT_BITS, Array, ElementType
from tilewright.arch.network import Network, link_count, port_count
from tilewright.arch.streaming_unit import Streaming, unit_sizes
from tilewright.arch.technology import Technology, technology_of

UM2_PER_MM2 = 1e6
FUNCTIONS = ("exp", "divide", "sqrt", "tanh")
"""Primitives of the vector unit that are made of simpler ones."""
LANE_REGISTERS = 3
"""Registers of a vector lane: two operands and a result."""


def area_mm2(accelerator: Accelerator) -> dict[str, float]:
    """Area in mm2 by component: `array`, `registers`, `vector`, each buffer by name, `control`, and where a
    network joins the cores `routers` and `links`.

    All cores together; the whole is the sum of the parts. A machine with unlimited buffers has no area for
    them.
    """
    return areas_mm2(accelerator, technology_of(accelerator))


def areas_mm2(accelerator: Accelerator, technology: Technology) -> dict[str, float]:
    """`area_mm2` with the technology given, which notes the figures used."""
    array, cores = accelerator.array, accelerator.cores
    pes = cores * array.macs_per_cycle
    lanes = cores * accelerator.vector.lanes
    register = technology.value("register.area_um2_per_bit")
    scale = technology.value("logic.area_factor") / UM2_PER_MM2
    parts = {
        "array": scale * pes * mac_area_um2(array, technology),
        "registers": scale * (pes * pe_register_bits(array) + own_memory_bits(accelerator)) * register,
        "vector": scale * lanes * lane_area_um2(accelerator, technology),
    }
    if accelerator.attention_unit is not None:
        count, bits = accelerator.attention_unit.predictor_size
        if count:
            each = predictor_figure(bits, technology, "area_um2")
            parts["predictor"] = scale * cores * count * each
    for name, buffer in accelerator.buffers.items():
        parts[name] = cores * buffer.banks * bank_area_mm2(buffer, technology)
    parts["control"] = technology.value("logic.control_fraction") * sum(parts.values())
    network = network_of(accelerator)
    if network is not None:
        parts["routers"] = _routers_mm2(network, cores, technology)
        length = hop_mm(network, sum(parts.values()) / cores)
        parts["links"] = scale * _repeaters_um2(network, cores, length, technology)
    return parts


def own_memory_bits(accelerator: Accelerator) -> int:
    """Of a streaming attention unit's memories, which are small and many, and counted as registers."""
    unit = accelerator.attention_unit
    return unit_sizes(unit, accelerator.array).memory_bits if isinstance(unit, Streaming) else 0


def network_of(accelerator: Accelerator) -> Network | None:
    """What joins the cores; None where nothing is described, or there is only one."""
    return accelerator.network if accelerator.cores > 1 else None


def hop_mm(network: Network, core_mm2: float) -> float:
    """Length of a link: as described, else the side of a core (its router included)."""
    return root(core_mm2) if network.hop_mm is None else network.hop_mm


def root(number: float) -> float:
    """Square root of a number, or of a column of them (`tilewright.dataflows.columns`)."""
    return sqrt(number) if isinstance(number, int | float) else number**0.5


def _routers_mm2(network: Network, cores: int, technology: Technology) -> float:
    """Of all inputs, as wide as a link. Taken from a layout: no factor for its density."""
    bits = port_count(network, cores) * 8 * network.link_bytes_per_cycle
    return bits * technology.value("router.area_um2_per_bit") / UM2_PER_MM2


def _repeaters_um2(network: Network, cores: int, length_mm: float, technology: Technology) -> float:
    """Cells of the repeaters of all links, both directions."""
    bits = link_count(network.topology, cores) * 8 * network.link_bytes_per_cycle
    return bits * length_mm * technology.value("wire.area_um2_per_bit_mm")


def mac_area_um2(array: Array, technology: Technology) -> float:
    """Cell area of one multiply-accumulator, without registers."""
    return mac_figure(array, technology, "area_um2")


def mac_figure(array: Array, technology: Technology, figure: str) -> float:
    """A figure of one multiply-accumulate: its own if the tables have it, else multiply plus accumulator's
    add."""
    whole = f"arithmetic.{array.operand}.mac.{array.accumulator}.{figure}"
    if technology.has(whole):
        return technology.value(whole)
    multiply = technology.value(f"arithmetic.{array.operand}.multiply.{figure}")
    return multiply + technology.value(f"arithmetic.{array.accumulator}.add.{figure}")


def predictor_figure(bits: int, technology: Technology, figure: str) -> float:
    """A figure of a predictor's multiply-accumulate: operands of the next wider shipped integer type, sums of
    16 bits."""
    operand = next(width for width in (4, 8, 16) if bits <= width)
    multiply = technology.value(f"arithmetic.int{operand}.multiply.{figure}")
    return multiply + technology.value(f"arithmetic.int16.add.{figure}")


def pe_register_bits(array: Array) -> int:
    """Flip-flops of one processing element.

    Weight and input stationary: the operand passing through, `stationary_buffers` stationary ones, the sum.
    Output stationary: both operands passing through, the sum, and a second sum if it drains behind the next
    fold.
    """
    operand, accumulator = ELEMENT_BITS[array.operand], ELEMENT_BITS[array.accumulator]
    if array.dataflow == "output_stationary":
        return 2 * operand + accumulator * (2 if array.output_drain == "shadow" else 1)
    return operand * (1 + array.stationary_buffers) + accumulator


def vector_type(accelerator: Accelerator) -> ElementType:
    """Element type that the vector unit computes in: that of the array's sums."""
    return accelerator.array.accumulator


def lane_area_um2(accelerator: Accelerator, technology: Technology) -> float:
    """Cell area of one vector lane: as many adders, multipliers and comparators as its cycle counts ask for.

    A primitive of n multiplies that a lane finishes every c cycles needs ceil(n / c) multipliers; the lane's
    primitives share them.
    """
    kind = vector_type(accelerator)
    bits = ELEMENT_BITS[kind]
    units = lane_units(accelerator, technology)
    return (
        units["adds"] * technology.value(f"arithmetic.{kind}.add.area_um2")
        + units["multiplies"] * technology.value(f"arithmetic.{kind}.multiply.area_um2")
        + units["compares"] * bits * technology.value("comparator.area_um2_per_bit")
        + LANE_REGISTERS * bits * technology.value("register.area_um2_per_bit")
    )


def lane_units(accelerator: Accelerator, technology: Technology) -> Mapping[str, int]:
    """Adders (`adds`), multipliers (`multiplies`) and comparators (`compares`) of one vector lane."""
    cycles = accelerator.vector.cycles
    needs = {"adds": 1.0 / cycles.add, "multiplies": 1.0 / cycles.multiply, "compares": 1.0 / cycles.compare}
    for function in FUNCTIONS:
        for step, count in function_steps(function, technology).items():
            needs[step] = max(needs[step], count / float(getattr(cycles, function)))
    return {step: ceil(need) for step, need in needs.items()}


def function_steps(function: str, technology: Technology) -> dict[str, float]:
    """Adds, multiplies and compares that one function of the vector unit takes."""
    paths = {step: f"functions.{function}.{step}" for step in ("adds", "multiplies", "compares")}
    return {step: technology.value(path) for step, path in paths.items() if technology.has(path)}


def bank_area_mm2(buffer: Buffer, technology: Technology) -> float:
    """Area of one bank of a buffer."""
    return technology.sram(
        buffer.capacity_bytes / buffer.banks, 8 * buffer.width_bytes, buffer.ports
    ).area_mm2
