"""The network between cores: links counted one by one, transfers by hand, scaling that stops."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
from tests.networks import RING, TOPOLOGIES, description, networks, run, workloads
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.network import mesh_columns
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.matmul import program as matmul_program
from tilewright.dataflows.network import Pattern, pattern_load, route
from tilewright.dataflows.plan import plan
from tilewright.dataflows.program import unrolled
from tilewright.dataflows.specs import MatmulSpec, Operand
from tilewright.dataflows.tiles import Moment, Tile, Tiles, VectorWork
from tilewright.dataflows.tiling import Split, Tiling
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape

PATTERNS: list[Pattern] = ["parts", "all", "gather", "exchange", "reduce"]


def share(topology: str, cores: int, pattern: Pattern, memories: int = 1) -> Fraction:
    return pattern_load(topology, cores, memories, pattern).share


@given(topology=TOPOLOGIES, cores=st.integers(1, 40), data=st.data())
def test_ways_are_shortest(topology: str, cores: int, data: st.DataObject) -> None:
    """From neighbour to neighbour, and as long as the distance."""
    source, target = (data.draw(st.integers(0, cores - 1)) for _ in range(2))
    way = route(topology, cores, source, target)
    stops = [source, *(there for _, there in way)]
    assert stops[-1] == target
    assert all(link == step for link, step in zip(way, pairwise(stops), strict=True))
    assert len(way) == _distance(topology, cores, source, target)
    assert all(_distance(topology, cores, *link) == 1 for link in way)


def _distance(topology: str, cores: int, one: int, other: int) -> int:
    if topology == "ring":
        return min((one - other) % cores, (other - one) % cores)
    (y, x), (v, u) = divmod(one, mesh_columns(cores)), divmod(other, mesh_columns(cores))
    return abs(x - u) + abs(y - v)


@given(cores=st.integers(2, 24))
def test_busiest_link_of_a_ring(cores: int) -> None:
    """Counted over a cut: from one memory half of the cores lie behind the first link; every core's part goes
    half way round; and pairs at distance d cross d of the links that go their way."""
    forwards = cores // 2
    assert share("ring", cores, "parts") == Fraction(forwards, cores)
    assert share("ring", cores, "all") == 1
    assert share("ring", cores, "gather") == share("ring", cores, "reduce") == Fraction(forwards, cores)
    assert share("ring", cores, "exchange") == Fraction(forwards * (forwards + 1) // 2, cores * cores)


@given(rows=st.integers(1, 5), cols=st.integers(1, 6))
def test_busiest_link_of_a_mesh(rows: int, cols: int) -> None:
    """In all-to-all, a link down a column carries what all columns' cores above send to those below in its
    own, and one along a row what its row's cores before send to all columns after; from a corner, the first
    link carries all other columns' parts, or the column's own rest."""
    cores = rows * cols
    if mesh_columns(cores) != cols:
        return
    down = cols * (rows // 2) * ceil(rows / 2)
    along = rows * (cols // 2) * ceil(cols / 2)
    assert share("mesh", cores, "exchange") == Fraction(max(down, along), cores * cores)
    assert share("mesh", cores, "parts") == Fraction(max((cols - 1) * rows, rows - 1), cores)
    assert share("mesh", cores, "all") == (1 if cores > 1 else 0)


@given(topology=TOPOLOGIES, cores=st.integers(1, 24), pattern=st.sampled_from(PATTERNS))
def test_a_core_alone_needs_no_links_and_no_link_carries_more_than_all(
    topology: str, cores: int, pattern: Pattern
) -> None:
    """Shares lie between what the average link must carry and the whole; hops within the network's width."""
    load = pattern_load(topology, cores, 1, pattern)
    assert (load.share == 0) == (load.hops == 0) == (cores == 1)
    assert load.share <= 1
    assert load.hops == max(
        _distance(topology, cores, a, b) for a in _senders(cores, pattern) for b in range(cores)
    )


def _senders(cores: int, pattern: Pattern) -> range:
    return range(1) if pattern in ("parts", "all") else range(cores)


def test_memory_at_more_cores_spreads_its_load() -> None:
    """Four cores with memory halve what the busiest link of a 4 x 4 mesh carries, at least."""
    assert share("mesh", 16, "parts", 4) <= share("mesh", 16, "parts") / 2


def tiles(split: Split, *, resident: bool) -> Tiles:
    """An 8 x 16 by 16 x 12 product on the ring of four."""
    sizes = MatmulShape(1, 8, 16, 12)
    a, b, out = (Operand(count, 8, resident) for count in (128, 192, 96))
    spec = MatmulSpec(sizes, a, b, out)
    return Tiles(spec, Machine(Accelerator.model_validate(description(RING))), split, 2)


WHOLE = Tile(1, 8, 16, 12)


