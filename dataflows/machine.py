"""An accelerator as the mapper reads it: buffers by number, room for tiles, durations of transfers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor

from tilewright.arch.accelerator import Accelerator, Operand
from tilewright.arch.array import ELEMENT_BITS, Array
from tilewright.arch.network import Network
from tilewright.dataflows.memory import buffer_widths, peak_bytes_per_cycle, transfer_cycles
from tilewright.dataflows.network import Pattern, best_rate, network_bytes, network_cycles
from tilewright.dataflows.program import Transfer

SetAside = tuple[tuple[str, float], ...]
"""Names of buffers, each with a share of it."""
SLOTS = 2
"""Tiles of each operand and of the output that are on chip at once (double buffering)."""


@dataclass(frozen=True)
class Machine:
    """The accelerator with a share of some buffers set aside for tensors that stay.

    `set_aside` names these buffers with their shares.
    """

    accelerator: Accelerator
    set_aside: SetAside = ()

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
    def slots(self) -> int:
        """Tiles of each operand and of the output that are on chip at once."""
        return SLOTS if self.accelerator.dma.buffering == "double" else 1

    @cached_property
    def operand_slots(self) -> int:
        """The same of the operands of a plain matmul."""
        return self.accelerator.dma.operand_slots if self.slots == SLOTS else 1

    @cached_property
    def peak_dram(self) -> float:
        """Bytes per cycle that no DRAM transfer can exceed."""
        return peak_bytes_per_cycle(self.accelerator.dram, self.accelerator.clock_mhz)

    @cached_property
    def network(self) -> Network | None:
        """What joins the cores; None where it costs nothing."""
        return self.accelerator.network if self.cores > 1 else None

    @cached_property
    def peak_moved(self) -> float:
        """Bytes per cycle that loads and stores together can't exceed."""
        if self.network is None or self.accelerator.dma.store_share is not None:
            return self.peak_dram  # links work in both directions at once
        return min(self.peak_dram, best_rate(self.network, self.cores))

    @cached_property
    def dram_latency(self) -> int:
        """Least cycles from the end of a transfer to its completion."""
        return transfer_cycles(self.accelerator.dram, self.accelerator.clock_mhz, 1, 1)[1]

    @cached_property
    def _transfers(self) -> dict[tuple[int, int, Pattern, bool], tuple[int, int]]:
        """Known transfers; looked up far more often than a description can be hashed."""
        return {}

    @cached_property
    def _passed(self) -> dict[tuple[Pattern, int], tuple[int, int]]:
        """Known bytes times links and routers."""
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

    def dram_cycles(
        self,
        size_bytes: int,
        run_bytes: int | None = None,
        pattern: Pattern = "all",
        *,
        store: bool = False,
    ) -> tuple[int, int]:
        """(occupancy, latency) of a transfer between DRAM and cores, in contiguous runs (default: one)."""
        key = size_bytes, run_bytes or size_bytes, pattern, store
        if key not in self._transfers:
            dram = transfer_cycles(self.accelerator.dram, self.accelerator.clock_mhz, *key[:2])
            links = self._network_cycles(pattern, size_bytes)
            occupancy = ceil(dram[0] / self.dram_share(store=store))
            occupancy += self.accelerator.dma.request_cycles if size_bytes else 0
            self._transfers[key] = max(occupancy, links[0]), dram[1] + links[1]
        return self._transfers[key]

    def dram_floor(self, loaded: float, stored: float) -> int:
        """Cycles that transfers of so many bytes can't undercut."""
        loads = self.peak_dram * self.dram_share(store=False)
        stores = self.peak_dram * self.dram_share(store=True)
        return floor(max((loaded + stored) / self.peak_moved, loaded / loads, stored / stores))

    def dram_share(self, *, store: bool) -> float:
        """Part of the bandwidth that stores have, or loads."""
        share = self.accelerator.dma.store_share
        if share is None:
            return 1.0
        return share if store else 1.0 - share

    def _network_cycles(self, pattern: Pattern, size_bytes: int) -> tuple[int, int]:
        if self.network is None or not size_bytes:
            return 0, 0
        return network_cycles(self.network, self.cores, pattern, size_bytes)

    def _network_bytes(self, pattern: Pattern, size_bytes: int) -> tuple[int, int]:
        if self.network is None:
            return 0, 0
        key = pattern, size_bytes
        if key not in self._passed:
            self._passed[key] = network_bytes(self.network, self.cores, pattern, size_bytes)
        return self._passed[key]

    def transfer(
        self, size_bytes: int, run_bytes: int, operand: Operand, *, early: bool = False, shared: bool = False
    ) -> Transfer:
        """The DMA job of moving a tile. `shared`: every core gets all of it, else each its part."""
        runs = max(1, min(run_bytes, size_bytes))
        pattern: Pattern = "all" if shared else "parts"
        store = operand == "output"
        occupancy, latency = self.dram_cycles(size_bytes, runs, pattern, store=store)
        host = self.accelerator.host
        if host is not None and operand != "weight":
            occupancy = max(occupancy, ceil(size_bytes / host.bytes_per_cycle))
            latency = max(latency, host.latency_cycles)
        number = self.number(operand)
        per_core = size_bytes if shared else ceil(size_bytes / self.cores)
        ports = self.port_cycles(number, per_core)
        total = size_bytes * self.cores if shared else size_bytes
        apart = store and self.accelerator.dma.store_share is not None
        share = self.dram_share(store=store)
        passed = self._network_bytes(pattern, size_bytes)
        return Transfer(size_bytes, occupancy, latency, number, ports, total, early, apart, share, *passed)

    def between_cores(self, size_bytes: int, operand: Operand, pattern: Pattern) -> Transfer | None:
        """The job of moving a tile that is spread over the cores among them; None where that is free."""
        if self.network is None:
            return None
        occupancy, latency = self._network_cycles(pattern, size_bytes)
        number, shared = self.number(operand), pattern in ("gather", "reduce")
        per_core = size_bytes if shared else ceil(size_bytes / self.cores)
        total = size_bytes * self.cores if shared else size_bytes
        links, routers = self._network_bytes(pattern, size_bytes)
        ports = self.port_cycles(number, per_core)
        return Transfer(0, occupancy, latency, number, ports, total, link_bytes=links, router_bytes=routers)

    def port_cycles(self, number: int, size_bytes: int) -> int:
        """Cycles of one core's buffer to move so many bytes."""
        return -(-size_bytes // self.widths[number]) if number >= 0 else 0

    def vector_cycles(self, lane_cycles: float) -> int:
        """Cycles of one core's vector unit for a tile's work."""
        vector = self.accelerator.vector
        return ceil(lane_cycles / vector.lanes) + vector.startup_cycles if lane_cycles else 0
