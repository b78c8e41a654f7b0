"""The rules that every operator graph keeps, as code. `check` is run on what any lowering or pass returns."""

from __future__ import annotations

from math import prod

from tilewright.workloads.graph import OperatorGraph, Repeat
from tilewright.workloads.operators import MatmulShape, Operator, RowsShape, Tensor, in_copies


class GraphRuleError(AssertionError):
    """A graph breaks a rule: a defect of the lowering or pass that made it, not of anyone's input."""


def check(graph: OperatorGraph) -> None:
    """Raise `GraphRuleError`, naming the operator and the rule, unless the graph keeps all of them."""
    _check_tensors(graph)
    _check_repeats(graph)
    _check_order(graph)
    _check_liveness(graph)
    for op in graph.operators:
        _check_work(op)
        _check_shapes(op, graph)


def _require(condition: bool, subject: str, rule: str) -> None:
    if not condition:
        raise GraphRuleError(f"{subject}: {rule}")


def _check_tensors(graph: OperatorGraph) -> None:
    for name, tensor in graph.tensors.items():
        _require(name == tensor.name, name, "a tensor is filed under its own name")
        _require(all(size > 0 for size in tensor.shape), name, "every axis of a tensor has a positive size")
        fits = 0 < tensor.stored <= tensor.elements and tensor.side_bits >= 0
        _require(fits, name, "memory holds at least one of a tensor's elements, and at most all")
    for op in graph.operators:
        for name in (*op.inputs, *op.outputs):
            _require(name in graph.tensors, op.name, f"tensor {name!r} exists")
        for name in op.outputs:
            role = graph.tensors[name].role
            _require(role != "weight", op.name, f"no operator writes weight {name!r}")
    for name in (*graph.inputs, *graph.outputs):
        _require(name in graph.tensors, graph.name, f"tensor {name!r} of its inputs and outputs exists")


def _check_repeats(graph: OperatorGraph) -> None:
    end = 0
    for repeat in sorted(graph.repeats, key=lambda r: r.start):
        subject = f"repeat {repeat.start}:{repeat.stop}"
        _require(end <= repeat.start < repeat.stop <= len(graph.operators), subject, "repeats do not overlap")
        end = repeat.stop
        _require(repeat.times >= 1, subject, "a block runs at least once")
        carry_in, carry_out = graph.tensors[repeat.carry_in], graph.tensors[repeat.carry_out]
        _require(
            (carry_in.shape, carry_in.element) == (carry_out.shape, carry_out.element),
            subject,
            f"carry shapes match ({carry_in.shape} in, {carry_out.shape} out)",
        )
        body = graph.operators[repeat.start : repeat.stop]
        _require(any(repeat.carry_in in op.inputs for op in body), subject, "the block reads its carry_in")
        _require(any(repeat.carry_out in op.outputs for op in body), subject, "the block makes its carry_out")
        for op in body:
            copied = all(in_copies(name) for name in (op.name, *op.outputs))
            _require(copied, op.name, "names made in a repeated block hold {i}")


def _check_order(graph: OperatorGraph) -> None:
    """Unique names, one producer a tensor, and an order in which everything is there when it is read."""
    made: set[str] = set()
    visible: set[str] = set(graph.inputs)
    names: set[str] = set()
    for block, repeat in graph.blocks():
        inside: set[str] = set()
        for index in block:
            op = graph.operators[index]
            _require(op.name not in names, op.name, "operator names are unique")
            names.add(op.name)
            if repeat is None:
                _require(not in_copies(op.name), op.name, "{i} stands in repeated blocks only")
            for name in op.inputs:
                known = (
                    name in inside or name in visible or graph.tensors[name].role in ("weight", "kv_cache")
                )
                _require(
                    known, op.name, f"input {name!r} is made before it is read, and not inside another block"
                )
            for name in op.outputs:
                _require(name not in made, op.name, f"tensor {name!r} has one producer")
                _require(
                    name not in graph.inputs, op.name, f"tensor {name!r} does not come from outside as well"
                )
            made.update(op.outputs)
            inside.update(op.outputs)
        visible |= inside if repeat is None else _handed_on(repeat)
    for name in graph.outputs:
        _require(name in visible, graph.name, f"output {name!r} is produced and visible at the end")


def _handed_on(repeat: Repeat) -> set[str]:
    return {repeat.carry_out}


def _check_liveness(graph: OperatorGraph) -> None:
    used = {name for op in graph.operators for name in op.inputs} | set(graph.outputs)
    used |= {repeat.carry_out for repeat in graph.repeats}
    for op in graph.operators:
        alive = any(name in used or graph.tensors[name].role == "kv_cache" for name in op.outputs)
        _require(alive, op.name, "an operator makes something that is read or put out")
    for name in graph.inputs:
        _require(name in used, graph.name, f"input {name!r} is read")


