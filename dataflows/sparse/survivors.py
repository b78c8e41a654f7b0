"""Projections and feed-forward networks after pruning: rows of tokens and columns of heads that are left.

Tokens that fall out after a layer's attention have no rows in anything that follows: the layer's output
projection, its feed-forward network, the next layer's projections, and so on to the model's end. A pruned
head's columns of the query, key and value projections are not computed, nor its rows of the output
projection read. Whatever is not a dense layer, a norm, an element-wise function or a cache's new rows may mix
tokens; where pruned ones would come to it, all of them are left in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor


@dataclass(frozen=True, slots=True)
class LayerLeft:
    """One layer of a stack."""

    scores: int
    """Index of the operator that computes its scores."""
    tokens: int
    """Tokens that its attention has left."""
    heads: int


def without_pruned(graph: OperatorGraph, layers: list[LayerLeft]) -> OperatorGraph:
    """The plain graph with smaller shapes outside of the attention cores of the stack. Weights stay whole:
    what the shapes leave out of them is not read."""
    changed = _Changed(graph)
    if not _tokens(changed, layers):
        changed = _Changed(graph)
    for layer in layers:
        _heads(changed, layer)
    return changed.graph()


_AS_BEFORE = {("k", True), ("m", False)}
"""A matmul's size that gets smaller, and whether it is the bias that is none the less for it."""


