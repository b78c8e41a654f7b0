"""The controller against the contract's rules, cycle by cycle, and the columns of the Q memory."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import pytest
from amaranth.sim import SimulatorContext

from tests.hardware import simulate
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.rtl.controller import Controller
from tilewright.rtl.query_memory import QueryMemory


@dataclass(frozen=True)
class Tile:
    low: int
    high: int
    index: int
    first: int
    last: int
    dead: int


class Around(NamedTuple):
    """What the surroundings do in a cycle."""

    tile: Tile | None
    q_ready: bool
    k: bool
    v: bool
    o_taken: bool


KEYS = 50
TOKENS = ("scores", "exponentials", "weights", "values")
Token = dict[str, int]


@dataclass
class Model:
    """What happened so far, tile by tile, and from it what may happen in a cycle."""

    parameters: UnitSizes
    tiles: list[Tile] = field(default_factory=list)
    a: list[list[int]] = field(default_factory=list)
    e: list[int] = field(default_factory=list)
    b: list[list[int]] = field(default_factory=list)
    o_taken: list[int] = field(default_factory=list)
    tokens: dict[tuple[str, int], Token] = field(default_factory=dict)
    o_write: set[int] = field(default_factory=set)

    def step(self, cycle: int, around: Around) -> dict[str, int]:
        """The controller's outputs in this cycle."""
        out = self._score(cycle, around) | self._value(cycle, around)
        self._exponential(cycle)
        if around.o_taken:
            self.o_taken.append(cycle)
        out["closed"] = int(around.o_taken and len(self.o_taken) % self.parameters.head_dim == 0)
        out["o_write"] = int(cycle in self.o_write)
        return out

    def _score(self, cycle: int, around: Around) -> dict[str, int]:
        p = self.parameters
        inside = bool(self.a) and len(self.a[-1]) < p.score_beats
        i = len(self.a)
        bank = i < p.score_banks or (len(self.e) > i - p.score_banks and cycle > self.e[i - p.score_banks])
        pop = around.k and (inside or (around.tile is not None and around.q_ready and bank))
        if not pop:
            return {"k_pop": 0, "k_load": 0, "q_release": 0}
        if not inside:
            assert around.tile is not None
            self.a.append([])
            self.tiles.append(around.tile)
        beat = len(self.a[-1])
        self.a[-1].append(cycle)
        self.tokens["scores", cycle + p.cols + 2] = self._score_token(beat)
        last = beat == p.score_beats - 1
        return {
            "k_pop": 1,
            "k_load": int(beat % p.cols == 0),
            "q_release": int(last and self.tiles[-1].last),
        }

    def _score_token(self, beat: int) -> Token:
        p, tile = self.parameters, self.tiles[-1]
        k0 = tile.index * p.cols
        return {
            "key": beat % p.cols,
            "first_chunk": int(beat < p.cols),
            "last_chunk": int(beat >= p.score_beats - p.cols),
            "bank": (len(self.a) - 1) % p.score_banks,
            "low": min(max(tile.low - k0, -p.rows), p.cols),
            "high": min(max(tile.high - k0, -p.rows), p.cols),
            "count": 0 if tile.dead else min(KEYS - k0, p.cols),
        }

    def _exponential(self, cycle: int) -> None:
        p, i = self.parameters, len(self.e)
        if i >= len(self.a) or len(self.a[i]) < p.score_beats or cycle < self.a[i][-1] + p.cols + 7:
            return
        if i >= 1 and cycle < self.e[-1] + max(p.rows, p.cols):
            return
        if i >= 2 and not (len(self.b) > i - 2 and self._done(i - 2) and cycle > self.b[i - 2][-1]):
            return
        self.e.append(cycle)
        place = {"first": self.tiles[i].first, "last": self.tiles[i].last}
        for key in range(p.cols):
            self.tokens["exponentials", cycle + key] = {
                "key": key,
                "bank": i % p.score_banks,
                "parity": i % 2,
                **place,
            }

    def _done(self, i: int) -> bool:
        return len(self.b[i]) == self.parameters.head_dim

    def _value(self, cycle: int, around: Around) -> dict[str, int]:
        p = self.parameters
        inside = bool(self.b) and not self._done(-1)
        if not (around.v and (inside or self._may_start(cycle))):
            return {"v_pop": 0, "v_load": 0}
        if not inside:
            self.b.append([])
            for key in range(p.cols):
                self.tokens["weights", cycle + key] = {"key": key, "parity": (len(self.b) - 1) % 2}
        i, column = len(self.b) - 1, len(self.b[-1])
        self.b[i].append(cycle)
        first = self.tiles[i].first
        self.tokens["values", cycle + p.cols + 1] = {"column": column, "first": first, "parity": i % 2}
        if self.tiles[i].last:
            self.o_write.add(cycle + p.cols + p.rows + 6)
        return {"v_pop": 1, "v_load": int(column == 0)}

    def _may_start(self, cycle: int) -> bool:
        p, i = self.parameters, len(self.b)
        if i >= len(self.e) or cycle < self.e[i] + 7:
            return False
        if i >= 1 and cycle < self.b[i - 1][0] + p.cols:
            return False
        before = sum(tile.last for tile in self.tiles[:i])
        returned = sum(taken < cycle for taken in self.o_taken)
        return not self.tiles[i].last or p.output_columns - before * p.head_dim + returned >= p.head_dim