@pytest.mark.parametrize(
    ("split", "a", "b"),
    [("m", Fraction(1, 2), 1), ("n", 1, Fraction(1, 2)), ("k", Fraction(1, 2), Fraction(1, 2))],
)
def test_transfers_from_dram_take_their_busiest_link(split: Split, a: Fraction, b: Fraction) -> None:
    """128 and 192 bytes: what all cores need goes whole over the first link of 2 bytes a cycle, what is dealt
    out to half; and both arrive 2 hops of 3 cycles after the DRAM's 10."""
    of = tiles(split, resident=False)
    loads = of.load_a(WHOLE), of.load_b(WHOLE)
    assert [t.occupancy for t in loads if t] == [128 * a / 2, 192 * b / 2]
    assert [t.latency for t in loads if t] == [16, 16]


def test_a_dram_slower_than_the_links_is_what_counts() -> None:
    """The transfer passes through both: the slower one says how long it takes."""
    slow = description({**RING, "link_bytes_per_cycle": 1000.0})
    machine = Machine(Accelerator.model_validate(slow))
    assert machine.transfer(128, 128, "input", shared=True).occupancy == 128 / 32


@pytest.mark.parametrize(
    ("split", "a", "b", "out"),
    [
        ("m", None, Fraction(1, 2), None),
        ("n", Fraction(1, 2), None, Fraction(3, 16)),
        ("batch", Fraction(3, 16), Fraction(3, 16), Fraction(3, 16)),
    ],
)
def test_what_stays_on_chip_is_moved_among_the_cores(
    split: Split, a: Fraction | None, b: Fraction | None, out: Fraction | None
) -> None:
    """Tensors lie by rows: an operand that every core needs is gathered, one that is cut in another way is
    exchanged, and no byte of DRAM is touched."""
    of = tiles(split, resident=True)
    sizes = 128, 192, 96
    moved = of.load_a(WHOLE), of.load_b(WHOLE), of.store(WHOLE)
    expected = [
        None if part is None else ceil(size * part / 2) for size, part in zip(sizes, (a, b, out), strict=True)
    ]
    assert [None if t is None else t.occupancy for t in moved] == expected
    assert all(t is None or (t.bytes, t.latency) == (0, 6) for t in moved)


def test_partial_sums_are_reduced() -> None:
    """Cores that share out k each have sums for the whole tile: 96 of 4 bytes, of which half pass the busiest
    link, before the results go to DRAM; each core adds up three others' sums for a quarter of the tile."""
    of = tiles("k", resident=False)
    store = of.store(WHOLE)
    assert store is not None
    assert store.occupancy == 96 * 4 // 2 // 2 + 96 // 2 // 2
    assert store.bytes == 96
    assert store.buffer_bytes == 4 * 96 * 4 + 96  # every core reads its own sums
    assert store.port_cycles == 96 * 4 // 16 + -(-96 // 4 // 16)
    last = Moment(True, True, first_k=True, last_k=True)
    tick = of.streamed(WHOLE, last, work=VectorWork(0.0, (0, 0), (0, 0)))
    assert tick.vector == 24 * 3 // 4
    assert tick.array_streaming == 3 * 8  # a core's k is 4: one fold high, three across, of 8 rows


def test_without_a_network_sharing_is_free() -> None:
    """Resident operands take no transfer, and shared ones what the DRAM takes."""
    spec = tiles("m", resident=True).spec
    free = Machine(Accelerator.model_validate(description(None)))
    for split in ("m", "n", "batch"):
        of = Tiles(spec, free, split, 2)
        assert (of.load_a(WHOLE), of.load_b(WHOLE), of.store(WHOLE)) == (None, None, None)


def test_every_tick_of_a_reduction_is_in_the_program() -> None:
    """Two output tiles are reduced and stored once each, whatever the number of tiles along k."""
    of = tiles("k", resident=False)
    program = list(unrolled(matmul_program(of.spec, of.machine, Tiling(4, 8, 12, "mn", "k"))))
    assert len(program) == 4
    assert [tick.store is not None for tick in program] == [False, True] * 2


machines = st.builds(
    lambda network, changes: description(network, **changes),
    network=networks,
    changes=st.fixed_dictionaries(
        {
            "cores": st.sampled_from([2, 3, 4, 6]),
            "mapper": st.fixed_dictionaries(
                {
                    "effort": st.sampled_from([0, 1]),
                    "attention": st.sampled_from([["unfused"], ["flash"], ["unfused", "flat"]]),
                    "chains": st.sampled_from([["unfused"], ["fused"]]),
                }
            ),
            "dma": st.fixed_dictionaries({"prefetch_bytes": st.sampled_from([0, 256])}),
        }
    ),
)


@given(machine=machines, workload=workloads())
@settings(max_examples=15, deadline=None)
def test_a_network_is_never_faster_than_none(machine: dict[str, Any], workload: OperatorGraph) -> None:
    """Nor the simulated answer than the analytic one, nor than what the mapper planned."""
    event = run(machine, workload)
    assert event.cycles >= run({**machine, "network": None}, workload).cycles
    assert event.cycles >= run(machine, workload, "analytic").cycles
    assert event.cycles == plan(workload, Accelerator.model_validate(machine)).cycles
    assert sum(event.units["dram"].values()) == event.cycles


