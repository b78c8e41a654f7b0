"""Dynamic energy of what a run did, and the power that an accelerator draws whatever it does.

Energies are whole zeptojoules (1e-21 J): every unit cost is rounded to one once, and from there on nothing is
rounded, so energies add up exactly in any order, and twice the actions take exactly twice the energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from types import MappingProxyType

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.area import (
    FUNCTIONS,
    LANE_REGISTERS,
    UM2_PER_MM2,
    areas_mm2,
    function_steps,
    hop_mm,
    mac_figure,
    network_of,
    pe_register_bits,
    predictor_figure,
    root,
    vector_type,
)
from tilewright.arch.array import ELEMENT_BITS, Array
from tilewright.arch.dram import BankedDram, FlatDram
from tilewright.arch.network import link_count, port_count
from tilewright.arch.technology import SourceRow, Technology, technology_of

ZJ_PER_PJ = 10**9
ZJ_PER_J = 10**21
_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Actions:
    """What a run, or one operator of it, did, over all cores. Counts only; linear in everything."""

    macs: int = 0
    """Multiply-accumulates carried out."""
    gated_macs: int = 0
    """Multiply-accumulates whose multiplier and adder were held still by a zero operand; operands and sums
    still pass through the registers."""
    vector: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """Primitive operations of the vector unit by name (`add`, `multiply`, `compare`, `exp`, `divide`, `sqrt`,
    `tanh`, `move`), on one element each. Comparisons of sorts, top-k and hashing are `compare`."""
    buffer_read_bytes: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    buffer_write_bytes: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """Bytes moved through the ports of each buffer."""
    predictor_macs: int = 0
    """Multiply-accumulates of the attention unit's predictor."""
    predictor: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    """Its other primitive operations, charged as the vector unit's are."""
    dram_read_bytes: int = 0
    dram_write_bytes: int = 0
    dram_activations: int = 0
    """Rows opened. Where they are not simulated, `EnergyModel.least_activations` gives the fewest
    possible."""
    link_bytes: int = 0
    """Bytes times links of the network between cores that they pass."""
    router_bytes: int = 0
    """Bytes times its routers."""

    def __add__(self, other: Actions) -> Actions:
        return Actions(
            macs=self.macs + other.macs,
            gated_macs=self.gated_macs + other.gated_macs,
            vector=_sum(self.vector, other.vector),
            buffer_read_bytes=_sum(self.buffer_read_bytes, other.buffer_read_bytes),
            buffer_write_bytes=_sum(self.buffer_write_bytes, other.buffer_write_bytes),
            predictor_macs=self.predictor_macs + other.predictor_macs,
            predictor=_sum(self.predictor, other.predictor),
            dram_read_bytes=self.dram_read_bytes + other.dram_read_bytes,
            dram_write_bytes=self.dram_write_bytes + other.dram_write_bytes,
            dram_activations=self.dram_activations + other.dram_activations,
            link_bytes=self.link_bytes + other.link_bytes,
            router_bytes=self.router_bytes + other.router_bytes,
        )

    def times(self, count: int) -> Actions:
        """The same, `count` times over."""
        return Actions(
            macs=self.macs * count,
            gated_macs=self.gated_macs * count,
            vector={name: number * count for name, number in self.vector.items()},
            buffer_read_bytes={name: number * count for name, number in self.buffer_read_bytes.items()},
            buffer_write_bytes={name: number * count for name, number in self.buffer_write_bytes.items()},
            predictor_macs=self.predictor_macs * count,
            predictor={name: number * count for name, number in self.predictor.items()},
            dram_read_bytes=self.dram_read_bytes * count,
            dram_write_bytes=self.dram_write_bytes * count,
            dram_activations=self.dram_activations * count,
            link_bytes=self.link_bytes * count,
            router_bytes=self.router_bytes * count,
        )


@dataclass(frozen=True)
class UnitCosts:
    """What each action costs, in zeptojoules."""

    mac: int
    registers: int
    """Of the registers, per multiply-accumulate."""
    vector: Mapping[str, int]
    """Per primitive and element."""
    buffer_read: Mapping[str, int]
    buffer_write: Mapping[str, int]
    """Per byte."""
    network: int
    """Per byte between a buffer and the array, the vector unit or the DMA."""
    network_dram: int
    """Per byte between the chip's edge and a core, or, behind a network, the router where it is attached."""
    dram_read: int
    dram_write: int
    """Per byte."""
    dram_activation: int
    predictor_mac: int
    link: int
    """Per byte and link between cores."""
    router: int
    """Per byte and router."""


