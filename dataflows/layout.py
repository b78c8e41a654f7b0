"""The order of regions, and what each shares with its neighbours.

Copies of a repeated block differ at most in the first (shared weights are not there yet) and the last
(another region follows), so a block becomes up to three groups, however many copies it has.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.dataflows.machine import Machine
from tilewright.dataflows.mapper import Request
from tilewright.dataflows.regions import Cut, Region
from tilewright.dataflows.specify import Placement, specify
from tilewright.dataflows.specs import Spec, operands
from tilewright.workloads.graph import Repeat
from tilewright.workloads.operators import in_copies


@dataclass(frozen=True)
class Step:
    """One region at one place of the plan."""

    region: Region
    request: Request


@dataclass(frozen=True)
class Group:
    """Steps in order, run `times` times; `first_copy` is the `{i}` of the first run."""

    steps: tuple[Step, ...]
    times: int
    first_copy: int


@dataclass(frozen=True)
class _Block:
    """Consecutive regions that run `times` times."""

    positions: range
    repeat: Repeat | None

    @property
    def times(self) -> int:
        return self.repeat.times if self.repeat else 1


def lay_out(cut: Cut, machine: Machine, resident: frozenset[str]) -> tuple[Group, ...]:
    """The regions of the whole workload in groups of equal copies."""
    return _Layout(cut, machine, resident).groups()


class _Layout:
    def __init__(self, cut: Cut, machine: Machine, resident: frozenset[str]) -> None:
        self.cut, self.machine, self.resident = cut, machine, resident
        self.blocks = _blocks(cut)
        self.first_use = _first_uses(cut)

    def groups(self) -> tuple[Group, ...]:
        """First, middle and last copies of each block, equal ones together."""
        found: list[Group] = []
        for number, block in enumerate(self.blocks):
            kinds = [(1, True, block.times == 1)]
            if block.times > 2:
                kinds.append((block.times - 2, False, False))
            if block.times > 1:
                kinds.append((1, False, True))
            copy = 0
            mine: list[Group] = []
            for times, first, last in kinds:
                steps = self._steps(number, first, last)
                if mine and mine[-1].steps == steps:
                    mine[-1] = Group(steps, mine[-1].times + times, mine[-1].first_copy)
                else:
                    mine.append(Group(steps, times, copy))
                copy += times
            found += mine
        return tuple(found)

    def _steps(self, number: int, first: bool, last: bool) -> tuple[Step, ...]:
        """The regions of one copy. The region before the first copy of the workload's first block is none:
        nothing could be prefetched for it."""
        block = self.blocks[number]
        specs = [self._spec(number, position, first) for position in block.positions]
        follows = self._following(number, last)
        after = [*specs[1:], follows] if follows is not None else specs[1:]
        limit = self.machine.accelerator.dma.prefetch_bytes
        steps = []
        for index, (position, spec) in enumerate(zip(block.positions, specs, strict=True)):
            starts_all = number == 0 and first and index == 0
            credit = 0 if starts_all else min(limit, _early_bytes(spec))
            ahead = min(limit, _early_bytes(after[index])) if index < len(after) else 0
            steps.append(Step(self.cut.regions[position], Request(spec, credit, ahead)))
        return tuple(steps)

    def _following(self, number: int, last: bool) -> Spec | None:
        """The region after a copy's last one."""
        if not last:
            return self._spec(number, self.blocks[number].positions[0], first=False)
        if number + 1 == len(self.blocks):
            return None
        return self._spec(number + 1, self.blocks[number + 1].positions[0], first=True)

    def _spec(self, number: int, position: int, first: bool) -> Spec:
        """A region in the first copy of its block, or in a later one."""
        region = self.cut.regions[position]
        block = self.blocks[number]
        names = {n for i in region.operators for n in self.cut.graph.operators[i].inputs}
        there = {n for n in names if not self._loads_first(n, position, first)}
        results = set(self.cut.graph.operators[region.operators[-1]].outputs)
        late = self._results_before(number, position, first, block)
        return specify(
            self.cut,
            region,
            self.machine.accelerator,
            Placement(frozenset((there | results) & self.resident), frozenset(late)),
        )

    def _loads_first(self, name: str, position: int, first: bool) -> bool:
        """Whether this is the run that brings a weight on chip."""
        if self.cut.graph.tensors[name].role != "weight" or self.first_use[name] != position:
            return False
        return first or in_copies(name)

    def _results_before(self, number: int, position: int, first: bool, block: _Block) -> set[str]:
        """Tensors made by the region before, by the names under which this one reads them."""
        if position > block.positions[0]:
            return set(self._results(position - 1))
        if first:
            return set() if number == 0 else set(self._results(block.positions[0] - 1))
        results = set(self._results(block.positions[-1]))
        if block.repeat and block.repeat.carry_out in results:
            results.add(block.repeat.carry_in)
        return results

    def _results(self, position: int) -> tuple[str, ...]:
        return self.cut.graph.operators[self.cut.regions[position].operators[-1]].outputs


def _early_bytes(spec: Spec) -> int:
    """Bytes of a region's operands that can be fetched while the region before is running."""
    return sum(operand.bytes for operand in operands(spec) if operand.early)


def _blocks(cut: Cut) -> list[_Block]:
    """The graph's blocks in terms of regions."""
    position_of = {region.anchor: position for position, region in enumerate(cut.regions)}
    found = []
    for operators, repeat in cut.graph.blocks():
        positions = [position_of[index] for index in operators if index in position_of]
        found.append(_Block(range(positions[0], positions[-1] + 1), repeat))
    return found


def _first_uses(cut: Cut) -> dict[str, int]:
    """The region that first reads each tensor."""
    uses: dict[str, int] = {}
    for position, region in enumerate(cut.regions):
        for index in region.operators:
            for name in cut.graph.operators[index].inputs:
                uses.setdefault(name, position)
    return uses
