"""How much of a tensor an operator touches, and in how many bits it is stored."""

from __future__ import annotations

from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import ELEMENT_BITS
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import NATIVE, Operator, RowsShape, Tensor


def out_elements(graph: OperatorGraph, op: Operator) -> int:
    """Elements of the operator's first result that it touches."""
    return touched(graph.tensors[op.outputs[0]], op, result=True)


def touched(tensor: Tensor, op: Operator, result: bool = False) -> int:
    """Elements of one of its tensors that an operator touches: at most what its shape has for it."""
    if isinstance(op.shape, RowsShape):
        if op.function == "blocks" and tensor.role != "index" and not result:
            return op.shape.elements  # a block is read as often as it is asked for
        return min(tensor.elements, op.shape.elements)
    shape = op.shape
    if result:
        return shape.batch * shape.m * shape.n
    return tensor.elements


def element_bits(tensor: Tensor, accelerator: Accelerator) -> float:
    """Bits of one element as the accelerator stores it: of a compressed tensor, all its bits over all its
    elements."""
    element = accelerator.array.operand if tensor.element == NATIVE else tensor.element
    if tensor.kept is None and not tensor.side_bits:
        return ELEMENT_BITS[element]
    return (tensor.stored * ELEMENT_BITS[element] + tensor.side_bits) / tensor.elements
