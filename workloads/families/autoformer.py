"""AutoFormer: a ViT whose layers each have their own sizes, as a search chose them.

Chen et al., "AutoFormer: Searching Transformers for Visual Recognition", arXiv:2107.00651; the code of
its authors (microsoft/Cream, AutoFormer/model). Relative positions in two dimensions (Wu et al.,
arXiv:2107.14222) stand beside the learned ones: a vector for each clipped distance down and across, on the
keys and on the values. The authors' code writes out a vector for each pair of tokens; here each query meets
each distance once, and its scores are picked from there (and weights added up by distance), which gives the
same numbers for 4 n e (2 range + 2) MACs a head instead of 2 n^2 e.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, ValidationInfo, field_validator

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Model, Size, divisor_of
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import feed_forward, learned_positions, residual
from tilewright.workloads.operators import MatmulShape, Tensor

AXES = ("vertical", "horizontal")
Ratio = Annotated[float, Field(gt=0, le=64)]


class AutoFormer(Model):
    """A pre-norm encoder over the patches of an image, layer by layer, with a classifier."""

    family: Literal["autoformer"] = "autoformer"
    d: Size
    """Width of the model."""
    heads: Annotated[tuple[Size, ...], Field(min_length=1, max_length=1024)]
    """Of each layer in turn."""
    mlp_ratio: tuple[Ratio, ...]
    """Width of each layer's feed-forward network, as a multiple of `d`, rounded down."""
    head_dim: Size = 64
    """Width of a head; `heads * head_dim` may differ from `d`."""
    act: Activation = "gelu"
    relative_range: NonNegativeInt = 14
    """Largest distance, in patches down or across, that has a vector of its own; 0: no relative positions."""
    image: Size = 224
    """Height and width of the image, pixels."""
    patch: Annotated[Size, divisor_of("image")] = 16
    """Height and width of a patch, pixels."""
    channels: Size = 3
    classes: Size = 1000

    @field_validator("mlp_ratio")
    @classmethod
    def _one_for_each_layer(cls, ratios: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        layers, d = len(info.data.get("heads", ratios)), info.data.get("d", 1)
        if len(ratios) != layers:
            raise ValueError(f"has {len(ratios)} layers, `heads` has {layers}: give one ratio for each layer")
        if any(int(d * ratio) < 1 for ratio in ratios):
            raise ValueError(f"{min(ratios):g} of `d` ({d}) is less than one column")
        return ratios

    def lower(self) -> OperatorGraph:
        """Patch embedding, the layers, norm, classifier on the patches' mean."""
        b = GraphBuilder(self.title, self.element)
        x = self._embeddings(b)
        for number, (heads, ratio) in enumerate(zip(self.heads, self.mlp_ratio, strict=True)):
            with b.scope(f"layers.{number}"):
                x = residual(b, "attention", x, self._attention(b, b.norm("attention_norm", x), heads))
                normed = b.norm("ffn_norm", x)
                x = residual(b, "ffn", x, feed_forward(b, normed, int(self.d * ratio), self.act))
        patches = b.gather("patches", "slice", (b.norm("norm", x),), (self.batch, x.shape[1] - 1, self.d))
        pooled = b.reduce("pooled", "mean", patches, (self.batch, 1, self.d))
        return b.finish(b.linear("classifier", pooled, self.classes), family=self.family)

    def _embeddings(self, b: GraphBuilder) -> Tensor:
        """Patches as rows of a matmul, class token in front, positions added."""
        pixels = b.input("pixels", (self.batch, self.channels, self.image, self.image))
        patches = (self.image // self.patch) ** 2
        with b.scope("embeddings"):
            rows = (self.batch, patches, self.channels * self.patch**2)
            x = b.linear("patch", b.gather("unfold", "unfold", (pixels,), rows), self.d)
            token = b.weight("class_token", (1, self.d))
            x = b.gather("concat", "concat", (token, x), (self.batch, patches + 1, self.d))
            return b.elementwise("sum", "add", x, learned_positions(b, patches + 1, patches + 1, self.d))

    def _attention(self, b: GraphBuilder, x: Tensor, heads: int) -> Tensor:
        batch, n, _ = x.shape
        e, matrices = self.head_dim, batch * heads
        with b.scope("attention"):
            query, key, value = (b.linear(name, x, heads * e) for name in ("query", "key", "value"))
            size, shape = MatmulShape(matrices, n, e, n), (matrices, n, n)
            terms = [b.matmul("scores", query, key, size, shape, transpose_b=True)]
            terms += self._by_distance(b, query, matrices, n)
            scores = b.elementwise("sum", "add", *terms) if len(terms) > 1 else terms[0]
            weights = b.softmax("softmax", b.elementwise("scale", "scale", scores))
            size = MatmulShape(matrices, n, n, e)
            parts = [b.matmul("context", weights, value, size, query.shape)]
            parts += self._values_by_distance(b, weights, query)
            context = b.elementwise("context_sum", "add", *parts) if len(parts) > 1 else parts[0]
            return b.linear("output", context, self.d)

    def _by_distance(self, b: GraphBuilder, query: Tensor, matrices: int, n: int) -> list[Tensor]:
        """What the distance from query to key adds to each score, down and across."""
        found = []
        for axis in AXES if self.relative_range else ():
            table = b.weight(f"{axis}_key.weight", (self._distances, self.head_dim))
            size = MatmulShape(matrices, n, self.head_dim, self._distances)
            shape = (matrices, n, self._distances)
            scores = b.matmul(f"{axis}_scores", query, table, size, shape, transpose_b=True)
            picks = b.input(axis, (n, n), "index")
            found.append(b.gather(f"{axis}_picked", "pick", (scores, picks), (matrices, n, n)))
        return found

    def _values_by_distance(self, b: GraphBuilder, weights: Tensor, like: Tensor) -> list[Tensor]:
        """What distances add to the context: weights summed by distance, times a vector for each."""
        matrices, n, _ = weights.shape
        found = []
        for axis in AXES if self.relative_range else ():
            picks = b.input(axis, (n, n), "index")
            shape = (matrices, n, self._distances)
            summed = b.scatter(f"{axis}_weights", weights, picks, shape, add=True)
            table = b.weight(f"{axis}_value.weight", (self._distances, self.head_dim))
            size = MatmulShape(matrices, n, self._distances, self.head_dim)
            found.append(b.matmul(f"{axis}_context", summed, table, size, like.shape))
        return found

    @property
    def _distances(self) -> int:
        """Those from -range to range, and one for the class token."""
        return 2 * self.relative_range + 2
