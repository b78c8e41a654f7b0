"""Building an operator graph, one operator a call, with names that follow from scopes.

Conventions that every lowering keeps:

- An activation is `[batch, tokens, width]`. A matmul over heads reads it as
  `[batch * kv_heads, heads / kv_heads * tokens, head_dim]` (query heads of one KV head stacked, head by head)
  and writes its result back as `[batch, tokens, heads * head_dim]`: the change of layout is addressing, not
  work.
- A tensor bears the name of the operator that makes it.
- A weight is `[k, n]`; a matmul whose `function` is `transpose_b` reads its B from `[n, k]` instead (keys,
  tied embeddings).
- An operator touches at most the elements that its shape has for an operand: a gather reads `shape.elements`
  of its table, an append writes `shape.elements` into its cache, a batched matmul over some of the experts
  reads these experts' weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

from tilewright.workloads import primitives
from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.operators import Kind, MatmulShape, Operator, Role, RowsShape, Tensor
from tilewright.workloads.primitives import Primitives
from tilewright.workloads.rules import check


class GraphBuilder:
    """Collects operators and tensors in program order; `finish` checks them and returns the graph."""

    def __init__(self, name: str, element: str = "native") -> None:
        self.name = name
        self.element = element
        self._tensors: dict[str, Tensor] = {}
        self._operators: list[Operator] = []
        self._repeats: list[Repeat] = []
        self._inputs: list[str] = []
        self._operator_scope = ""
        self._weight_scope = ""

    @contextmanager
    def scope(self, name: str, weights: str | None = None) -> Iterator[None]:
        """Put `name.` before the operators' names made inside, and `weights.` (default: the same; an empty
        string: nothing) before the weights'."""
        saved = self._operator_scope, self._weight_scope
        weights = name if weights is None else weights
        self._operator_scope += f"{name}." if name else ""
        self._weight_scope += f"{weights}." if weights else ""
        yield
        self._operator_scope, self._weight_scope = saved

    def repeat(
        self,
        times: int,
        name: str,
        carry: Tensor,
        body: Callable[[Tensor], Tensor],
        weights: str | None = None,
    ) -> Tensor:
        """`body` as a block that runs `times` times on its own result, in scope `name`, which holds `{i}`."""
        if times == 0:
            return carry
        start = len(self._operators)
        with self.scope(name, weights):
            result = body(carry)
        self._repeats.append(Repeat(start, len(self._operators), times, carry.name, result.name))
        return result

    def input(self, name: str, shape: tuple[int, ...], role: Role = "activation") -> Tensor:
        """A tensor that comes from outside; indices are 32-bit integers."""
        tensor = Tensor(name, shape, role, "int32" if role == "index" else self.element)
        self._inputs.append(name)
        return self._keep(tensor)

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A weight, by its name in the weights' scope; the same name again is the same tensor."""
        return self._keep(Tensor(self._weight_scope + name, shape, "weight", self.element))

    def cache(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A KV cache in memory from earlier on, by its name in the weights' scope."""
        return self._keep(Tensor(self._weight_scope + name, shape, "kv_cache", self.element))

    def matmul(
        self,
        name: str,
        a: Tensor,
        b: Tensor,
        shape: MatmulShape,
        out: tuple[int, ...],
        *,
        bias: Tensor | None = None,
        transpose_b: bool = False,
    ) -> Tensor:
        """A B (+ bias), stored with shape `out`."""
        inputs = (a, b) if bias is None else (a, b, bias)
        work = () if bias is None else primitives.bias(shape.batch * shape.m * shape.n)
        function = "transpose_b" if transpose_b else ""
        return self._operator(name, "matmul", inputs, out, shape, function, work)

    def linear(self, name: str, x: Tensor, width: int, *, bias: bool = True) -> Tensor:
        """A dense layer `x W + b` on the last axis, with weights `name.weight` and `name.bias`."""
        k = x.shape[-1]
        weight = self.weight(f"{name}.weight", (k, width))
        offset = self.weight(f"{name}.bias", (width,)) if bias else None
        shape = MatmulShape(1, x.elements // k, k, width)
        return self.matmul(name, x, weight, shape, (*x.shape[:-1], width), bias=offset)

    def softmax(self, name: str, x: Tensor) -> Tensor:
        """Softmax over the last axis."""
        shape = _rows(x.elements, x.shape[-1])
        return self._operator(
            name, "softmax", (x,), x.shape, shape, work=primitives.softmax(shape.rows, shape.cols)
        )

    def norm(self, name: str, x: Tensor, function: str = "layernorm", cols: int | None = None) -> Tensor:
        """Normalisation over the last axis, or over each stretch of `cols` of it, with its weights."""
        shape = _rows(x.elements, cols or x.shape[-1])
        weights = [self.weight(f"{name}.weight", (shape.cols,))]
        if function == "layernorm":
            weights.append(self.weight(f"{name}.bias", (shape.cols,)))
        work = primitives.NORMS[function](shape.rows, shape.cols)
        return self._operator(name, "norm", (x, *weights), x.shape, shape, function, work)

    def elementwise(self, name: str, function: str, *operands: Tensor) -> Tensor:
        """`function` of the operands, in the shape of the first; the others may be broadcast."""
        first = operands[0]
        work = primitives.elementwise(function, first.elements, len(operands))
        shape = _rows(first.elements, first.shape[-1])
        return self._operator(name, "elementwise", operands, first.shape, shape, function, work)

    def gather(
        self,
        name: str,
        function: str,
        sources: tuple[Tensor, ...],
        out: tuple[int, ...],
        role: Role = "activation",
    ) -> Tensor:
        """Copy elements of the sources into a tensor of shape `out`.

        `function`: `lookup` (table, indices), `slice` (consecutive rows of a table), `select` (one token of
        each sequence), `concat`, `unfold` (windows of a convolution), `dispatch` (tokens to experts).
        """
        shape = _rows(prod(out), out[-1])
        return self._operator(
            name, "gather", sources, out, shape, function, primitives.moves(shape.elements), role
        )

    def append(
        self, name: str, x: Tensor, rows: int, cache: tuple[int, ...], in_scope: bool = True
    ) -> Tensor:
        """Write the last `rows` rows of `x` into a KV cache of shape `cache`; earlier rows are there already.

        `in_scope`: name the cache after the operator; else like a weight, so that later steps can read it.
        """
        shape = RowsShape(rows, x.shape[-1])
        made = Tensor(
            (self._operator_scope if in_scope else self._weight_scope) + name, cache, "kv_cache", self.element
        )
        return self._add(name, "scatter", (x,), (made,), shape, "append", primitives.moves(shape.elements))

    def combine(self, name: str, parts: tuple[Tensor, ...], weights: Tensor, out: tuple[int, ...]) -> Tensor:
        """Add the weighted rows of `parts` into their places in a tensor of shape `out`."""
        shape = _rows(sum(part.elements for part in parts), out[-1])
        work = primitives.weighted_sum(shape.elements)
        return self._operator(name, "scatter", (*parts, weights), out, shape, "combine", work)

    def topk(self, name: str, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest values of each row and their indices."""
        shape = _rows(x.elements, x.shape[-1])
        out = (*x.shape[:-1], k)
        values = Tensor(f"{self._operator_scope}{name}", out, "activation", self.element)
        indices = Tensor(f"{self._operator_scope}{name}.indices", out, "index", "int32")
        work = primitives.topk(shape.rows, shape.cols, k)
        self._add(name, "topk", (x,), (values, indices), shape, "topk", work)
        return values, indices

    def renormalize(self, name: str, x: Tensor) -> Tensor:
        """Each row divided by its sum."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.renormalize(shape.rows, shape.cols)
        return self._operator(name, "elementwise", (x,), x.shape, shape, "renormalize", work)

    def argmax(self, name: str, x: Tensor) -> Tensor:
        """The index of the largest element of each row."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.topk(shape.rows, shape.cols, 1)
        out = x.shape[:-1]
        made = Tensor(self._operator_scope + name, out, "index", "int32")
        return self._add(name, "topk", (x,), (made,), shape, "argmax", work)

    def finish(self, *outputs: Tensor, **metadata: str) -> OperatorGraph:
        """The graph; raises `GraphRuleError` if it breaks a rule of `workloads.rules`."""
        graph = OperatorGraph(
            name=self.name,
            operators=tuple(self._operators),
            tensors=self._tensors,
            repeats=tuple(self._repeats),
            inputs=tuple(self._inputs),
            outputs=tuple(output.name for output in outputs),
            metadata=metadata,
        )
        check(graph)
        return graph

    def _operator(
        self,
        name: str,
        kind: Kind,
        inputs: tuple[Tensor, ...],
        out: tuple[int, ...],
        shape: MatmulShape | RowsShape,
        function: str = "",
        work: Primitives = (),
        role: Role = "activation",
    ) -> Tensor:
        made = Tensor(self._operator_scope + name, out, role, self.element)
        return self._add(name, kind, inputs, (made,), shape, function, work)

    def _add(
        self,
        name: str,
        kind: Kind,
        inputs: tuple[Tensor, ...],
        outputs: tuple[Tensor, ...],
        shape: MatmulShape | RowsShape,
        function: str,
        work: Primitives,
    ) -> Tensor:
        for tensor in outputs:
            self._tensors[tensor.name] = tensor
        self._operators.append(
            Operator(
                name=self._operator_scope + name,
                kind=kind,
                inputs=tuple(tensor.name for tensor in inputs),
                outputs=tuple(tensor.name for tensor in outputs),
                shape=shape,
                function=function,
                primitives=work,
            )
        )
        return outputs[0]

    def _keep(self, tensor: Tensor) -> Tensor:
        known = self._tensors.setdefault(tensor.name, tensor)
        if known.shape != tensor.shape:
            raise ValueError(f"tensor {tensor.name!r} has shape {known.shape}, not {tensor.shape}")
        return known


def _rows(elements: int, cols: int) -> RowsShape:
    return RowsShape(elements // cols, cols)
