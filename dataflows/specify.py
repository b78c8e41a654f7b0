"""From a region of a graph to its specification, on one machine and with what lies on chip at the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.streaming_unit import Streaming
from tilewright.dataflows.regions import Cut, Region
from tilewright.dataflows.specs import (
    ChainSpec,
    MatmulSpec,
    Operand,
    RowsSpec,
    Sizes,
    Spec,
    StreamSpec,
    UnitSpec,
)
from tilewright.dataflows.systolic import ByHead
from tilewright.dataflows.tensors import element_bits, touched
from tilewright.dataflows.vector_unit import lane_cycles, softmax_work
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape
from tilewright.workloads.pairs import Pairs

_TWO_PASSES = frozenset({"softmax", "norm", "reduce", "scan", "sort", "topk"})
"""Kinds that must see a whole row before the first result is final."""


_SCALES = frozenset({"scale", "scale_mask"})
"""Element-wise functions that `Vector.fused_exp` takes in."""


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

    if region.second is not None:
        chain = _chain_spec(cut, region, operand, accelerator)
        if accelerator.attention_unit is None or chain.softmax is None:
            return chain
        pairs = anchor.pairs or _any_pairs(chain.first.shape)
        if isinstance(accelerator.attention_unit, Streaming):
            _refuse_extras(graph, region)
            return StreamSpec(chain.first, chain.second, chain.softmax, accelerator.attention_unit, pairs)
        return UnitSpec(chain.first, chain.second, chain.softmax, accelerator.attention_unit, pairs)
    results = tuple(operand(name, touched(graph.tensors[name], last, result=True)) for name in last.outputs)
    tail = [operand(n, touched(graph.tensors[n], op)) for op, n in _tail_inputs(graph, region)]
    work = sum(lane_cycles(graph.operators[i], accelerator) for i in region.operators)
    if isinstance(anchor.shape, MatmulShape):
        _refuse_tile(anchor)
        spec = _matmul_spec(anchor, anchor.shape, operand, results[0], tail, work)
        structure, by_head = _structure(cut, anchor, accelerator), _by_head(cut, anchor, accelerator)
        return replace(spec, structure=structure, by_head=by_head)
    return _rows_spec(anchor, anchor.shape, operand, graph, results, tail, work)


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


def _rows_spec(
    anchor: Operator,
    shape: RowsShape,
    operand: Callable[[str, int], Operand],
    graph: OperatorGraph,
    results: tuple[Operand, ...],
    tail: list[Operand],
    work: float,
) -> RowsSpec:
    inputs = [operand(n, touched(graph.tensors[n], anchor)) for n in anchor.inputs]
    # What is moved comes by and by, also where its size is no whole number of rows (padding, parts).
    # Indices do so as well where one of them stands for many rows.
    moves = anchor.kind in ("gather", "scatter")
    indices = {n for n in anchor.inputs if moves and graph.tensors[n].role == "index"}
    listed = [o for o, name in zip(inputs, anchor.inputs, strict=True) if name in indices]
    streams = [
        o
        for o in (*inputs, *tail)
        if o in listed or (o.elements >= shape.rows and (moves or o.elements % shape.rows == 0))
    ]
    constants = [o for o in (*inputs, *tail) if o not in streams]
    return RowsSpec(
        rows=shape.rows,
        cols=shape.cols,
        inputs=tuple(streams),
        outputs=results,
        constants=tuple(constants),
        lane_cycles=work / shape.elements,
        two_passes=anchor.kind in _TWO_PASSES,
    )


def _structure(cut: Cut, matmul: Operator, accelerator: Accelerator) -> tuple[int, int] | None:
    """How the array packs a matmul's weights: as its own N:M says, if theirs fits into it."""
    weights, array = cut.graph.tensors[matmul.inputs[1]].n_m, accelerator.array.structured
    if weights is None or array is None or weights[1] != array.m or weights[0] > array.n:
        return None
    return array.n, array.m


def _by_head(cut: Cut, matmul: Operator, accelerator: Accelerator) -> ByHead | None:
    """The heads that a matmul over heads wrote A by, where each has a share of the array."""
    flexible, maker = accelerator.array.flexible, cut.makers.get(matmul.inputs[0])
    if flexible is None or not flexible.by_head or not isinstance(matmul.shape, MatmulShape):
        return None
    while maker is not None and maker.kind == "elementwise":
        maker = cut.makers.get(maker.inputs[0])
    if maker is None or not isinstance(maker.shape, MatmulShape):
        return None
    heads, rest = divmod(matmul.shape.k, maker.shape.n)
    return ByHead(heads, maker.shape.n) if heads > 1 and not rest else None


