"""The numbers that a workload computes: every operator on real data, in program order.

Layouts are those of `tilewright.workloads.builder`: an activation is [batch, tokens, width]; a matmul over
heads reads it as one matrix per KV head (the query heads that share it stacked, group by group) and writes
its result back side by side. `cycle` fidelity runs the same operators with a matmul of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.description.errors import InputError
from tilewright.sim import numerics
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, in_copy

Values = npt.NDArray[Any]
Matmul = Callable[[Values, Values], Values]
"""C[batch, m, n] = A[batch, m, k] B[batch, k, n]."""


@dataclass(frozen=True, slots=True)
class Call:
    """An operator, the values of its inputs, and the plain graph it belongs to."""

    op: Operator
    values: Sequence[Values]
    graph: OperatorGraph


Model = Callable[[Call], Values]


def run(graph: OperatorGraph, inputs: Mapping[str, Values], matmul: Matmul = np.matmul) -> dict[str, Values]:
    """All tensors' values by name, the inputs included; repeated blocks are written out (`layers.3.…`).

    `inputs` holds everything that no operator makes, weights and caches too (`random_inputs` gives one).
    Raises InputError before anything is computed if an operator has no numerical model.
    """
    check(graph)
    graph = graph.expand()
    values = dict(inputs)
    for op in graph.operators:
        operands = [values[name] for name in op.inputs]
        values[op.outputs[0]] = evaluate(op, operands, graph, matmul)
    return values


def check(graph: OperatorGraph) -> None:
    """Raise InputError, naming each kind once, if any operators of the graph have no numerical model."""
    missing: dict[str, str] = {}
    for op in graph.operators:
        if op.views:
            missing.setdefault("a blocked matmul", in_copy(op.name, 0))
        elif op.kind != "matmul" and _model(op, graph) is None:
            missing.setdefault(op.function or op.kind, in_copy(op.name, 0))
    if missing:
        raise InputError(*(_no_model(what, name) for what, name in missing.items()))


def evaluate(
    op: Operator, values: Sequence[Values], graph: OperatorGraph, matmul: Matmul = np.matmul
) -> Values:
    """The operator's output, in its tensor's shape, from its inputs' values, in theirs.

    `graph` is the plain graph (`OperatorGraph.expand()`) that `op` belongs to. Raises InputError if the
    operator has no numerical model.
    """
    if op.kind == "matmul":
        return matmul_output(op, matmul(*matmul_operands(op, values)), values, graph)
    model = _model(op, graph)
    if model is None:
        raise InputError(_no_model(op.function or op.kind, op.name))
    return model(Call(op, values, graph)).reshape(graph.tensors[op.outputs[0]].shape)


def random_inputs(graph: OperatorGraph, seed: int) -> dict[str, Values]:
    """A value for every tensor that no operator makes, by its name in the plain graph.

    Equal seeds give equal values. A graph of nothing but matmuls gets small integers (int64), whose results
    are exact; any other gets float64 in [-1, 1). Indices are valid rows of the tables that they look up.
    """
    graph = graph.expand()
    random = np.random.default_rng(seed)
    exact = all(op.kind == "matmul" for op in graph.operators)
    made = {name for op in graph.operators for name in op.outputs}
    values: dict[str, Values] = {}
    for op in graph.operators:
        for name in op.inputs:
            if name in made or name in values:
                continue
            tensor = graph.tensors[name]
            if tensor.role == "index":
                values[name] = random.integers(0, _rows_to_choose_from(op, graph), tensor.shape)
            elif exact:
                values[name] = random.integers(-8, 8, tensor.shape)
            else:
                values[name] = random.uniform(-1, 1, tensor.shape)
    return values


def matmul_operands(op: Operator, values: Sequence[Values]) -> tuple[Values, Values]:
    """A[batch, m, k] and B[batch, k, n] of a matmul, from its tensors' values."""
    shape = _matmul_shape(op)
    a = _matrices(values[0], shape.batch, shape.m, shape.k)
    if op.function == "transpose_b":
        return a, _matrices(values[1], shape.batch, shape.n, shape.k).swapaxes(1, 2)
    return a, _matrices(values[1], shape.batch, shape.k, shape.n)


