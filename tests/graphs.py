"""What the tests of workloads share: one attention layer as a graph, and counts over graphs."""

from __future__ import annotations

from collections import Counter

from tilewright.workloads.attention.base import Mechanism, Parameters, Site
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.compression.base import Technique
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, AttentionBias, Heads
from tilewright.workloads.operators import RowsShape
from tilewright.workloads.rules import check


def one_layer(
    mechanism: Mechanism,
    p: Parameters,
    heads: Heads,
    n: int,
    d: int | None = None,
    *,
    batch: int = 1,
    causal: bool = False,
    decode: bool = False,
    bias: AttentionBias = ALL_BIASES,
) -> OperatorGraph:
    """A layer alone, on n tokens (or the n-th, decoding) of width d, the heads' if not given."""
    b = GraphBuilder("t")
    x = b.input("x", (batch, 1 if decode else n, heads.width if d is None else d))
    site = Site(heads, bias, causal=causal, context=n, decode=decode)
    return b.finish(mechanism.lower(b, x, site, p))


def work(graph: OperatorGraph, *kinds: str) -> Counter[str]:
    """Primitives of all operators of some kinds, each once."""
    total: Counter[str] = Counter()
    for op in graph.operators:
        if op.kind in kinds:
            total.update(dict(op.primitives))
    return total


def total_primitives(graph: OperatorGraph) -> Counter[str]:
    """Primitives of the whole graph, repeats included."""
    total: Counter[str] = Counter()
    for index, op in enumerate(graph.operators):
        for primitive, count in op.primitives:
            total[primitive] += count * graph.times(index)
    return total


def exps(graph: OperatorGraph) -> int:
    """Exponentials of all operators, each once."""
    return sum(dict(op.primitives).get("exp", 0) for op in graph.operators)


def elements(graph: OperatorGraph, kind: str, function: str | None = None) -> int:
    """Elements of all operators on rows of a kind, and of a function if given."""
    found = (op.shape for op in graph.operators if op.kind == kind and function in (None, op.function))
    return sum(shape.elements for shape in found if isinstance(shape, RowsShape))


def after(graph: OperatorGraph, technique: Technique) -> OperatorGraph:
    """The compressed graph, checked."""
    made = technique.transform(graph)
    check(made)
    check(made.expand())
    return made