def random_tiles(rng: random.Random, parameters: UnitSizes, count: int) -> list[Tile]:
    """Q tiles of a few K tiles each; bounds far away, near, and within."""
    tiles: list[Tile] = []
    while len(tiles) < count:
        visits = rng.randint(1, 4)
        for n in range(visits):
            index = rng.randrange(-(-KEYS // parameters.cols))
            low, high = (
                index * parameters.cols + rng.choice([-60, 60, rng.randint(-9, 9)]) for _ in range(2)
            )
            dead = visits == 1 and rng.random() < 0.5
            tiles.append(Tile(low, high, 0 if dead else index, n == 0, n == visits - 1, dead))
    return tiles


def bursts(rng: random.Random, chance: float) -> Iterator[bool]:
    """Cycle by cycle whether it goes on: that often, for some cycles each time."""
    while True:
        yield from [rng.random() < chance] * rng.choice([1, 1, 1, 9, 30])


def tokens_of(ctx: SimulatorContext, unit: Controller, model: Model, cycle: int) -> None:
    """Each token is valid in the model's cycles, with the model's fields."""
    for name in TOKENS:
        token = getattr(unit, name)
        expected = model.tokens.get((name, cycle))
        assert ctx.get(token.valid) == (expected is not None), f"{name} in cycle {cycle}"
        if expected is not None:
            assert {key: ctx.get(token[key]) for key in expected} == expected, f"{name} in cycle {cycle}"


def compare(parameters: UnitSizes, rng: random.Random, chances: tuple[float, float, float]) -> Model:
    """Run both on the same random surroundings until all tiles are through."""
    unit, model = Controller(parameters), Model(parameters)
    tiles = deque(random_tiles(rng, parameters, 14))
    columns = parameters.head_dim * sum(tile.last for tile in tiles)
    k, v, o = (bursts(rng, chance) for chance in chances)

    async def run(ctx: SimulatorContext) -> None:
        ctx.set(unit.keys, KEYS)
        offered = False
        cycle = 0
        while len(model.o_taken) < columns:
            offered = bool(tiles) and (offered or rng.random() < 0.5)
            there = sum(written + 2 <= cycle for written in model.o_write) - len(model.o_taken)
            around = Around(
                tiles[0] if offered else None,
                rng.random() < 0.8,
                next(k),
                next(v),
                there > 0 and next(o),
            )
            ctx.set(unit.tiles.valid, offered)
            ctx.set(unit.tiles.payload, asdict(tiles[0] if offered else Tile(0, 0, 0, 0, 0, 0)))
            ctx.set(unit.q_ready, around.q_ready)
            ctx.set(unit.k_available, around.k)
            ctx.set(unit.v_available, around.v)
            ctx.set(unit.o_taken, around.o_taken)
            expected = model.step(cycle, around)
            assert {name: ctx.get(getattr(unit, name)) for name in expected} == expected, f"cycle {cycle}"
            tokens_of(ctx, unit, model, cycle)
            done = bool(expected["k_pop"]) and len(model.a[-1]) == parameters.score_beats
            assert ctx.get(unit.tiles.ready) == done
            if done:
                tiles.popleft()
                offered = False
            await ctx.tick()
            cycle += 1
            assert cycle < 10_000, "stuck"

    simulate(unit, run)
    return model


@pytest.mark.parametrize(
    "parameters",
    [
        UnitSizes(4, 4, head_dim=8, max_keys=64, output_columns=8),
        UnitSizes(3, 4, head_dim=6, max_keys=64, output_columns=15, score_banks=4),
        UnitSizes(10, 4, head_dim=4, max_keys=64, output_columns=4),
        UnitSizes(2, 8, head_dim=5, max_keys=64, output_columns=30),
    ],
    ids=lambda p: f"{p.rows}x{p.cols}-{p.head_dim}",
)
@pytest.mark.parametrize("chances", [(1.0, 1.0, 1.0), (0.9, 0.5, 0.9), (0.7, 0.9, 0.2)], ids=str)
def test_passes_and_tokens_are_those_of_the_contract(
    parameters: UnitSizes, chances: tuple[float, float, float]
) -> None:
    """Beats, tokens, credit: each in the cycle that the rules give, whoever stalls."""
    rng = random.Random(f"{parameters} {chances}")
    model = compare(parameters, rng, chances)
    assert len(model.b) == len(model.tiles) >= 14


@pytest.mark.parametrize(("banks", "beats"), [(4, 190), (2, 160)])
def test_the_longest_pass_or_the_banks_of_scores_set_the_pace(banks: int, beats: int) -> None:
    """8 beats a tile: with 4 banks one in every cycle; with 2, two tiles (16) in HC + C + 7 = 19 cycles."""
    parameters = UnitSizes(4, 4, head_dim=8, max_keys=64, output_columns=24, score_banks=banks)
    unit = Controller(parameters)
    k, v = [], []

    async def run(ctx: SimulatorContext) -> None:
        ctx.set(unit.keys, KEYS)
        ctx.set(unit.tiles.payload, asdict(Tile(-60, 60, 0, 0, 0, 0)))
        for port in (unit.tiles.valid, unit.q_ready, unit.k_available, unit.v_available):
            ctx.set(port, 1)
        for _ in range(60 + 190):
            k.append(ctx.get(unit.k_pop))
            v.append(ctx.get(unit.v_pop))
            await ctx.tick()

    simulate(unit, run)
    assert (sum(k[60:]), sum(v[60:])) == (beats, beats)


@pytest.mark.parametrize(("cols", "head_dim"), [(4, 8), (4, 6), (8, 5)])
def test_q_memory_gives_each_row_its_columns(cols: int, head_dim: int) -> None:
    """After `load` at t, row r's weight at t + 1 + r + c is Q[r, hC + c], 0 beyond D."""
    parameters = UnitSizes(3, cols, head_dim=head_dim, max_keys=64)
    rng = random.Random(head_dim)
    tiles = [[[rng.randrange(256) for _ in range(3)] for _ in range(head_dim)] for _ in range(4)]
    unit = QueryMemory(parameters)

    async def write(ctx: SimulatorContext) -> None:
        for tile in tiles:
            for column in tile:
                ctx.set(unit.q.payload, sum(element << 8 * row for row, element in enumerate(column)))
                ctx.set(unit.q.valid, 1)
                await ctx.tick().until(unit.q.ready)
        ctx.set(unit.q.valid, 0)

    async def read(ctx: SimulatorContext) -> None:
        wanted: dict[tuple[int, int], int] = {}
        cycle = 0
        for tile in tiles:
            while not ctx.get(unit.ready):
                await ctx.tick()
                cycle += 1
                assert cycle < 1_000, "stuck"
            for beat in range(2 * parameters.score_beats):  # two K tiles
                column = beat % parameters.score_beats
                for row in range(3):
                    element = tile[column][row] if column < head_dim else 0
                    wanted[cycle + 1 + row, row] = element
                ctx.set(unit.load, column % cols == 0)
                ctx.set(unit.release, beat == 2 * parameters.score_beats - 1)
                await ctx.tick()
                cycle += 1
                for row in range(3):
                    if (cycle, row) in wanted:
                        assert ctx.get(unit.weights) >> 8 * row & 255 == wanted[cycle, row]
            ctx.set(unit.load, 0)
            ctx.set(unit.release, 0)

    simulate(unit, write, read)
