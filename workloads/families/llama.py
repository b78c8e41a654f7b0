"""LLaMA and its relatives of the same shape: Mistral, Qwen2, Qwen3.

Touvron et al., arXiv:2302.13971 and arXiv:2307.09288; grouped-query attention: Ainslie et al.,
arXiv:2305.13245; rolling KV cache: Jiang et al., "Mistral 7B", arXiv:2310.06825.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import ValidationInfo, field_validator

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice, lower_attention
from tilewright.workloads.attention.stack import causal_site, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, DecoderRun, Layers, Size, divisor_of
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import (
    AttentionBias,
    Heads,
    decoder_attention,
    embed,
    gated_feed_forward,
    residual,
)
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step, language_head, steps


class CausalModel(DecoderRun):
    """What LLaMA-like models and their mixtures of experts share: all but the feed-forward network."""

    layers: Layers
    d: Size
    """Width of the model."""
    heads: Size
    """Query heads."""
    kv_heads: Annotated[Size | None, divisor_of("heads")] = None
    """Key and value heads; by default as many as query heads."""
    head_dim: Size | None = None
    """Width of a head; by default `d / heads`."""
    act: Activation = "silu"
    vocab: Size
    tied: bool = False
    """Whether the head's weight is the embedding table."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have a bias (Qwen2)."""
    output_bias: bool = False
    """Whether the attention's output projection has a bias."""
    qk_norm: bool = False
    """Whether queries and keys are normalised head by head (Qwen3)."""
    window: Size | None = None
    """Tokens that the attention looks back at, itself included (Mistral). The KV cache holds no more; a
    prefill is computed dense and masked."""
    seq: Size = 512
    """Tokens of each sequence: of the prompt, or in the cache."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    @field_validator("head_dim")
    @classmethod
    def _heads_have_even_width(cls, head_dim: int | None, info: ValidationInfo) -> int | None:
        d, heads = info.data.get("d"), info.data.get("heads")
        if head_dim is None and d and heads and d % heads:
            raise ValueError(f"is needed where `d` ({d}) is no multiple of `heads` ({heads})")
        width = head_dim or (d // heads if d and heads else 2)
        if width % 2:
            raise ValueError(f"rotary positions need heads of even width, not {width}")
        return head_dim

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_dim or self.d // self.heads

    def lower(self) -> OperatorGraph:
        """The steps of the run, one after the other."""
        b = GraphBuilder(self.title, self.element)
        out: list[Tensor] = []
        tokens: Tensor | None = None
        for step in steps(self.seq, self.phase, self.generate):
            with b.scope(step.scope, weights=""):
                tokens = tokens or b.input("tokens", (self.batch, step.tokens), "index")
                tokens = self._step(b, tokens, step)
                out.append(tokens)
        return b.finish(*out, family=str(getattr(self, "family", "")))

    def _step(self, b: GraphBuilder, tokens: Tensor, step: Step) -> Tensor:
        with b.scope("embeddings"):
            x, table = embed(b, tokens, self.vocab, self.d)
        angles = b.input(f"{step.scope}.angles".lstrip("."), (step.tokens, self.head_width))
        x = stack(
            b, x, self.layers, self.attention, lambda y, choice: self._layer(b, y, step, angles, choice)
        )
        x = b.norm("norm", x, "rmsnorm")
        return language_head(b, x, step, self.vocab, table if self.tied else None)

    def _layer(
        self, b: GraphBuilder, x: Tensor, step: Step, angles: Tensor, choice: Parameters | None
    ) -> Tensor:
        normed = b.norm("attention_norm", x, "rmsnorm")
        heads = Heads(self.heads, self.kv_heads or self.heads, self.head_width)
        bias = AttentionBias(self.qkv_bias, self.qkv_bias, self.qkv_bias, self.output_bias)
        if choice is None:
            attended = decoder_attention(
                b, normed, heads, step, bias, rope=angles, qk_norm=self.qk_norm, window=self.window
            )
        else:
            site = causal_site(heads, bias, step, rope=angles, qk_norm=self.qk_norm)
            attended = lower_attention(b, normed, site, choice)
        x = residual(b, "attention", x, attended)
        return residual(b, "ffn", x, self.feed_forward(b, b.norm("ffn_norm", x, "rmsnorm")))

    @abstractmethod
    def feed_forward(self, b: GraphBuilder, x: Tensor) -> Tensor:
        """The layer's second half: each family has its own."""


class Llama(CausalModel):
    """A causal language model with RMSNorm, rotary positions and a gated feed-forward network."""

    family: Literal["llama"] = "llama"
    ffn: Size
    """Width of the feed-forward network."""
    ffn_bias: bool = False
    """Whether the feed-forward network's three matmuls have a bias."""

    def feed_forward(self, b: GraphBuilder, x: Tensor) -> Tensor:
        """The gated feed-forward network."""
        return gated_feed_forward(b, x, self.ffn, self.act, bias=self.ffn_bias)
