"""Reading ONNX files as workloads.

`OnnxModel` names a file, a batch and a sequence length; lowering it reads the file's graph (its weights stay
where they are: only their shapes and element types count). Needs the extra `onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tilewright.description.errors import InputError, Problem
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Model, Size
from tilewright.workloads.graph import OperatorGraph

if TYPE_CHECKING:
    from onnx import ModelProto


class OnnxModel(Model):
    """A model in an ONNX file."""

    family: Literal["onnx"] = "onnx"
    file: str
    """Path of the file."""
    seq: Size | None = None
    """Tokens of each sequence that are worked on, where the file leaves that open; by default 128, or 1 where
    the file reads a KV cache of open length."""
    past: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Tokens of each sequence that are in the KV cache before, where the file leaves that open; by default
    128."""

    def lower(self) -> OperatorGraph:
        """The file's graph with attention, GELU, and products with their biases recognised.

        Activations and weights in floating point take the workload's element type, weights in 8 bits or
        fewer keep theirs. Raises `InputError`, naming each, for operators that are not understood.
        """
        from tilewright.workloads.onnx_axes import Axes, Sizes
        from tilewright.workloads.onnx_lowering import Lowering
        from tilewright.workloads.onnx_operators import HANDLERS
        from tilewright.workloads.onnx_values import infer

        graph = _load(self.file)
        axes = Axes(Sizes(self.file, self.batch, self.seq, self.past), graph)
        values = infer(graph, axes.bind)
        axes.check_used()
        lowering = Lowering(GraphBuilder(self.title, self.element), graph.graph, values, axes.caches)
        if not lowering.needed and not lowering.problems:
            raise InputError(f"{self.file}: nothing in this graph depends on its inputs")
        lowering.lower(HANDLERS)
        if lowering.problems:
            found = sorted(lowering.problems.items())
            raise InputError(*(Problem(f"operator {kind} {why}", self.file) for kind, why in found))
        return lowering.finish()


def read_onnx(path: Path) -> dict[str, Any]:
    """The description of the model in an ONNX file. Raises `InputError` if it can't be read."""
    _load(str(path))
    return {"family": "onnx", "name": path.stem, "file": str(path)}


def _load(file: str) -> ModelProto:
    if not Path(file).exists():
        raise InputError(f"{file}: no such file")
    try:
        import onnx
    except ImportError:
        raise InputError(
            f"{file}: reading ONNX files needs the package `onnx`: pip install onnx (in a clone: "
            ".venv/bin/pip install onnx)"
        ) from None
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(file, load_external_data=False)
    except FileNotFoundError:
        raise InputError(f"{file}: no such file") from None
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except DecodeError:
        raise InputError(f"{file}: is no ONNX file") from None
    if not model.graph.node:
        raise InputError(f"{file}: is no ONNX file, or one without operators")
    return model
