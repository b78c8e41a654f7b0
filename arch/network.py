"""The network between the cores: `network: {topology: …}` in the YAML file.

What a topology makes of traffic is worked out in `tilewright.dataflows.network`.
"""

from __future__ import annotations

from typing import Literal

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
