"""Lower bounds on what a loop nest waits for: operands that come into slots that are not free yet."""

from __future__ import annotations

import numpy as np

from tilewright.dataflows.arith import Ints, larger
from tilewright.dataflows.nests import Mask, Nests
from tilewright.dataflows.task import Task
from tilewright.dataflows.tick_groups import TickGroups, Work, either, floored

_Stretch = list[tuple[Work, bool, Ints]]
"""Ticks by their sizes: what one takes, whether it ends an output tile, and how many there are."""


class Waits:
    """What ticks wait for because their operands go into the slots of earlier ticks: once those have been
    streamed, these are loaded and then streamed. Where the vector unit has loads of its own, slots are free
    only after its work on the output tile.

    Full tiles stand for those that none exceeds. `spared`: DMA cycles that prefetching saves at most.
    """

    def __init__(self, task: Task, nests: Nests, ticks: TickGroups, spared: Ints) -> None:
        self._task, self._nests, self._ticks, self._spared = task, nests, ticks, spared
        self._tiles = nests.counts(task.spec.shape)
        self._prefetched = self._with_prefetched_loads()
        spec = task.spec
        self._has_sides = not all(each.resident for each in (*spec.sides, *spec.constants))

    def between_outputs(self, pause: Ints) -> Ints:
        """Cycles that the array waits between full output tiles. The second tick of one is loaded into the
        slots of the last tick of the one before, the first into those of the last but one: meanwhile the
        array has only the tick between them to do. With one tick along k, this holds of the first tick of an
        outer tile. `pause`: the longest hold-up by the shadow registers.
        """
        nests, tiles, full = self._nests, self._tiles, self._ticks.full
        one_k, several = tiles.k == 1, tiles.inner > 1
        new, outer_anew, inner_anew = np.ones_like(one_k), ~nests.outer_stays, ~nests.inner_stays
        outer, inner = self._full_tiles()
        end = self._ticks.at(k_last=True)
        last = self._ticks.along(outer_last=False, inner_last=True)
        last_end = self._ticks.along(outer_last=False, inner_last=True, k_last=True)
        second = either(tiles.k == 2, end, full)
        first_after = either(several, full, last)
        second_after = either(several, second, either(tiles.k == 2, last_end, last))
        firsts, seconds, either_way = (np.zeros_like(full.stream) for _ in range(3))
        # how many there are, the tile before with its last tick, the first and second tick, what they load
        for places, closed, closing, opening, then, loaded in (
            (~one_k * (inner - 1), full, end, full, second, (outer_anew, new)),
            (~one_k * (outer - 1) * (inner - 1), full, end, full, second, (outer_anew, inner_anew)),
            (~one_k * (outer - 1), last, last_end, first_after, second_after, (new, inner_anew)),
            ((one_k & several) * (outer - 1), full, full, full, full, (new, inner_anew)),
        ):
            operands = nests.by_operand(*loaded)
            count = larger(places * self._task.alike - self._prefetched, 0)
            count = count * (full.loading(operands) > 0)
            first = larger(opening.trip(operands) - opening.stream - closing.stream - 2 * pause, 0)
            later = self._before_second(closed, then.trip(operands) - then.stream, pause)
            firsts += count * first
            seconds += count * later
            either_way += count * larger(first, later)
        # of two ticks, the wait for the second is also part of the next wait for a first
        two = larger(firsts, seconds)
        return np.where(tiles.k == 2, two, np.where(one_k, seconds, either_way))

    def _before_second(self, closed: Work, loading: Ints, pause: Ints) -> Ints:
        """Cycles that the array waits for the second tick of an output tile, or for its third, whose loads
        stand behind the store of the tile before."""
        full, dma = self._ticks.full, self._task.machine.accelerator.dma
        idle = self._tail(closed) + loading - full.stream - 2 * pause
        behind_store = closed.tail + floored(closed.store) + loading - 2 * full.stream - 3 * pause
        stores = (self._tiles.k >= 4) & (closed.store > 0) & (dma.store_share is None)
        return larger(larger(idle, np.where(stores, behind_store, 0)), 0)

    def _full_tiles(self) -> tuple[Ints, Ints]:
        """How many full tiles there are along the outer and the inner loop."""
        shape, full = self._task.spec.shape, self._ticks.full
        m, n = shape.m // full.m, shape.n // full.n
        return np.where(self._nests.m_outer, m, n), np.where(self._nests.m_outer, n, m)

    def chained(self) -> Ints:
        """Cycles until the last tick is streamed: ticks form as many chains as operands have slots, the
        longest of which is no shorter than their mean. In some stretches every tick is loaded into the slot
        of the one before in its chain; between them the array streams tick by tick."""
        nests, tiles, alike = self._nests, self._tiles, self._task.alike
        outer, inner = self._everywhere()
        everywhere: _Stretch = [(each, each.last_k, each.count * alike) for each in self._ticks]
        found = self._chains(everywhere, nests.by_operand(outer, inner), 1)
        # all of the inner loop's operand is loaded for the first outer tile
        one = np.ones_like(tiles.k)
        first_pass: _Stretch = [
            (
                self._ticks.along(outer_last=False, inner_last=inner_last, k_last=k_last),
                k_last,
                alike * (one if inner_last else tiles.inner - 1) * (one if k_last else tiles.k - 1),
            )
            for inner_last in (False, True)
            for k_last in (False, True)
        ]
        chains = self._chains(first_pass, nests.by_operand(outer, np.ones_like(outer)), alike)
        return np.maximum(found, np.where(tiles.outer > 1, chains, 0))

    def _everywhere(self) -> tuple[Mask, Mask]:
        """Whether the outer and the inner loop's operand are loaded for every tick."""
        nests, tiles = self._nests, self._tiles
        one_k, one_inner = tiles.k == 1, tiles.inner == 1
        outer = (~one_k & ~nests.outer_stays) | one_inner
        return outer, (~one_k | ~one_inner) & ~nests.inner_stays

    def slotted(self) -> Ints:
        """Cycles until the last tick is streamed: an output tile waits for the one of two before, or of one
        where there is one slot, to leave its slot. With one tick along k, its own loads are served before
        that one's store."""
        task, tiles, full = self._task, self._tiles, self._ticks.full
        dma = task.machine.accelerator.dma
        loaded = self._nests.by_operand(*self._everywhere())
        in_line = (tiles.k == 1) & (full.store > 0)
        in_line &= (dma.store_share is None) & (task.machine.operand_slots == 2)
        total: Ints = task.rounds * self._ticks.stream - self._spared
        for each in self._ticks:
            if each.last_k:
                loads = self._tail(each) + floored(each.loading(loaded) + each.sides)
                ready = larger(each.tail, in_line * loads)
                total = total + each.count * task.alike * (ready + floored(each.store))
        left_out = full.tail + floored(np.maximum.reduce([each.store for each in self._ticks]))
        left_out = left_out + in_line * floored(full.loading(loaded) + full.sides)
        total -= task.machine.slots * left_out
        return total // task.machine.slots

    def _chains(self, stretch: _Stretch, loaded: tuple[Mask, Mask], stretches: int) -> Ints:
        """Cycles of all ticks, where those of a stretch load these operands: what one takes, whether it ends
        an output tile, and how many there are."""
        slots, full = self._task.machine.operand_slots, self._ticks.full
        total = slots * self._task.rounds * self._ticks.stream
        for each, last_k, count in stretch:
            more = each.trip(loaded) - slots * each.stream
            total = total + count * (more + (self._tail(each) if last_k else 0))
        # a tick that is not of a stretch is behind as many as there are chains, of which some may be
        total = total - (stretches - 1) * (slots * (slots - 1) // 2) * full.stream
        latency = np.maximum.reduce([np.maximum(each.a_latency, each.b_latency) for each in self._ticks])
        total = total - self._spared - self._prefetched * latency - stretches * slots * self._tail(full)
        return np.where(full.loading(loaded) > 0, total // slots, 0)

    def phased(self) -> Ints:
        """Cycles of all ticks where some output tiles need longer to be loaded than to be streamed. The loads
        of a tile's ticks start when the tick before last is done, so that of all of them but the last tick's,
        no more can be hidden than one tick of the output tile before.

        The first outer tile, whose first ticks find all slots free, is left out.
        """
        tiles, alike = self._tiles, self._task.alike
        several, later = tiles.outer > 1, ~self._nests.inner_stays
        new, longer = np.ones_like(later), np.zeros_like(tiles.outer)
        for times, outer_last, inner_loads in (
            (np.where(several, alike - 1, 0), False, new),
            (np.where(several, 0, alike - 1), True, new),
            (np.maximum(tiles.outer - 2, 0) * alike, False, later),
            (np.where(several, alike, 0), True, later),
        ):
            longer += times * self._outer_tile(outer_last=outer_last, inner_loads=inner_loads)
        return self._ticks.stream * self._task.rounds + larger(longer - self._spared, 0)

    def warmed(self) -> Ints:
        """Cycles until the last tick is streamed: the first output tile, and the first outer tile, can't end
        before all that they load is there, and the rest is streamed after that."""
        ticks, tiles, nests = self._ticks, self._tiles, self._nests
        full, m_outer = ticks.full, nests.m_outer
        last_k = ticks.at(k_last=True)
        output_tile = (tiles.k - 1) * full.stream + last_k.stream
        edge = ticks.along(outer_last=False, inner_last=True)
        end = ticks.along(outer_last=False, inner_last=True, k_last=True).stream
        outer_tile = (tiles.inner - 1) * output_tile + (tiles.k - 1) * edge.stream + end
        a_tile = (tiles.k - 1) * full.a + last_k.a
        b_tile = (tiles.k - 1) * full.b + last_k.b
        times = np.where((tiles.k == 1) | nests.outer_stays, 1, tiles.inner)
        loads = np.where(m_outer, a_tile * times + ticks.b_cycles, b_tile * times + ticks.a_cycles)
        first = floored(a_tile + b_tile) - output_tile + last_k.stream
        found: Ints = np.maximum(first, floored(loads) - outer_tile + end)
        return ticks.stream * self._task.rounds + found - self._spared

    def _outer_tile(self, *, outer_last: bool, inner_loads: Mask) -> Ints:
        """What the loads of an outer tile, or of the last one, take longer than its streaming; whether the
        inner loop's operand is among them."""
        tiles, full, nests = self._tiles, self._ticks.full, self._nests
        stored = np.where(tiles.k >= 4, self._stored(), 0)
        inside = self._ticks.along(outer_last=outer_last, inner_last=False)
        last = self._ticks.along(outer_last=outer_last, inner_last=True)
        new, anew = np.ones_like(nests.m_outer), ~nests.outer_stays & (tiles.k > 1)
        longer, before = np.zeros_like(full.stream), full.stream
        for each, outer_loads, times in (
            (either(tiles.inner > 1, inside, last), new, 1),
            (inside, anew, tiles.inner - 2),
            (last, anew, tiles.inner > 1),
        ):
            loading = each.loading(nests.by_operand(outer_loads, inner_loads))
            hidden = (tiles.k - 2) * each.stream + before
            extra = floored((tiles.k - 1) * loading) + stored * (loading > 0) - hidden
            longer = longer + np.maximum(times, 0) * np.maximum(extra, 0)
            before = inside.stream
        # with one tick along k, all ticks of the outer tile are one such stretch
        loading = (tiles.inner - 1) * inside.loading(nests.by_operand(~new, inner_loads))
        behind = floored(loading) - (tiles.inner - 1) * inside.stream + last.stream - full.stream
        return np.where(tiles.k == 1, np.maximum(behind, 0), longer).astype(np.int64)

    def _with_prefetched_loads(self) -> Ints:
        """How many ticks' loads can be spared, in part or whole."""
        task = self._task
        least = np.full(self._tiles.k.shape, np.inf)
        for each in self._ticks:
            for operand, elements in ((task.spec.a, each.m * each.k), (task.spec.b, each.k * each.n)):
                if operand.early:
                    size = task.step * elements * operand.bits / 8
                    least = np.where(each.count > 0, np.minimum(least, size), least)
        return np.ceil(task.credit_bytes / least).astype(np.int64)

    def _stored(self) -> Ints:
        """Cycles of the DMA engine to store the output tile of which that takes least, if it stands in line
        with the loads."""
        if self._task.machine.accelerator.dma.store_share is not None:
            return np.zeros_like(self._tiles.k)
        stores = [np.where(each.count > 0, each.store, np.inf) for each in self._ticks if each.last_k]
        return floored(np.minimum.reduce(stores))

    def _tail(self, each: Work) -> Ints:
        """From the end of a tick's streaming to that of the vector unit's work, if slots wait for that."""
        return each.tail * self._has_sides
