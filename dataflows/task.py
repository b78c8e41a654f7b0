"""A matmul that the mapper has to find a loop nest for."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tiling import Split


@dataclass(frozen=True)
class Task:
    """A matmul on a machine for one way to share it among the cores, and what it shares with its
    neighbours."""

    spec: MatmulSpec
    machine: Machine
    split: Split
    credit_bytes: int = 0
    """Bytes of its early loads that are there when it starts."""
    next_cycles: int = 0
    """DMA cycles in which it prefetches for the region after it."""

    @property
    def step(self) -> int:
        """Products at a time: where the cores share out the batch, one on each."""
        return min(self.machine.cores, self.spec.shape.batch) if self.split == "batch" else 1

    @property
    def rounds(self) -> int:
        """How often the loops over m, n and k run."""
        return ceil_div(self.spec.shape.batch, self.step)

    @property
    def alike(self) -> int:
        """Rounds with a product for each core; in a last one there may be fewer."""
        return self.spec.shape.batch // self.step

    @property
    def left_over(self) -> int:
        """Products of that last round."""
        return self.spec.shape.batch % self.step

    @property
    def sharers(self) -> int:
        """Cores among whose vector units an output tile is shared out."""
        return self.machine.cores if self.split == "k" else 1
