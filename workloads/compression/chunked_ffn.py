"""Chunked feed-forward (Kitaev et al., "Reformer", arXiv:2001.04451, section 3): a few tokens at a time.

before -> after: each feed-forward network on n tokens becomes ceil(n / chunk) networks on `chunk` tokens of
each sequence, one after the other, and a concatenation. MACs stay; the hidden layer needs room for `chunk`
tokens instead of n; weights are read again for each chunk unless they stay in a buffer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import part, rebuilt, resized, scopes
from tilewright.workloads.description import Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor

MOST_CHUNKS = 4096
"""Each chunk has operators of its own in the graph."""


class ChunkedFfn(Technique):
    """Feed-forward networks that work on some tokens at a time."""

    kind: Literal["chunked_ffn"] = "chunked_ffn"
    chunk: Size
    """Tokens of each sequence at a time."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with chunked networks. Raises `InputError` where it has none, or where there would be
        too many chunks."""
        found = scopes(graph, "ffn")
        if not found:
            raise InputError(f"chunked_ffn: {graph.name} has no feed-forward network outside of experts")
        instead: dict[int, tuple[Operator, ...]] = {}
        tensors: list[Tensor] = []
        for scope, members in found.items():
            if not {"up", "down"} <= members.keys():
                raise InputError(f"chunked_ffn: {scope} is no plain feed-forward network")
            operators, made = self._chunks(graph, scope, members)
            if operators:
                instead |= dict.fromkeys(members.values(), ()) | {members["down"]: operators}
                tensors += made
        return rebuilt(graph, instead, tensors)

    def _chunks(
        self, graph: OperatorGraph, scope: str, members: Mapping[str, int]
    ) -> tuple[tuple[Operator, ...], list[Tensor]]:
        """The chunks' operators, and what they make; nothing where all tokens fit one chunk."""
        down = graph.operators[members["down"]]
        result = graph.tensors[down.outputs[0]]
        tokens = result.shape[1]
        starts = range(0, tokens, self.chunk)
        if len(starts) > MOST_CHUNKS:
            raise InputError(
                f"chunked_ffn.chunk: {len(starts):,} chunks, more than the {MOST_CHUNKS:,} allowed"
            )
        if len(starts) < 2:
            return (), []
        operators: list[Operator] = []
        tensors: list[Tensor] = []
        for number, start in enumerate(starts):
            size = min(self.chunk, tokens - start)
            names = {
                graph.operators[index].outputs[0]: f"{scope}.chunk{number}.{name}"
                for name, index in members.items()
            }
            tensors += (_fewer(graph.tensors[old], new, size) for old, new in names.items())
            operators += (_chunk(graph.operators[index], names, size, tokens) for index in members.values())
        parts = tuple(f"{scope}.chunk{number}.down" for number in range(len(starts)))
        rows = RowsShape(result.elements // result.shape[-1], result.shape[-1])
        work = primitives.moves(rows.elements)
        concat = Operator(f"{scope}.concat", "gather", parts, (result.name,), rows, "concat", work)
        return (*operators, concat), tensors


def _fewer(tensor: Tensor, name: str, tokens: int) -> Tensor:
    return replace(tensor, name=name, shape=(tensor.shape[0], tokens, *tensor.shape[2:]))


def _chunk(op: Operator, names: Mapping[str, str], size: int, tokens: int) -> Operator:
    """The operator on `size` of all tokens; what comes from outside of the network is read by address."""
    linear = isinstance(op.shape, MatmulShape)
    shape = resized(op.shape, "m" if linear else "rows", size, tokens)
    return replace(
        op,
        name=names[op.outputs[0]],
        inputs=tuple(names.get(name, name) for name in op.inputs),
        outputs=(names[op.outputs[0]],),
        shape=shape,
        primitives=tuple((name, part(count, size, tokens)) for name, count in op.primitives),
        useful_macs=None if op.useful_macs is None else part(op.useful_macs, size, tokens),
        views=linear and op.inputs[0] not in names,
    )


COMPRESSION = register(
    Compression(
        kind="chunked_ffn",
        title="Chunked feed-forward network",
        changes="peak memory: the feed-forward network works on some tokens at a time",
        citation="Kitaev et al. (Reformer), arXiv:2001.04451",
        hardware="A weight buffer that holds the network; else each chunk reads its weights again.",
        oracle="tests/test_compression_passes.py: same MACs and weights, smaller hidden layer",
        technique=ChunkedFfn,
    )
)
