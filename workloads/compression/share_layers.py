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
from tilewright.workloads.operators import in_copies, in_copy

_PATTERNS = {"all": ("*",), "attention": ("*attention.*",), "ffn": ("*ffn.*",)}


class ShareLayers(Technique):
    """One set of weights for all layers of a stack."""

    kind: Literal["share_layers"] = "share_layers"
    share: Literal["all", "attention", "ffn"] = "all"
    """Which of a layer's weights (ALBERT's ablation, table 4)."""

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph on shared weights. Raises `InputError` where no layers have weights of their own."""
        shared = {
            name: replace(tensor, name=in_copy(name, "shared"))
            for name, tensor in graph.tensors.items()
            if tensor.role == "weight" and in_copies(name) and matches(name, _PATTERNS[self.share])
        }
        if not shared:
            raise InputError(f"share_layers: {graph.name} has no layers with weights of their own to share")
        sizes: dict[str, tuple[int, ...]] = {}
        for tensor in shared.values():
            if sizes.setdefault(tensor.name, tensor.shape) != tensor.shape:
                raise InputError(
                    f"share_layers: layers of {graph.name} can't share {tensor.name}, which is of shape "
                    f"{sizes[tensor.name]} in some and of {tensor.shape} in others"
                )
        instead = {
            index: (replace(op, inputs=tuple(shared[n].name if n in shared else n for n in op.inputs)),)
            for index, op in enumerate(graph.operators)
        }
        return rebuilt(graph, instead, shared.values())


COMPRESSION = register(
    Compression(
        kind="share_layers",
        title="Weights shared by all layers",
        changes="parameters: layers on one set of weights",
        citation="Lan et al. (ALBERT), arXiv:1909.11942",
        hardware="A weight buffer that holds a layer: only then are its weights read from DRAM once.",
        oracle="tests/oracles/test_models.py: transformers 4.57.6, ALBERT",
        technique=ShareLayers,
    )
)
