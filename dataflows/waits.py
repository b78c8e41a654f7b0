"""Lower bounds on what a loop nest waits for: operands that come into slots that are not free yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tilewright.dataflows.arith import Ints
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.room import Mask, Nests
from tilewright.dataflows.specs import MatmulSpec
from tilewright.dataflows.tick_groups import Sized, Ticks, chosen, tile_count
from tilewright.dataflows.tiling import Split

Floats = NDArray[np.float64]


def by_operand(m_outer: Mask, outer: Mask, inner: Mask) -> tuple[Mask, Mask]:
    """What holds of the outer and of the inner loop's operand, of A and B."""
    return np.where(m_outer, outer, inner), np.where(m_outer, inner, outer)


def floored(amount: Floats) -> Ints:
    """Whole cycles, rounded down."""
    return np.floor(amount).astype(np.int64)


class Trips:
    """What a tick waits for because its operands go into the slots of two ticks before: once those have been
    streamed, these are loaded and then streamed. Where the vector unit has loads of its own, slots are free
    only after its work on the output tile.

    `full` is the size of the tile as such, which none exceeds. Every amount here is a sum of durations, none
    of them taken off, so that a faster machine never has a higher bound.
    """

    def __init__(self, spec: MatmulSpec, machine: Machine, split: Split, full: Ticks, products: int) -> None:
        self._spec, self._machine, self._full, self._products = spec, machine, full, products
        self._batch = min(machine.cores, spec.shape.batch) if split == "batch" else 1
        self._alike = (
            spec.shape.batch // self._batch
        )  # products at a time that are as many as there are cores
        self._sharers = machine.cores if split == "k" else 1
        self._has_sides = not all(each.resident for each in (*spec.sides, *spec.constants))

    def longest(self, ticks: list[Ticks], nests: Nests, paced: Ints, pause: Ints, prefetched: Ints) -> Ints:
        """Cycles of all ticks, whichever wait makes them take longest; `paced` is what the array takes by
        itself, `pause` the longest hold-up by its shadow registers."""
        shape, full, m_outer = self._spec.shape, self._full, nests.m_outer
        one_k = tile_count(shape.k, full.k) == 1
        one_inner = np.where(m_outer, tile_count(shape.n, full.n), tile_count(shape.m, full.m)) == 1
        every_tick = by_operand(
            m_outer, (~one_k & ~nests.outer_stays) | one_inner, (~one_k | ~one_inner) & ~nests.inner_stays
        )
        between = by_operand(m_outer, one_k | ~nests.outer_stays, ~nests.inner_stays)
        waits = self.between_outputs(m_outer, between, pause, prefetched)
        chained = self.chained(ticks, every_tick, prefetched)
        found: Ints = np.maximum(paced + waits, np.maximum(chained, self.phased(ticks, nests, prefetched)))
        return found

    def warmed(self, ticks: list[Ticks], nests: Nests) -> Ints:
        """Cycles until the last tick is streamed: the first output tile, and the first outer tile, can't end
        before all that they load is there, and the rest is streamed after that."""
        shape, m_outer = self._spec.shape, nests.m_outer
        full, last_k = ticks[0], ticks[2].cycles.stream
        m_tiles, k_tiles, n_tiles = (
            tile_count(extent, tile)
            for extent, tile in ((shape.m, full.m), (shape.k, full.k), (shape.n, full.n))
        )
        inner = np.where(m_outer, n_tiles, m_tiles)
        edge = np.where(m_outer, ticks[1].cycles.stream, ticks[4].cycles.stream)
        end = np.where(m_outer, ticks[3].cycles.stream, ticks[6].cycles.stream)
        output_tile = (k_tiles - 1) * full.cycles.stream + last_k
        outer_tile = (inner - 1) * output_tile + (k_tiles - 1) * edge + end
        times = np.where((k_tiles == 1) | nests.outer_stays, 1, inner)
        a_bits = 0 if self._spec.a.resident else self._batch * self._spec.a.bits
        b_bits = 0 if self._spec.b.resident else self._batch * self._spec.b.bits
        a_tile, b_tile = full.m * shape.k * a_bits / 8, full.n * shape.k * b_bits / 8
        a_all, b_all = shape.m * shape.k * a_bits / 8, shape.n * shape.k * b_bits / 8
        loads = np.where(m_outer, a_tile * times + b_all, b_tile * times + a_all)
        rate = self._machine.peak_moved
        streams = sum((each.count * each.cycles.stream for each in ticks), np.zeros_like(last_k))
        first = floored((a_tile + b_tile) / rate) - output_tile + last_k
        found: Ints = streams * self._products + np.maximum(first, floored(loads / rate) - outer_tile + end)
        return found

    def chained(self, ticks: list[Ticks], loaded: tuple[Mask, Mask], prefetched: Ints) -> Ints:
        """Cycles of all ticks: they form two chains, one of every other tick, the longer of which is at least
        half of both. The first two ticks and the prefetched ones are left out."""
        spec, full = self._spec, self._full
        outputs = (spec.shape.m // full.m) * (spec.shape.n // full.n) * self._alike
        left_out = prefetched + 2
        total = -left_out * self._trip(full, loaded)
        for each in ticks:
            total = total + each.count * self._alike * self._trip(each, loaded)
        tails = -2 * self._tail(full)
        for each in ticks:
            if each.last_k:
                tails = tails + each.count * self._alike * self._tail(each)
        total = total + np.where((outputs >= 2) & (self._size(full, loaded) > 0), tails, 0)
        return np.where(outputs * (spec.shape.k // full.k) >= left_out, total // 2, 0)

    def between_outputs(
        self, m_outer: Mask, loaded: tuple[Mask, Mask], pause: Ints, prefetched: Ints
    ) -> Ints:
        """Cycles that the array waits between full output tiles, where the slots of the last tick of one are
        loaded for the second tick of the next, and the array has only that one's first to do meanwhile. With
        one tick along k, so do the last tick but one of an outer tile and the first of the next. `loaded`:
        whether the tick in question loads its A and B.
        """
        shape, full = self._spec.shape, self._full
        k_tiles = tile_count(shape.k, full.k)
        one_k, many_k = k_tiles == 1, k_tiles >= 3
        tiles = shape.m // full.m, shape.n // full.n
        outer, inner = np.where(m_outer, *tiles), np.where(m_outer, *tiles[::-1])
        places = np.where(many_k, outer * (inner - 1), np.where(one_k & (inner > 1), outer - 1, 0))
        trip = self._trip(full, loaded)
        idle = self._tail(full) + trip - 2 * full.cycles.stream - 2 * pause
        count = np.maximum(places * self._alike - prefetched, 0)
        return count * np.where(trip > 0, np.maximum(idle, 0), 0)

    def phased(self, ticks: list[Ticks], nests: Nests, prefetched: Ints) -> Ints:
        """Cycles of all ticks where some output tiles need longer to be loaded than to be streamed. The loads
        of a tile's ticks start when the tick before last is done, so that of all of them but the last tick's,
        no more can be hidden than one tick of the output tile before.

        Outer tiles with the first ticks and the prefetched ones are left out.
        """
        shape, m_outer = self._spec.shape, nests.m_outer
        sized = [Sized(each.m, each.k, each.n, each.cycles.stream) for each in ticks]
        full = sized[0]
        tiles = [tile_count(extent, tile) for extent, tile in ((shape.m, full.m), (shape.n, full.n))]
        k_tiles, (outer, inner) = tile_count(shape.k, full.k), np.where(m_outer, tiles, tiles[::-1])
        left_out = 1 + -(-prefetched // (k_tiles * inner))
        inside = np.maximum((outer - 2) * self._alike - left_out, 0)
        edges = np.where((outer > 1) & ((outer - 1) * self._alike >= left_out), self._alike, 0)
        begins = np.where(outer > 1, np.maximum(self._alike - -(-left_out // outer), 0), 0)
        later = ~nests.inner_stays
        longer = np.zeros_like(full.stream)
        for edge, count, inner_loads in (
            (0, begins, np.ones_like(later)), (0, inside, later), (1, edges, later),
        ):  # fmt: skip
            longer = longer + count * self._outer_tile(sized, nests, edge, inner_loads)
        streams = sum((each.count * each.cycles.stream for each in ticks), np.zeros_like(longer))
        return streams * self._products + longer

    def _outer_tile(self, sized: list[Sized], nests: Nests, edge: int, inner_loads: Mask) -> Ints:
        """What the loads of an outer tile, or of the one at the edge, take longer than its streaming; whether
        the inner loop's operand is among them."""
        shape, m_outer, full, rate = self._spec.shape, nests.m_outer, sized[0], self._machine.peak_moved
        inner = np.where(m_outer, tile_count(shape.n, full.n), tile_count(shape.m, full.m))
        k_tiles = tile_count(shape.k, full.k)
        stored = np.where(k_tiles >= 4, self._stored(sized[-1]), 0)
        inside = chosen(m_outer, sized[4 * edge], sized[edge])
        last = chosen(m_outer, sized[4 * edge + 1], sized[edge + 4])
        first, before = chosen(inner > 1, inside, last), full
        new, anew = np.ones_like(m_outer), ~nests.outer_stays & (k_tiles > 1)
        longer = np.zeros_like(full.stream)
        for each, outer_loads, times in ((first, new, 1), (inside, anew, inner - 2), (last, anew, inner > 1)):
            size = self._size(each, by_operand(m_outer, outer_loads, inner_loads))
            loading = floored((k_tiles - 1) * size / rate) + stored
            extra = loading - (k_tiles - 1) * each.stream + each.stream - before.stream
            longer = longer + np.maximum(times, 0) * np.maximum(extra, 0)
            before = inside
        # with one tick along k, all ticks of the outer tile are one such stretch
        size = self._size(inside, by_operand(m_outer, ~new, inner_loads))
        behind = floored((inner - 1) * size / rate) - (inner - 1) * inside.stream + last.stream - full.stream
        return np.where(k_tiles == 1, np.maximum(behind, 0), longer).astype(np.int64)

    def prefetched(self, ticks: list[Ticks], credit_bytes: int) -> Ints:
        """How many ticks' loads so many bytes can spare, in part or whole."""
        least = np.full(self._full.count.shape, np.inf)
        for each in ticks:
            for operand, elements in ((self._spec.a, each.m * each.k), (self._spec.b, each.k * each.n)):
                if operand.early:
                    size = self._batch * elements * operand.bits / 8
                    least = np.where(each.count > 0, np.minimum(least, size), least)
        return np.ceil(credit_bytes / least).astype(np.int64)

    def _stored(self, least: Sized) -> Ints:
        """Cycles of the DMA engine to store the smallest output tile, if it stands in line with the loads."""
        if self._spec.out.resident or self._machine.accelerator.dma.store_share is not None:
            return np.zeros_like(least.m)
        return floored(least.m * least.n * self._spec.out.bits / 8 / self._machine.peak_moved)

    def _size(self, each: Ticks | Sized, loaded: tuple[Mask, Mask]) -> Floats:
        """Bytes that a tick loads for the array."""
        size = np.zeros(each.m.shape)
        if not self._spec.a.resident:
            size += np.where(loaded[0], self._batch * each.m * each.k * self._spec.a.bits / 8, 0)
        if not self._spec.b.resident:
            size += np.where(loaded[1], self._batch * each.k * each.n * self._spec.b.bits / 8, 0)
        return size

    def _trip(self, each: Ticks, loaded: tuple[Mask, Mask]) -> Ints:
        """From free slots to the end of a tick's streaming; 0 where it loads nothing."""
        size = self._size(each, loaded)
        cycles = floored(size / self._machine.peak_moved) + self._machine.dram_latency + each.cycles.stream
        return np.where(size > 0, cycles, 0)

    def _tail(self, each: Ticks) -> Ints:
        """From the end of a tick's streaming to that of the vector unit's work, if slots wait for that."""
        lanes = self._machine.accelerator.vector.lanes * self._sharers
        work = self._spec.lane_cycles * each.core_m * each.core_n / lanes
        return (floored(work) + each.cycles.latency) * self._has_sides
