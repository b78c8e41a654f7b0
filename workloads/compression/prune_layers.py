"""Pruning of whole layers (Fan et al., "LayerDrop", arXiv:1909.11556; Sajjad et al., arXiv:2004.03844).

before -> after: a stack of L layers becomes one of L - round(fraction L), in encoder and decoder alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads.compression.base import Compression, Share, Technique, register
from tilewright.workloads.compression.rewrite import less
from tilewright.workloads.graph import OperatorGraph


class PruneLayers(Technique):
    """Layers taken out of every stack."""

    kind: Literal["prune_layers"] = "prune_layers"
    fraction: Share
    """Of each stack's layers."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with fewer layers. Raises `InputError` where none is repeated."""
        if not graph.repeats:
            raise InputError(f"prune_layers: {graph.name} has no stack of layers")
        repeats = tuple(
            replace(
                repeat,
                times=less(
                    repeat.times, self.fraction, f"layers, {graph.operators[repeat.start].name} and so on"
                ),
            )
            for repeat in graph.repeats
        )
        return replace(graph, repeats=repeats)


COMPRESSION = register(
    Compression(
        kind="prune_layers",
        title="Pruning of layers",
        changes="MACs, parameters: fewer layers",
        citation="Fan et al., arXiv:1909.11556; Sajjad et al., arXiv:2004.03844",
        hardware="None: there is less of the same work.",
        oracle="tests/oracles/test_pruned.py: transformers 4.57.6, layers taken out",
        technique=PruneLayers,
    )
)
