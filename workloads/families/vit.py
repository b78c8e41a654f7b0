"""ViT and DeiT: image classifiers on patches.

Dosovitskiy et al., arXiv:2010.11929; Touvron et al., arXiv:2012.12877 (distillation token).
"""

from __future__ import annotations

from typing import Annotated, Literal

from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice
from tilewright.workloads.attention.stack import encoder_attend, stack
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import (
    ALL_BIASES,
    AttentionBias,
    Heads,
    learned_positions,
    prenorm_encoder_layer,
)
from tilewright.workloads.operators import Tensor


class Vit(Model):
    """A pre-norm encoder over the patches of an image, with a classifier on its class token."""

    family: Literal["vit"] = "vit"
    layers: Layers
    d: Size
    """Width of the model."""
    heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "gelu"
    image: Size = 224
    """Height and width of the image, pixels."""
    patch: Annotated[Size, divisor_of("image")] = 16
    """Height and width of a patch, pixels."""
    channels: Size = 3
    classes: Size = 1000
    qkv_bias: bool = True
    """Whether the query, key and value projections have a bias."""
    distillation: Literal["none", "token", "token_and_head"] = "none"
    """DeiT's second token beside the class token, and its own classifier, whose logits are averaged with the
    class token's."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Patch embedding, `layers` equal layers, norm, classifier."""
        b = GraphBuilder(self.title, self.element)
        x = self._embeddings(b)
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        bias = ALL_BIASES if self.qkv_bias else AttentionBias(query=False, key=False, value=False)

        def layer(y: Tensor, choice: Parameters | None) -> Tensor:
            return prenorm_encoder_layer(b, y, heads, self.ffn, self.act, bias, encoder_attend(choice))

        x = stack(b, x, self.layers, self.attention, layer)
        return b.finish(self._classify(b, b.norm("norm", x)), family=self.family)

    def _embeddings(self, b: GraphBuilder) -> Tensor:
        """Patches as rows of a matmul, class (and distillation) token in front, positions added."""
        pixels = b.input("pixels", (self.batch, self.channels, self.image, self.image))
        patches = (self.image // self.patch) ** 2
        with b.scope("embeddings"):
            rows = (self.batch, patches, self.channels * self.patch**2)
            x = b.linear("patch", b.gather("unfold", "unfold", (pixels,), rows), self.d)
            special = [b.weight("class_token", (1, self.d))]
            if self.distillation != "none":
                special.append(b.weight("distillation_token", (1, self.d)))
            tokens = patches + len(special)
            x = b.gather("concat", "concat", (*special, x), (self.batch, tokens, self.d))
            return b.elementwise("sum", "add", x, learned_positions(b, tokens, tokens, self.d))

    def _classify(self, b: GraphBuilder, x: Tensor) -> Tensor:
        first = b.gather("class_state", "select", (x,), (self.batch, 1, self.d))
        logits = b.linear("classifier", first, self.classes)
        if self.distillation != "token_and_head":
            return logits
        second = b.gather("distillation_state", "select", (x,), (self.batch, 1, self.d))
        return b.elementwise(
            "logits", "mean", logits, b.linear("distillation_classifier", second, self.classes)
        )
