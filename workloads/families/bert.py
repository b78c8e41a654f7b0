"""BERT and its relatives of the same shape: RoBERTa, ELECTRA, MiniLM, TinyBERT.

Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
arXiv:1810.04805.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import NonNegativeInt

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice
from tilewright.workloads.attention.stack import encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of, within_positions
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, embed, encoder_layer, learned_positions
from tilewright.workloads.operators import Tensor


class Bert(Model):
    """A bidirectional post-norm encoder with word, position and segment embeddings."""

    family: Literal["bert"] = "bert"
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
    position_offset: NonNegativeInt = 0
    """Rows of that table before the first token's (RoBERTa: 2)."""
    segments: NonNegativeInt = 2
    """Token types; 0: none."""
    embedding: Size | None = None
    """Width of the embeddings, where it differs from `d` (ELECTRA)."""
    pooler: bool = True
    """Whether a dense layer with tanh stands on the first token."""
    seq: Annotated[Size, within_positions("positions")] = 128
    """Tokens of each sequence."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Embeddings, `layers` equal layers, pooler."""
        b = GraphBuilder(self.title, self.element)
        width = self.embedding or self.d
        x = embeddings(b, self.batch, self.seq, width, self.vocab, self.positions, self.segments)
        if width != self.d:
            x = b.linear("embeddings_project", x, self.d)
        heads = Heads(self.heads, self.heads, self.d // self.heads)

        def layer(y: Tensor, choice: Parameters | None) -> Tensor:
            return encoder_layer(b, y, heads, self.ffn, self.act, encoder_attend(choice))

        x = stack(b, x, self.layers, self.attention, layer)
        return b.finish(*((x, pooler(b, x)) if self.pooler else (x,)), family=self.family)


def embeddings(
    b: GraphBuilder, batch: int, seq: int, width: int, vocab: int, positions: int, segments: int
) -> Tensor:
    """LayerNorm(word + position + segment) [batch, seq, width]; without segments their table is left out."""
    tokens = b.input("tokens", (batch, seq), "index")
    with b.scope("embeddings"):
        word, _ = embed(b, tokens, vocab, width)
        terms = [word, learned_positions(b, positions, seq, width)]
        if segments:
            kinds = b.input("segments", (batch, seq), "index")
            table = b.weight("segment.weight", (segments, width))
            terms.append(b.gather("segment", "lookup", (table, kinds), (batch, seq, width)))
        return b.norm("norm", b.elementwise("sum", "add", *terms))


def pooler(b: GraphBuilder, x: Tensor) -> Tensor:
    """tanh(W x_0 + b) of the first token [batch, 1, width]."""
    batch, _, width = x.shape
    with b.scope("pooler"):
        first = b.gather("first_token", "select", (x,), (batch, 1, width))
        return b.elementwise("tanh", "tanh", b.linear("dense", first, width))
