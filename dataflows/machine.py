"""An accelerator as the mapper reads it: buffers by number, room for tiles, durations of transfers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from tilewright.arch.accelerator import ELEMENT_BITS, Accelerator, Array, Operand
from tilewright.dataflows.memory import buffer_widths, peak_bytes_per_cycle, transfer_cycles
from tilewright.dataflows.program import Transfer

SLOTS = 2
"""Tiles of each operand and of the output that are on chip at once (double buffering)."""


@dataclass(frozen=True)
class Machine:
    """The accelerator with a share of some buffers set aside for tensors that stay.

    `set_aside` names these buffers with their shares.
    """

    accelerator: Accelerator
    set_aside: tuple[tuple[str, float], ...] = ()

    @cached_property
    def array(self) -> Array:
        """One core's array."""
        return self.accelerator.array

    @cached_property
    def cores(self) -> int:
        """How many."""
        return self.accelerator.cores

    @cached_property
    def buffers(self) -> int:
        """How many on-chip buffers a core has."""
        return len(self.accelerator.buffers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the buffers."""
        return tuple(self.accelerator.buffers)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Bytes per cycle of each buffer of a core."""
        return buffer_widths(self.accelerator)

    @cached_property
    def room_bytes(self) -> tuple[int, ...]:
        """Bytes of each buffer of a core that hold tiles."""
        return tuple(
            buffer.capacity_bytes - self.resident_bytes(name)
            for name, buffer in self.accelerator.buffers.items()
        )

    def resident_bytes(self, name: str) -> int:
        """Bytes of a core's buffer that hold tensors that stay."""
        return int(self.accelerator.buffers[name].capacity_bytes * dict(self.set_aside).get(name, 0.0))

    @cached_property
    def peak_dram(self) -> float:
        """Bytes per cycle that no DRAM transfer can exceed."""
        return peak_bytes_per_cycle(self.accelerator.dram, self.accelerator.clock_mhz)

    @cached_property
    def dram_latency(self) -> int:
        """Least cycles from the end of a transfer to its completion."""
        return transfer_cycles(self.accelerator.dram, self.accelerator.clock_mhz, 1, 1)[1]

    @cached_property
    def _transfers(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Known transfers; looked up far more often than a description can be hashed."""
        return {}

    @cached_property
    def accumulator_bits(self) -> int:
        """Bits of a running sum."""
        return ELEMENT_BITS[self.array.accumulator]

    @cached_property
    def operand_bits(self) -> int:
        """Bits of a multiplicand in the array."""
        return ELEMENT_BITS[self.array.operand]

    @cached_property
    def _numbers(self) -> dict[Operand, int]:
        operands: tuple[Operand, ...] = ("input", "weight", "output")
        homes = {operand: self.accelerator.home(operand) for operand in operands}
        return {operand: -1 if home is None else self.names.index(home) for operand, home in homes.items()}

    def number(self, operand: Operand) -> int:
        """Number of the buffer that holds an operand, or -1."""
        return self._numbers[operand]

    def dram_cycles(self, size_bytes: int, run_bytes: int | None = None) -> tuple[int, int]:
        """(occupancy, latency) of a transfer in contiguous runs (default: one run)."""
        key = size_bytes, run_bytes or size_bytes
        if key not in self._transfers:
            self._transfers[key] = transfer_cycles(self.accelerator.dram, self.accelerator.clock_mhz, *key)
        return self._transfers[key]

    def transfer(
        self, size_bytes: int, run_bytes: int, operand: Operand, *, early: bool = False, shared: bool = False
    ) -> Transfer:
        """The DMA job of moving a tile. `shared`: every core gets all of it, else each its part."""
        occupancy, latency = self.dram_cycles(size_bytes, max(1, min(run_bytes, size_bytes)))
        number = self.number(operand)
        per_core = size_bytes if shared else ceil(size_bytes / self.cores)
        ports = self.port_cycles(number, per_core)
        total = size_bytes * self.cores if shared else size_bytes
        return Transfer(size_bytes, occupancy, latency, number, ports, total, early)

    def port_cycles(self, number: int, size_bytes: int) -> int:
        """Cycles of one core's buffer to move so many bytes."""
        return -(-size_bytes // self.widths[number]) if number >= 0 else 0

    def vector_cycles(self, lane_cycles: float) -> int:
        """Cycles of one core's vector unit for a tile's work."""
        vector = self.accelerator.vector
        return ceil(lane_cycles / vector.lanes) + vector.startup_cycles if lane_cycles else 0
