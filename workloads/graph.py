"""The operator graph: operators in program order over named tensors, with identical blocks held once.

A model of 32 equal layers is one layer and a `Repeat` of 32: what reads the graph works on the block and
multiplies. `OperatorGraph.expand()` writes the copies out, for whoever wants the plain graph and for tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tilewright.workloads.operators import Operator, Tensor, in_copies, in_copy

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True, slots=True)
class Repeat:
    """`operators[start:stop]` stands for `times` copies in a row.

    Copy 0 reads `carry_in` from outside; copy i > 0 reads copy i-1's `carry_out` in its place; after the
    block `carry_out` means the last copy's. Blocks do not nest or overlap, and nothing outside a block reads
    its tensors but `carry_out` (weights and KV caches aside).
    """

    start: int
    stop: int
    times: int
    carry_in: str
    carry_out: str


@dataclass(frozen=True)
class OperatorGraph:
    """A workload: operators in an order in which they can run, and the tensors between them.

    `parameters` of the model are counted from its weights (each distinct tensor once, however often it is
    used), `macs` from its operators.
    """

    name: str
    operators: tuple[Operator, ...]
    tensors: Mapping[str, Tensor]
    repeats: tuple[Repeat, ...] = ()
    inputs: tuple[str, ...] = ()
    """Tensors that come from outside (weights and caches aside)."""
    outputs: tuple[str, ...] = ()
    """Tensors that must be in DRAM at the end."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What it is and where it comes from (family, source, citation)."""

    def __repr__(self) -> str:
        """One line, whatever the size of the workload."""
        return f"<OperatorGraph {self.name}: {len(self.operators):,} operators, {self.macs:,} MACs>"

    def times(self, index: int) -> int:
        """How often `operators[index]` runs."""
        return next((r.times for r in self.repeats if r.start <= index < r.stop), 1)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the whole workload."""
        return sum(op.macs * self.times(i) for i, op in enumerate(self.operators))

    @cached_property
    def useful_macs(self) -> int:
        """Those that the definition of the workload asks for: `macs` less padding of blocks and masked pairs,
        where a lowering tells them apart."""
        useful = (op.macs if op.useful_macs is None else op.useful_macs for op in self.operators)
        return sum(macs * self.times(i) for i, macs in enumerate(useful))

    @cached_property
    def parameters(self) -> int:
        """Elements of all distinct weights; of a sparse one those that are kept."""
        copies: dict[str, int] = {}
        for i, op in enumerate(self.operators):
            for name in op.inputs:
                if self.tensors[name].role == "weight":
                    copies[name] = max(copies.get(name, 1), self.times(i) if in_copies(name) else 1)
        return sum(self.tensors[name].stored * n for name, n in copies.items())

    def blocks(self) -> Iterator[tuple[range, Repeat | None]]:
        """The operators' indices in program order, cut into plain stretches (None) and repeated blocks."""
        position = 0
        for repeat in sorted(self.repeats, key=lambda r: r.start):
            if position < repeat.start:
                yield range(position, repeat.start), None
            yield range(repeat.start, repeat.stop), repeat
            position = repeat.stop
        if position < len(self.operators):
            yield range(position, len(self.operators)), None

    @cached_property
    def digraph(self) -> nx.DiGraph[str]:
        """The networkx view: a node per operator (attribute `operator`), an edge per tensor handed over
        (attribute `tensor`). Repeated blocks appear once."""
        import networkx as nx  # late: it takes half a second, and few callers want it

        graph: nx.DiGraph[str] = nx.DiGraph(name=self.name)
        producer: dict[str, str] = {}
        for op in self.operators:
            graph.add_node(op.name, operator=op)
            for name in op.inputs:
                if name in producer:
                    graph.add_edge(producer[name], op.name, tensor=name)
            producer.update(dict.fromkeys(op.outputs, op.name))
        return graph

    def expand(self) -> OperatorGraph:
        """The plain graph: every copy of a repeated block written out, `{i}` replaced by the copy's number,
        and each copy reading the `carry_out` of the one before it."""
        operators: list[Operator] = []
        tensors: dict[str, Tensor] = {}
        outside: dict[str, str] = {}  # a finished block's carry_out -> the last copy's

        def rename(name: str, copy: int, carry: Mapping[str, str]) -> str:
            new = carry.get(name) or outside.get(name) or in_copy(name, copy)
            if new not in tensors:
                tensors[new] = replace(self.tensors[name], name=new)
            return new

        for block, repeat in self.blocks():
            for copy in range(repeat.times if repeat else 1):
                carry = {repeat.carry_in: in_copy(repeat.carry_out, copy - 1)} if repeat and copy else {}
                for op in self.operators[block.start : block.stop]:
                    operators.append(
                        replace(
                            op,
                            name=in_copy(op.name, copy),
                            inputs=tuple(rename(name, copy, carry) for name in op.inputs),
                            outputs=tuple(rename(name, copy, {}) for name in op.outputs),
                        )
                    )
            if repeat:
                outside[repeat.carry_out] = in_copy(repeat.carry_out, repeat.times - 1)
        outputs = tuple(outside.get(name, name) for name in self.outputs)
        return replace(self, operators=tuple(operators), tensors=tensors, repeats=(), outputs=outputs)
