"""Energy, power and area of an accelerator: conservation, linearity, and the laws of each component."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.area import area_mm2, lane_units, mac_area_um2, pe_register_bits
from tilewright.arch.array import ELEMENT_BITS
from tilewright.arch.energy import (
    ZJ_PER_PJ,
    Actions,
    EnergyModel,
    dram_gb_per_s,
    dram_kind,
    joules,
    peak_power_w,
    register_bits_per_mac,
)
from tilewright.arch.load import load_accelerator, preset_names
from tilewright.arch.technology import technology_of
from tilewright.description.errors import InputError

PRIMITIVES = ("add", "multiply", "compare", "exp", "divide", "sqrt", "tanh", "move")
MODELS = {name: EnergyModel(load_accelerator(name)) for name in preset_names()}
COUNTS = st.integers(0, 10**15)


@st.composite
def models(draw: st.DrawFn) -> EnergyModel:
    return MODELS[draw(st.sampled_from(preset_names()))]


@st.composite
def runs(draw: st.DrawFn) -> tuple[EnergyModel, Actions, Actions]:
    """A machine and two sets of actions on it."""
    model = draw(models())
    names = tuple(model.accelerator.buffers)

    def actions() -> Actions:
        return Actions(
            macs=draw(COUNTS),
            gated_macs=draw(COUNTS),
            vector=draw(st.dictionaries(st.sampled_from(PRIMITIVES), COUNTS)),
            buffer_read_bytes=draw(st.dictionaries(st.sampled_from(names), COUNTS)) if names else {},
            buffer_write_bytes=draw(st.dictionaries(st.sampled_from(names), COUNTS)) if names else {},
            dram_read_bytes=draw(COUNTS),
            dram_write_bytes=draw(COUNTS),
            dram_activations=draw(COUNTS),
        )

    return model, actions(), actions()


# --- dynamic energy


@given(runs())
def test_energy_adds_up_exactly(run: tuple[EnergyModel, Actions, Actions]) -> None:
    """Two operators together take what each takes, to the last zeptojoule and by component."""
    model, one, other = run
    together, apart = model.dynamic_zj(one + other), (model.dynamic_zj(one), model.dynamic_zj(other))
    assert together == {name: apart[0][name] + apart[1][name] for name in together}
    assert sum(together.values()) == sum(apart[0].values()) + sum(apart[1].values())


@given(runs(), st.integers(0, 10**6))
def test_twice_the_actions_take_twice_the_energy(
    run: tuple[EnergyModel, Actions, Actions], count: int
) -> None:
    """`count` identical layers take exactly `count` times the energy of one."""
    model, one, _ = run
    assert model.dynamic_zj(one.times(count)) == {n: count * e for n, e in model.dynamic_zj(one).items()}


@given(runs())
def test_energy_never_falls_when_something_is_added(run: tuple[EnergyModel, Actions, Actions]) -> None:
    """No component gets cheaper by more actions of any sort."""
    model, one, other = run
    before, after = model.dynamic_zj(one), model.dynamic_zj(one + other)
    assert all(after[name] >= before[name] for name in before)


@given(runs())
def test_a_byte_read_costs_where_it_is_read(run: tuple[EnergyModel, Actions, Actions]) -> None:
    """Another byte read from a buffer makes that buffer and the network dearer, and nothing else."""
    model, one, _ = run
    for name in model.accelerator.buffers:
        before, after = model.dynamic_zj(one), model.dynamic_zj(one + Actions(buffer_read_bytes={name: 1}))
        grown = {part for part in before if after[part] > before[part]}
        assert grown == {name, "network"}


@given(runs())
def test_the_laws_of_the_array_and_the_memory(run: tuple[EnergyModel, Actions, Actions]) -> None:
    """MAC energy is exactly MACs x energy per MAC; DRAM energy is at least bytes x energy per byte."""
    model, one, _ = run
    parts = model.dynamic_zj(one)
    assert parts["array"] == one.macs * model.costs.mac
    moved = one.dram_read_bytes * model.costs.dram_read + one.dram_write_bytes * model.costs.dram_write
    assert parts["dram"] >= moved
    pj = model.dynamic_energy_pj(one)
    assert isclose(sum(pj.values()), sum(parts.values()) / ZJ_PER_PJ, rel_tol=1e-12)


def test_a_mac_costs_a_multiply_and_an_accumulators_add() -> None:
    """int8 into int32 at 45 nm: Horowitz's 0.2 pJ + 0.1 pJ."""
    accelerator = load_accelerator("bare-array", ["technology.node_nm=45"])
    assert EnergyModel(accelerator).costs.mac == 300_000_000