def _check_work(op: Operator) -> None:
    names = [name for name, _ in op.primitives]
    _require(names == sorted(set(names)), op.name, "primitives are sorted by name, each once")
    _require(all(count > 0 for _, count in op.primitives), op.name, "primitives are counted positively")
    if op.kind != "matmul":
        _require(isinstance(op.shape, RowsShape), op.name, f"a {op.kind} works on rows")
        _require(bool(op.primitives), op.name, f"a {op.kind} has primitives")
        _require(op.useful_macs is None, op.name, "only a matmul has useful MACs")
        _require(not op.views, op.name, "only a matmul reads views")
        return
    _require(isinstance(op.shape, MatmulShape), op.name, "a matmul has a matmul's shape")
    if isinstance(op.shape, MatmulShape):
        _check_matmul_work(op, op.shape)
    useful = op.macs if op.useful_macs is None else op.useful_macs
    _require(
        0 <= useful <= op.macs, op.name, f"useful MACs are 0 or more and at most {op.macs}; not {useful}"
    )


def _check_matmul_work(op: Operator, shape: MatmulShape) -> None:
    """Beside the bias a matmul may convert B as it comes in (`multiply`) and put it in its place (`move`)."""
    work = dict(op.primitives)
    adds = shape.batch * shape.m * shape.n if len(op.inputs) == 3 else 0
    _require(
        work.pop("add", 0) == adds, op.name, "a matmul's primitives are one add per element for its bias"
    )
    most = shape.batch * shape.k * shape.n
    loads = set(work) <= {"multiply", "move"} and max(work.values(), default=0) <= most
    _require(loads, op.name, "a matmul's further primitives are a multiply and a move per element of B")


def _check_shapes(op: Operator, graph: OperatorGraph) -> None:
    inputs = [graph.tensors[name] for name in op.inputs]
    outputs = [graph.tensors[name] for name in op.outputs]
    if isinstance(op.shape, MatmulShape):
        _check_matmul(op, op.shape, inputs, outputs)
    else:
        _check_rows(op, op.shape, inputs, outputs)


def _check_matmul(op: Operator, shape: MatmulShape, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    batch, m, k, n = shape.batch, shape.m, shape.k, shape.n
    _require(min(batch, m, k, n) > 0, op.name, f"every size of {shape} is positive")
    _require(len(inputs) in (2, 3) and len(outputs) == 1, op.name, "a matmul is (A, B[, bias]) -> C")
    if op.views:
        b, row = inputs[1].elements, k if op.function == "transpose_b" else n
        _require(b % row == 0, op.name, f"B is made of rows of {row} elements; it has {b}")
    else:
        _check_operands(op, shape, inputs)
    _require(outputs[0].elements == batch * m * n, op.name, "C has batch*m*n elements")
    _require(op.function in ("", "transpose_b"), op.name, "a matmul's function is empty or `transpose_b`")
    if len(inputs) == 3:
        offset = inputs[2]
        fits = offset.role == "weight" and offset.elements % n == 0
        _require(fits, op.name, "the bias is a weight of n elements, or of n per matrix")


def _check_operands(op: Operator, shape: MatmulShape, inputs: list[Tensor]) -> None:
    batch, m, k, n = shape.batch, shape.m, shape.k, shape.n
    a, b = inputs[0].elements, inputs[1].elements
    _require(a in (batch * m * k, m * k), op.name, f"A has batch*m*k elements, or m*k shared ones; not {a}")
    # Experts that no token goes to lie in the same tensor and are not read.
    idle = inputs[1].role == "weight" and b > batch * k * n and b % (k * n) == 0
    _require(
        b in (batch * k * n, k * n) or idle, op.name, f"B has batch*k*n elements, or k*n shared ones; not {b}"
    )


def _check_rows(op: Operator, shape: RowsShape, inputs: list[Tensor], outputs: list[Tensor]) -> None:
    _require(shape.rows > 0 and shape.cols > 0, op.name, f"every size of {shape} is positive")
    _require(bool(inputs) and bool(outputs), op.name, "an operator reads and writes something")
    first, made, size = inputs[0].elements, outputs[0].elements, shape.elements
    if op.kind in ("softmax", "norm", "elementwise", "sort", "scan"):
        _require(first == size == made, op.name, "input, shape and output have equally many elements")
    if op.kind == "norm":
        vectors = all(t.role == "weight" and t.elements == shape.cols for t in inputs[1:])
        _require(vectors, op.name, "a norm's further inputs are weights of one row")
    if op.kind == "elementwise":
        broadcast = all(size % t.elements == 0 for t in inputs[1:])
        _require(broadcast, op.name, "every operand has the output's elements or is broadcast to them")
    if op.kind in ("topk", "reduce"):
        _require(first == size, op.name, "input and shape have equally many elements")
        _require(
            made % shape.rows == 0 and made <= size,
            op.name,
            "the output has as many rows, and no longer ones",
        )
    if op.kind == "gather":
        _require(made == size, op.name, "a gather's output and shape have equally many elements")
    if op.kind == "scatter":
        moved = sum(t.elements for t in inputs if prod(t.shape) and t.shape[-1] == shape.cols)
        _require(moved >= size, op.name, "a scatter has the rows that it writes")