class EnergyModel:
    """Unit costs of an accelerator, worked out once.

    `dynamic_zj` charges actions; static power is charged by time. What the description leaves out costs
    nothing: unlimited buffers and an ideal memory have no energy.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        """Raises InputError if the technology tables lack a figure or the node is out of their range."""
        self.accelerator = accelerator
        self.technology = technology_of(accelerator)
        self.area_mm2 = areas_mm2(accelerator, self.technology)
        """By component, as `tilewright.arch.area.area_mm2`."""
        self.costs = _unit_costs(accelerator, self.technology, self.area_mm2)
        self._static_mw = _static_mw(accelerator, self.technology, self.area_mm2)
        self._row_bytes = _row_bytes(accelerator, self.technology)

    def dynamic_zj(self, actions: Actions) -> dict[str, int]:
        """Energy in zJ by component: `array`, `registers`, `vector`, each buffer by name, `network`, `dram`,
        and where a network joins the cores `links` and `routers`.

        Exactly linear in the actions. `array` is exactly MACs times the cost of one.
        """
        costs = self.costs
        reads, writes = actions.buffer_read_bytes, actions.buffer_write_bytes
        parts = {
            "array": actions.macs * costs.mac,
            "registers": (actions.macs + actions.gated_macs) * costs.registers,
            "vector": sum(count * costs.vector[name] for name, count in actions.vector.items()),
        }
        if self.accelerator.attention_unit is not None:
            other = sum(count * costs.vector[name] for name, count in actions.predictor.items())
            parts["predictor"] = actions.predictor_macs * costs.predictor_mac + other
        for name in self.accelerator.buffers:
            parts[name] = (
                reads.get(name, 0) * costs.buffer_read[name] + writes.get(name, 0) * costs.buffer_write[name]
            )
        on_chip = sum(reads.get(name, 0) + writes.get(name, 0) for name in self.accelerator.buffers)
        off_chip = actions.dram_read_bytes + actions.dram_write_bytes
        parts["network"] = on_chip * costs.network + off_chip * costs.network_dram
        parts["dram"] = (
            actions.dram_read_bytes * costs.dram_read
            + actions.dram_write_bytes * costs.dram_write
            + actions.dram_activations * costs.dram_activation
        )
        if network_of(self.accelerator) is not None:
            parts["links"] = actions.link_bytes * costs.link
            parts["routers"] = actions.router_bytes * costs.router
        return parts

    def dynamic_energy_pj(self, actions: Actions) -> dict[str, float]:
        """`dynamic_zj` in pJ."""
        return {name: energy / ZJ_PER_PJ for name, energy in self.dynamic_zj(actions).items()}

    def static_power_mw(self) -> dict[str, float]:
        """Power in mW that is drawn all the time.

        `leakage` of logic and SRAM, `clock` of registers that are not gated (0 with clock gating, and in
        either case only what an idle register takes), `dram_background` of the memory's standby and refresh.
        """
        return dict(self._static_mw)

    def static_zj(self, cycles: int) -> dict[str, int]:
        """Energy in zJ of static power over so many cycles, by the names of `static_power_mw`; linear in
        cycles."""
        clock_mhz = self.accelerator.clock_mhz
        per_cycle = {name: _whole(mw / clock_mhz * 1e3 * ZJ_PER_PJ) for name, mw in self._static_mw.items()}
        return {name: energy * cycles for name, energy in per_cycle.items()}

    def run_zj(self, actions: Actions, cycles: int) -> dict[str, int]:
        """Energy in zJ of a run: the dynamic parts, then the static ones."""
        return self.dynamic_zj(actions) | self.static_zj(cycles)

    def least_activations(self, dram_bytes: int) -> int:
        """Fewest DRAM rows that so many bytes can lie in; 0 for an ideal memory."""
        return _ceiling(dram_bytes / self._row_bytes) if self._row_bytes else 0

    def sources(self) -> tuple[SourceRow, ...]:
        """The constants that this accelerator is charged with, by name, each with its source."""
        return tuple(self.technology.used[name] for name in sorted(self.technology.used))


def joules(parts: Mapping[str, int]) -> dict[str, float]:
    """Energies in zJ as joules, with their sum as `total` in front.

    The total is the sum of the numbers behind it as they stand, from the first to the last.
    """
    energies = {name: energy / ZJ_PER_J for name, energy in parts.items()}
    return {"total": sum(energies.values()), **energies}


def picojoules(parts: Mapping[str, int]) -> dict[str, float]:
    """Energies in zJ as picojoules, with their sum as `total` in front, as `joules`."""
    energies = {name: energy / ZJ_PER_PJ for name, energy in parts.items()}
    return {"total": sum(energies.values()), **energies}


def peak_power_w(accelerator: Accelerator) -> dict[str, float]:
    """Power in W by component with everything busy in every cycle, and the static power.

    Every MAC, every lane at its dearest primitive, every buffer port at the dearer of read and write, the
    memory at its peak bandwidth. More than any workload reaches: an upper bound, not a thermal design power.
    """
    model = EnergyModel(accelerator)
    costs, cores = model.costs, accelerator.cores
    cycles = accelerator.vector.cycles
    port_bytes = {name: cores * buffer.bytes_per_cycle for name, buffer in accelerator.buffers.items()}
    dram_bytes = dram_gb_per_s(accelerator) * 1e3 / accelerator.clock_mhz
    dearest = max(cost / float(getattr(cycles, name)) for name, cost in costs.vector.items())
    per_cycle = {
        "array": accelerator.macs_per_cycle * costs.mac,
        "registers": accelerator.macs_per_cycle * costs.registers,
        "vector": cores * accelerator.vector.lanes * dearest,
        **_predictor_peak(accelerator, costs),
        **{n: b * max(costs.buffer_read[n], costs.buffer_write[n]) for n, b in port_bytes.items()},
        "network": sum(port_bytes.values()) * costs.network + dram_bytes * costs.network_dram,
        "dram": dram_bytes * max(costs.dram_read, costs.dram_write),
        **_network_peak(accelerator, costs),
    }
    watts = {name: energy * accelerator.clock_mhz * 1e6 / ZJ_PER_J for name, energy in per_cycle.items()}
    return watts | {name: mw * 1e-3 for name, mw in model.static_power_mw().items()}


def _predictor_peak(accelerator: Accelerator, costs: UnitCosts) -> dict[str, float]:
    """Every multiply-accumulator of the predictor busy, in zJ a cycle."""
    if accelerator.attention_unit is None:
        return {}
    macs, _ = accelerator.attention_unit.predictor_size
    return {"predictor": accelerator.cores * macs * costs.predictor_mac}


def _network_peak(accelerator: Accelerator, costs: UnitCosts) -> dict[str, float]:
    """Every link and every router's input busy, in zJ a cycle."""
    network = network_of(accelerator)
    if network is None:
        return {}
    width, cores = network.link_bytes_per_cycle, accelerator.cores
    return {
        "links": link_count(network.topology, cores) * width * costs.link,
        "routers": port_count(network, cores) * width * costs.router,
    }


