"""What a network between cores takes besides time: bytes through links and routers, energy, area."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import sqrt
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tests.networks import RING, TOPOLOGIES, description, machine, networks, run, workloads
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.area import area_mm2
from tilewright.arch.energy import ZJ_PER_J, Actions, EnergyModel, peak_power_w
from tilewright.arch.network import link_count, mesh_columns
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.network import Pattern, pattern_load
from tilewright.dataflows.plan import plan
from tilewright.dataflows.program import totals
from tilewright.dataflows.sparse.program import unit_program
from tilewright.dataflows.specs import UnitSpec
from tilewright.description.errors import InputError
from tilewright.sim.result import Fidelity
from tilewright.workloads.graph import OperatorGraph

FIDELITIES: tuple[Fidelity, ...] = ("analytic", "event")


def graph_of(topology: str, cores: int) -> nx.Graph[Any]:
    """The network as a graph library builds it."""
    graph: nx.Graph[Any]
    if topology == "ring":
        graph = nx.cycle_graph(cores) if cores > 1 else nx.empty_graph(1)
    else:
        cols = mesh_columns(cores)
        grid = nx.grid_2d_graph(cores // cols, cols)
        graph = nx.relabel_nodes(grid, {(row, col): row * cols + col for row, col in grid})
    return graph


# --- counting


@given(topology=TOPOLOGIES, cores=st.integers(1, 24), data=st.data())
@settings(max_examples=50, deadline=None)
def test_every_byte_is_counted_at_every_link_and_router(
    topology: str, cores: int, data: st.DataObject
) -> None:
    """Parts pass their shortest way; a tree that reaches all cores has one link fewer than cores; all-to-all
    passes every distance; and routers are one more than links for everything that moves."""
    memories = data.draw(st.integers(1, cores))
    length = dict(nx.all_pairs_shortest_path_length(graph_of(topology, cores)))
    at = [number * cores // memories for number in range(memories)]
    to_parts = Fraction(sum(length[a][b] for a in at for b in range(cores)), cores * memories)
    between = Fraction(sum(length[a][b] for a in range(cores) for b in range(cores)), cores * cores)
    expected: dict[Pattern, tuple[Fraction, Fraction]] = {
        "parts": (to_parts, Fraction(1)),
        "all": (Fraction(cores - 1), Fraction(1)),
        "gather": (Fraction(cores - 1), Fraction(cores > 1)),
        "reduce": (Fraction(cores - 1), Fraction(cores > 1)),
        "exchange": (between, Fraction(cores - 1, cores)),
    }
    for pattern, (links, entered) in expected.items():
        load = pattern_load(topology, cores, memories, pattern)
        assert (load.links, load.routers) == (links, links + entered)


@given(topology=TOPOLOGIES, cores=st.integers(1, 40))
def test_links_are_the_graphs_edges_both_ways(topology: str, cores: int) -> None:
    """As many as a graph library has (two cores in a ring have one neighbour each)."""
    assert link_count(topology, cores) == 2 * graph_of(topology, cores).number_of_edges()


@given(cores=st.integers(1, 24), pattern=st.sampled_from(["parts", "all", "gather", "exchange", "reduce"]))
@settings(deadline=None)
def test_a_longer_ring_is_passed_longer(cores: int, pattern: Pattern) -> None:
    """One more core: the same bytes pass more links and more routers."""
    shorter, longer = (pattern_load("ring", number, 1, pattern) for number in (cores, cores + 1))
    assert shorter.links < longer.links
    assert shorter.routers < longer.routers


def test_a_transfer_by_hand() -> None:
    """Ring of four, memory at core 0: parts lie 0, 1, 2 and 1 links away; a tree to all has 3 links; pieces
    of an exchange are 1 link away on average, a quarter of them stays."""
    of = Machine(machine(RING))
    parts, everywhere = of.transfer(128, 128, "input"), of.transfer(128, 128, "input", shared=True)
    exchanged = of.between_cores(128, "input", "exchange")
    assert (parts.link_bytes, parts.router_bytes) == (128, 256)
    assert (everywhere.link_bytes, everywhere.router_bytes) == (384, 512)
    assert exchanged is not None
    assert (exchanged.link_bytes, exchanged.router_bytes) == (128, 128 + 96)


# --- runs

machines = st.builds(
    lambda network, cores, prefetch: description(network, cores=cores, dma={"prefetch_bytes": prefetch}),
    network=networks,
    cores=st.sampled_from([2, 3, 4, 6]),
    prefetch=st.sampled_from([0, 256]),
)


@given(described=machines, workload=workloads())
@settings(max_examples=20, deadline=None)
def test_links_and_routers_are_charged_what_passed_them(
    described: dict[str, Any], workload: OperatorGraph
) -> None:
    """At both fidelities: energy of links is exactly their bytes times the cost of one, routers see those and
    what enters, operators add up to the run, and no link carries more than its width in every cycle."""
    model = EnergyModel(Accelerator.model_validate(described))
    width = described["network"]["link_bytes_per_cycle"]
    for fidelity in FIDELITIES:
        result = run(described, workload, fidelity)
        moved, dram = result.traffic_bytes["network"], result.traffic_bytes["dram"]
        passed = moved.read + moved.write
        assert result.energy_j["links"] == passed * model.costs.link / ZJ_PER_J > 0
        routed = round(result.energy_j["routers"] * ZJ_PER_J / model.costs.router)
        assert routed >= passed + dram.read + dram.write
        for part in ("links", "routers"):
            rows = sum(row.energy_pj[part] for row in result.operators)
            assert rows * 1e-12 == pytest.approx(result.energy_j[part], rel=1e-12)
        assert sum(list(result.energy_j.values())[1:]) == result.energy_j["total"]
    links = link_count(described["network"]["topology"], described["cores"])
    assert passed <= result.cycles * links * width


@given(described=machines, workload=workloads())
@settings(max_examples=15, deadline=None)
def test_the_analytic_answer_passes_no_more_links(described: dict[str, Any], workload: OperatorGraph) -> None:
    """It counts the least that has to pass, on the way out and on the way back."""
    analytic, event = (run(described, workload, fidelity) for fidelity in FIDELITIES)
    least, passed = (result.traffic_bytes["network"] for result in (analytic, event))
    kept = [result.provenance["set_aside_for_resident_tensors"] for result in (analytic, event)]
    if kept[0] == kept[1]:
        assert least.read <= passed.read
        assert least.write <= passed.write


def test_a_product_by_hand() -> None:
    """Rows shared on a ring of four: A dealt out, B to all once, C collected, whatever the rows of a tile.
    The analytic answer is the least: each byte to one core."""
    workload = tw.load_workload("gemm", ["m=64", "k=4", "n=4"])
    described = description({**RING, "link_bytes_per_cycle": 64.0})
    event, analytic = run(described, workload), run(described, workload, "analytic")
    assert event.operators[0].mapping.endswith(" x 4 x 4, m outer")
    moved, least = event.traffic_bytes["network"], analytic.traffic_bytes["network"]
    assert (moved.read, moved.write) == (64 * 4 + 3 * 4 * 4, 64 * 4)
    assert (least.read, least.write) == (64 * 4 + 4 * 4, 64 * 4)


@given(described=machines, workload=workloads())
@settings(max_examples=8, deadline=None)
def test_one_core_or_no_network_has_neither_links_nor_routers(
    described: dict[str, Any], workload: OperatorGraph
) -> None:
    """A network that joins nothing costs nothing: the run, its energy and the area are those without it."""
    alone = {**described, "cores": 1, "network": {**described["network"], "memory_cores": 1}}
    for fidelity in FIDELITIES:
        with_network, without = (
            run(alone, workload, fidelity),
            run({**alone, "network": None}, workload, fidelity),
        )
        assert with_network.energy_j == without.energy_j
        assert with_network.area_mm2 == without.area_mm2
        assert {"links", "routers"}.isdisjoint({*without.energy_j, *without.area_mm2})
        assert "network" not in without.traffic_bytes
        free = run({**described, "network": None}, workload, fidelity)
        assert {"links", "routers", "network"}.isdisjoint({*free.area_mm2, *free.traffic_bytes})


# --- what one link and one router cost


@given(links=st.integers(0, 10**15), routers=st.integers(0, 10**15), more=st.integers(1, 10**15))
def test_energy_is_linear_in_what_passes(links: int, routers: int, more: int) -> None:
    """Exactly, by component; another byte at a link or router makes that one dearer and nothing else."""
    model = EnergyModel(machine(RING))
    one = Actions(link_bytes=links, router_bytes=routers)
    parts = model.dynamic_zj(one)
    assert parts["links"] == links * model.costs.link
    assert parts["routers"] == routers * model.costs.router
    assert sum(parts.values()) == parts["links"] + parts["routers"]
    farther = model.dynamic_zj(one + Actions(link_bytes=more))
    assert {name for name in parts if farther[name] != parts[name]} == {"links"}
    assert model.dynamic_zj(one.times(3)) == {name: 3 * energy for name, energy in parts.items()}


def test_a_hop_by_hand() -> None:
    """At 45 nm a router takes the published 0.43 pJ a bit; a link the wire's figure over a core's side,
    routers included."""
    accelerator = machine(RING, technology={"node_nm": 45})
    model = EnergyModel(accelerator)
    area = area_mm2(accelerator)
    side_mm = sqrt((sum(area.values()) - area["links"]) / 4)
    wire = model.technology.value("wire.energy_pj_per_bit_mm")
    assert model.costs.router == 8 * 430_000_000
    assert model.costs.link == pytest.approx(8 * wire * side_mm * 1e9, rel=1e-8)


@given(hop_mm=st.floats(0.01, 20), times=st.integers(2, 9))
def test_a_described_length_is_the_links_length(hop_mm: float, times: int) -> None:
    """Energy and repeaters are proportional to it; routers do not see it."""
    near, far = (machine({**RING, "hop_mm": length}) for length in (hop_mm, times * hop_mm))
    costs = [EnergyModel(each).costs for each in (near, far)]
    assert abs(costs[1].link - times * costs[0].link) <= times  # each rounded to a zeptojoule
    assert costs[1].router == costs[0].router
    assert area_mm2(far)["links"] == pytest.approx(times * area_mm2(near)["links"])
    assert area_mm2(far)["routers"] == area_mm2(near)["routers"]


@given(topology=TOPOLOGIES, cores=st.integers(2, 40), width=st.floats(0.5, 500), wider=st.floats(1.01, 8))
def test_area_grows_with_cores_and_link_width(topology: str, cores: int, width: float, wider: float) -> None:
    """Wider links: routers in proportion, links at least so (cores grow). More cores: more of both. What else
    there is stays as without a network."""

    def area(cores: int, width: float) -> dict[str, float]:
        network = {"topology": topology, "link_bytes_per_cycle": width}
        return area_mm2(machine(network, cores=cores))

    base, wide, many = area(cores, width), area(cores, width * wider), area(2 * cores, width)
    assert wide["routers"] == pytest.approx(wider * base["routers"])
    assert wide["links"] >= wider * base["links"] * (1 - 1e-9)
    assert many["routers"] > base["routers"] > 0
    assert many["links"] > base["links"] > 0
    bare = area_mm2(machine(None, cores=cores))
    assert {name: base[name] for name in bare} == bare


def test_peak_power_has_every_link_and_router_busy() -> None:
    """Eight links of 2 bytes a cycle at 1 GHz, and 8 + 4 + 1 inputs of routers."""
    accelerator = machine(RING)
    costs, watts = EnergyModel(accelerator).costs, peak_power_w(accelerator)
    assert watts["links"] == pytest.approx(8 * 2 * costs.link * 1e9 / ZJ_PER_J)
    assert watts["routers"] == pytest.approx(13 * 2 * costs.router * 1e9 / ZJ_PER_J)


def test_sources_name_what_links_and_routers_cost() -> None:
    """Each constant with a paper; none of them where no network joins cores."""
    rows = {row.constant: row for row in EnergyModel(machine(RING)).sources()}
    assert "Single-Chip Cloud Computer" in rows["router.area_um2_per_bit"].source
    assert "FlooNoC" in rows["router.energy_pj_per_bit"].source
    assert rows["wire.area_um2_per_bit_mm"].confidence == "low"
    alone = {row.constant for row in EnergyModel(machine(None)).sources()}
    assert not {name for name in alone if name.startswith("router.")}


@pytest.mark.parametrize("length", ["0", "-1"])
def test_a_link_has_a_length(length: str) -> None:
    """None or less is refused, with the key."""
    network = f"network={{topology: mesh, link_bytes_per_cycle: 8, hop_mm: {length}}}"
    with pytest.raises(InputError, match=r"network\.hop_mm") as error:
        tw.load_accelerator("edge-npu-small", ["cores=4", network])
    assert "greater than 0" in str(error.value)


def test_adding_up_other_cores_sums_takes_energy() -> None:
    """Where four cores share out k, every element of the result takes three additions more."""
    workload = tw.load_workload("gemm", ["m=4", "k=512", "n=4"])
    described = description(
        {**RING, "link_bytes_per_cycle": 64.0}, dram={"kind": "flat", "bytes_per_cycle": 256.0}
    )
    model = EnergyModel(Accelerator.model_validate(described))
    result = run(described, workload)
    assert result.operators[0].mapping.endswith("cores share k")
    assert result.energy_j["vector"] == 3 * 4 * 4 * model.costs.vector["add"] / ZJ_PER_J


# --- sparse-attention units

UNIT = {"kind": "block_skip", "rows": 4, "cols": 4, "sequencer_cycles": 0}


@given(
    network=networks,
    heads=st.integers(1, 5),
    seq=st.integers(1, 20),
    fractions=st.sampled_from([[], [0.5], [0.75]]),
)
@settings(max_examples=15, deadline=None)
def test_tensors_that_stay_on_chip_are_exchanged_for_units(
    network: dict[str, Any], heads: int, seq: int, fractions: list[float]
) -> None:
    """On a sparse-attention unit, whatever stays: a network is never faster than none, the simulated answer
    is what was planned and no less than the analytic one, and links are charged what they carry."""
    sizes = [f"d={8 * heads}", f"heads={heads}", "ffn=8", f"seq={seq}"]
    workload = tw.load_workload("encoder_block", sizes)
    described = description(network, attention_unit=UNIT, mapper={"resident_fractions": fractions})
    event = run(described, workload)
    assert event.cycles >= run({**described, "network": None}, workload).cycles
    assert event.cycles >= run(described, workload, "analytic").cycles
    assert event.cycles == plan(workload, Accelerator.model_validate(described)).cycles
    cost = EnergyModel(Accelerator.model_validate(described)).costs.link
    moved = event.traffic_bytes["network"]
    assert event.energy_j["links"] == (moved.read + moved.write) * cost / ZJ_PER_J


def test_what_a_unit_would_fetch_from_memory_passes_the_network_instead() -> None:
    """On a ring of four an exchanged byte passes one link and 1.75 routers on average: with all four tensors
    on chip, links carry what DRAM moved without, in both directions; without a network that is free."""
    workload = tw.load_workload("attention", ["batch=1", "heads=4", "head_dim=8", "seq=16"])
    accelerator = machine(RING, attention_unit=UNIT)
    found = plan(workload, accelerator).mappings
    (spec,) = (request.spec for request in found if isinstance(request.spec, UnitSpec))
    first, second = spec.first, spec.second
    kept = replace(
        spec,
        first=replace(first, a=replace(first.a, resident=True), b=replace(first.b, resident=True)),
        second=replace(second, b=replace(second.b, resident=True), out=replace(second.out, resident=True)),
    )
    fetched = totals(unit_program(spec, Machine(accelerator)), 2)
    exchanged = totals(unit_program(kept, Machine(accelerator)), 2)
    assert (exchanged.dram_read, exchanged.dram_write) == (0, 0)
    assert (exchanged.link_read, exchanged.link_write) == (fetched.dram_read, fetched.dram_write)
    assert exchanged.routed == 7 * (fetched.dram_read + fetched.dram_write) // 4 > 0
    assert exchanged.dma > 0
    assert totals(unit_program(kept, Machine(machine(None, attention_unit=UNIT))), 2).dma == 0