@given(
    machine=machines,
    workload=workloads(),
    what=st.sampled_from(["link", "hop", "bandwidth", "lanes", "width"]),
)
@settings(max_examples=25, deadline=None)
def test_a_better_machine_is_never_slower(
    machine: dict[str, Any], workload: OperatorGraph, what: str
) -> None:
    """Wider links, shorter hops, more bandwidth, lanes or ports: never more cycles."""
    better = _improved(machine, what)
    for fidelity in ("analytic", "event"):
        assert run(better, workload, fidelity).cycles <= run(machine, workload, fidelity).cycles


def _improved(machine: dict[str, Any], what: str) -> dict[str, Any]:
    if what == "link":
        link = machine["network"]["link_bytes_per_cycle"] * 1.5
        return {**machine, "network": {**machine["network"], "link_bytes_per_cycle": link}}
    if what == "hop":
        return {**machine, "network": {**machine["network"], "hop_cycles": 0}}
    if what == "bandwidth":
        return {**machine, "dram": {**machine["dram"], "bytes_per_cycle": 48.0}}
    if what == "lanes":
        return {**machine, "vector": {"lanes": 7}}
    wider = {name: {**buffer, "width_bytes": 24} for name, buffer in machine["buffers"].items()}
    return {**machine, "buffers": wider}


@pytest.mark.parametrize(("m", "k", "n"), [(4, 64, 4), (33, 20, 7), (5, 8, 40)])
def test_cycle_equals_event_behind_a_network(m: int, k: int, n: int) -> None:
    """Stepping every PE takes the same cycles, also where cores share out k, and the sums are right."""
    workload = tw.load_workload("gemm", [f"m={m}", f"k={k}", f"n={n}"])
    machine = description({**RING, "link_bytes_per_cycle": 16.0})
    event, stepped = run(machine, workload), run(machine, workload, "cycle")
    assert stepped.cycles == event.cycles
    a, b, c = (stepped.outputs[name] for name in (*workload.operators[0].inputs, *workload.outputs))
    assert (c.reshape(m, n) == a.reshape(m, k) @ b.reshape(k, n)).all()


def test_a_small_product_of_long_sums_is_shared_out_along_k() -> None:
    """Where neither rows nor columns give every core work, k does, and that is faster than one core."""
    workload = tw.load_workload("gemm", ["m=4", "k=512", "n=4"])
    machine = description(
        {**RING, "link_bytes_per_cycle": 64.0}, dram={"kind": "flat", "bytes_per_cycle": 256.0}
    )
    result = run(machine, workload)
    found = plan(workload, Accelerator.model_validate(machine)).mappings
    assert [mapping.tiling.split for mapping in found.values() if isinstance(mapping.tiling, Tiling)] == ["k"]
    assert result.cycles < run({**machine, "cores": 1, "network": None}, workload).cycles


def test_speed_up_is_linear_only_where_the_simulator_says_so() -> None:
    """Cores whose memory is fast enough gain nearly all of their number where nothing joins them but ideal
    wires, much less over narrow links, and on narrower ones less still."""
    workload = tw.load_workload("encoder_block", ["d=128", "heads=8", "ffn=256", "seq=64"])

    def speed_up(link: float | None) -> float:
        network = None if link is None else {"topology": "mesh", "link_bytes_per_cycle": link}
        buffers = {
            "operands": {"capacity_bytes": 2**17, "holds": ["input", "weight"], "width_bytes": 256},
            "sums": {"capacity_bytes": 2**16, "holds": ["output"], "width_bytes": 256},
        }
        rest: dict[str, Any] = {"buffers": buffers, "dram": {"kind": "ideal"}, "mapper": {"effort": 1}}
        many = run(description(network, cores=16, **rest), workload)
        return run(description(None, cores=1, **rest), workload).cycles / many.cycles

    ideal, wide, narrow = speed_up(None), speed_up(16.0), speed_up(0.5)
    assert 12 < ideal <= 16
    assert narrow < wide < ideal
    assert narrow < 6


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("network.memory_cores=5", "network.memory_cores: 5 memory cores, but only 4 cores; give fewer"),
        ("cores=300", "network: networks are simulated for up to 256 cores, not 300; leave it out"),
        ("network.topology=torus", "network.topology"),
    ],
)
def test_what_makes_no_sense_is_refused(override: str, says: str) -> None:
    """With what is wrong and where."""
    network = "network={topology: mesh, link_bytes_per_cycle: 8}"
    with pytest.raises(InputError) as error:
        tw.load_accelerator("edge-npu-small", ["cores=4", network, override])
    assert says in str(error.value)


def test_rows_and_columns_of_weights_are_shared_where_links_are_narrow() -> None:
    """With few tokens and narrow links the mapper deals out the weights' columns, then columns or rows, and
    heads in attention, so that no weight has to reach two cores."""
    workload = tw.load_workload("encoder_block", ["d=32", "heads=4", "ffn=128", "seq=8"])
    machine = description({**RING, "link_bytes_per_cycle": 4.0, "memory_cores": 4})
    mappings = {row.name: row.mapping for row in run(machine, workload).operators}
    assert mappings["ffn.up"].endswith("cores share n")
    assert mappings["ffn.down"].endswith(("cores share k", "cores share n"))
    assert mappings["attention.scores"].endswith("cores share batch")
