"""T5: an encoder-decoder with relative position biases (Raffel et al., arXiv:1910.10683)."""

from __future__ import annotations

from typing import Literal

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
from tilewright.workloads.steps import Step, language_head


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

    @property
    def target_tokens(self) -> int:
        """Tokens of each sequence in the decoder, the default worked out."""
        return self.target_seq or (1 if self.generate else self.seq)

    def encode(self, b: GraphBuilder) -> Tensor:
        """Embeddings, layers, norm."""
        x, _ = embed(b, b.input("tokens", (self.batch, self.seq), "index"), self.vocab, self.d)
        with b.scope("encoder"):
            bias = self._position_bias(b, self.seq, self.seq)
            x = b.repeat(self.layers, "layers.{i}", x, lambda y: self._encoder_layer(b, y, bias))
            return b.norm("norm", x, "rmsnorm")

    def decode(self, b: GraphBuilder, tokens: Tensor, memory: Tensor | None, step: Step) -> Tensor:
        """Embeddings, layers, norm, head."""
        table = b.weight("word.weight", (self.vocab, self.d))  # the encoder's as well
        with b.scope("decoder"):
            x = b.gather("word", "lookup", (table, tokens), (*tokens.shape, self.d))
            bias = self._position_bias(b, step.tokens, step.context)
            x = b.repeat(
                self.decoder_layers or self.layers,
                "layers.{i}",
                x,
                lambda y: self._decoder_layer(b, y, memory, step, bias),
            )
            x = b.norm("norm", x, "rmsnorm")
            if self.tied:
                x = b.elementwise("head_scale", "scale", x)
            return language_head(b, x, step, self.vocab, table if self.tied else None)

    def _position_bias(self, b: GraphBuilder, tokens: int, context: int) -> Tensor:
        """Biases [heads, tokens, context] by distance, causal mask included; all layers share them."""
        table = b.weight("position_bias.weight", (self.buckets, self.heads))
        return b.gather("position_bias", "lookup", (table,), (self.heads, tokens, context))

    @property
    def _heads(self) -> Heads:
        return Heads(self.heads, self.heads, self.head_dim)

    def _encoder_layer(self, b: GraphBuilder, x: Tensor, bias: Tensor) -> Tensor:
        normed = b.norm("attention_norm", x, "rmsnorm")
        x = residual(b, "attention", x, encoder_attention(b, normed, self._heads, NO_BIAS, bias))
        return self._feed_forward(b, x)

    def _decoder_layer(
        self, b: GraphBuilder, x: Tensor, memory: Tensor | None, step: Step, bias: Tensor
    ) -> Tensor:
        normed = b.norm("attention_norm", x, "rmsnorm")
        attended = decoder_attention(b, normed, self._heads, step, NO_BIAS, score_bias=bias)
        x = residual(b, "attention", x, attended)
        normed = b.norm("cross_attention_norm", x, "rmsnorm")
        attended = cross_attention(b, normed, memory, self.seq, self._heads, NO_BIAS, function="")
        return self._feed_forward(b, residual(b, "cross_attention", x, attended))

    def _feed_forward(self, b: GraphBuilder, x: Tensor) -> Tensor:
        network = gated_feed_forward if self.gated else feed_forward
        normed = b.norm("ffn_norm", x, "rmsnorm")
        return residual(b, "ffn", x, network(b, normed, self.ffn, self.act, bias=False))
