"""The network between the cores: `network: {topology: …}` in the YAML file.

What a topology makes of traffic is worked out in `tilewright.dataflows.network`, what its links and routers
take in `tilewright.arch.energy` and `tilewright.arch.area`.
"""

from __future__ import annotations

from math import isqrt
from typing import Annotated, Literal

from pydantic import Field

from tilewright.arch.block import Block, Count, Cycles, Rate

MOST_CORES = 256
"""Of a network: ways between all pairs are followed link by link."""


class Network(Block):
    """Links between neighbouring cores, in both directions, over which everything from and to DRAM goes."""

    topology: Literal["mesh", "ring"]
    """`mesh`: two-dimensional, as square as the number of cores allows, first along rows, then along columns;
    `ring`: the shorter way round."""
    link_bytes_per_cycle: Rate
    """Of each link, in each direction."""
    hop_cycles: Cycles = 1
    """From a core to its neighbour, besides the transfer itself."""
    memory_cores: Count = 1
    """Cores at which the memory is attached, evenly spaced; all data is spread over them."""
    hop_mm: Annotated[float, Field(gt=0)] | None = None
    """Length of a link. Left out: the side of a core, the square root of its area."""


def link_count(topology: str, cores: int) -> int:
    """Links of all cores, both directions counted.

    >>> link_count("mesh", 6), link_count("ring", 6), link_count("ring", 2), link_count("ring", 1)
    (14, 12, 2, 0)
    """
    if topology == "ring":
        return 2 * cores if cores > 2 else 2 * (cores - 1)
    cols = mesh_columns(cores)
    rows = cores // cols
    return 2 * (rows * (cols - 1) + cols * (rows - 1))


def port_count(network: Network, cores: int) -> int:
    """Inputs of all routers: one a link, one a core, one where the memory is attached."""
    return link_count(network.topology, cores) + cores + network.memory_cores


def mesh_columns(cores: int) -> int:
    """Columns of the mesh that is most nearly square; a prime number of cores stands in one row."""
    rows = next(rows for rows in range(isqrt(cores), 0, -1) if cores % rows == 0)
    return cores // rows