def sources(accelerator: Accelerator) -> tuple[SourceRow, ...]:
    """Every constant behind this accelerator's energy, power and area, and where it comes from."""
    return EnergyModel(accelerator).sources()


def register_bits_per_mac(array: Array) -> int:
    """Register bits that take up a new value in each multiply-accumulate.

    Weight and input stationary: the operand passing through and the sum. Output stationary: both operands and
    the sum. Loading the stationary operand, once a fold, is not counted.
    """
    operand, accumulator = ELEMENT_BITS[array.operand], ELEMENT_BITS[array.accumulator]
    passing = 2 if array.dataflow == "output_stationary" else 1
    return passing * operand + accumulator


def dram_kind(accelerator: Accelerator) -> str | None:
    """Kind of memory in the technology tables; None for an ideal one."""
    dram = accelerator.dram
    if dram.kind == "ideal":
        return None
    if accelerator.technology.dram:
        return accelerator.technology.dram
    standard = dram.standard if isinstance(dram, BankedDram) else None
    family = (standard or "generic").partition("-")[0]
    return "lpddr4" if family == "lpddr4x" else family


def dram_gb_per_s(accelerator: Accelerator) -> float:
    """Peak bandwidth of the memory in 1e9 bytes per second; 0 for an ideal one."""
    dram = accelerator.dram
    if isinstance(dram, BankedDram):
        return dram.channels * dram.bus_bytes * dram.transfers_per_second / 1e9
    return dram.bytes_per_cycle * accelerator.clock_mhz / 1e3 if isinstance(dram, FlatDram) else 0.0


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def _zj(pj: float) -> int:
    return _whole(pj * ZJ_PER_PJ)


def _whole(number: float) -> int:
    """The nearest whole number, or a column of them (`tilewright.dataflows.columns`)."""
    return round(number) if isinstance(number, int | float) else number.round()


