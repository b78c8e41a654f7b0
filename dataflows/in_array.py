"""Softmax within the array: how long the array takes, and what is left to the vector unit.

Scores never leave the processing elements. With N x N of them, H the width of a head, B keys a tile:

| order | array cycles of a fold of N queries and B <= N keys | on the vector unit |
|---|---|---|
| `fusemax`, `exp_macs` E | Q K^T: H + 1 (maximum); 1 (subtract) + E (exponential) + 1 (sum) | statistics |
| | S V: H | rescaling and adding up |
| `fsa`, `exp_pieces` P | load Q: N; Q K^T and softmax: 2 N + 4 + P | nothing |
| | S V: 2 N - 1; at the end, rescaling: 2 N + 20 | nothing |

`fusemax`: Nayak et al., "FuseMax", MICRO 2024 (arXiv:2406.10491); exponentials are six multiply-adds on
either array there, and queries lie across the columns, keys down the rows, whose operands stream past the
scores. `fsa`: Lin et al., "SystolicAttention", arXiv:2507.11331; cycles as its RTL issues them, an iteration
5 N + 3 + P (the paper says 5 N + 10 with P = 8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from tilewright.arch.array import Array
from tilewright.dataflows.arith import ceil_div
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Ports, Tick
from tilewright.dataflows.specs import ChainSpec, SoftmaxWork
from tilewright.dataflows.tiles import Tile, Tiles
from tilewright.description.errors import InputError

STATISTICS_OPS = 3
"""Cycles of a PE per score besides the exponential: maximum, scaling and subtraction, sum."""


@dataclass(frozen=True, slots=True)
class ArrayTime:
    """Cycles of the array on one tick."""

    cycles: int
    streaming: int
    """Operands enter, or the elements work on the scores that they hold."""
    shift: int = 0
    """A stationary operand is loaded."""
    latency: int = 0
    """From the end to the last result."""


def keeps_scores(order: str, array: Array) -> bool:
    """Whether scores stay in the processing elements."""
    return order == "fsa" or (order == "fusemax" and array.exp_macs is not None)


def left_over(softmax: SoftmaxWork | None, order: str, array: Array) -> SoftmaxWork | None:
    """What softmax leaves to the vector unit."""
    if softmax is None or not keeps_scores(order, array):
        return softmax
    if order == "fsa":
        return SoftmaxWork(whole=0, online=0, statistics=0, reciprocal=0, rescale=0, finish=0)
    return replace(softmax, online=0.0)


def fits_array(spec: ChainSpec, array: Array, order: str) -> bool:
    """Whether the order can run these heads.

    Raises `InputError` where it can't and is the only one that may be tried.
    """
    widths = {spec.first.shape.k, spec.second.shape.n}
    if order != "fsa" or widths == {array.rows}:
        return True
    if spec.orders != ("fsa",):
        return False
    wrong = max(widths, key=lambda width: (width != array.rows, width))
    raise InputError(
        f"mapper.attention: `fsa` needs heads exactly as wide as the array, {array.rows}, not {wrong}; set "
        f"`array.rows` and `array.cols` to the heads' width, or let the mapper try another order as well"
    )


def scores_time(order: str, array: Array, tile: Tile) -> ArrayTime:
    """Q K^T of a core's tile and what the elements do to the scores."""
    if order == "fsa":
        n, folds = array.rows, _folds(array, tile.m, tile.n)
        cycles = 3 * n + 4 + (array.exp_pieces or 0)
        return ArrayTime(folds * cycles, folds * n, folds * n)
    return _streamed(array, tile.m, tile.n, tile.k + STATISTICS_OPS + (array.exp_macs or 0))


def context_time(order: str, array: Array, tile: Tile, *, last: bool) -> ArrayTime:
    """S V of a core's tile; `last`: the queries' last keys."""
    if order == "fsa":
        n, folds = array.rows, _folds(array, tile.m, tile.k)
        rescale = ceil_div(tile.m, array.cols) * (2 * n + 20) if last else 0
        return ArrayTime(folds * (2 * n - 1) + rescale, folds * n)
    return _streamed(array, tile.m, tile.k, tile.n)


def _streamed(array: Array, queries: int, keys: int, cycles: int) -> ArrayTime:
    """Folds of which each element works for so many cycles. Maxima and sums go down the columns; that columns
    start one after another holds nothing up, as the vector unit's lanes and the next operands do too."""
    folds, down = _folds(array, queries, keys), array.rows - 1
    if array.fold_overlap:
        return ArrayTime(folds * cycles, folds * cycles, latency=down)
    return ArrayTime(folds * (cycles + down), folds * cycles)


def _folds(array: Array, queries: int, keys: int) -> int:
    return ceil_div(ceil_div(queries, array.cols) * ceil_div(keys, array.rows), array.count)


def scores_tick(tiles: Tiles, tick: Tick, tile: Tile, order: str) -> Tick:
    """The first product's tick with the scores left where they are."""
    core, array = tiles.core(tile), tiles.machine.array
    spec, passes = tiles.spec, ceil_div(core.m, array.cols)
    read = _at(
        tiles.machine,
        input=ceil(core.m * core.k * spec.a.bits / 8) * ceil_div(core.n, array.rows),
        weight=ceil(core.k * core.n * spec.b.bits / 8) * passes,
    )
    return _timed(tiles, tick, tile, scores_time(order, array, core), (read, _at(tiles.machine)))


def context_tick(tiles: Tiles, tick: Tick, tile: Tile, order: str, *, first: bool, last: bool) -> Tick:
    """The second product's tick on scores that are there; `first`, `last`: of the queries' keys."""
    core, machine = tiles.core(tile), tiles.machine
    sums = ceil(core.m * core.n * machine.accumulator_bits / 8)
    values = ceil(core.k * core.n * tiles.spec.b.bits / 8) * ceil_div(core.m, machine.array.cols)
    time = context_time(order, machine.array, core, last=last)
    tick = replace(tick, opens_output=first, closes_output=last)
    if order == "fusemax":  # sums run from the columns into the vector unit's lanes
        return _timed(tiles, tick, tile, time, (_at(machine, weight=values), _at(machine)))
    read = _at(machine, weight=values, output=0 if first else sums)
    return _timed(tiles, tick, tile, time, (read, _at(machine, output=sums)))


def _timed(tiles: Tiles, tick: Tick, tile: Tile, time: ArrayTime, accesses: tuple[Ports, Ports]) -> Tick:
    read, write = accesses
    active = tiles.active_cores(tile)
    return replace(
        tick,
        array=time.cycles,
        array_streaming=time.streaming,
        array_shift=time.shift,
        array_preload=0,
        array_swap=0,
        array_shadow=0,
        array_latency=time.latency,
        array_ports=tiles.ports(read, write),
        buffer_read=tuple(size * active for size in read),
        buffer_write=tuple(size * active for size in write),
    )


def _at(machine: Machine, *, input: int = 0, weight: int = 0, output: int = 0) -> Ports:
    """Bytes at the buffers that hold these operands."""
    found = [0] * machine.buffers
    if found:
        found[machine.number("input")] += input
        found[machine.number("weight")] += weight
        found[machine.number("output")] += output
    return tuple(found)
