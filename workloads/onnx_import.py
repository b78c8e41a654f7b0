"""Reading ONNX files as workloads.

`OnnxModel` names a file, a batch and a sequence length; lowering it reads the file's graph (its weights stay
where they are: only their shapes and element types count). Needs the extra `onnx`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tilewright.description.errors import InputError, Problem
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.description import Model, Size
from tilewright.workloads.graph import OperatorGraph

if TYPE_CHECKING:
    from onnx import ModelProto, TensorShapeProto, ValueInfoProto

DEFAULT_SEQ = 128


class OnnxModel(Model):
    """A model in an ONNX file."""

    family: Literal["onnx"] = "onnx"
    file: str
    """Path of the file."""
    seq: Size | None = None
    """Tokens of each sequence, where the file leaves that open; by default 128."""

    def lower(self) -> OperatorGraph:
        """The file's graph with attention, GELU, and products with their biases recognised.

        Activations and weights in floating point take the workload's element type, weights in 8 bits or
        fewer keep theirs. Raises `InputError`, naming each, for operators that are not understood.
        """
        from tilewright.workloads.onnx_lowering import Lowering
        from tilewright.workloads.onnx_operators import HANDLERS
        from tilewright.workloads.onnx_values import infer

        graph = _load(self.file)
        axes = _Axes(self)
        values = infer(graph, axes.bind)
        axes.check_used()
        lowering = Lowering(GraphBuilder(self.title, self.element), graph.graph, values)
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
    try:
        import onnx
    except ImportError:
        raise InputError(
            f"{file}: reading ONNX files needs the package `onnx`: pip install 'tilewright[onnx]'"
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


class _Axes:
    """Gives the open axes of a graph's inputs their sizes."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model
        self.open: set[str] = set()

    def bind(self, value: ValueInfoProto) -> tuple[int, ...]:
        """The sizes of an input's axes. Raises `InputError` for one that is neither batch nor sequence."""
        dims = value.type.tensor_type.shape.dim
        return tuple(self._size(value.name, axis, dim) for axis, dim in enumerate(dims))

    def _size(self, name: str, axis: int, dim: TensorShapeProto.Dimension) -> int:
        if dim.HasField("dim_value") and dim.dim_value > 0:
            return int(dim.dim_value)
        meaning = _meaning(dim.dim_param, axis)
        if meaning is None:
            raise InputError(
                f"{self.model.file}: axis {axis} of input {name!r} ({dim.dim_param or 'no name'}) is neither "
                "the batch nor the sequence; export the model with that size fixed"
            )
        self.open.add(meaning)
        return self.model.batch if meaning == "batch" else self.model.seq or DEFAULT_SEQ

    def check_used(self) -> None:
        """Raise `InputError` if a size was asked for that the file has fixed."""
        asked = {"batch": self.model.batch != 1, "seq": self.model.seq is not None}
        fixed = [key for key, given in asked.items() if given and key not in self.open]
        reason = "can't be set: the file fixes the sizes of its inputs"
        if fixed:
            raise InputError(*(f"{self.model.file}: `{key}` {reason}" for key in fixed))


def _meaning(name: str, axis: int) -> Literal["batch", "seq"] | None:
    """What an open axis is, by its name, or by its place where it has none that says so."""
    lower = name.lower()
    if "past" in lower or "cache" in lower or "total" in lower:
        return None
    if "batch" in lower:
        return "batch"
    if any(word in lower for word in ("seq", "length", "token")):
        return "seq"
    return ("batch", "seq", None)[min(axis, 2)]
