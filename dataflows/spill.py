"""Rows of scores that are too long for the chip: what of them lies in DRAM, and what moving it takes.

With whole rows (`flat`), softmax passes over each score three times: maximum; exponential and sum;
normalisation. A score in DRAM is written after the first product and after the last two passes, and read by
each of them and by the second product: 3 writes and 4 reads, as Nayak et al. count for FLAT ("FuseMax", MICRO
2024). They are spread evenly over the ticks: reads of the passes over those of the first product, all else
over those of the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Tick, Transfer
from tilewright.dataflows.specs import ChainSpec
from tilewright.dataflows.tiles import one_after_other
from tilewright.dataflows.tiling import pieces

_PASSES = 3
WRITES, READS = _PASSES, _PASSES + 1


def tile_bytes(rows: int, cols: int, share: float, bits: float) -> int:
    """Of a tile of scores, in DRAM."""
    return ceil(rows * cols * share * bits / 8)


def all_bytes(spec: ChainSpec, rows: int, cols: int, spilled: int) -> int:
    """Bytes of scores that lie in DRAM at one time or another, in tiles of so many rows and columns."""
    shape, bits = spec.first.shape, spec.second.a.bits
    if not spilled:
        return 0
    return shape.batch * sum(
        row_times * times * tile_bytes(height, width, spilled / shape.n, bits)
        for _, _, height, row_times in pieces(shape.m, rows)
        for _, _, width, times in pieces(shape.n, cols)
    )


def least_spilled(fits: Callable[[int], bool], most: int) -> int:
    """The least number, from 0 to `most`, with which it fits; 0 also if it doesn't with any."""
    if fits(0) or not fits(most):
        return 0
    too_few = 0
    while most - too_few > 1:
        middle = (too_few + most) // 2
        if fits(middle):
            most = middle
        else:
            too_few = middle
    return most


def in_first(tick: Tick, machine: Machine, size_bytes: int) -> Tick:
    """A tick of the first product with reads of so many bytes by the passes of softmax."""
    return replace(tick, input=_more(machine, tick.input, _PASSES * size_bytes, "input"))


def in_second(tick: Tick, machine: Machine, size_bytes: int) -> Tick:
    """A tick of the second product that reads so many bytes of its scores, with what is written of them."""
    loaded = _more(machine, tick.input, size_bytes, "input")
    return replace(tick, input=loaded, store=_more(machine, tick.store, WRITES * size_bytes, "output"))


def _more(machine: Machine, transfer: Transfer | None, size_bytes: int, operand: str) -> Transfer | None:
    """A transfer of so many bytes more."""
    if not size_bytes:
        return transfer
    if transfer and not transfer.bytes:  # what other cores send comes first
        return one_after_other(transfer, _more(machine, None, size_bytes, operand))
    total = size_bytes + (transfer.bytes if transfer else 0)
    early = transfer is not None and transfer.early
    return machine.transfer(total, total, "input" if operand == "input" else "output", early=early)
