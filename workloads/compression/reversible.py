"""Reversible layers (Gomez et al., "The Reversible Residual Network", arXiv:1707.04585; Kitaev et al.,
"Reformer", arXiv:2001.04451, section 3; Mangalam et al., "Reversible Vision Transformers", arXiv:2302.04869).

before -> after: layers x + F(x), then + G, become layers of two streams: y1 = x1 + F(x2), y2 = x2 + G(y1),
both of which start as the layers' input; what follows reads their mean (as reformer-pytorch 1.4.4 ends them).
F and G, the weights and the two sums per layer are what they were; one mean per stack is new, and an
activation of each sublayer lives on until the next one's sum. Training need not keep the layers' activations:
x2 = y2 - G(y1), x1 = y1 - F(x2). See `workloads.training_memory`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.operators import Operator, RowsShape, Tensor, in_copy

METADATA = "reversible"
"""Key of a graph's metadata: the scopes of its reversible layers, one after the other, in order."""


class Reversible(Technique):
    """Stacks of pre-norm layers whose inputs follow from their outputs."""

    kind: Literal["reversible"] = "reversible"

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph with two streams, its layers written out one by one. Raises `InputError` where it has no
        stack, or one whose layers are anything but two sublayers with plain residual sums."""
        if not graph.repeats:
            raise InputError(f"reversible: {graph.name} has no stack of equal layers")
        sums = [_sums(graph, repeat) for repeat in graph.repeats]
        plain = graph.expand()
        streams = _Streams({op.name: op for op in plain.operators})
        for repeat, names in zip(graph.repeats, sums, strict=True):
            streams.take(repeat, names)
        operators, means = streams.ended(plain)
        outputs = tuple(streams.means.get(name, name) for name in plain.outputs)
        return replace(
            plain,
            operators=operators,
            tensors={**plain.tensors, **{mean.name: mean for mean in means}},
            outputs=outputs,
            metadata={**graph.metadata, METADATA: " ".join(streams.scopes)},
        )


def _sums(graph: OperatorGraph, repeat: Repeat) -> list[str]:
    """The residual sums of a block: each of what the one before left (first operand) and a branch."""
    stream, names = repeat.carry_in, []
    for op in graph.operators[repeat.start : repeat.stop]:
        if op.function == "add" and op.inputs[0] == stream:
            names.append(op.name)
            stream = op.outputs[0]
    where = in_copy(repeat.carry_out, "*").rpartition(".")[0]
    if stream != repeat.carry_out:
        raise InputError(
            f"reversible: {where} of {graph.name} ends with more than a residual sum (a post-norm layer?), "
            "which can't be undone; pre-norm models such as gpt2 and vit-b16 can be reversible"
        )
    if len(names) % 2:
        raise InputError(f"reversible: {where} of {graph.name} has {len(names)} sublayers, not 2")
    return names


@dataclass
class _Streams:
    """Two streams laid through the operators of a plain graph."""

    operators: dict[str, Operator]
    firsts: dict[str, str] = field(default_factory=dict)
    """By the result of each stack's last layer, which is its second stream, the first one."""
    means: dict[str, str] = field(default_factory=dict)
    """By the same, the name of the streams' mean."""
    scopes: list[str] = field(default_factory=list)

    def take(self, repeat: Repeat, names: list[str]) -> None:
        """Let the sums of all copies of a block take the streams in turns: each adds its branch, which reads
        what the sum before made, to the stream that is not read."""
        first = second = repeat.carry_in
        for i in range(repeat.times):
            for one, two in zip(names[::2], names[1::2], strict=True):
                self.scopes.append(in_copy(one, i).rpartition(".")[0])
                first = self._add(in_copy(one, i), first)
                second = self._add(in_copy(two, i), second)
        self.firsts[second] = first
        self.means[second] = f"{second}.mean"

    def _add(self, name: str, stream: str) -> str:
        op = self.operators[name]
        self.operators[name] = replace(op, inputs=(stream, *op.inputs[1:]))
        return op.outputs[0]

    def ended(self, plain: OperatorGraph) -> tuple[tuple[Operator, ...], list[Tensor]]:
        """All operators in order, behind each stack the mean of its streams, which all that follow read; and
        these means."""
        made: list[Operator] = []
        tensors: list[Tensor] = []
        read: dict[str, str] = {}
        for name in (op.name for op in plain.operators):
            op = self.operators[name]
            made.append(replace(op, inputs=tuple(read.get(each, each) for each in op.inputs)))
            last = op.outputs[0]
            if last in self.means:
                tensors.append(replace(plain.tensors[last], name=self.means[last]))
                made.append(_mean(tensors[-1], self.firsts[last], last))
                read[last] = tensors[-1].name
        return tuple(made), tensors


def _mean(made: Tensor, first: str, second: str) -> Operator:
    rows = RowsShape(made.elements // made.shape[-1], made.shape[-1])
    work = primitives.elementwise("mean", rows.elements, 2)
    return Operator(made.name, "elementwise", (first, second), (made.name,), rows, "mean", work)


COMPRESSION = register(
    Compression(
        kind="reversible",
        title="Reversible layers",
        changes="training memory: two activations for a whole stack instead of all of each layer's",
        citation="Kitaev et al. (Reformer), arXiv:2001.04451; Gomez et al., arXiv:1707.04585",
        hardware="None; inference costs what it did and one mean, training runs the forward pass twice.",
        oracle="tests/oracles/test_added_weights.py: performer-pytorch 1.1.4",
        technique=Reversible,
    )
)
