"""What the tests of ONNX files share: nodes, and files of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tilewright.workloads.graph import OperatorGraph

Axes = Sequence[int | str]
Load = Callable[..., OperatorGraph]
make_node: Callable[..., onnx.NodeProto] = helper.make_node
MICROSOFT = "com.microsoft"
INTEGERS: Mapping[str, int] = {
    "ids": TensorProto.INT64, "positions": TensorProto.INT64, "segments": TensorProto.INT64,
    "mask": TensorProto.INT32, "lengths": TensorProto.INT32, "q8": TensorProto.UINT8,
}  # fmt: skip
"""Inputs that are no floats, by their names."""


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Axes],
    outputs: Sequence[str],
    arrays: Mapping[str, np.ndarray],
    *,
    opset: int = 23,
    types: Mapping[str, int] = INTEGERS,
) -> str:
    """Write a file with these nodes, and return its path."""
    kinds = {name: types.get(name, TensorProto.FLOAT) for name in inputs}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kinds[name], axes) for name, axes in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return str(path)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def steps(graph: OperatorGraph) -> list[tuple[str, str, str]]:
    """Name, kind and function of each operator."""
    return [(op.name, op.kind, op.function) for op in graph.operators]
