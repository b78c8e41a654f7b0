"""How long a DRAM transfer takes, and how wide the on-chip ports are.

A transfer's time does not depend on what came before it: the controller closes all rows when a transfer ends
(closed-page policy), so equal tiles take equal times and a repeated loop can be skipped exactly.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, inf

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.dram import BankedDram, Dram, FlatDram, IdealDram

_SIMULATED_PIECES = 4096
"""Longest part of a banked transfer that is stepped piece by piece; what is beyond goes on at its pace."""


@lru_cache(maxsize=65536)
def transfer_cycles(dram: Dram, clock_mhz: float, size_bytes: int, run_bytes: int) -> tuple[int, int]:
    """(occupancy, latency) of moving `size_bytes` that lie in contiguous runs of `run_bytes`.

    The next transfer can start after `occupancy` cycles; this one is complete `latency` cycles later.
    """
    if size_bytes == 0 or isinstance(dram, IdealDram):
        return 0, 0
    if isinstance(dram, FlatDram):
        return ceil(size_bytes / dram.bytes_per_cycle), dram.latency_cycles
    return _banked(dram, clock_mhz, size_bytes, min(run_bytes, size_bytes))


def peak_bytes_per_cycle(dram: Dram, clock_mhz: float) -> float:
    """Bandwidth that no transfer can exceed; infinite where memory is ideal."""
    if isinstance(dram, IdealDram):
        return inf
    if isinstance(dram, FlatDram):
        return dram.bytes_per_cycle
    return dram.channels * dram.bus_bytes * dram.transfers_per_second / (clock_mhz * 1e6)


def buffer_widths(accelerator: Accelerator) -> tuple[int, ...]:
    """Bytes per cycle of each buffer of one core, in the description's order."""
    return tuple(buffer.bytes_per_cycle for buffer in accelerator.buffers.values())


def _banked(dram: BankedDram, clock_mhz: float, size_bytes: int, run_bytes: int) -> tuple[int, int]:
    """Banks and rows stepped in time; refreshes stretch the transfer by the share of time that they take."""
    slot = min(dram.interleave_bytes, dram.row_bytes)
    pieces = ceil(size_bytes / run_bytes) * ceil(run_bytes / slot)
    stepped, piece_bytes = min(pieces, _SIMULATED_PIECES), min(slot, run_bytes)
    busy_ns = _step_pieces(dram, stepped, piece_bytes)
    if pieces > stepped:
        half_ns = _step_pieces(dram, stepped // 2, piece_bytes)
        busy_ns += (busy_ns - half_ns) * (pieces - stepped) / (stepped - stepped // 2)
    busy_ns *= dram.t_refi_ns / (dram.t_refi_ns - dram.t_rfc_ns)
    first_ns = dram.t_rcd_ns + dram.t_cl_ns
    cycles_per_ns = clock_mhz / 1e3
    occupancy = max(1, ceil((busy_ns - first_ns) * cycles_per_ns))
    floor = ceil(size_bytes / peak_bytes_per_cycle(dram, clock_mhz))
    return max(occupancy, floor), ceil(first_ns * cycles_per_ns)


def _step_pieces(dram: BankedDram, pieces: int, piece_bytes: int) -> float:
    """Nanoseconds until the last beat of `pieces` pieces; all banks start closed.

    Each piece lies in an interleaving slot of its own, the next piece in the next slot: a run shorter than a
    slot wastes the rest of its row, and whole bursts are moved.
    """
    burst_ns = dram.burst_length / dram.transfers_per_second * 1e9
    data_ns = ceil(piece_bytes / (dram.bus_bytes * dram.burst_length)) * burst_ns
    bus_free = [0.0] * dram.channels
    open_row: dict[tuple[int, int], int] = {}
    activated: dict[tuple[int, int], float] = {}
    last_use: dict[tuple[int, int], float] = {}
    for index in range(pieces):
        channel, bank, row = _locate(dram, index)
        place = channel, bank
        if open_row.get(place) != row:
            act = 0.0
            if place in open_row:
                act = max(last_use[place], activated[place] + dram.t_ras_ns) + dram.t_rp_ns
            activated[place], open_row[place] = act, row
        first_beat = activated[place] + dram.t_rcd_ns + dram.t_cl_ns
        bus_free[channel] = last_use[place] = max(bus_free[channel], first_beat) + data_ns
    return max(bus_free)


def _locate(dram: BankedDram, index: int) -> tuple[int, int, int]:
    """(channel, bank, row) of the interleaving slot `index`."""
    per_row = max(1, dram.row_bytes // dram.interleave_bytes)
    if dram.interleave == "row":
        row, bank = divmod(index // per_row, dram.banks)
        return 0, bank, row
    if dram.interleave == "channel-bank-row":
        stripe, channel = divmod(index, dram.channels)
        depth, bank = divmod(stripe, dram.banks)
    else:
        stripe, bank = divmod(index, dram.banks)
        depth, channel = divmod(stripe, dram.channels)
    return channel, bank, depth // per_row
