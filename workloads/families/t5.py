"""T5: an encoder-decoder with relative position biases (Raffel et al., arXiv:1910.10683)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice, layer_choices, lower_attention
from tilewright.workloads.attention.stack import causal_site, encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Size
from tilewright.workloads.families.encoder_decoder import EncoderDecoder
from tilewright.workloads.layers import (
    NO_BIAS,
    Heads,
    cross_attention,
    decoder_attention,
    embed,
    encoder_attention,
    feed_forward,
    gated_feed_forward,
    residual,
)
from tilewright.workloads.operators import Tensor
from tilewright.workloads.registry import kind_of
from tilewright.workloads.steps import Step, language_head


@dataclass(frozen=True, slots=True)
class _Biases:
    """Biases of the scores by relative position."""

    table: Tensor
    """[buckets, heads]."""
    scores: Tensor | None
    """[heads, tokens, context], for dense attention."""


def _is_dense(choice: Parameters | None) -> bool:
    return choice is None or kind_of(choice) == "dense"


class T5(EncoderDecoder):
    """A pre-norm encoder-decoder without biases; scores are not scaled."""

    family: Literal["t5"] = "t5"
    layers: Layers
    """Layers of the encoder."""
    decoder_layers: Layers | None = None
    """By default as many as the encoder has."""
    d: Size
    """Width of the model."""
    heads: Size
    head_dim: Size
    """Width of a head; `heads * head_dim` may differ from `d`."""
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "relu"
    gated: bool = False
    """Whether the feed-forward network is gated (T5 1.1)."""
    vocab: Size
    tied: bool = True
    """Whether the head's weight is the embedding table."""
    buckets: Size = 32
    """Buckets of relative distance, each with a bias per head."""
    seq: Size = 512
    """Tokens of each sequence in the encoder."""
    target_seq: Size | None = None
    """Tokens of each sequence in the decoder: of its prompt, or in its cache. By default as many as the
    encoder's, and where tokens are generated the start token alone."""

    attention: AttentionChoice | None = None
    """Attention mechanism of every layer of the encoder; by default dense."""
    decoder_attention: AttentionChoice | None = None
    """That of the decoder's layers to what they have written; by default dense. Attention to the encoder is
    dense."""

    @property
    def target_tokens(self) -> int:
        """Tokens of each sequence in the decoder, the default worked out."""
        return self.target_seq or (1 if self.generate else self.seq)

    def encode(self, b: GraphBuilder) -> Tensor:
        """Embeddings, layers, norm."""
        x, _ = embed(b, b.input("tokens", (self.batch, self.seq), "index"), self.vocab, self.d)
        with b.scope("encoder"):
            biases = self._position_biases(b, self.seq, self.seq, layer_choices(self.attention, self.layers))

            def layer(y: Tensor, choice: Parameters | None) -> Tensor:
                return self._encoder_layer(b, y, biases, choice)

            return b.norm("norm", stack(b, x, self.layers, self.attention, layer), "rmsnorm")

    def decode(self, b: GraphBuilder, tokens: Tensor, memory: Tensor | None, step: Step) -> Tensor:
        """Embeddings, layers, norm, head."""
        table = b.weight("word.weight", (self.vocab, self.d))  # the encoder's as well
        with b.scope("decoder"):
            x = b.gather("word", "lookup", (table, tokens), (*tokens.shape, self.d))
            layers = self.decoder_layers or self.layers
            choices = layer_choices(self.decoder_attention, layers, "decoder_attention")
            biases = self._position_biases(b, step.tokens, step.context, choices)

            def layer(y: Tensor, choice: Parameters | None) -> Tensor:
                return self._decoder_layer(b, y, memory, step, biases, choice)

            x = stack(b, x, layers, self.decoder_attention, layer, "decoder_attention")
            x = b.norm("norm", x, "rmsnorm")
            if self.tied:
                x = b.elementwise("head_scale", "scale", x)
            return language_head(b, x, step, self.vocab, table if self.tied else None)

    def _position_biases(
        self, b: GraphBuilder, tokens: int, context: int, choices: Iterable[Parameters | None]
    ) -> _Biases:
        """Biases by distance, causal mask included; all layers share them."""
        table = b.weight("position_bias.weight", (self.buckets, self.heads))
        if not any(_is_dense(choice) for choice in choices):
            return _Biases(table, None)
        shape = (self.heads, tokens, context)
        return _Biases(table, b.gather("position_bias", "lookup", (table,), shape))

    @property
    def _heads(self) -> Heads:
        return Heads(self.heads, self.heads, self.head_dim)

    def _encoder_layer(
        self, b: GraphBuilder, x: Tensor, biases: _Biases, choice: Parameters | None
    ) -> Tensor:
        normed = b.norm("attention_norm", x, "rmsnorm")
        if _is_dense(choice):
            attended = encoder_attention(b, normed, self._heads, NO_BIAS, biases.scores)
        else:
            attended = encoder_attend(choice, biases.table)(b, normed, self._heads, NO_BIAS)
        return self._feed_forward(b, residual(b, "attention", x, attended))

    def _decoder_layer(
        self,
        b: GraphBuilder,
        x: Tensor,
        memory: Tensor | None,
        step: Step,
        biases: _Biases,
        choice: Parameters | None,
    ) -> Tensor:
        normed = b.norm("attention_norm", x, "rmsnorm")
        if choice is None or _is_dense(choice):
            attended = decoder_attention(b, normed, self._heads, step, NO_BIAS, score_bias=biases.scores)
        else:
            site = causal_site(
                self._heads, NO_BIAS, step, position_bias=biases.table, field="decoder_attention"
            )
            attended = lower_attention(b, normed, site, choice)
        x = residual(b, "attention", x, attended)
        normed = b.norm("cross_attention_norm", x, "rmsnorm")
        attended = cross_attention(b, normed, memory, self.seq, self._heads, NO_BIAS, function="")
        return self._feed_forward(b, residual(b, "cross_attention", x, attended))

    def _feed_forward(self, b: GraphBuilder, x: Tensor) -> Tensor:
        network = gated_feed_forward if self.gated else feed_forward
        normed = b.norm("ffn_norm", x, "rmsnorm")
        return residual(b, "ffn", x, network(b, normed, self.ffn, self.act, bias=False))