def matmul_output(op: Operator, c: Values, values: Sequence[Values], graph: OperatorGraph) -> Values:
    """The output tensor's value, bias added, from C[batch, m, n]."""
    batch, n = c.shape[0], c.shape[2]
    if len(values) == 3:
        c = c + (values[2].reshape(-1, 1, n) if values[2].size == batch * n else values[2].reshape(n))
    shape = graph.tensors[op.outputs[0]].shape
    if shape[-1] == n:
        return c.reshape(shape)
    sequences, tokens = shape[0], math.prod(shape[1:-1])
    heads = c.reshape(sequences, batch // sequences, -1, tokens, n)
    return heads.transpose(0, 3, 1, 2, 4).reshape(shape)


def _matrices(x: Values, batch: int, rows: int, cols: int) -> Values:
    """`x` as [batch, rows, cols]: as it lies, shared by all, or cut into the heads of its last axis."""
    if x.shape[-1] != cols and x.ndim == 3 and x.shape[-1] % cols == 0:
        sequences, tokens = x.shape[:2]
        heads = x.reshape(sequences, tokens, batch // sequences, -1, cols)
        x = heads.transpose(0, 2, 3, 1, 4).reshape(batch, rows, cols)
    matrices = x.reshape(-1, rows, cols)
    if len(matrices) == 1:
        return np.broadcast_to(matrices, (batch, rows, cols))
    return matrices


def _matmul_shape(op: Operator) -> MatmulShape:
    if not isinstance(op.shape, MatmulShape):
        raise TypeError(f"{op.name} is no matmul")
    return op.shape


def _no_model(what: str, operator: str) -> str:
    return f"`cycle` fidelity has no numerical model of {what!r} (operator {operator}); use fidelity event"


def _rows_to_choose_from(op: Operator, graph: OperatorGraph) -> int:
    """Rows of the table that an index read by `op` chooses from."""
    return graph.tensors[op.inputs[0]].shape[0]


def _model(op: Operator, graph: OperatorGraph) -> Model | None:
    """How to compute an operator that is no matmul; None if nobody has said."""
    inputs = [graph.tensors[name] for name in op.inputs]
    output = graph.tensors[op.outputs[0]]
    if len(op.outputs) != 1:
        return None
    if op.function in ("scale", "scale_mask") and _scores(op, graph) is None:
        return None
    if op.function == "lookup" and (len(inputs) != 2 or inputs[1].role != "index"):
        return None  # which rows is not in the graph
    if op.function == "append" and inputs[0].elements != output.elements:
        return None  # what the cache held before is not in the graph
    if op.function == "select" and _basename(op) not in SELECTED:
        return None
    return MODELS.get((op.kind, op.function))


def _scores(op: Operator, graph: OperatorGraph) -> Operator | None:
    """The matmul whose result `op` reads."""
    return next((o for o in graph.operators if op.inputs[0] in o.outputs and o.kind == "matmul"), None)


def _basename(op: Operator) -> str:
    return op.name.rpartition(".")[2]


def _of_one(function: Callable[[Values], Values]) -> Model:
    return lambda call: function(call.values[0])


def _of_several(function: Callable[[Values, Values], Values]) -> Model:
    return lambda call: numerics.combine(function, *call.values)


def _rows(call: Call) -> Values:
    shape = call.op.shape
    if not isinstance(shape, RowsShape):
        raise TypeError(f"{call.op.name} does not work on rows")
    return call.values[0].reshape(shape.rows, shape.cols)


def _scores_of(call: Call) -> Operator:
    scores = _scores(call.op, call.graph)
    if scores is None:
        raise TypeError(f"{call.op.name} does not read a matmul's result")
    return scores


def _scale(call: Call) -> Values:
    """Scores over the square root of the heads' width, which the matmul that made them summed over."""
    return call.values[0] / math.sqrt(_matmul_shape(_scores_of(call)).k)


def _scale_mask(call: Call) -> Values:
    """Scaled scores, minus infinity where a key comes after its query, or is out of its window."""
    scores = _scores_of(call)
    if scores.pairs is not None and scores.pairs.window is not None:
        return numerics.masked(_scale(call), scores.pairs.seen())
    return numerics.causal(_scale(call), tokens=call.graph.tensors[scores.inputs[0]].shape[-2])


def _select(call: Call) -> Values:
    return call.values[0][:, SELECTED[_basename(call.op)]]


def _append(call: Call) -> Values:
    return _matrices(call.values[0], *call.graph.tensors[call.op.outputs[0]].shape)


SELECTED = MappingProxyType({"first_token": 0, "last_token": -1})
"""The position that a `select` takes, by the operator's own name."""

MODELS: Mapping[tuple[str, str], Model] = MappingProxyType(
    {
        ("softmax", ""): lambda call: numerics.softmax(_rows(call)),
        ("norm", "layernorm"): lambda call: numerics.layernorm(_rows(call), *call.values[1:]),
        ("norm", "rmsnorm"): lambda call: numerics.rmsnorm(_rows(call), *call.values[1:]),
        ("elementwise", "scale"): _scale,
        ("elementwise", "scale_mask"): _scale_mask,
        ("elementwise", "renormalize"): lambda call: _rows(call) / _rows(call).sum(axis=1, keepdims=True),
        ("elementwise", "rope"): lambda call: numerics.rope(call.values[0], call.values[1]),
        ("elementwise", "nonorm"): lambda call: call.values[0] * call.values[1] + call.values[2],
        ("gather", "lookup"): lambda call: call.values[0][call.values[1]],
        ("gather", "slice"): lambda call: call.values[0][: call.graph.tensors[call.op.outputs[0]].shape[0]],
        ("gather", "select"): _select,
        ("scatter", "append"): _append,
        ("topk", "argmax"): lambda call: call.values[0].argmax(axis=-1),
    }
    | {("elementwise", name): _of_one(function) for name, function in numerics.UNARY.items()}
    | {("elementwise", name): _of_several(function) for name, function in numerics.JOINING.items()}
)
"""How to compute the operators that are no matmuls, by kind and function."""
