"""Pruning of feed-forward networks' columns (McCarley et al., arXiv:1910.06360).

before -> after: W2 act(W1 x) of width f becomes one of width f - round(fraction f): columns of W1 (and of the
gate), rows of W2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads.compression.base import Compression, Share, Technique, register
from tilewright.workloads.compression.rewrite import Resized, less, scopes
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape

_NETWORK = frozenset({"up", "gate", "act", "gated", "down"})


class PruneFfn(Technique):
    """Columns taken out of every feed-forward network."""

    kind: Literal["prune_ffn"] = "prune_ffn"
    fraction: Share
    """Of each network's width."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with narrower networks. Raises `InputError` where it has none."""
        resized = Resized(graph)
        found = scopes(graph, "ffn")
        if not found:
            raise InputError(f"prune_ffn: {graph.name} has no feed-forward network outside of experts")
        for scope, members in found.items():
            self._prune(resized, scope, members)
        return resized.graph()

    def _prune(self, resized: Resized, scope: str, members: Mapping[str, int]) -> None:
        graph = resized.before
        if not {"up", "act", "down"} <= members.keys() <= _NETWORK:
            others = ", ".join(sorted(members.keys() - _NETWORK))
            raise InputError(f"prune_ffn: works on plain feed-forward networks, and {scope} has {others}")
        down = graph.operators[members["down"]]
        assert isinstance(down.shape, MatmulShape)
        total = down.shape.k
        kept = less(total, self.fraction, f"columns in {scope}")
        for name, index in members.items():
            op = graph.operators[index]
            if name == "down":
                resized.operator(index, "k", kept, total, work=False)
                resized.tensor(op.inputs[1], 0, kept, total)
                continue
            linear = isinstance(op.shape, MatmulShape)
            resized.operator(index, "n" if linear else "cols", kept, total)
            resized.tensor(op.outputs[0], -1, kept, total)
            for operand in op.inputs[1:] if linear else ():
                resized.tensor(operand, -1, kept, total)


COMPRESSION = register(
    Compression(
        kind="prune_ffn",
        title="Pruning of feed-forward columns",
        changes="MACs, parameters: fewer columns in feed-forward networks",
        citation="McCarley et al., arXiv:1910.06360",
        hardware="None: the matrices are smaller and dense. A width that is no multiple of the array's "
        "leaves part of it idle.",
        oracle="tests/oracles/test_pruned.py: transformers 4.57.6, prune_linear_layer",
        technique=PruneFfn,
    )
)
