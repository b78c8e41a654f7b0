"""Quantisation: narrower elements, tensor class by tensor class.

Post-training quantisation in the usual forms: weights and activations (Jacob et al., arXiv:1712.05877),
weights only, with a scale per column or per group of a column (Frantar et al., "GPTQ", arXiv:2210.17323), KV
caches, and integer-only softmax (Kim et al., "I-BERT: Integer-only BERT Quantization", arXiv:2101.01321,
algorithm 2).

before -> after: the same operators on tensors of other element types. A matmul whose B is now of another type
than its A converts B as it comes in: 1 multiply per stored element on the vector unit, and a 16-bit scale per
column of B (or per `group` of it) beside it in memory. Looking up a row of a quantised table and writing to a
quantised cache take 1 multiply per element as well. Scales of activations are static: they are part of what
the operator before does anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Literal

from pydantic import Field, model_validator

from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.compression.base import Compression, Technique, register
from tilewright.workloads.compression.rewrite import matches, more_work, rebuilt
from tilewright.workloads.description import ElementType, Size
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor

SCALE_BITS = 16


class Quantise(Technique):
    """Element types of a model's tensors."""

    kind: Literal["quantise"] = "quantise"
    weights: ElementType | None = None
    """Of weight matrices and embedding tables; biases and norms' vectors stay as they are. By default
    unchanged."""
    activations: ElementType | None = None
    """By default unchanged."""
    kv_cache: ElementType | None = None
    """By default unchanged."""
    overrides: dict[str, ElementType] = Field(default_factory=dict)
    """Element types of tensors whose names match a pattern (`*.ffn.*`), whatever their class; later ones
    win."""
    group: Size | None = None
    """Weights of a column that share a scale; by default all of them."""
    softmax: Literal["float", "integer"] = "float"
    """`integer`: exponentials as I-BERT's polynomials, without any `exp`."""

    @model_validator(mode="after")
    def _says_something(self) -> Quantise:
        asked = self.weights or self.activations or self.kv_cache or self.overrides
        if not asked and self.softmax == "float":
            raise ValueError(
                "quantise: say what: `weights`, `activations`, `kv_cache`, `overrides` or `softmax`"
            )
        return self

    def transform(self, graph: OperatorGraph) -> OperatorGraph:
        """The graph on narrower tensors."""
        tensors = {tensor.name: self._quantised(tensor) for tensor in graph.tensors.values()}
        _check_patterns(graph, self.overrides)
        _check_carries(graph, tensors)
        instead: dict[int, tuple[Operator]] = {}
        for index, op in enumerate(graph.operators):
            made = self._converted(op, graph.tensors, tensors)
            if op.kind == "softmax" and not op.function and self.softmax == "integer":
                made = _integer_softmax(made)
            instead[index] = (made,)
        return rebuilt(graph, instead, tensors.values())

    def _quantised(self, tensor: Tensor) -> Tensor:
        if tensor.role == "index":
            return tensor
        wanted = {"weight": self.weights, "activation": self.activations, "kv_cache": self.kv_cache}[
            tensor.role
        ]
        if tensor.role == "weight" and len(tensor.shape) < 2:
            wanted = None
        for pattern, element in self.overrides.items():
            wanted = element if matches(tensor.name, [pattern]) else wanted
        return tensor if wanted is None else replace(tensor, element=wanted)

    def _converted(self, op: Operator, old: Mapping[str, Tensor], new: dict[str, Tensor]) -> Operator:
        """The operator with its conversions; scales are added to the `new` weights."""
        if isinstance(op.shape, MatmulShape):
            a, b = new[op.inputs[0]], new[op.inputs[1]]
            changed = b.element != old[b.name].element
            if not changed or a.element == b.element or "multiply" in dict(op.primitives):
                return op
            if b.role == "weight":
                new[b.name] = replace(b, side_bits=old[b.name].side_bits + self._scale_bits(b, op.shape))
            return replace(op, primitives=more_work(op, "multiply", _converted_elements(b, op.shape)))
        table, made = new[op.inputs[0]], new[op.outputs[0]]
        looked_up = op.function in ("lookup", "slice") and table.element != old[table.name].element
        written = op.function == "append" and made.element != old[made.name].element
        if (looked_up or written) and table.element != made.element:
            return replace(op, primitives=more_work(op, "multiply", op.shape.elements))
        return op

    def _scale_bits(self, weight: Tensor, shape: MatmulShape) -> int:
        columns = weight.elements // shape.k
        return columns * ceil(shape.k / (self.group or shape.k)) * SCALE_BITS


def _converted_elements(b: Tensor, shape: MatmulShape) -> int:
    """Elements of B that the matmul reads, zeros that are not stored left out."""
    return shape.batch * shape.k * shape.n * b.stored // b.elements


def _check_patterns(graph: OperatorGraph, overrides: Mapping[str, str]) -> None:
    for pattern in overrides:
        if not any(matches(name, [pattern]) for name in graph.tensors):
            raise InputError(
                f"quantise.overrides: no tensor of {graph.name} matches {pattern!r}; tensors are called "
                f"{next(iter(graph.tensors))!r} and the like"
            )


def _check_carries(graph: OperatorGraph, tensors: Mapping[str, Tensor]) -> None:
    """What goes into a repeated block must be of the type that comes out: the next copy takes it."""
    for repeat in graph.repeats:
        first, last = tensors[repeat.carry_in], tensors[repeat.carry_out]
        if first.element != last.element:
            raise InputError(
                f"quantise.overrides: layers take {first.name} ({first.element}) and hand on {last.name} "
                f"({last.element}); give both one element type"
            )


def _integer_softmax(op: Operator) -> Operator:
    """I-BERT's softmax: what a softmax does, with i-exp for each exp, and 1 shift per element at the end.

    i-exp(q): z = -q / ln 2 (1 multiply, 1 shift), p = q + z ln 2 (1 multiply, 1 add), (p + b)^2 + c (2 add, 1
    multiply), shifted by z (1 shift). A shift counts as an add.
    """
    assert isinstance(op.shape, RowsShape)
    n = op.shape.elements
    plain = tuple((name, count) for name, count in op.primitives if name != "exp")
    work = primitives.add(plain, primitives.totals({"multiply": 3 * n, "add": 6 * n}))
    return replace(op, function="integer", primitives=work)


COMPRESSION = register(
    Compression(
        kind="quantise",
        title="Quantisation",
        changes="bytes, conversions, primitives of softmax: element types per tensor class or name",
        citation="Jacob et al., arXiv:1712.05877; Kim et al. (I-BERT), arXiv:2101.01321",
        hardware="Bytes shrink on any accelerator; cycles on the array follow its own operand type, so that "
        "narrower operands pay where memory is the limit.",
        oracle="tests/oracles/test_number_formats.py: torch 2.13.0; test_integer_only.py: transformers "
        "4.57.6",
        technique=Quantise,
    )
)
