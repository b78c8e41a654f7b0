"""DistilBERT: half of BERT's layers, without segments and pooler (Sanh et al., arXiv:1910.01108)."""

from __future__ import annotations

from typing import Annotated, Literal

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice
from tilewright.workloads.attention.stack import encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of, within_positions
from tilewright.workloads.families.bert import embeddings
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, encoder_layer
from tilewright.workloads.operators import Tensor


class DistilBert(Model):
    """A bidirectional post-norm encoder with word and position embeddings."""

    family: Literal["distilbert"] = "distilbert"
    layers: Layers
    d: Size
    """Width of the model."""
    heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "gelu"
    vocab: Size
    positions: Size = 512
    """Rows of the table of learned positions."""
    seq: Annotated[Size, within_positions("positions")] = 128
    """Tokens of each sequence."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Embeddings and `layers` equal layers."""
        b = GraphBuilder(self.title, self.element)
        x = embeddings(b, self.batch, self.seq, self.d, self.vocab, self.positions, segments=0)
        heads = Heads(self.heads, self.heads, self.d // self.heads)

        def layer(y: Tensor, choice: Parameters | None) -> Tensor:
            return encoder_layer(b, y, heads, self.ffn, self.act, encoder_attend(choice))

        x = stack(b, x, self.layers, self.attention, layer)
        return b.finish(x, family=self.family)
