"""Regions: a graph cut into what runs as one pipelined loop nest.

    matmul -> add(., residual) -> gelu      one region, anchored by the matmul: the element-wise tail works on
                                            each output tile on its way out
    softmax; layernorm; gather; sort ...    a region of its own, with its element-wise tail
    scores -> softmax -> context            one region where the machine runs attention fused
    matmul -> gelu -> matmul                one region where it fuses chains

A region starts when the one before it is complete, so what it costs depends on its own specification alone
(`tilewright.dataflows.specify`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tilewright.dataflows.tensors import out_elements
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape


@dataclass(frozen=True, slots=True)
class Region:
    """The operators (by index) of one region; the first is the anchor."""

    operators: tuple[int, ...]
    second: int | None = None
    """Index of the second matmul, where there are two."""
    softmax: int | None = None
    """Index of the softmax between them."""

    @property
    def anchor(self) -> int:
        """Index of the operator that shapes the loop nest."""
        return self.operators[0]


@dataclass(frozen=True)
class Cut:
    """A graph cut into regions, in program order."""

    graph: OperatorGraph
    regions: tuple[Region, ...]
    consumers: dict[str, int]
    """How many operators read each tensor; graph outputs and carries count one more."""

    @cached_property
    def makers(self) -> dict[str, Operator]:
        """The operator that makes each tensor."""
        return {name: op for op in self.graph.operators for name in op.outputs}


def cut(graph: OperatorGraph, *, attention: bool = False, chains: bool = False) -> Cut:
    """Fuse each operator's element-wise tail into it, never across the edge of a repeated block; with
    `attention`, also scores, softmax and context, with `chains` matmuls that feed each other."""
    consumers: dict[str, int] = {}
    for op in graph.operators:
        for name in op.inputs:
            consumers[name] = consumers.get(name, 0) + 1
    for name in (*graph.outputs, *(r.carry_out for r in graph.repeats)):
        consumers[name] = consumers.get(name, 0) + 1
    regions: list[Region] = []
    for block, _ in graph.blocks():
        members: list[int] = []
        for index in block:
            if members and _joins(graph, members, index, consumers):
                members.append(index)
                continue
            if members:
                regions.append(Region(tuple(members)))
            members = [index]
        regions.append(Region(tuple(members)))
    edges = {block.start for block, _ in graph.blocks()}
    linked = _linked(_Links(graph, consumers, edges, attention, chains), regions)
    return Cut(graph, tuple(linked), consumers)


@dataclass(frozen=True, slots=True)
class _Links:
    """Finds regions that work on each other's tiles."""

    graph: OperatorGraph
    consumers: dict[str, int]
    edges: set[int]
    """Indices of operators at which a block begins."""
    attention: bool
    chains: bool

    def attends(self, regions: list[Region]) -> bool:
        """Whether these are scores, softmax and context."""
        if len(regions) != 3:
            return False
        first, softmax, _ = (self.graph.operators[region.anchor] for region in regions)
        if not (self.attention or first.order):
            return False
        alone = len(regions[1].operators) == 1 and not self._edge(regions[1])
        if not alone or softmax.kind != "softmax" or len(softmax.outputs) != 1:
            return False
        if not isinstance(first.shape, MatmulShape):
            return False
        if softmax.shape != RowsShape(first.shape.batch * first.shape.m, first.shape.n):
            return False
        made = self._result(regions[0])
        if softmax.inputs != (made,) or self.consumers[made] != 1:
            return False
        return self._feeds(softmax.outputs[0], regions[0], regions[2])

    def chain(self, regions: list[Region]) -> bool:
        """Whether the first one's result is the second one's A."""
        return self.chains and len(regions) == 2 and self._feeds(self._result(regions[0]), *regions)

    def _feeds(self, made: str, first: Region, second: Region) -> bool:
        one, two = self.graph.operators[first.anchor], self.graph.operators[second.anchor]
        if not (isinstance(one.shape, MatmulShape) and isinstance(two.shape, MatmulShape)):
            return False
        fits = (one.shape.batch, one.shape.m, one.shape.n) == (two.shape.batch, two.shape.m, two.shape.k)
        elsewhere = two.inputs[1:] + self._tail_inputs(second)
        fits = fits and not self._edge(second)
        return fits and two.inputs[0] == made and made not in elsewhere and self.consumers[made] == 1

    def _tail_inputs(self, region: Region) -> tuple[str, ...]:
        return tuple(name for i in region.operators[1:] for name in self.graph.operators[i].inputs)

    def _result(self, region: Region) -> str:
        return self.graph.operators[region.operators[-1]].outputs[0]

    def _edge(self, region: Region) -> bool:
        return region.anchor in self.edges


def _linked(links: _Links, regions: list[Region]) -> list[Region]:
    """Neighbouring regions put together where they work on each other's tiles."""
    found: list[Region] = []
    position = 0
    while position < len(regions):
        three, two = regions[position : position + 3], regions[position : position + 2]
        region, taken = regions[position], 1
        if links.attends(three):
            taken = 3
            region = Region(_members(three), second=three[2].anchor, softmax=three[1].anchor)
        elif links.chain(two):
            region, taken = Region(_members(two), second=two[1].anchor), 2
        found.append(region)
        position += taken
    return found


def _members(regions: list[Region]) -> tuple[int, ...]:
    return tuple(index for region in regions for index in region.operators)


def _joins(graph: OperatorGraph, members: list[int], index: int, consumers: dict[str, int]) -> bool:
    """Whether `operators[index]` can work on the tiles of the region so far as they leave."""
    last, op = graph.operators[members[-1]], graph.operators[index]
    if op.kind != "elementwise" or len(last.outputs) != 1 or last.outputs[0] not in op.inputs:
        return False
    if consumers[last.outputs[0]] != 1 or last.kind in ("scatter", "sort", "topk"):
        return False
    return out_elements(graph, last) == out_elements(graph, op)
