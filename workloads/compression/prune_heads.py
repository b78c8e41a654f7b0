"""Pruning of attention heads (Michel et al., "Are Sixteen Heads Really Better than One?", arXiv:1905.10650).

before -> after: of H heads, round(fraction H) go from each attention sublayer; with grouped queries, key and
value heads go together with their queries. Columns of the query, key and value projections, rows of the
output projection, the scores, and the cache shrink; widths outside of the sublayer stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads.compression.base import Compression, Share, Technique, register
from tilewright.workloads.compression.rewrite import Resized, less, scopes
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape

_SHRINKS = {
    "query": ("n", -1),
    "key": ("n", -1),
    "value": ("n", -1),
    "query_norm": ("rows", -1),
    "key_norm": ("rows", -1),
    "query_rope": ("cols", -1),
    "key_rope": ("cols", -1),
    "key_cache": ("cols", 0),
    "value_cache": ("cols", 0),
    "scores": ("batch", 0),
    "scale": ("rows", 0),
    "scale_mask": ("rows", 0),
    "score_bias": ("rows", 0),
    "softmax": ("rows", 0),
    "context": ("batch", -1),
}
"""Of each operator of dense attention: which size of its shape, which axis of its result counts heads."""


class PruneHeads(Technique):
    """Attention heads taken out of every layer."""

    kind: Literal["prune_heads"] = "prune_heads"
    fraction: Share
    """Of each layer's heads (of its key and value heads, where queries share them)."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with fewer heads. Raises `InputError` where attention is not dense."""
        resized = Resized(graph)
        found = scopes(graph, "attention")
        if not found:
            raise InputError(f"prune_heads: {graph.name} has no attention layer with projections")
        for scope, members in found.items():
            self._prune(resized, scope, members)
        return resized.graph()

    def _prune(self, resized: Resized, scope: str, members: Mapping[str, int]) -> None:
        graph = resized.before
        strange = next((name for name in members if name not in {*_SHRINKS, "output"}), None)
        if strange or not {"query", "scores", "context", "output"} <= members.keys():
            what = f"operator {strange!r}" if strange else "other operators"
            raise InputError(f"prune_heads: works on dense attention only, and {scope} has {what}")
        total = _key_heads(graph, members)
        kept = less(total, self.fraction, f"heads in {scope}")
        for name, index in members.items():
            op = graph.operators[index]
            if name == "output":
                resized.operator(index, "k", kept, total, work=False)
                resized.tensor(op.inputs[1], 0, kept, total)
                continue
            size, axis = _SHRINKS[name]
            resized.operator(index, size, kept, total)
            if op.pairs is not None:
                resized.pairs(index, op.pairs.fewer(kept, total))
            resized.tensor(op.outputs[0], axis, kept, total)
            for operand in op.inputs[1:]:
                role = graph.tensors[operand].role
                if role == "kv_cache":
                    resized.tensor(operand, 0, kept, total)
                if name in ("query", "key", "value"):
                    resized.tensor(operand, -1, kept, total)
                if name == "score_bias":
                    _prune_position_bias(resized, operand, kept, total)


def _key_heads(graph: OperatorGraph, members: Mapping[str, int]) -> int:
    scores, query = graph.operators[members["scores"]], graph.operators[members["query"]]
    assert isinstance(scores.shape, MatmulShape)
    return scores.shape.batch // graph.tensors[query.outputs[0]].shape[0]


def _prune_position_bias(resized: Resized, name: str, kept: int, total: int) -> None:
    """T5's biases [heads, tokens, context], looked up once for all layers."""
    graph = resized.before
    index = next(i for i, op in enumerate(graph.operators) if name in op.outputs)
    resized.operator(index, "rows", kept, total)
    resized.tensor(name, 0, kept, total)
    resized.tensor(graph.operators[index].inputs[0], -1, kept, total)


COMPRESSION = register(
    Compression(
        kind="prune_heads",
        title="Pruning of attention heads",
        changes="MACs, parameters, softmax: fewer heads",
        citation="Michel et al., arXiv:1905.10650",
        hardware="None: the matrices are smaller and dense. A width that is no multiple of the array's "
        "leaves part of it idle.",
        oracle="tests/oracles/test_pruned.py: transformers 4.57.6, prune_heads",
        technique=PruneHeads,
    )
)
