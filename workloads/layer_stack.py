"""Dense and convolutional layers one after another, as in networks without attention."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Block, Size, Workload
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Tensor


class StackLayer(Block):
    """One layer, or equal ones in a row."""

    width: Size
    """Elements that it makes of each row: outputs of a dense layer, channels of a convolution."""
    taps: Size = 1
    """Rows that it looks at for each row that it makes: 9 for a 3x3 convolution (padded to keep the size).
    The windows are addressing; they are not put together in memory."""
    times: Annotated[int, Field(gt=0, le=1024)] = 1
    """Layers of this kind in a row."""


class LayerStack(Workload):
    """Dense or convolutional layers without biases, each with its activation function."""

    family: Literal["layer_stack"] = "layer_stack"
    rows: Size
    """Examples of a dense network; examples times positions of a convolutional one."""
    width: Size
    """Elements of an input row."""
    layers: Annotated[tuple[StackLayer, ...], Field(min_length=1)]
    act: Activation = "relu"
    staged: bool = False
    """Whether the input is brought on chip whole, and the output taken off it, as operators of their own."""

    def lower(self) -> OperatorGraph:
        """A matmul and an activation function a layer."""
        b = GraphBuilder(self.title, self.element)
        x, number = b.input("input", (self.rows, self.width)), 0
        if self.staged:
            x = b.gather("staged", "slice", (x,), x.shape)
        for layer in self.layers:
            for _ in range(layer.times):
                x = self._layer(b, f"layers.{number}", x, layer)
                number += 1
        if self.staged:
            x = b.gather("returned", "slice", (x,), x.shape)
        return b.finish(x, family=self.family)

    def _layer(self, b: GraphBuilder, name: str, x: Tensor, layer: StackLayer) -> Tensor:
        k = layer.taps * x.shape[-1]
        weight = b.weight(f"{name}.weight", (k, layer.width))
        shape = MatmulShape(1, self.rows, k, layer.width)
        made = b.matmul(f"{name}.matmul", x, weight, shape, (self.rows, layer.width), views=layer.taps > 1)
        return b.elementwise(f"{name}.act", self.act, made)