@dataclass
class _Changed:
    """Operators and tensors that differ from the graph's."""

    before: OperatorGraph
    operators: dict[int, Operator] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def op(self, index: int) -> Operator:
        return self.operators.get(index, self.before.operators[index])

    def tensor(self, name: str) -> Tensor:
        return self.tensors.get(name, self.before.tensors[name])

    def scale(self, index: int, size: str, left: int, total: int) -> None:
        """Keep `left` of `total` parts of one size of an operator's shape, and of its work: a matmul's bias
        is added to each element of C, its conversions are of each element of B."""
        op = self.op(index)
        shape = replace(op.shape, **{size: getattr(op.shape, size) // total * left})
        work = tuple(
            (name, count if (size, name == "add") in _AS_BEFORE else max(1, count * left // total))
            for name, count in op.primitives
        )
        useful = None if op.useful_macs is None else op.useful_macs * left // total
        self.operators[index] = replace(op, shape=shape, primitives=work, useful_macs=useful)

    def cut(self, name: str, axis: int, left: int, total: int) -> None:
        """The same for an axis of a tensor."""
        tensor = self.tensor(name)
        shape = list(tensor.shape)
        shape[axis] = shape[axis] // total * left
        self.tensors[name] = replace(tensor, shape=tuple(shape))

    def graph(self) -> OperatorGraph:
        operators = tuple(self.op(index) for index in range(len(self.before.operators)))
        return replace(self.before, operators=operators, tensors={**self.before.tensors, **self.tensors})


def _tokens(changed: _Changed, layers: list[LayerLeft]) -> bool:
    """Follow what the first layer's attention makes; False, and nothing of it holds, where that comes to an
    operator that may mix tokens. Only in self-attention are queries and keys the same tokens."""
    graph, pairs = changed.before, changed.before.operators[layers[0].scores].pairs
    if pairs is None or pairs.queries != pairs.keys or layers[-1].tokens == pairs.keys:
        return True
    contexts = [_context(graph, layer.scores) for layer in layers]
    fewer = {graph.operators[contexts[0]].outputs[0]}
    inside = {i for layer, end in zip(layers, contexts, strict=True) for i in range(layer.scores, end)}
    done = 0
    for index in range(contexts[0] + 1, len(graph.operators)):
        op = graph.operators[index]
        if index in inside:
            continue
        if index in contexts:
            done = contexts.index(index)
            changed.cut(op.outputs[0], 1, layers[done].tokens, pairs.keys)
            fewer.add(op.outputs[0])
        elif fewer.intersection(op.inputs):
            left = layers[min(done + 1, len(layers) - 1)].tokens
            kind = _by_row(graph, op, pairs.keys)
            if kind is None:
                return False
            if kind:
                changed.scale(index, kind, left, pairs.keys)
            if kind and op.function != "append":
                changed.cut(op.outputs[0], 1, left, pairs.keys)
                fewer.add(op.outputs[0])
    return True


def _context(graph: OperatorGraph, scores: int) -> int:
    """Index of the product with V."""
    return next(i for i in range(scores + 1, len(graph.operators)) if graph.operators[i].kind == "matmul")


def _by_row(graph: OperatorGraph, op: Operator, tokens: int) -> str | None:
    """Which size of the operator's shape counts its tokens, all of them [batch, tokens, …]; empty if it picks
    one token, None if it may mix them."""
    made = graph.tensors[op.outputs[0]]
    if op.kind == "gather" and op.function == "select":
        return ""
    if op.kind == "scatter" and op.function == "append":
        rows = graph.tensors[op.inputs[0]].elements // op.shape.cols if isinstance(op.shape, RowsShape) else 0
        return "rows" if isinstance(op.shape, RowsShape) and op.shape.rows == rows else None
    if len(made.shape) < 2 or made.shape[1] != tokens:
        return None
    if op.kind in ("norm", "elementwise"):
        return "rows"
    weighted = op.kind == "matmul" and not op.views and graph.tensors[op.inputs[1]].role == "weight"
    dense = weighted and isinstance(op.shape, MatmulShape) and op.shape.batch == 1
    return "m" if dense and op.shape.m == made.shape[0] * tokens else None  # type: ignore[union-attr]


def _heads(changed: _Changed, layer: LayerLeft) -> None:
    """Fewer columns of what makes queries, keys and values, fewer rows of what takes the heads together."""
    graph, scores = changed.before, changed.before.operators[layer.scores]
    assert scores.pairs is not None
    heads = scores.pairs.heads
    if layer.heads == heads.heads:
        return
    at = _context(graph, layer.scores)
    context = graph.operators[at]
    made, readers = _makers(graph), _readers(graph)
    sources = [scores.inputs[0]]
    if heads.kv_heads == heads.heads:  # shared keys and values stay as long as one of their heads does
        sources += [scores.inputs[1], context.inputs[1]]
    for name in sources:
        for index, size in _columns(graph, made, readers, name, {layer.scores, at}):
            changed.scale(index, size, layer.heads, heads.heads)
            for result in graph.operators[index].outputs:
                if graph.tensors[result].role == "activation":
                    changed.cut(result, -1, layer.heads, heads.heads)
    changed.cut(context.outputs[0], -1, layer.heads, heads.heads)
    for index in readers.get(context.outputs[0], ()):
        op = graph.operators[index]
        if isinstance(op.shape, MatmulShape) and op.shape.k == heads.width:
            changed.scale(index, "k", layer.heads, heads.heads)


def _columns(
    graph: OperatorGraph,
    made: Mapping[str, int],
    readers: Mapping[str, list[int]],
    name: str,
    core: set[int],
) -> list[tuple[int, str]]:
    """The operators from a dense layer to one operand of an attention core, and which size of each counts
    heads; none if something else is between, or anything but the core and a cache reads them."""
    found: list[tuple[int, str]] = []
    while name in made:
        index = made[name]
        op = graph.operators[index]
        others = [i for i in readers.get(name, ()) if i not in core and i not in dict(found)]
        appends = [i for i in others if graph.operators[i].function == "append"]
        if appends != others:
            return []
        found += [(i, "cols") for i in appends]
        if op.kind == "matmul":
            dense = isinstance(op.shape, MatmulShape) and op.shape.batch == 1 and not op.views
            return [*found, (index, "n")] if dense and graph.tensors[op.inputs[1]].role == "weight" else []
        if op.kind not in ("norm", "elementwise") and op.function != "append":
            return []
        assert isinstance(op.shape, RowsShape)
        found.append((index, "cols" if op.kind != "norm" else "rows"))
        name = op.inputs[0]
    return []


def _makers(graph: OperatorGraph) -> dict[str, int]:
    return {name: index for index, op in enumerate(graph.operators) for name in op.outputs}


def _readers(graph: OperatorGraph) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, op in enumerate(graph.operators):
        for name in op.inputs:
            found.setdefault(name, []).append(index)
    return found