def test_a_gated_mac_only_passes_its_operands_on() -> None:
    """A zero saves the multiplier and the adder, not the registers."""
    model = MODELS["gemmini-default"]
    done, gated = model.dynamic_zj(Actions(macs=1000)), model.dynamic_zj(Actions(gated_macs=1000))
    assert gated["array"] == 0
    assert gated["registers"] == done["registers"] > 0
    assert sum(gated.values()) < sum(done.values())


def test_an_exponential_costs_its_steps() -> None:
    """I-BERT's exp of three adds and three multiplies, and 3 x 32 register bits, in int32 at 45 nm."""
    accelerator = load_accelerator("bare-array", ["technology.node_nm=45"])
    model = EnergyModel(accelerator)
    register = model.technology.value("register.energy_pj_per_bit")
    expected = 3 * 0.1 + 3 * 3.1 + 3 * 32 * register
    assert model.costs.vector["exp"] == pytest.approx(expected * ZJ_PER_PJ)
    assert model.costs.vector["move"] == pytest.approx(32 * register * ZJ_PER_PJ)
    assert set(model.costs.vector) == set(PRIMITIVES)


@pytest.mark.parametrize(
    ("dataflow", "per_mac", "in_pe"),
    [("weight_stationary", 8 + 32, 8 + 2 * 8 + 32), ("input_stationary", 8 + 32, 8 + 2 * 8 + 32),
     ("output_stationary", 8 + 8 + 32, 8 + 8 + 2 * 32)],
)  # fmt: skip
def test_registers_by_dataflow(dataflow: str, per_mac: int, in_pe: int) -> None:
    """What passes through a PE in a MAC, and what a PE holds, with int8 operands and int32 sums."""
    accelerator = load_accelerator("gemmini-default", [f"array.dataflow={dataflow}"])
    assert register_bits_per_mac(accelerator.array) == per_mac
    assert pe_register_bits(accelerator.array) == in_pe


def test_what_is_not_described_costs_nothing() -> None:
    """The bare array has array and vector energy; its unlimited buffers and ideal memory have none."""
    model = MODELS["bare-array"]
    parts = model.dynamic_zj(Actions(macs=10, vector={"add": 10}, dram_read_bytes=10**6, dram_activations=5))
    assert {name for name, energy in parts.items() if energy} == {"array", "registers", "vector"}
    assert model.static_power_mw()["dram_background"] == 0.0
    assert model.least_activations(10**9) == 0
    assert set(model.area_mm2) == {"array", "registers", "vector", "control"}


def test_dram_energy_by_hand() -> None:
    """HBM2: 2.71 pJ/bit and 909 pJ for each row of 1 KiB: 1 MiB read in order takes 23.7 uJ."""
    model = EnergyModel(load_accelerator("gemmini-default", ["technology.dram=hbm2"]))
    size = 2**20
    rows = model.least_activations(size)
    assert rows == 1024
    parts = model.dynamic_zj(Actions(dram_read_bytes=size, dram_activations=rows))
    assert parts["dram"] / ZJ_PER_PJ == pytest.approx(size * 8 * 2.71 + 1024 * 909)


@pytest.mark.parametrize(
    ("preset", "overrides", "kind"),
    [
        ("bare-array", [], None),
        ("teaching-4x4", [], "generic"),
        ("tpu-v1", [], "ddr3"),
        ("many-core-server", [], "hbm2e"),
        ("edge-npu-large", [], "lpddr5"),
        ("edge-npu-large", ["dram.standard=lpddr4x-4266"], "lpddr4"),
        ("edge-npu-large", ["technology.dram=ddr4"], "ddr4"),
    ],
)
def test_the_kind_of_memory(preset: str, overrides: list[str], kind: str | None) -> None:
    """What the technology block says, else the standard's family, else generic; none for an ideal memory."""
    assert dram_kind(load_accelerator(preset, overrides)) == kind


