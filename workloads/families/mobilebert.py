"""MobileBERT: BERT with bottlenecks, stacked feed-forward networks and no layer norms.

Sun et al., "MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices", arXiv:2004.02984.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import NonNegativeInt

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice
from tilewright.workloads.attention.stack import encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of, within_positions
from tilewright.workloads.families.bert import pooler
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import (
    ALL_BIASES,
    Heads,
    attention_core,
    embed,
    feed_forward,
    learned_positions,
    residual,
)
from tilewright.workloads.operators import Tensor


class MobileBert(Model):
    """A bidirectional encoder whose layers work on a narrower width than they hand on."""

    family: Literal["mobilebert"] = "mobilebert"
    layers: Layers
    d: Size
    """Width between layers."""
    bottleneck: Size
    """Width inside a layer."""
    heads: Annotated[Size, divisor_of("bottleneck")]
    ffn: Size
    """Width of each feed-forward network."""
    networks: Size = 4
    """Feed-forward networks in a layer, one after the other."""
    act: Activation = "relu"
    norm: Literal["nonorm", "layernorm"] = "nonorm"
    """`nonorm`: gamma x + beta, with vectors of weights."""
    narrow_values: bool = False
    """Whether the values, too, are made of the narrow input (MobileBERT-tiny); queries and keys then have no
    bottleneck of their own."""
    vocab: Size
    embedding: Size
    """Width of the embeddings; three neighbours' are joined and projected to `d`."""
    positions: Size = 512
    """Rows of the table of learned positions."""
    segments: NonNegativeInt = 2
    """Token types; 0: none."""
    pooler: bool = True
    """Whether a dense layer with tanh stands on the first token."""
    seq: Annotated[Size, within_positions("positions")] = 128
    """Tokens of each sequence."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense. Needs `narrow_values`: a mechanism makes queries,
    keys and values of one input."""

    def lower(self) -> OperatorGraph:
        """Embeddings, `layers` equal layers, pooler."""
        b = GraphBuilder(self.title, self.element)
        if self.attention is not None and not self.narrow_values:
            raise InputError(
                "attention: this model makes its values of another input than queries and keys, which no "
                "mechanism does; set `narrow_values` (MobileBERT-tiny), or leave `attention` out"
            )
        x = stack(b, self._embeddings(b), self.layers, self.attention, partial(self._layer, b))
        return b.finish(*((x, pooler(b, x)) if self.pooler else (x,)), family=self.family)

    def _embeddings(self, b: GraphBuilder) -> Tensor:
        """Three neighbouring words projected, positions and segments added."""
        tokens = b.input("tokens", (self.batch, self.seq), "index")
        with b.scope("embeddings"):
            word, _ = embed(b, tokens, self.vocab, self.embedding)
            trigram = b.gather("trigram", "unfold", (word,), (self.batch, self.seq, 3 * self.embedding))
            terms = [b.linear("project", trigram, self.d)]
            terms.append(learned_positions(b, self.positions, self.seq, self.d))
            if self.segments:
                kinds = b.input("segments", (self.batch, self.seq), "index")
                table = b.weight("segment.weight", (self.segments, self.d))
                terms.append(b.gather("segment", "lookup", (table, kinds), (self.batch, self.seq, self.d)))
            return self._norm(b, "norm", b.elementwise("sum", "add", *terms))

    def _layer(self, b: GraphBuilder, x: Tensor, choice: Parameters | None) -> Tensor:
        narrow = self._bottleneck(b, "bottleneck", x)
        shared = narrow if self.narrow_values else self._bottleneck(b, "attention_bottleneck", x)
        heads = Heads(self.heads, self.heads, self.bottleneck // self.heads)
        if choice is None:
            attended = self._attention(b, shared, narrow if self.narrow_values else x, heads)
        else:
            attended = encoder_attend(choice)(b, narrow, heads, ALL_BIASES)
        y = self._norm(b, "attention_norm", residual(b, "attention", narrow, attended))
        for number in range(self.networks):
            with b.scope(f"stack{number}"):
                y = self._norm(b, "ffn_norm", residual(b, "ffn", y, feed_forward(b, y, self.ffn, self.act)))
        return self._norm(b, "norm", residual(b, "layer", x, b.linear("widen", y, self.d)))

    def _bottleneck(self, b: GraphBuilder, name: str, x: Tensor) -> Tensor:
        return self._norm(b, f"{name}_norm", b.linear(name, x, self.bottleneck))

    def _attention(self, b: GraphBuilder, shared: Tensor, values: Tensor, heads: Heads) -> Tensor:
        with b.scope("attention"):
            query = b.linear("query", shared, heads.width)
            key = b.linear("key", shared, heads.width)
            value = b.linear("value", values, heads.width)
            context = attention_core(b, query, key, value, heads)
            return b.linear("output", context, self.bottleneck)

    def _norm(self, b: GraphBuilder, name: str, x: Tensor) -> Tensor:
        if self.norm == "layernorm":
            return b.norm(name, x)
        vectors = (b.weight(f"{name}.{each}", (x.shape[-1],)) for each in ("weight", "bias"))
        return b.elementwise(name, "nonorm", x, *vectors)
