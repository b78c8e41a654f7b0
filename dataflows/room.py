"""Which tiles have room in the buffers, and which operands have room to stay there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.accelerator import Operand
from tilewright.dataflows.arith import Ints, ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.nests import Mask, Nests, together
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tiles import SPREAD
from tilewright.dataflows.tiling import Split


def tiles_fit(
    spec: MatmulSpec,
    machine: Machine,
    split: Split,
    core: tuple[Ints, Ints, Ints],
    staying: tuple[Ints | int, Ints | int] = (0, 0),
) -> Mask:
    """Whether a core's tile (m, k, n) has room in the buffers, in as many slots as are in flight; if
    `staying` elements of A and B stay on chip, there is room for them instead, where they are more."""
    m, k, n = core
    comes_in, slots = _comes_in(machine, split), machine.operand_slots
    a_bits = spec.a.bits if comes_in[0] or not spec.a.resident else 0
    b_bits = spec.b.bits if comes_in[1] or not spec.b.resident else 0
    sides = sum(side.bits for side in spec.sides if comes_in[2] or not side.resident)
    constants = sum(each.bits for each in spec.constants if not each.resident)
    needs: dict[Operand, Ints] = {
        "input": _whole_bytes(m * k * a_bits + m * n * sides) * slots,
        "weight": _whole_bytes(k * n * b_bits + n * constants) * slots,
        "output": _whole_bytes(m * n * max(machine.accumulator_bits, spec.out.bits)) * machine.slots,
    }
    needs["input"] += np.maximum(_whole_bytes(staying[0] * a_bits) - _whole_bytes(m * k * a_bits) * slots, 0)
    needs["weight"] += np.maximum(_whole_bytes(staying[1] * b_bits) - _whole_bytes(k * n * b_bits) * slots, 0)
    fits = np.ones(m.shape, dtype=np.bool_)
    for number, room in enumerate(machine.room_bytes):
        here = [need for operand, need in needs.items() if machine.number(operand) == number]
        fits &= sum(here) <= room
    return fits


def _whole_bytes(bits: NDArray[Any] | float) -> Ints:
    return np.asarray(np.ceil(np.asarray(bits) / 8)).astype(np.int64)


def _comes_in(machine: Machine, split: Split) -> tuple[bool, bool, bool]:
    """Whether tiles of A, B and the tail's operands come from other cores where they stay on chip."""
    if machine.network is None:
        return False, False, False
    spread = SPREAD[split]
    return spread.a is not None, spread.b is not None, spread.out is not None


def fitting(spec: MatmulSpec, machine: Machine, split: Split, grid: tuple[Ints, Ints, Ints, Mask]) -> Nests:
    """The nests of a grid (m, k, n, whether m is the outer loop) that fit.

    What has room to stay does: the same ticks with fewer loads are never slower. Where either operand has
    room but not both, there is a nest for each. A place is filled anew when its tile was last used as many
    ticks before as there are slots, or more, so that no tick waits longer than it does with slots only.
    """
    m, k, n, m_outer = grid
    none = np.zeros_like(m_outer)
    nests = Nests(m, k, n, m_outer, none, none)
    if not machine.buffers:
        return nests
    nests = nests[tiles_fit(spec, machine, split, _core(machine, split, nests))]
    outer, inner = _may_stay(spec, machine, nests)
    fits = _Staying(spec, machine, split, nests)
    both = outer & inner & fits.staying(outer, inner)
    only_outer = outer & ~both & fits.staying(outer, np.zeros_like(inner))
    only_inner = inner & ~both & fits.staying(np.zeros_like(outer), inner)
    chosen = replace(nests, outer_stays=both | only_outer, inner_stays=both | (only_inner & ~only_outer))
    other = only_outer & only_inner
    return together(chosen, replace(nests, inner_stays=other)[other])


def _core(machine: Machine, split: Split, nests: Nests) -> tuple[Ints, Ints, Ints]:
    """The busiest core's part of a tick."""
    m, k, n = (
        ceil_div(size, machine.cores) if split == axis else size
        for axis, size in (("m", nests.m), ("k", nests.k), ("n", nests.n))
    )
    return m, k, n


def _may_stay(spec: MatmulSpec, machine: Machine, nests: Nests) -> tuple[Mask, Mask]:
    """Whether staying makes a difference, and comes back to a place no earlier than slots would."""
    needed = max(2, machine.operand_slots)
    tiles = nests.counts(spec.shape)
    return (tiles.k >= needed) & (tiles.inner > 1), (tiles.k * tiles.inner >= needed) & (tiles.outer > 1)


class _Staying:
    """Room for what stays: of an operand, all of its tiles along k, or along both of its dimensions."""

    def __init__(self, spec: MatmulSpec, machine: Machine, split: Split, nests: Nests) -> None:
        self._spec, self._machine, self._split, self._nests = spec, machine, split, nests
        self._core = _core(machine, split, nests)
        shape, tiles = spec.shape, nests.counts(spec.shape)
        # of a dimension that the cores share out, a core has a part of each tile
        self._all = [
            count * size if split == axis else np.full_like(size, extent)
            for axis, count, size, extent in zip(
                ("m", "k", "n"),
                (tiles.m, tiles.k, tiles.n),
                self._core,
                (shape.m, shape.k, shape.n),
                strict=True,
            )
        ]

    def staying(self, outer: Mask, inner: Mask) -> Mask:
        """Whether both have room, where they are to stay."""
        (m, _, n), (all_m, all_k, all_n), m_outer = self._core, self._all, self._nests.m_outer
        a = np.where(m_outer, outer * m * all_k, inner * all_m * all_k)
        b = np.where(m_outer, inner * all_k * all_n, outer * all_k * n)
        return tiles_fit(self._spec, self._machine, self._split, self._core, (a, b))
