"""The loop nest of a layer on a sparse-attention unit: a tick per piece.

Cores take heads in turn, one or several abreast, and work in lock step, so that a tick takes as long as on
the busiest of them. Behind a network, what stays on chip lies by rows, and is exchanged for heads as it is
before and after a matmul that shares heads out. A piece's softmax overlaps the next piece's array work. What
a unit chose in a head is worked out once per layer; sequences of a batch are taken to be alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import zip_longest
from math import ceil
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from tilewright.arch.accelerator import Operand as OperandName
from tilewright.arch.array import Array
from tilewright.arch.sparse import Unit
from tilewright.dataflows.machine import Machine
from tilewright.dataflows.program import Ports, Program, Tick, Transfer, merged
from tilewright.dataflows.sparse.base import Mask, Piece, Selection, UnitModule
from tilewright.dataflows.sparse.quality import Quality, quality
from tilewright.dataflows.specs import UnitSpec
from tilewright.dataflows.systolic import tile_cycles
from tilewright.dataflows.tiles import SPREAD, one_after_other

if TYPE_CHECKING:
    from tilewright.workloads.pairs import Pairs


@dataclass(frozen=True, slots=True)
class UnitTiling:
    """What stands in a tiling's place: the unit's kind."""

    kind: str

    def __str__(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Chosen:
    """A layer on a unit."""

    heads: tuple[Selection, ...]
    """Without their masks."""
    quality: Quality
    carried: object = None
    """What a unit whose choice in a layer depends on the layers before hands on to the next."""


def unit_program(spec: UnitSpec, machine: Machine) -> Program:
    """All heads of all sequences."""
    chosen = choose(spec.unit, spec.pairs, machine.array)
    share = spec.unit.heads_abreast
    cores = [side_by_side([head.pieces for head in heads]) for heads in _portions(list(chosen.heads), share)]
    ticks = tuple(
        _tick(spec, machine, tuple(piece for piece in pieces if piece is not None))
        for at_once in _portions(cores, machine.cores)
        for pieces in zip_longest(*at_once)
    )
    return merged([(ticks, sequences(spec))])


_T = TypeVar("_T")


def _portions(items: list[_T], size: int) -> list[list[_T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def side_by_side(heads: list[tuple[Piece, ...]]) -> list[Piece]:
    """The pieces of heads that share a core's array: they load and compute together, and the slowest says how
    long it takes."""
    if len(heads) == 1:
        return list(heads[0])
    return [_together([piece for piece in pieces if piece is not None]) for pieces in zip_longest(*heads)]


def _together(pieces: list[Piece]) -> Piece:
    first = pieces[0]

    def total(name: str) -> int:
        return sum(getattr(piece, name) for piece in pieces)

    side = zip_longest(*(piece.side_requests for piece in pieces), fillvalue=0)
    return replace(
        first,
        queries=total("queries"),
        loads_keys=total("loads_keys"),
        loads_values=total("loads_values"),
        loads_queries=total("query_rows"),
        stores=total("result_rows"),
        request_rows=total("request_rows"),
        side_requests=tuple(sum(sizes) for sizes in side),
        predict_cycles=max(piece.predict_cycles for piece in pieces),
        array_cycles=max(piece.array_cycles for piece in pieces),
        streaming_cycles=max(piece.streaming_cycles for piece in pieces),
        scores=total("scores"),
        vector_lane_cycles=sum(piece.vector_lane_cycles for piece in pieces),
        macs=total("macs"),
        predictor_macs=total("predictor_macs"),
    )


def sequences(spec: UnitSpec) -> int:
    """Sequences of the batch."""
    shape, pairs = spec.first.shape, spec.pairs
    return max(1, shape.batch * shape.m // (pairs.queries * pairs.heads.heads))


@lru_cache(maxsize=256)
def choose(unit: Unit, pairs: Pairs, array: Array) -> Chosen:
    """What the unit chooses in each head, and how good that is."""
    module = cast("UnitModule", import_module(f"tilewright.dataflows.sparse.{unit.kind}"))
    heads = list(pairs.each())
    layer = getattr(module, "select_layer", None)  # of what looks at all heads and at the layers before
    carried = None
    if layer is None:
        chosen = [module.select(unit, head, array) for head in heads]
    else:
        before = choose(unit, pairs.previous, array).carried if pairs.previous else None
        chosen, carried = layer(unit, pairs, heads, array, before)
    judged = quality(list(zip(heads, chosen, strict=True)))
    return Chosen(tuple(replace(each, kept=_FORGOTTEN) for each in chosen), judged, carried)


_FORGOTTEN: Mask = np.zeros((0, 0), dtype=bool)
"""In the place of masks that have been judged, of which there would be one for each head of many layers."""


def _tick(spec: UnitSpec, machine: Machine, pieces: tuple[Piece, ...]) -> Tick:
    """Pieces of several cores side by side."""
    width, acc = spec.first.shape.k, machine.accumulator_bits
    values = spec.second.shape.n
    slowest = max(pieces, key=lambda piece: piece.array_cycles)
    streaming = slowest.streaming_cycles or slowest.array_cycles
    read, write = _accesses(spec, machine, max(pieces, key=lambda piece: piece.macs), width, values, acc)
    skew = tile_cycles(machine.array, 1, 1, 1).latency
    return Tick(
        weight=_load(spec, machine, pieces, width, values),
        input=_queries(spec, machine, pieces, width),
        predict=max(piece.predict_cycles for piece in pieces),
        array=max(1, slowest.array_cycles),
        array_streaming=min(streaming, slowest.array_cycles),
        array_latency=skew if slowest.latency_cycles is None else slowest.latency_cycles,
        array_ports=tuple(
            machine.port_cycles(i, r + w) for i, (r, w) in enumerate(zip(read, write, strict=True))
        ),
        vector=machine.vector_cycles(max(_vector_work(spec, piece) for piece in pieces)),
        store=_store(spec, machine, pieces, values),
        opens_output=pieces[0].begins_phase,
        closes_output=pieces[0].ends_phase,
        middle=pieces[0].phase == "scores",
        feeds=pieces[0].phase == "scores" and pieces[0].ends_phase,
        fed=1 if pieces[0].phase == "context" else 0,
        slots=machine.slots,
        buffer_read=tuple(size * len(pieces) for size in read),
        buffer_write=tuple(size * len(pieces) for size in write),
    )


def _vector_work(spec: UnitSpec, piece: Piece) -> float:
    each = spec.first.lane_cycles + spec.softmax.whole
    return piece.scores * each + piece.vector_lane_cycles


def _load(
    spec: UnitSpec, machine: Machine, pieces: tuple[Piece, ...], width: int, values: int
) -> Transfer | None:
    load = _Requests(machine)
    for piece in pieces:
        key_bits = width * spec.first.b.bits * piece.stored_share
        load.add(piece, piece.loads_keys, key_bits, resident=spec.first.b.resident)
        value_bits = values * spec.second.b.bits
        load.add(piece, piece.loads_values, value_bits, resident=spec.second.b.resident)
        for size in piece.side_requests:
            load.ask(1, size)
    return load.transfer("weight", early=spec.first.b.early and spec.second.b.early)


def _queries(spec: UnitSpec, machine: Machine, pieces: tuple[Piece, ...], width: int) -> Transfer | None:
    load = _Requests(machine)
    for piece in pieces:
        row_bits = width * spec.first.a.bits * piece.stored_share
        load.add(piece, piece.query_rows, row_bits, resident=spec.first.a.resident)
    return load.transfer("input", early=spec.first.a.early)


def _store(spec: UnitSpec, machine: Machine, pieces: tuple[Piece, ...], values: int) -> Transfer | None:
    store, out = _Requests(machine), spec.second.out
    for piece in pieces:
        store.add(piece, piece.result_rows, values * out.bits, resident=out.resident)
    return store.transfer("output")


@dataclass
class _Requests:
    """Collects what one DMA job moves: some of it as a whole, some in requests of their own."""

    machine: Machine
    whole_bits: float = 0.0
    asked_bytes: int = 0
    asked_cycles: int = 0
    resident_bits: float = 0.0
    """Of tensors that stay on chip: no business of the memory, but of a network."""

    def add(self, piece: Piece, rows: int, row_bits: float, *, resident: bool) -> None:
        """Rows of a tensor, asked for as the piece says."""
        if resident:
            self.resident_bits += rows * row_bits
        elif piece.request_rows:
            count = ceil(rows / piece.request_rows)
            self.ask(count, ceil(min(rows, piece.request_rows) * row_bits / 8))
        else:
            self.whole_bits += rows * row_bits

    def ask(self, count: int, size_bytes: int) -> None:
        """Requests of equal size, one after another."""
        self.asked_bytes += count * size_bytes
        if count:
            self.asked_cycles += count * self.machine.dram_cycles(size_bytes)[0]

    def transfer(self, operand: OperandName, *, early: bool = False) -> Transfer | None:
        """The job; None if there is nothing to move. Nothing that waits for other cores is early."""
        size = ceil(self.resident_bits / 8)
        spread = SPREAD["batch"].out if operand == "output" else SPREAD["batch"].b
        exchanged = self.machine.between_cores(size, operand, spread) if size and spread else None
        return one_after_other(exchanged, self._from_memory(operand, early=early and exchanged is None))

    def _from_memory(self, operand: OperandName, *, early: bool) -> Transfer | None:
        """The part that DRAM sees."""
        whole = ceil(self.whole_bits / 8)
        size = whole + self.asked_bytes
        if not size:
            return None
        made = self.machine.transfer(size, size, operand, early=early)
        if not self.asked_bytes:
            return made
        apart = self.asked_cycles + (self.machine.dram_cycles(whole)[0] if whole else 0)
        return replace(made, occupancy=max(made.occupancy, apart))


def _accesses(
    spec: UnitSpec, machine: Machine, piece: Piece, width: int, values: int, acc: int
) -> tuple[Ports, Ports]:
    """Bytes that a core reads and writes on a piece: queries once, a key and a value per score and row of PEs
    that share it, results once. Of a phase of its own: a key or a value once, a query's element for every
    multiply-accumulate of scores, a probability for every row of V that it weights, results at the end."""
    read, write = [0] * machine.buffers, [0] * machine.buffers
    if machine.buffers and piece.phase != "both":
        rows = piece.loads_keys * width * spec.first.b.bits + piece.loads_values * values * spec.second.b.bits
        streamed = piece.macs if piece.phase == "scores" else piece.macs // values
        read[machine.number("input")] += ceil(streamed * spec.first.a.bits / 8)
        read[machine.number("weight")] += ceil(rows / 8)
        if piece.phase == "context" and piece.ends_phase:
            write[machine.number("output")] += ceil(piece.queries * values * acc / 8)
    elif machine.buffers:
        rows = max(1, min(piece.queries, machine.array.rows))
        operands = ceil(piece.scores / rows) * (width * spec.first.b.bits + values * spec.second.b.bits)
        read[machine.number("input")] += ceil(piece.queries * width * spec.first.a.bits / 8)
        read[machine.number("weight")] += ceil(operands / 8)
        write[machine.number("output")] += ceil(piece.queries * values * acc / 8)
    return tuple(read), tuple(write)
