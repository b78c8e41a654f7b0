"""Whisper: speech to text (Radford et al., arXiv:2212.04356).

The encoder sees `2 * seq` frames of a log-mel spectrogram; its two convolutions (width 3, the second of
stride 2) are matmuls over unfolded frames.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ValidationInfo, field_validator

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice, lower_attention
from tilewright.workloads.attention.stack import causal_site, encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import (
    Activation,
    Layers,
    Size,
    divisor_of,
    need_positions,
    within_positions,
)
from tilewright.workloads.families.encoder_decoder import EncoderDecoder
from tilewright.workloads.layers import (
    AttentionBias,
    Heads,
    cross_attention,
    decoder_attention,
    embed,
    feed_forward,
    learned_positions,
    prenorm_encoder_layer,
    residual,
)
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step, language_head

CONVOLUTION_WIDTH = 3
PROMPT_TOKENS = 4
KEYS_WITHOUT_BIAS = AttentionBias(key=False)


class Whisper(EncoderDecoder):
    """A pre-norm encoder-decoder over audio frames."""

    family: Literal["whisper"] = "whisper"
    layers: Layers
    """Layers of the encoder."""
    decoder_layers: Layers
    d: Size
    """Width of the model."""
    heads: Annotated[Size, divisor_of("d")]
    """Heads of the encoder."""
    decoder_heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the encoder's feed-forward networks."""
    decoder_ffn: Size
    act: Activation = "gelu"
    mels: Size = 80
    """Mel bands of a frame."""
    vocab: Size
    tied: bool = True
    """Whether the head's weight is the embedding table."""
    positions: Size = 1500
    """Rows of the encoder's table of positions."""
    target_positions: Size = 448
    """Rows of the decoder's table of learned positions."""
    seq: Annotated[Size, within_positions("positions")] = 1500
    """Positions of each sequence in the encoder: half its frames."""
    target_seq: Size | None = None
    """Tokens of each sequence in the decoder: of its prompt, or in its cache. By default all its positions,
    and where tokens are generated the 4 of Whisper's prompt (start, language, task, no timestamps)."""

    attention: AttentionChoice | None = None
    """Attention mechanism of every layer of the encoder; by default dense."""
    decoder_attention: AttentionChoice | None = None
    """That of the decoder's layers to what they have written; by default dense. Attention to the encoder is
    dense."""

    @field_validator("target_seq")
    @classmethod
    def _targets_have_positions(cls, target_seq: int | None, info: ValidationInfo) -> int | None:
        generate, positions = info.data.get("generate", 0), info.data.get("target_positions")
        if positions is not None and (target_seq or generate):
            need_positions(target_seq or PROMPT_TOKENS, generate, positions, "target_positions")
        return target_seq

    @property
    def target_tokens(self) -> int:
        """Tokens of each sequence in the decoder, the default worked out."""
        return self.target_seq or (PROMPT_TOKENS if self.generate else self.target_positions)

    def encode(self, b: GraphBuilder) -> Tensor:
        """Two convolutions, positions, layers, norm."""
        frames = b.input("frames", (self.batch, 2 * self.seq, self.mels))
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        with b.scope("encoder"):
            x = self._convolution(b, "conv1", frames, 2 * self.seq)
            x = self._convolution(b, "conv2", x, self.seq)
            x = b.elementwise("sum", "add", x, learned_positions(b, self.positions, self.seq, self.d))

            def layer(y: Tensor, choice: Parameters | None) -> Tensor:
                attend = encoder_attend(choice)
                return prenorm_encoder_layer(b, y, heads, self.ffn, self.act, KEYS_WITHOUT_BIAS, attend)

            return b.norm("norm", stack(b, x, self.layers, self.attention, layer))

    def _convolution(self, b: GraphBuilder, name: str, x: Tensor, frames: int) -> Tensor:
        with b.scope(name):
            window = (self.batch, frames, CONVOLUTION_WIDTH * x.shape[-1])
            x = b.linear("matmul", b.gather("unfold", "unfold", (x,), window), self.d)
            return b.elementwise("act", self.act, x)

    def decode(self, b: GraphBuilder, tokens: Tensor, memory: Tensor | None, step: Step) -> Tensor:
        """Embeddings, layers, norm, head."""
        with b.scope("decoder"):
            word, table = embed(b, tokens, self.vocab, self.d)
            positions = learned_positions(b, self.target_positions, step.tokens, self.d)
            x = b.elementwise("sum", "add", word, positions)

            def layer(y: Tensor, choice: Parameters | None) -> Tensor:
                return self._decoder_layer(b, y, memory, step, choice)

            x = stack(b, x, self.decoder_layers, self.decoder_attention, layer, "decoder_attention")
            return language_head(b, b.norm("norm", x), step, self.vocab, table if self.tied else None)

    def _decoder_layer(
        self, b: GraphBuilder, x: Tensor, memory: Tensor | None, step: Step, choice: Parameters | None
    ) -> Tensor:
        heads = Heads(self.decoder_heads, self.decoder_heads, self.d // self.decoder_heads)
        normed = b.norm("attention_norm", x)
        if choice is None:
            attended = decoder_attention(b, normed, heads, step, KEYS_WITHOUT_BIAS)
        else:
            site = causal_site(heads, KEYS_WITHOUT_BIAS, step, field="decoder_attention")
            attended = lower_attention(b, normed, site, choice)
        x = residual(b, "attention", x, attended)
        normed = b.norm("cross_attention_norm", x)
        attended = cross_attention(b, normed, memory, self.seq, heads, KEYS_WITHOUT_BIAS)
        x = residual(b, "cross_attention", x, attended)
        return residual(b, "ffn", x, feed_forward(b, b.norm("ffn_norm", x), self.decoder_ffn, self.act))
