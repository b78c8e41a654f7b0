"""Sharing of weights across layers, as ALBERT does (Lan et al., arXiv:1909.11942, section 3.1, table 4).

before -> after: the weights `layers.{i}.…` of a stack become one set, `layers.shared.…`. MACs stay; weights
are read again by each layer unless they stay in a buffer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import matches, rebuilt
from tilewright.workloads.graph import OperatorGraph

_PATTERNS = {"all": ("*",), "attention": ("*attention.*",), "ffn": ("*ffn.*",)}


class ShareLayers(Technique):
    """One set of weights for all layers of a stack."""

    kind: Literal["share_layers"] = "share_layers"
    share: Literal["all", "attention", "ffn"] = "all"
    """Which of a layer's weights (ALBERT's ablation, table 4)."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph on shared weights. Raises `InputError` where no layers have weights of their own."""
        shared = {
            name: replace(tensor, name=name.replace("{i}", "shared"))
            for name, tensor in graph.tensors.items()
            if tensor.role == "weight" and "{i}" in name and matches(name, _PATTERNS[self.share])
        }
        if not shared:
            raise InputError(f"share_layers: {graph.name} has no layers with weights of their own to share")
        instead = {
            index: (replace(op, inputs=tuple(shared[n].name if n in shared else n for n in op.inputs)),)
            for index, op in enumerate(graph.operators)
        }
        return rebuilt(graph, instead, shared.values())


COMPRESSION = register(
    Compression(
        kind="share_layers",
        title="Weights shared by all layers",
        citation="Lan et al. (ALBERT), arXiv:1909.11942",
        hardware="A weight buffer that holds a layer: only then are its weights read from DRAM once.",
        technique=ShareLayers,
    )
)
