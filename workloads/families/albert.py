"""ALBERT: BERT with narrow embeddings and one set of layer weights (Lan et al., arXiv:1909.11942)."""

from __future__ import annotations

from typing import Annotated, Literal

from tilewright.workloads.attention.choice import AttentionChoice, encoder_attend
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of, within_positions
from tilewright.workloads.families.bert import embeddings, pooler
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, encoder_layer
from tilewright.workloads.operators import Tensor


class Albert(Model):
    """A BERT encoder whose layers share their weights, group by group."""

    family: Literal["albert"] = "albert"
    layers: Layers
    groups: Annotated[Size, divisor_of("layers")] = 1
    """Sets of layer weights; each serves `layers / groups` layers in a row."""
    inner_layers: Layers = 1
    """Layers inside a group, all of them run at each of its turns."""
    d: Size
    """Width of the model."""
    embedding: Size = 128
    """Width of the embeddings."""
    heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "gelu_new"
    vocab: Size
    positions: Size = 512
    """Rows of the table of learned positions."""
    segments: Size = 2
    """Token types."""
    seq: Annotated[Size, within_positions("positions")] = 128
    """Tokens of each sequence."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Embeddings and their projection, the groups' layers, pooler."""
        b = GraphBuilder(self.title, self.element)
        x = embeddings(b, self.batch, self.seq, self.embedding, self.vocab, self.positions, self.segments)
        x = b.linear("embeddings_project", x, self.d)
        for group in range(self.groups):
            name = "layers.{i}" if self.groups == 1 else f"group{group}.layers.{{i}}"
            turns = self.layers // self.groups
            x = b.repeat(turns, name, x, lambda y: self._turn(b, y), weights=f"group{group}")
        return b.finish(x, pooler(b, x), family=self.family)

    def _turn(self, b: GraphBuilder, x: Tensor) -> Tensor:
        attend = encoder_attend(self.attention)
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        for inner in range(self.inner_layers):
            with b.scope("" if self.inner_layers == 1 else f"inner{inner}"):
                x = encoder_layer(b, x, heads, self.ffn, self.act, attend)
        return x
