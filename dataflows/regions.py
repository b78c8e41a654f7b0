"""Regions: what runs as one pipelined loop nest, and what each is to the mapper.

    matmul -> add(., residual) -> gelu        one region, anchored by the matmul: the element-wise tail
    works on each output tile on its way out softmax; layernorm; gather; sort …        a region of its own,
    with its element-wise tail

A region starts when the one before it is complete, so what it costs depends on its own specification alone:
two regions with equal specifications take equal times, which is what lets identical layers be simulated once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

from tilewright.arch.accelerator import ELEMENT_BITS, Accelerator
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import NATIVE, MatmulShape, Operator, RowsShape, Tensor

_TWO_PASSES = frozenset({"softmax", "norm", "reduce", "scan", "sort", "topk"})
"""Kinds that must see a whole row before the first result is final."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One tensor as a region touches it."""

    elements: int
    bits: float
    """Of one element; a fraction where a sparse tensor's indices or a quantised one's scales are spread over
    them."""
    resident: bool = False
    """In the buffers already (or to stay there, for a result): no DRAM traffic."""
    early: bool = False
    """Not made by the region before: may be prefetched while that one is running."""

    @property
    def bytes(self) -> int:
        """Size in DRAM."""
        return ceil(self.elements * self.bits / 8)


@dataclass(frozen=True, slots=True)
class MatmulSpec:
    """A matmul with its element-wise tail: all that its cost depends on."""

    shape: MatmulShape
    a: Operand
    b: Operand
    out: Operand
    sides: tuple[Operand, ...] = ()
    """Operands of the tail with an element per output element."""
    constants: tuple[Operand, ...] = ()
    """Operands of the tail with an element per output column (biases)."""
    lane_cycles: float = 0.0
    """Vector work per output element."""


@dataclass(frozen=True, slots=True)
class RowsSpec:
    """An operator on the vector unit with its element-wise tail: all that its cost depends on."""

    rows: int
    cols: int
    inputs: tuple[Operand, ...]
    outputs: tuple[Operand, ...]
    constants: tuple[Operand, ...] = ()
    """Loaded once, with the first tile."""
    lane_cycles: float = 0.0
    """Vector work per element of the shape."""
    two_passes: bool = False
    """Whether a row that does not fit is loaded twice."""


Spec = MatmulSpec | RowsSpec


@dataclass(frozen=True, slots=True)
class Region:
    """The operators (by index) of one region; the first is the anchor."""

    operators: tuple[int, ...]

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


def cut(graph: OperatorGraph) -> Cut:
    """Fuse each operator's element-wise tail into it, never across the edge of a repeated block."""
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
    return Cut(graph, tuple(regions), consumers)


def _joins(graph: OperatorGraph, members: list[int], index: int, consumers: dict[str, int]) -> bool:
    """Whether `operators[index]` can work on the tiles of the region so far as they leave."""
    last, op = graph.operators[members[-1]], graph.operators[index]
    if op.kind != "elementwise" or len(last.outputs) != 1 or last.outputs[0] not in op.inputs:
        return False
    if consumers[last.outputs[0]] != 1 or last.kind in ("scatter", "sort", "topk"):
        return False
    return out_elements(graph, last) == out_elements(graph, op)


def out_elements(graph: OperatorGraph, op: Operator) -> int:
    """Elements of the operator's first result that it touches."""
    return touched(graph.tensors[op.outputs[0]], op, result=True)


def touched(tensor: Tensor, op: Operator, result: bool = False) -> int:
    """Elements of one of its tensors that an operator touches: at most what its shape has for it."""
    if isinstance(op.shape, RowsShape):
        if op.function == "blocks" and tensor.role != "index" and not result:
            return op.shape.elements  # a block is read as often as it is asked for
        return min(tensor.elements, op.shape.elements)
    shape = op.shape
    if result:
        return shape.batch * shape.m * shape.n
    return tensor.elements


def element_bits(tensor: Tensor, accelerator: Accelerator) -> float:
    """Bits of one element as the accelerator stores it: of a compressed tensor, all its bits over all its
    elements."""
    element = accelerator.array.operand if tensor.element == NATIVE else tensor.element
    if tensor.kept is None and not tensor.side_bits:
        return ELEMENT_BITS[element]
    return (tensor.stored * ELEMENT_BITS[element] + tensor.side_bits) / tensor.elements


@dataclass(frozen=True)
class Placement:
    """What a region may assume of its tensors at one of its runs."""

    resident: frozenset[str]
    late: frozenset[str]
    """Results of the region before: not early."""


def specify(cut: Cut, region: Region, accelerator: Accelerator, placement: Placement) -> Spec:
    """The region as the mapper sees it."""
    graph = cut.graph
    anchor, last = graph.operators[region.anchor], graph.operators[region.operators[-1]]

    def operand(name: str, elements: int) -> Operand:
        resident = name in placement.resident
        bits = element_bits(graph.tensors[name], accelerator)
        return Operand(elements, bits, resident, early=not resident and name not in placement.late)

    results = tuple(operand(name, touched(graph.tensors[name], last, result=True)) for name in last.outputs)
    tail = [operand(n, touched(graph.tensors[n], op)) for op, n in _tail_inputs(graph, region)]
    work = sum(lane_cycles(graph.operators[i], accelerator) for i in region.operators)
    if isinstance(anchor.shape, MatmulShape):
        return _matmul_spec(anchor, anchor.shape, operand, results[0], tail, work)
    inputs = [operand(n, touched(graph.tensors[n], anchor)) for n in anchor.inputs]
    # What is moved comes by and by, also where its size is no whole number of rows (padding, parts).
    moves = anchor.kind in ("gather", "scatter")
    streams = [
        o
        for o in (*inputs, *tail)
        if o.elements >= anchor.shape.rows and (moves or o.elements % anchor.shape.rows == 0)
    ]
    constants = [o for o in (*inputs, *tail) if o not in streams]
    return RowsSpec(
        rows=anchor.shape.rows,
        cols=anchor.shape.cols,
        inputs=tuple(streams),
        outputs=results,
        constants=tuple(constants),
        lane_cycles=work / anchor.shape.elements,
        two_passes=anchor.kind in _TWO_PASSES,
    )


def _matmul_spec(
    anchor: Operator,
    shape: MatmulShape,
    operand: Callable[[str, int], Operand],
    out: Operand,
    tail: list[Operand],
    work: float,
) -> MatmulSpec:
    a = operand(anchor.inputs[0], shape.batch * shape.m * shape.k)
    b = operand(anchor.inputs[1], shape.batch * shape.k * shape.n)
    bias = [operand(name, shape.n) for name in anchor.inputs[2:]]
    extras = [*bias, *tail]
    return MatmulSpec(
        shape=shape,
        a=a,
        b=b,
        out=out,
        sides=tuple(o for o in extras if o.elements != shape.n),
        constants=tuple(o for o in extras if o.elements == shape.n),
        lane_cycles=work / (shape.batch * shape.m * shape.n),
    )


def _tail_inputs(graph: OperatorGraph, region: Region) -> Iterator[tuple[Operator, str]]:
    """Inputs of the element-wise tail that do not come from within the region."""
    inside = {graph.operators[i].outputs[0] for i in region.operators[:-1]}
    for index in region.operators[1:]:
        op = graph.operators[index]
        yield from ((op, name) for name in op.inputs if name not in inside)


def lane_cycles(op: Operator, accelerator: Accelerator) -> float:
    """Cycles that the operator would take on one lane of the vector unit."""
    costs = accelerator.vector.cycles
    return sum(count * float(getattr(costs, primitive)) for primitive, count in op.primitives)
