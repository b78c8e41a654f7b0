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
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from tilewright.workloads import primitives
from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.operators import Kind, MatmulShape, Operator, Role, RowsShape, Tensor
from tilewright.workloads.primitives import Primitives
from tilewright.workloads.rules import check

if TYPE_CHECKING:
    from tilewright.workloads.pairs import Pairs


class GraphBuilder:
    """Collects operators and tensors in program order; `finish` checks them and returns the graph."""

    def __init__(self, name: str, element: str = "native") -> None:
        self.name = name
        self.element = element
        self._tensors: dict[str, Tensor] = {}
        self._operators: list[Operator] = []
        self._repeats: list[Repeat] = []
        self._inputs: list[str] = []
        self._notes: dict[str, str] = {}
        self._operator_scope = ""
        self._weight_scope = ""

    def note(self, name: str, text: str) -> None:
        """Put something worth knowing into the graph's metadata, under a name in the operators' scope."""
        self._notes[self._operator_scope + name] = text

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
        """`body` as a block that runs `times` times on its own result, in scope `name`, which holds `{i}`
        (or is empty, and the scopes inside of it hold the number of the copy; see `operators`)."""
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
        if name not in self._inputs:
            self._inputs.append(name)
        return self._keep(tensor)

    def weight(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        shared: bool = False,
        element: str | None = None,
        side_bits: int = 0,
    ) -> Tensor:
        """A weight, by its name in the weights' scope, or outside of all scopes if `shared`; the same name
        again is the same tensor. `element`: its element type, if not the graph's; `side_bits`: of its scales.
        """
        scope = "" if shared else self._weight_scope
        made = Tensor(scope + name, shape, "weight", element or self.element, side_bits=side_bits)
        return self._keep(made)

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
        useful_macs: int | None = None,
        views: bool = False,
        order: str = "",
        pairs: Pairs | None = None,
        tile: tuple[int, int, int] | None = None,
        converted: bool = False,
    ) -> Tensor:
        """A B (+ bias), stored with shape `out`.

        `useful_macs`: those of the MACs that the definition asks for, if not all. `views`: A and B are read
        by rows at addresses, so their tensors may have more elements than are read, or fewer. `order`,
        `pairs` and `tile`: see `Operator`. `converted`: each element of B is scaled as it comes in.
        """
        inputs = (a, b) if bias is None else (a, b, bias)
        work = () if bias is None else primitives.bias(shape.batch * shape.m * shape.n)
        if converted:
            scaled = primitives.totals({"multiply": shape.batch * shape.k * shape.n})
            work = primitives.add(work, scaled)
        function = "transpose_b" if transpose_b else ""
        made = self._operator(name, "matmul", inputs, out, shape, function, work)
        if useful_macs is not None or views or order or pairs is not None or tile is not None:
            last = self._operators[-1]
            self._operators[-1] = replace(
                last, useful_macs=useful_macs, views=views, order=order, pairs=pairs, tile=tile
            )
        return made

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

    def softmax_lse(self, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
        """Softmax over the last axis, and each row's log-sum-exp, which falls out of it."""
        shape = _rows(x.elements, x.shape[-1])
        made = Tensor(self._operator_scope + name, x.shape, "activation", self.element)
        lse = Tensor(f"{made.name}.lse", x.shape[:-1], "activation", self.element)
        work = primitives.softmax_lse(shape.rows, shape.cols)
        self._add(name, "softmax", (x,), (made, lse), shape, "softmax_lse", work)
        return made, lse

    def norm(
        self,
        name: str,
        x: Tensor,
        function: str = "layernorm",
        cols: int | None = None,
        given: tuple[Tensor, ...] = (),
    ) -> Tensor:
        """Normalisation over the last axis, or over each stretch of `cols` of it, with its weights (those
        `given`, or else `name.weight` and a layernorm's `name.bias`; a `unit_norm` has none)."""
        shape = _rows(x.elements, cols or x.shape[-1])
        kinds = {"unit_norm": (), "layernorm": ("weight", "bias")}.get(function, ("weight",))
        weights = given or tuple(self.weight(f"{name}.{kind}", (shape.cols,)) for kind in kinds)
        work = primitives.NORMS[function](shape.rows, shape.cols)
        return self._operator(name, "norm", (x, *weights), x.shape, shape, function, work)

    def elementwise(self, name: str, function: str, *operands: Tensor) -> Tensor:
        """`function` of the operands, in the shape of the first; the others may be broadcast."""
        first = operands[0]
        work = primitives.elementwise(function, first.elements, len(operands))
        shape = _rows(first.elements, first.shape[-1])
        return self._operator(name, "elementwise", operands, first.shape, shape, function, work)

    def rounded(self, name: str, x: Tensor, element: str, by: tuple[Tensor, ...] = ()) -> Tensor:
        """`x` scaled and rounded to integers of type `element`; scale and zero point are given, or read from
        `by`."""
        work = primitives.elementwise("round", x.elements)
        made = Tensor(self._operator_scope + name, x.shape, "activation", element)
        shape = _rows(x.elements, x.shape[-1])
        return self._add(name, "elementwise", (x, *by), (made,), shape, "round", work)

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
        each sequence), `concat`, `unfold` (windows of a convolution), `dispatch` (tokens to experts),
        `pad`, `tile` and `repeat` (as in numpy), `relative_shift` (each row by its own distance).
        """
        shape = _rows(prod(out), out[-1])
        return self._operator(
            name, "gather", sources, out, shape, function, primitives.moves(shape.elements), role
        )

    def append(
        self,
        name: str,
        x: Tensor,
        rows: int,
        cache: tuple[int, ...],
        in_scope: bool = True,
        *,
        at: Tensor | None = None,
    ) -> Tensor:
        """Write the last `rows` rows of `x` into a KV cache of shape `cache`; earlier rows are there already.

        `in_scope`: name the cache after the operator; else like a weight, so that later steps can read it.
        `at`: indices of the slots that they take, where these follow from data.
        """
        shape = RowsShape(rows, x.shape[-1])
        made = Tensor(
            (self._operator_scope if in_scope else self._weight_scope) + name, cache, "kv_cache", self.element
        )
        inputs = (x,) if at is None else (x, at)
        return self._add(name, "scatter", inputs, (made,), shape, "append", primitives.moves(shape.elements))

    def combine(self, name: str, parts: tuple[Tensor, ...], weights: Tensor, out: tuple[int, ...]) -> Tensor:
        """Add the weighted rows of `parts` into their places in a tensor of shape `out`."""
        shape = _rows(sum(part.elements for part in parts), out[-1])
        work = primitives.weighted_sum(shape.elements)
        return self._operator(name, "scatter", (*parts, weights), out, shape, "combine", work)

    def place(self, name: str, base: Tensor, parts: tuple[Tensor, ...], out: tuple[int, ...]) -> Tensor:
        """`base`, which lies where its rows belong in a tensor of shape `out`, with the rows of `parts`
        copied into their places; only these are moved."""
        cols = parts[0].shape[-1]
        shape = _rows(sum(part.elements for part in parts), cols)
        work = primitives.moves(shape.elements)
        return self._operator(name, "scatter", (*parts, base), out, shape, "place", work)

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

    def argmax(self, name: str, x: Tensor, *, signed: bool = False) -> Tensor:
        """The index of the largest element of each row; `signed`: of the largest of its elements and their
        negatives."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.topk(shape.rows, shape.cols * (2 if signed else 1), 1)
        out = x.shape[:-1]
        made = Tensor(self._operator_scope + name, out, "index", "int32")
        function = "argmax_signed" if signed else "argmax"
        return self._add(name, "topk", (x,), (made,), shape, function, work)

    def argsort(self, name: str, x: Tensor, *digits: Tensor, length: int | None = None) -> Tensor:
        """The order that sorts each row (the last axis, or each `length` elements), stably, as indices. The
        keys may come in several `digits`, compared as one number."""
        shape = _rows(x.elements, length or x.shape[-1])
        made = Tensor(self._operator_scope + name, x.shape, "index", "int32")
        work = primitives.sort(shape.rows, shape.cols)
        return self._add(name, "sort", (x, *digits), (made,), shape, "argsort", work)

    def reduce(self, name: str, function: str, x: Tensor, out: tuple[int, ...]) -> Tensor:
        """`function` (`sum`, `mean`, `max`, `lse`) of `x.elements / prod(out)` elements for each one of
        `out`; which elements these are is addressing."""
        shape = RowsShape(prod(out), x.elements // prod(out))
        work = primitives.reduce(function, shape.rows, shape.cols)
        return self._operator(name, "reduce", (x,), out, shape, function, work)

    def pool(self, name: str, x: Tensor, taps: int) -> Tensor:
        """The mean of `taps` neighbours around each element of a row (the last axis)."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.window_mean(x.elements, taps)
        return self._operator(name, "reduce", (x,), x.shape, shape, "pool", work)

    def scatter(
        self, name: str, x: Tensor, indices: Tensor, out: tuple[int, ...], *, add: bool = False
    ) -> Tensor:
        """The rows of `x` (its last axis) copied to the places in a tensor of shape `out` that `indices` has
        for them; `add`: added up there."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.totals({"add": shape.elements}) if add else primitives.moves(shape.elements)
        function = "add" if add else "permute"
        return self._operator(name, "scatter", (x, indices), out, shape, function, work)

    def scan(self, name: str, x: Tensor, length: int) -> Tensor:
        """Running sums over `length` partial ones, each without its own (an exclusive prefix sum); which
        axis this is, is addressing."""
        shape = _rows(x.elements, length)
        work = primitives.scan(shape.rows, shape.cols)
        return self._operator(name, "scan", (x,), x.shape, shape, "sum", work)

    def divide(self, name: str, x: Tensor, by: Tensor) -> Tensor:
        """`x / by`, where elements of `x` share one of `by`."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.divide(x.elements, by.elements)
        return self._operator(name, "elementwise", (x, by), x.shape, shape, "divide", work)

    def depthwise(self, name: str, x: Tensor, weight: Tensor) -> Tensor:
        """Convolution of each channel of `x` along the tokens; `weight` is [filters, taps], and the channels
        share the filters evenly."""
        shape = _rows(x.elements, x.shape[-1])
        work = primitives.window_sum(x.elements, weight.shape[-1])
        return self._operator(name, "reduce", (x, weight), x.shape, shape, "depthwise", work)

    def drop_unread(self, *outputs: Tensor) -> tuple[str, ...]:
        """Leave out operators and inputs that nothing reads, given what is put out; the operators' names.

        For imported graphs, which have no repeated blocks.
        """
        used, kept, dropped = {each.name for each in outputs}, [], []
        for op in reversed(self._operators):
            remembered = any(self._tensors[name].role == "kv_cache" for name in op.outputs)
            if remembered or used.intersection(op.outputs):
                used.update(op.inputs)
                kept.append(op)
            else:
                dropped.append(op.name)
        self._operators = kept[::-1]
        self._inputs = [name for name in self._inputs if name in used]
        return tuple(reversed(dropped))

    def finish(self, *outputs: Tensor, **metadata: str) -> OperatorGraph:
        """The graph; raises `GraphRuleError` if it breaks a rule of `workloads.rules`."""
        graph = OperatorGraph(
            name=self.name,
            operators=tuple(self._operators),
            tensors=self._tensors,
            repeats=tuple(self._repeats),
            inputs=tuple(self._inputs),
            outputs=tuple(output.name for output in outputs),
            metadata={**metadata, **self._notes},
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
