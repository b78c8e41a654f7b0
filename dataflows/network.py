"""Traffic between cores: how long a network's busiest link takes, and how far data has to go.

A *pattern* says who sends what to whom, of a tile of `size` bytes:

| pattern | what happens |
|---|---|
| `parts` | memory sends each core its own part (or each core its part to memory) |
| `all` | memory sends all of it to every core, along a tree of shortest ways |
| `gather` | every core has a part and gets all the others', along a tree from each (all-gather) |
| `exchange` | every core has a part and gets an equal piece of every other one's (all-to-all) |
| `reduce` | every core has sums for all of it and gets the total of its own part: `gather` backwards, with \
additions where branches meet (reduce-scatter) |

All flows of a pattern start together and pass through: a transfer takes what its busiest link carries, and is
complete as many hops later as the farthest flow makes. Flows are routed one by one, so contention is counted
link by link; ways are fixed (along rows, then columns; round a ring the shorter way, forwards if both are as
long).

Each byte of a flow passes the links of its way (of a tree each link once) and one router more: the one at its
source. What a core keeps for itself passes none; what the memory at a core brings to that core, one router.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Literal

from tilewright.arch.network import Network, mesh_columns

Pattern = Literal["parts", "all", "gather", "exchange", "reduce"]
Spread = Pattern | None
"""How the cores come by their parts of a tensor that is spread over them; None: they have them."""
Link = tuple[int, int]
"""From a core to its neighbour."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a pattern asks of a network, whatever the size."""

    share: Fraction
    """Of the size, what the busiest link carries."""
    hops: int
    """Of the farthest flow."""
    links: Fraction
    """Of the size, what all links together carry."""
    routers: Fraction
    """Of the size, what passes through all routers together."""


def network_cycles(network: Network, cores: int, pattern: Pattern, size_bytes: int) -> tuple[int, int]:
    """(occupancy, latency) of a tile of so many bytes."""
    load = pattern_load(network.topology, cores, min(network.memory_cores, cores), pattern)
    busiest = load.share * size_bytes
    return ceil(float(busiest) / network.link_bytes_per_cycle), load.hops * network.hop_cycles


def network_bytes(network: Network, cores: int, pattern: Pattern, size_bytes: int) -> tuple[int, int]:
    """Bytes times links and bytes times routers that a tile of so many bytes passes, rounded up."""
    load = pattern_load(network.topology, cores, min(network.memory_cores, cores), pattern)
    return ceil(load.links * size_bytes), ceil(load.routers * size_bytes)


def best_rate(network: Network, cores: int) -> float:
    """Bytes per cycle that no transfer from or to memory can exceed."""
    memories = min(network.memory_cores, cores)
    shares = [pattern_load(network.topology, cores, memories, each).share for each in ("parts", "all")]
    return network.link_bytes_per_cycle / float(min(shares)) if min(shares) else float("inf")


@lru_cache(maxsize=256)
def pattern_load(topology: str, cores: int, memories: int, pattern: Pattern) -> Load:
    """What a pattern asks of links and routers."""
    carried: dict[Link, Fraction] = {}
    hops, entered = 0, Fraction(0)
    from_memory = pattern in ("parts", "all")
    for ways, share in _flows(topology, cores, memories, pattern):
        hops = max(hops, *(len(way) for way in ways))
        links = {link for way in ways for link in way}  # of a tree each link once
        entered += share if links or from_memory else 0
        for link in links:
            carried[link] = carried.get(link, Fraction(0)) + share
    links_passed = sum(carried.values(), Fraction(0))
    return Load(max(carried.values(), default=Fraction(0)), hops, links_passed, links_passed + entered)


_Way = tuple[Link, ...]


def _flows(
    topology: str, cores: int, memories: int, pattern: Pattern
) -> Iterator[tuple[list[_Way], Fraction]]:
    """Each flow's ways (several: the branches of a tree) and the share of the size that goes along them."""
    at = [number * cores // memories for number in range(memories)]
    if pattern == "parts":
        for memory in at:
            for core in range(cores):
                yield [route(topology, cores, memory, core)], Fraction(1, cores * memories)
    elif pattern == "exchange":
        for core in range(cores):
            for other in range(cores):
                yield [route(topology, cores, core, other)], Fraction(1, cores * cores)
    else:
        sources = at if pattern == "all" else range(cores)
        for source in sources:
            yield [route(topology, cores, source, core) for core in range(cores)], Fraction(1, len(sources))


def route(topology: str, cores: int, source: int, target: int) -> _Way:
    """The links from one core to another; none from a core to itself.

    >>> route("mesh", 6, 0, 5), route("ring", 6, 0, 5)
    (((0, 1), (1, 2), (2, 5)), ((0, 5),))
    """
    way, here = [], source
    while here != target:
        there = _next_on_ring(cores, here, target) if topology == "ring" else _next(cores, here, target)
        way.append((here, there))
        here = there
    return tuple(way)


def _next_on_ring(cores: int, here: int, target: int) -> int:
    ahead = (target - here) % cores
    return (here + (1 if ahead <= cores - ahead else -1)) % cores


def _next(cores: int, here: int, target: int) -> int:
    """Along the row to the target's column, then along the column."""
    width = mesh_columns(cores)
    sideways = target % width - here % width
    if sideways:
        return here + (1 if sideways > 0 else -1)
    return here + (width if target > here else -width)
