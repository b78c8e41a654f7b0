"""GPT-2: a pre-norm decoder with learned positions.

Radford et al., "Language Models are Unsupervised Multitask Learners", 2019. Query, key and value are three
matmuls here; the released code does them as one of 3 d columns.
"""

from __future__ import annotations

from typing import Annotated, Literal

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice, lower_attention
from tilewright.workloads.attention.stack import causal_site, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import (
    Activation,
    DecoderRun,
    Layers,
    Size,
    divisor_of,
    within_positions,
)
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import (
    ALL_BIASES,
    Heads,
    decoder_attention,
    embed,
    feed_forward,
    learned_positions,
    residual,
)
from tilewright.workloads.operators import Tensor
from tilewright.workloads.steps import Step, language_head, steps


class Gpt2(DecoderRun):
    """A causal language model; its head is the transposed embedding table."""

    family: Literal["gpt2"] = "gpt2"
    layers: Layers
    d: Size
    """Width of the model."""
    heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "gelu_new"
    vocab: Size
    positions: Size = 1024
    """Rows of the table of learned positions."""
    tied: bool = True
    """Whether the head's weight is the embedding table."""
    seq: Annotated[Size, within_positions("positions", generated=True)] = 512
    """Tokens of each sequence: of the prompt, or in the cache."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

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
        return b.finish(*out, family=self.family)

    def _step(self, b: GraphBuilder, tokens: Tensor, step: Step) -> Tensor:
        with b.scope("embeddings"):
            word, table = embed(b, tokens, self.vocab, self.d)
            x = b.elementwise("sum", "add", word, learned_positions(b, self.positions, step.tokens, self.d))
        x = stack(b, x, self.layers, self.attention, lambda y, choice: self._layer(b, y, step, choice))
        return language_head(b, b.norm("norm", x), step, self.vocab, table if self.tied else None)

    def _layer(self, b: GraphBuilder, x: Tensor, step: Step, choice: Parameters | None) -> Tensor:
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        normed = b.norm("attention_norm", x)
        if choice is None:
            attended = decoder_attention(b, normed, heads, step)
        else:
            attended = lower_attention(b, normed, causal_site(heads, ALL_BIASES, step), choice)
        x = residual(b, "attention", x, attended)
        return residual(b, "ffn", x, feed_forward(b, b.norm("ffn_norm", x), self.ffn, self.act))
