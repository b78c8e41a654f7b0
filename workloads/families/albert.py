"""ALBERT: BERT with narrow embeddings and one set of layer weights (Lan et al., arXiv:1909.11942)."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Parameters
from tilewright.workloads.attention.choice import AttentionChoice, layer_choices, runs
from tilewright.workloads.attention.stack import encoder_attend
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Activation, Layers, Model, Size, divisor_of, within_positions
from tilewright.workloads.families.bert import embeddings, pooler
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, encoder_layer
from tilewright.workloads.operators import Tensor


class Albert(Model):
    """A BERT encoder whose layers share their weights, group by group."""

    family: Literal["albert"] = "albert"
    layers: Layers
    groups: Annotated[Size, divisor_of("layers")] = 1
    """Sets of layer weights; each serves `layers / groups` layers in a row."""
    inner_layers: Layers = 1
    """Layers inside a group, all of them run at each of its turns."""
    d: Size
    """Width of the model."""
    embedding: Size = 128
    """Width of the embeddings."""
    heads: Annotated[Size, divisor_of("d")]
    ffn: Size
    """Width of the feed-forward network."""
    act: Activation = "gelu_new"
    vocab: Size
    positions: Size = 512
    """Rows of the table of learned positions."""
    segments: Size = 2
    """Token types."""
    seq: Annotated[Size, within_positions("positions")] = 128
    """Tokens of each sequence."""
    attention: AttentionChoice | None = None
    """Attention mechanism of every layer; by default dense."""

    def lower(self) -> OperatorGraph:
        """Embeddings and their projection, the groups' layers, pooler."""
        b = GraphBuilder(self.title, self.element)
        x = embeddings(b, self.batch, self.seq, self.embedding, self.vocab, self.positions, self.segments)
        x = b.linear("embeddings_project", x, self.d)
        for group in range(self.groups):
            name = "layers.{i}" if self.groups == 1 else f"group{group}.layers.{{i}}"
            turns = self.layers // self.groups
            turn = partial(self._turn, b, self._choice_of_group(group))
            x = b.repeat(turns, name, x, turn, weights=f"group{group}")
        return b.finish(x, pooler(b, x), family=self.family)

    def _choice_of_group(self, group: int) -> Parameters | None:
        """The attention of a group's layers. Raises `InputError` if they are to differ."""
        cycle, turns = layer_choices(self.attention, self.layers), self.layers // self.groups
        mine = runs([cycle[layer % len(cycle)] for layer in range(group * turns, (group + 1) * turns)])
        if len(mine) > 1:
            raise InputError(
                "attention.layers: layers that share their weights share their attention; albert's change "
                f"group by group, {turns} layers at a time"
            )
        return mine[0][0]

    def _turn(self, b: GraphBuilder, choice: Parameters | None, x: Tensor) -> Tensor:
        attend = encoder_attend(choice)
        heads = Heads(self.heads, self.heads, self.d // self.heads)
        for inner in range(self.inner_layers):
            with b.scope("" if self.inner_layers == 1 else f"inner{inner}"):
                x = encoder_layer(b, x, heads, self.ffn, self.act, attend)
        return x