def _chain_spec(
    cut: Cut, region: Region, operand: Callable[[str, int], Operand], accelerator: Accelerator
) -> ChainSpec:
    """Both matmuls with their tails; what is between them stays on chip."""
    graph, at = cut.graph, region.operators.index(region.second or 0)
    softmax = None if region.softmax is None else graph.operators[region.softmax]
    before = at if softmax is None else at - 1
    folds_scale = softmax is not None and accelerator.vector.fused_exp
    made = graph.tensors[graph.operators[region.operators[at - 1]].outputs[0]]
    between = Operand(made.elements, element_bits(made, accelerator), resident=True, in_place=True)

    def spec(part: Region, out: Operand) -> MatmulSpec:
        anchor = graph.operators[part.anchor]
        assert isinstance(anchor.shape, MatmulShape)
        tail = [operand(n, touched(graph.tensors[n], op)) for op, n in _tail_inputs(graph, part)]
        costly = [i for i in part.operators if not (folds_scale and graph.operators[i].function in _SCALES)]
        work = sum(lane_cycles(graph.operators[i], accelerator) for i in costly)
        made = _matmul_spec(anchor, anchor.shape, operand, out, tail, work)
        packs = _structure(cut, anchor, accelerator)  # and no tile of the chain cuts a group of weights
        return replace(made, structure=packs if packs and accelerator.array.cols % packs[1] == 0 else None)

    last = graph.operators[region.operators[-1]]
    result = operand(last.outputs[0], touched(graph.tensors[last.outputs[0]], last, result=True))
    first = spec(Region(region.operators[:before]), between)
    second = replace(spec(Region(region.operators[at:]), result), a=between)
    mapper = accelerator.mapper
    orders: tuple[str, ...] = mapper.chains if softmax is None else mapper.attention
    anchor = graph.operators[region.anchor]
    if anchor.order:
        orders = (anchor.order,)
    return ChainSpec(
        first,
        second,
        softmax_work(softmax, accelerator) if softmax else None,
        tuple(order for order in orders if order != "unfused"),
        _tiles(anchor, graph.operators[region.second or 0]),
    )


def _tiles(first: Operator, second: Operator) -> tuple[Sizes, Sizes] | None:
    """Those of both matmuls, where the workload prescribes them."""
    return None if first.tile is None or second.tile is None else (first.tile, second.tile)


def _refuse_tile(op: Operator) -> None:
    """A matmul alone is cut as the mapper likes."""
    if op.tile is not None:
        raise InputError(
            f"workload: the tiles of {op.name!r} are prescribed, and only a fused chain of matmuls can keep "
            "to them; let the machine fuse (`mapper.chains: [fused]`), or prescribe none"
        )


def _refuse_extras(graph: OperatorGraph, region: Region) -> None:
    """A streaming unit scales and masks scores, and does nothing else on the way."""
    for op in (graph.operators[i] for i in region.operators[1:]):
        if op.kind == "elementwise" and op.function not in _SCALES:
            raise InputError(
                f"attention_unit: a streaming unit scales and masks scores, and {op.name!r} ({op.function}) "
                "is neither; leave it out of the workload, or set arch.attention_unit=null"
            )


def _any_pairs(shape: MatmulShape) -> Pairs:
    """For a workload that says nothing of its scores: all may be seen, and the stated model draws them. More
    rows than keys are those of several query heads that share them."""
    share = -(-shape.m // shape.n)
    if shape.m % share:
        share = 1
    return Pairs(Heads(shape.batch * share, shape.batch, shape.k), min(shape.m // share, shape.n), shape.n)


def _tail_inputs(graph: OperatorGraph, region: Region) -> Iterator[tuple[Operator, str]]:
    """Inputs of the element-wise tail that do not come from within the region."""
    inside = {graph.operators[i].outputs[0] for i in region.operators[:-1]}
    for index in region.operators[1:]:
        op = graph.operators[index]
        yield from ((op, name) for name in op.inputs if name not in inside)