def test_peak_bandwidth() -> None:
    """Five stacks of HBM2E: 80 pseudo channels of 8 bytes at 3.2 GT/s."""
    assert dram_gb_per_s(load_accelerator("many-core-server")) == pytest.approx(2048)
    assert dram_gb_per_s(load_accelerator("teaching-4x4")) == pytest.approx(0.4)
    assert dram_gb_per_s(load_accelerator("bare-array")) == 0.0


# --- static power and totals


@given(models(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_static_energy_goes_with_time(model: EnergyModel, one: int, other: int) -> None:
    """Exactly linear in the cycles, and close to power x time."""
    apart = {name: model.static_zj(one)[name] + energy for name, energy in model.static_zj(other).items()}
    assert model.static_zj(one + other) == apart
    watts = sum(model.static_power_mw().values()) * 1e-3
    seconds = (one + other) / (model.accelerator.clock_mhz * 1e6)
    assert joules(apart)["total"] == pytest.approx(watts * seconds, rel=1e-6)


@pytest.mark.parametrize("name", preset_names())
def test_clock_gating_saves_the_idle_clock(name: str) -> None:
    """Without gating every register bit takes its clock energy each cycle; with it, none does."""
    gated, free = (
        EnergyModel(load_accelerator(name, [f"technology.clock_gating={on}"])) for on in ("true", "false")
    )
    assert gated.static_power_mw()["clock"] == 0.0
    assert free.static_power_mw()["clock"] > 0.0
    assert free.costs == gated.costs
    array = free.accelerator.array
    bits = free.accelerator.macs_per_cycle * pe_register_bits(array)
    bits += free.accelerator.cores * free.accelerator.vector.lanes * 3 * ELEMENT_BITS[array.accumulator]
    per_bit = free.technology.value("register.clock_pj_per_bit")
    assert free.static_power_mw()["clock"] == pytest.approx(
        bits * per_bit * 1e-3 * free.accelerator.clock_mhz
    )


@given(runs(), st.integers(0, 10**12))
def test_the_parts_in_joules_are_the_total(run: tuple[EnergyModel, Actions, Actions], cycles: int) -> None:
    """`total` is the sum of the parts as printed, with no remainder."""
    model, one, _ = run
    parts = joules(model.run_zj(one, cycles))
    total = parts.pop("total")
    assert total == sum(parts.values())
    assert set(parts) == set(model.dynamic_zj(one)) | set(model.static_power_mw())


@pytest.mark.parametrize("name", preset_names())
def test_peak_power_is_reached_by_no_run(name: str) -> None:
    """In any stretch of time, energy at full rate everywhere stays within peak power x time."""
    model = MODELS[name]
    accelerator = model.accelerator
    cycles = 1000
    lanes = accelerator.cores * accelerator.vector.lanes
    ports = {n: accelerator.cores * b.bytes_per_cycle * cycles for n, b in accelerator.buffers.items()}
    dram = int(dram_gb_per_s(accelerator) * 1e3 / accelerator.clock_mhz * cycles)
    seconds = cycles / (accelerator.clock_mhz * 1e6)
    peak = peak_power_w(accelerator)
    assert all(watts >= 0 for watts in peak.values())
    for primitive in PRIMITIVES:
        done = int(lanes * cycles / getattr(accelerator.vector.cycles, primitive))
        actions = Actions(
            macs=accelerator.macs_per_cycle * cycles, vector={primitive: done}, buffer_read_bytes=ports,
            dram_read_bytes=dram,
        )  # fmt: skip
        energy = joules(model.run_zj(actions, cycles))
        assert set(energy) == set(peak) | {"total"}
        assert all(energy[part] <= peak[part] * seconds * (1 + 1e-6) for part in peak)


# --- area


def test_the_area_of_an_array_by_hand() -> None:
    """At 45 nm a MAC of int8 into int32 is 282 + 137 um2, and 256 of them 0.107 mm2."""
    accelerator = load_accelerator("gemmini-default", ["technology.node_nm=45"])
    assert mac_area_um2(accelerator.array, technology_of(accelerator)) == 282 + 137
    assert area_mm2(accelerator)["array"] == pytest.approx(256 * 419e-6)


@pytest.mark.parametrize("name", preset_names())
def test_areas_are_positive_and_control_is_a_share(name: str) -> None:
    """Every component takes room; control is the named fraction of the others."""
    parts = area_mm2(load_accelerator(name))
    assert all(area > 0 for area in parts.values())
    assert parts == MODELS[name].area_mm2
    control = parts.pop("control")
    assert control == pytest.approx(0.03 * sum(parts.values()))


REAL = [name for name in preset_names() if MODELS[name].accelerator.buffers]


@given(st.sampled_from(REAL), st.integers(1, 8), st.integers(7, 65))
def test_area_grows_with_what_there_is_more_of(name: str, factor: int, node_nm: int) -> None:
    """More rows, columns, lanes, cores or capacity never take less area, in any component or in all."""
    accelerator = load_accelerator(name, [f"technology.node_nm={node_nm}"])
    before = area_mm2(accelerator)
    for larger in _larger(accelerator, factor):
        after = area_mm2(larger)
        assert all(after[part] >= before[part] * (1 - 1e-12) for part in before)
        assert sum(after.values()) >= sum(before.values()) * (1 - 1e-12)


def _larger(accelerator: Accelerator, factor: int) -> list[Accelerator]:
    """The accelerator with more of one thing each."""
    array, vector = accelerator.array, accelerator.vector
    grown = {
        name: buffer.model_copy(update={"capacity_bytes": buffer.capacity_bytes * factor})
        for name, buffer in accelerator.buffers.items()
    }
    updates: list[dict[str, object]] = [
        {"array": array.model_copy(update={"rows": array.rows * factor})},
        {"array": array.model_copy(update={"cols": array.cols + factor})},
        {"vector": vector.model_copy(update={"lanes": vector.lanes + factor})},
        {"cores": accelerator.cores * factor},
        {"buffers": grown},
    ]
    return [accelerator.model_copy(update=update) for update in updates]


def test_a_faster_lane_has_more_units() -> None:
    """An exp every cycle needs its three multipliers; one in four cycles makes do with one."""
    slow = load_accelerator("gemmini-default", ["vector.cycles={exp: 4, divide: 8, sqrt: 8, tanh: 8}"])
    fast = load_accelerator("gemmini-default", ["vector.cycles={exp: 1, divide: 8, sqrt: 8, tanh: 8}"])
    assert lane_units(slow, technology_of(slow)) == {"adds": 1, "multiplies": 1, "compares": 1}
    assert lane_units(fast, technology_of(fast)) == {"adds": 3, "multiplies": 3, "compares": 1}
    assert area_mm2(fast)["vector"] > area_mm2(slow)["vector"]


def test_a_users_layout_factor_makes_all_logic_larger() -> None:
    """`logic.area_factor` is for those who know their layout's density; SRAM keeps its size."""
    figures = '{logic: {area_factor: {value: 2, unit: "1", source: ours}}}'
    once = area_mm2(load_accelerator("gemmini-default"))
    twice = area_mm2(load_accelerator("gemmini-default", [f"technology.figures={figures}"]))
    assert twice["array"] == pytest.approx(2 * once["array"])
    assert twice["scratchpad"] == once["scratchpad"]


def test_an_accelerator_built_in_python_is_checked_too() -> None:
    """A copy with a node outside the range does not slip through to a number."""
    accelerator = load_accelerator("gemmini-default")
    choice = accelerator.technology.model_copy(update={"node_nm": 90.0})
    with pytest.raises(InputError, match="90 nm is outside"):
        EnergyModel(accelerator.model_copy(update={"technology": choice}))
