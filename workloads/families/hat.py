"""HAT: translation transformers whose layers each have their own sizes, as a search chose them.

Wang et al., "HAT: Hardware-Aware Transformers for Efficient Natural Language Processing", arXiv:2005.14187,
section 3.1, and the code of its authors (mit-han-lab/hardware-aware-transformers): a post-norm
encoder-decoder on fairseq's, with sinusoidal positions. Queries, keys and values have one width in all
layers, which the layer's heads divide up. A decoder layer attends to the last one, two or three layers of
the encoder at once, their outputs one after the other ("arbitrary encoder-decoder attention").
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, DecoderRun, Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import (
    Heads,
    cross_attention,
    decoder_attention,
    encoder_layer,
    feed_forward,
    residual_norm,
)
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step, language_head, steps

PerLayer = Annotated[tuple[Size, ...], Field(min_length=1, max_length=1024)]


class Hat(DecoderRun):
    """A post-norm encoder-decoder, layer by layer.

    With `phase: decode` the encoder does not run: its keys and values are in the cache."""

    family: Literal["hat"] = "hat"
    d: Size = 512
    """Width of the encoder."""
    decoder_d: Size = 512
    """Width of the decoder."""
    qkv: Size = 512
    """Width of all queries, keys or values of a layer."""
    ffn: PerLayer
    """Width of the feed-forward network of each encoder layer."""
    heads: PerLayer
    """Heads of each encoder layer."""
    decoder_ffn: PerLayer
    decoder_heads: PerLayer
    """Heads of each decoder layer's self-attention."""
    cross_heads: PerLayer
    """Heads of each decoder layer's attention to the encoder."""
    cross_layers: PerLayer
    """How many of the encoder's last layers each decoder layer attends to."""
    act: Activation = "relu"
    vocab: Size
    """Of both languages together: encoder, decoder and head share one table (two where their widths
    differ)."""
    seq: Size = 30
    """Tokens of each sequence in the encoder."""
    target_seq: Size | None = None
    """Tokens of each sequence in the decoder: of its prompt, or in its cache. By default as many as the
    encoder's, and where tokens are generated the start token alone."""

    @field_validator("heads", "decoder_heads", "cross_heads")
    @classmethod
    def _heads_divide_the_width(cls, heads: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        qkv = info.data.get("qkv")
        wrong = next((each for each in heads if qkv and qkv % each), None)
        if wrong:
            raise ValueError(f"must divide `qkv` ({qkv}), which {wrong} does not")
        return heads

    @field_validator("heads", "decoder_heads", "cross_heads", "cross_layers")
    @classmethod
    def _one_for_each_layer(cls, sizes: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        like = "ffn" if info.field_name == "heads" else "decoder_ffn"
        layers = len(info.data.get(like, sizes))
        if len(sizes) != layers:
            raise ValueError(f"has {len(sizes)} layers, `{like}` has {layers}: give one size for each layer")
        return sizes

    @field_validator("cross_layers")
    @classmethod
    def _encoder_has_them(cls, cross_layers: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        layers = len(info.data.get("ffn", ()))
        if layers and max(cross_layers) > layers:
            raise ValueError(f"{max(cross_layers)} layers are more than the encoder's {layers}")
        return cross_layers

    @property
    def target_tokens(self) -> int:
        """Tokens of each sequence in the decoder, the default worked out."""
        return self.target_seq or (1 if self.generate else self.seq)

    def lower(self) -> OperatorGraph:
        """The encoder, then the decoder's steps one after the other."""
        b = GraphBuilder(self.title, self.element)
        memories = self._encode(b) if self.phase == "prefill" else {}
        out: list[Tensor] = []
        tokens: Tensor | None = None
        for step in steps(self.target_tokens, self.phase, self.generate):
            with b.scope(step.scope, weights=""):
                name = f"{step.scope}.target_tokens".lstrip(".")
                tokens = tokens or b.input(name, (self.batch, step.tokens), "index")
                tokens = self._decode(b, tokens, {} if step.decode else memories, step)
                out.append(tokens)
        return b.finish(*out, family=self.family)

    def _encode(self, b: GraphBuilder) -> dict[int, Tensor]:
        """The outputs of the last layers side by side [batch, layers * seq, d], by their number."""
        tokens = b.input("tokens", (self.batch, self.seq), "index")
        with b.scope("encoder"):
            x = self._embed(b, tokens, self.d, b.input("positions", (self.seq, self.d)))
            outputs: list[Tensor] = []
            for number, (width, heads) in enumerate(zip(self.ffn, self.heads, strict=True)):
                with b.scope(f"layers.{number}"):
                    x = encoder_layer(b, x, self._heads(heads), width, self.act)
                outputs.insert(0, x)
            return {
                count: outputs[0]
                if count == 1
                else b.gather(
                    f"last_{count}", "concat", tuple(outputs[:count]), (self.batch, count * self.seq, self.d)
                )
                for count in sorted(set(self.cross_layers))
            }

    def _decode(self, b: GraphBuilder, tokens: Tensor, memories: dict[int, Tensor], step: Step) -> Tensor:
        """Embeddings, layers, head; without memories their keys and values come from the cache."""
        name = f"{step.scope}.target_positions".lstrip(".")
        positions = b.input(name, (step.tokens, self.decoder_d))
        with b.scope("decoder"):
            x = self._embed(b, tokens, self.decoder_d, positions)
            for number in range(len(self.decoder_ffn)):
                with b.scope(f"layers.{number}"):
                    x = self._decoder_layer(b, x, memories.get(self.cross_layers[number]), step, number)
            return language_head(b, x, step, self.vocab, self._table(b, self.decoder_d))

    def _decoder_layer(
        self, b: GraphBuilder, x: Tensor, memory: Tensor | None, step: Step, number: int
    ) -> Tensor:
        attended = decoder_attention(b, x, self._heads(self.decoder_heads[number]), step)
        x = residual_norm(b, "attention", x, attended)
        context = self.cross_layers[number] * self.seq
        attended = cross_attention(b, x, memory, context, self._heads(self.cross_heads[number]))
        x = residual_norm(b, "cross_attention", x, attended)
        return residual_norm(b, "ffn", x, feed_forward(b, x, self.decoder_ffn[number], self.act))

    def _table(self, b: GraphBuilder, width: int) -> Tensor:
        name = "word.weight" if self.d == self.decoder_d else f"word_{width}.weight"
        return b.weight(name, (self.vocab, width), shared=True)

    def _embed(self, b: GraphBuilder, tokens: Tensor, width: int, positions: Tensor) -> Tensor:
        table = self._table(b, width)
        word = b.gather("word", "lookup", (table, tokens), (*tokens.shape, width))
        return b.elementwise("sum", "add", b.elementwise("word_scale", "scale", word), positions)

    def _heads(self, heads: int) -> Heads:
        return Heads(heads, heads, self.qkv // heads)