def _ceiling(number: float) -> int:
    """The next whole number, or a column of them."""
    return ceil(number) if isinstance(number, int | float) else -(-number // 1)


def _unit_costs(accelerator: Accelerator, technology: Technology, area: Mapping[str, float]) -> UnitCosts:
    kind = dram_kind(accelerator)
    wire = 8 * technology.value("wire.energy_pj_per_bit_mm")
    register = technology.value("register.energy_pj_per_bit")
    total = sum(area.values())
    core_mm = root(total / accelerator.cores)
    network = network_of(accelerator)
    dram_mm = (root(total) if network is None else core_mm) / 2
    length_mm = 0.0 if network is None else hop_mm(network, (total - area["links"]) / accelerator.cores)
    read, write = {}, {}
    for name, buffer in accelerator.buffers.items():
        bank = technology.sram(buffer.capacity_bytes / buffer.banks, 8 * buffer.width_bytes, buffer.ports)
        read[name], write[name] = (
            _zj(bank.read_pj / buffer.width_bytes),
            _zj(bank.write_pj / buffer.width_bytes),
        )
    return UnitCosts(
        mac=_zj(mac_figure(accelerator.array, technology, "energy_pj")),
        registers=_zj(register_bits_per_mac(accelerator.array) * register),
        vector=_vector_costs(accelerator, technology),
        buffer_read=read,
        buffer_write=write,
        network=_zj(wire * core_mm / 2) if accelerator.buffers else 0,
        network_dram=_zj(wire * dram_mm) if kind else 0,
        dram_read=_zj(8 * technology.value(f"dram.{kind}.read_pj_per_bit")) if kind else 0,
        dram_write=_zj(8 * technology.value(f"dram.{kind}.write_pj_per_bit")) if kind else 0,
        dram_activation=_zj(technology.value(f"dram.{kind}.activate_pj")) if kind else 0,
        predictor_mac=_predictor_mac(accelerator, technology),
        link=_zj(wire * length_mm),
        router=0 if network is None else _zj(8 * technology.value("router.energy_pj_per_bit")),
    )


def _predictor_mac(accelerator: Accelerator, technology: Technology) -> int:
    if accelerator.attention_unit is None:
        return 0
    count, bits = accelerator.attention_unit.predictor_size
    return _zj(predictor_figure(bits, technology, "energy_pj")) if count else 0


def _vector_costs(accelerator: Accelerator, technology: Technology) -> dict[str, int]:
    """Per primitive: its arithmetic, and its operands and result passing through the lane's registers."""
    kind = vector_type(accelerator)
    bits = ELEMENT_BITS[kind]
    register = bits * technology.value("register.energy_pj_per_bit")
    steps = {
        "adds": technology.value(f"arithmetic.{kind}.add.energy_pj"),
        "multiplies": technology.value(f"arithmetic.{kind}.multiply.energy_pj"),
        "compares": bits * technology.value("comparator.energy_pj_per_bit"),
    }
    simple = {"add": steps["adds"], "multiply": steps["multiplies"], "compare": steps["compares"]}
    made = {
        name: sum(count * steps[step] for step, count in function_steps(name, technology).items())
        for name in FUNCTIONS
    }
    costs = {name: _zj(pj + LANE_REGISTERS * register) for name, pj in (simple | made).items()}
    return costs | {"move": _zj(register)}


def _static_mw(
    accelerator: Accelerator, technology: Technology, area: Mapping[str, float]
) -> dict[str, float]:
    logic_um2 = UM2_PER_MM2 * sum(mm2 for name, mm2 in area.items() if name not in accelerator.buffers)
    leakage = logic_um2 * technology.value("logic.leakage_nw_per_um2") * 1e-6
    for buffer in accelerator.buffers.values():
        bank = technology.sram(buffer.capacity_bytes / buffer.banks, 8 * buffer.width_bytes, buffer.ports)
        leakage += accelerator.cores * buffer.banks * bank.leak_mw
    clock = 0.0
    if not accelerator.technology.clock_gating:
        per_bit = technology.value("register.clock_pj_per_bit")
        clock = _register_bits(accelerator) * per_bit * accelerator.clock_mhz * 1e-3
    return {"leakage": leakage, "clock": clock, "dram_background": _background_mw(accelerator, technology)}


def _register_bits(accelerator: Accelerator) -> int:
    """Flip-flops of all processing elements and vector lanes."""
    lanes = accelerator.cores * accelerator.vector.lanes
    lane_bits = LANE_REGISTERS * ELEMENT_BITS[vector_type(accelerator)]
    return accelerator.macs_per_cycle * pe_register_bits(accelerator.array) + lanes * lane_bits


def _background_mw(accelerator: Accelerator, technology: Technology) -> float:
    kind = dram_kind(accelerator)
    if kind is None:
        return 0.0
    channels = accelerator.dram.channels if isinstance(accelerator.dram, BankedDram) else 0
    if not channels:
        per_channel = technology.value(f"dram.{kind}.channel_gb_per_s")
        channels = _ceiling(dram_gb_per_s(accelerator) / per_channel)
    return channels * technology.value(f"dram.{kind}.background_mw_per_channel")


def _row_bytes(accelerator: Accelerator, technology: Technology) -> float:
    """Bytes that one activation opens; 0 for an ideal memory."""
    if isinstance(accelerator.dram, BankedDram):
        return float(accelerator.dram.row_bytes)
    kind = dram_kind(accelerator)
    return technology.value(f"dram.{kind}.row_bytes") if kind else 0.0
