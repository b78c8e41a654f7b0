"""What operators take on the vector unit, in cycles of one lane."""

from __future__ import annotations

from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.specs import SoftmaxWork
from tilewright.workloads.operators import Operator, RowsShape


def lane_cycles(op: Operator, accelerator: Accelerator) -> float:
    """Cycles that the operator would take on one lane of the vector unit."""
    costs = accelerator.vector.cycles
    whole = sum(count * float(getattr(costs, primitive)) for primitive, count in op.primitives)
    if op.kind == "softmax" and accelerator.vector.fused_exp and isinstance(op.shape, RowsShape):
        whole -= op.shape.elements * costs.add  # the subtraction
    if costs.row_sum is not None:
        whole += row_sum_adds(op) * (costs.row_sum - costs.add)
    return whole


def row_sum_adds(op: Operator) -> int:
    """Adds of an operator that sum up its rows: a softmax's once, a layer norm's for mean and variance, other
    norms' for the mean square."""
    if op.kind not in ("softmax", "norm") or not isinstance(op.shape, RowsShape):
        return 0
    return op.shape.elements * (2 if op.function == "layernorm" else 1)


def softmax_work(softmax: Operator, accelerator: Accelerator) -> SoftmaxWork:
    """As a whole, what the operator says. Online (Milakov and Gimelshein, arXiv:1805.02867): per score
    compare, subtract, exponential and add; per row and tile the new maximum (1 compare), exp(old - new)
    (1 add, 1 exp) and the sum (1 multiply, 1 add); then o = o exp(old - new) + new terms (1 multiply, 1
    add an element), and at the end o / sum (1 divide a row, 1 multiply an element)."""
    cycles, shape, orders = accelerator.vector.cycles, softmax.shape, accelerator.mapper.attention
    assert isinstance(shape, RowsShape)
    subtract = 0.0 if accelerator.vector.fused_exp else cycles.add
    row_sum = cycles.add if cycles.row_sum is None else cycles.row_sum
    within = accelerator.array.exp_macs is not None and "fusemax" in orders
    return SoftmaxWork(
        whole=lane_cycles(softmax, accelerator) / shape.elements,
        online=cycles.compare + subtract + row_sum + cycles.exp,
        statistics=cycles.compare + subtract + cycles.add + cycles.exp + cycles.multiply,
        reciprocal=cycles.divide,
        rescale=cycles.multiply + cycles.add,
        finish=cycles.multiply,
        in_array=within or "fsa" in orders,
    )
