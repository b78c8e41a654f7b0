"""ONNX files as workloads: graphs built here, node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.onnx_files import Axes, floats, write
from tilewright.cli import ExitCode, execute
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import describe_workload, load_workload
from tilewright.workloads.onnx_import import OnnxModel
from tilewright.workloads.operators import MatmulShape, RowsShape

Save = Callable[..., str]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a graph of floats and returns the file's path: nodes, inputs by their axes, outputs, arrays."""

    def saved(
        nodes: Sequence[onnx.NodeProto],
        inputs: dict[str, Axes],
        outputs: Sequence[str],
        arrays: dict[str, np.ndarray] | None = None,
    ) -> str:
        return write(tmp_path / "m.onnx", nodes, inputs, outputs, arrays or {}, opset=20, types={})

    return saved


def _attention(heads: int, width: int) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Self-attention on `x` as exporters write it: heads split by Shape, Concat, Reshape and Transpose."""
    node, arrays, nodes = helper.make_node, {}, []
    arrays["zero"], arrays["one"] = np.array([0]), np.array([1])
    arrays["split"] = np.array([heads, width // heads])
    nodes += [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"]),
        node("Gather", ["shape", "one"], ["tokens"]),
        node("Concat", ["batch", "tokens", "split"], ["apart"], axis=0),
    ]
    for name, order in (("query", (0, 2, 1, 3)), ("key", (0, 2, 3, 1)), ("value", (0, 2, 1, 3))):
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = floats(width, width), floats(width)
        nodes += [
            node("MatMul", ["x", f"{name}.weight"], [f"{name}_product"]),
            node("Add", [f"{name}.bias", f"{name}_product"], [f"{name}_sum"]),
            node("Reshape", [f"{name}_sum", "apart"], [f"{name}_apart"]),
            node("Transpose", [f"{name}_apart"], [name], perm=order),
        ]
    arrays["root"] = np.array(2.0, np.float32)
    nodes += [
        node("MatMul", ["query", "key"], ["s"], name="/layer/self/MatMul"),
        node("Div", ["s", "root"], ["scaled"], name="/layer/self/Div"),
        node("Add", ["scaled", "mask"], ["masked"], name="/layer/self/Add"),
        node("Softmax", ["masked"], ["p"], name="/layer/self/Softmax", axis=-1),
        node("MatMul", ["p", "value"], ["o"], name="/layer/self/MatMul_1"),
    ]
    return nodes, arrays


def _by_name(graph: OperatorGraph) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {op.name: (op.kind, op.function, op.inputs) for op in graph.operators}


def test_attention_is_recognised(save: Save) -> None:
    """Projections by their weights' names with the biases in, scores with keys as they lie, scale, mask,
    softmax, context; the arithmetic on shapes is no work."""
    nodes, arrays = _attention(heads=2, width=8)
    path = save(nodes, {"x": ["batch", "seq", 8], "mask": ["batch", 1, 1, "seq"]}, ["o"], arrays)
    graph = load_workload(path, ["seq=16", "batch=3"])
    scope = "layer.self"
    assert _by_name(graph) == {
        "query": ("matmul", "", ("x", "query.weight", "query.bias")),
        "key": ("matmul", "", ("x", "key.weight", "key.bias")),
        "value": ("matmul", "", ("x", "value.weight", "value.bias")),
        f"{scope}.scores": ("matmul", "transpose_b", ("query", "key")),
        f"{scope}.scale": ("elementwise", "scale", (f"{scope}.scores",)),
        f"{scope}.mask": ("elementwise", "add", (f"{scope}.scale", "mask")),
        f"{scope}.softmax": ("softmax", "", (f"{scope}.mask",)),
        f"{scope}.context": ("matmul", "", (f"{scope}.softmax", "value")),
    }
    shapes = {op.name: op.shape for op in graph.operators}
    assert shapes["query"] == MatmulShape(1, 48, 8, 8)
    assert shapes[f"{scope}.scores"] == MatmulShape(6, 16, 4, 16)
    assert graph.outputs == (f"{scope}.context",)


@given(batch=st.integers(1, 4), n=st.integers(1, 70), heads=st.integers(1, 4), e=st.integers(1, 8))
def test_costs_of_attention_are_the_closed_forms(
    tmp_path_factory: pytest.TempPathFactory, batch: int, n: int, heads: int, e: int
) -> None:
    """3 n d^2 with weights and 2 n^2 d without; h n^2 exponentials; 3 d (d + 1) parameters."""
    d = heads * e
    nodes, arrays = _attention(heads, d)
    file = tmp_path_factory.mktemp("onnx") / "m.onnx"
    inputs: dict[str, Axes] = {"x": ["b", "n", d], "mask": ["b", 1, 1, "seq"]}
    path = write(file, nodes, inputs, ["o"], arrays, opset=20, types={})
    graph = load_workload(path, [f"seq={n}", f"batch={batch}"])
    assert graph.metadata["weight_macs"] == str(batch * 3 * n * d * d)
    assert graph.metadata["activation_macs"] == str(batch * 2 * n * n * d)
    assert sum(dict(op.primitives).get("exp", 0) for op in graph.operators) == batch * heads * n * n
    assert graph.parameters == 3 * d * (d + 1)


@pytest.mark.parametrize("half_first", [True, False])
def test_gelu_is_one_operator(save: Save, half_first: bool) -> None:
    """Both orders that torch's exporters write."""
    node = helper.make_node
    last = [("x", "plus"), ("mid", "half")] if not half_first else [("half", "plus"), ("x", "mid")]
    nodes = [
        node("Div", ["x", "root2"], ["inner"]),
        node("Erf", ["inner"], ["erf"]),
        node("Add", ["erf", "unit"], ["plus"]),
        node("Mul", last[0], ["mid"]),
        node("Mul", last[1], ["y"], name="act"),
    ]
    scalars = {name: np.array(1.0, np.float32) for name in ("root2", "unit", "half")}
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], scalars), ["seq=5"])
    assert _by_name(graph) == {"act": ("elementwise", "gelu", ("x",))}


def _narrow(scale: np.ndarray) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """x times a weight of 8 bits that is cast and scaled, plus a bias."""
    node = helper.make_node
    nodes = [
        node("Cast", ["w_q"], ["w_f"], to=TensorProto.FLOAT),
        node("Mul", ["w_f", "scale"], ["w"]),
        node("MatMul", ["x", "w"], ["xw"], name="dense"),
        node("Add", ["xw", "bias"], ["y"]),
    ]
    return nodes, {"w_q": np.ones((4, 6), np.int8), "scale": scale, "bias": floats(6)}


@pytest.mark.parametrize("scales", [(1, 6), (6,)])
def test_scales_along_the_columns_come_after_the_product(save: Save, scales: tuple[int, ...]) -> None:
    """The weight is read in 8 bits, and each result scaled once, before its bias."""
    nodes, arrays = _narrow(floats(*scales))
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    assert _by_name(graph) == {
        "dense": ("matmul", "", ("x", "w_q")),
        "dense.dequantise": ("elementwise", "multiply", ("dense", "scale")),
        "dense.add_bias": ("elementwise", "add", ("dense.dequantise", "bias")),
    }
    assert graph.tensors["w_q"].element == "int8"


def test_a_scale_of_the_whole_weight_is_a_constant(save: Save) -> None:
    """One multiplication per result, and nothing to read."""
    nodes, arrays = _narrow(np.array(0.5, np.float32))
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    assert _by_name(graph)["dense.dequantise"] == ("elementwise", "scale", ("dense",))


def test_scales_along_k_come_before_the_product(save: Save) -> None:
    """Row by row of the weight they can't wait: it is scaled first."""
    nodes, arrays = _narrow(floats(4, 1))
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    assert _by_name(graph) == {
        "w.dequantise": ("elementwise", "multiply", ("w_q", "scale")),
        "dense": ("matmul", "", ("x", "w.dequantise", "bias")),
    }


@pytest.mark.parametrize(("scales", "after"), [((4, 1), True), ((1, 4), False)])
def test_a_turned_weights_scales_turn_with_it(save: Save, scales: tuple[int, int], after: bool) -> None:
    """Scaled by rows, a weight that is transposed then is scaled by columns; square, so that only the axis
    tells."""
    node = helper.make_node
    nodes = [
        node("Cast", ["w_q"], ["w_f"], to=TensorProto.FLOAT),
        node("Mul", ["scale", "w_f"], ["scaled"]),
        node("Transpose", ["scaled"], ["w"], perm=[1, 0]),
        node("MatMul", ["x", "w"], ["y"], name="dense"),
    ]
    arrays = {"w_q": np.ones((4, 4), np.int8), "scale": floats(*scales)}
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    found = _by_name(graph)
    assert ("dense.dequantise" in found) == after
    assert ("w.dequantise" in found) == (not after)
    assert found["dense"][1] == "transpose_b"


@pytest.mark.parametrize(("axis", "after"), [(1, True), (0, False)])
def test_a_dequantised_weight_is_read_in_its_own_type(save: Save, axis: int, after: bool) -> None:
    """DequantizeLinear with zero points of 0, by rows and by columns."""
    node = helper.make_node
    nodes = [
        node("DequantizeLinear", ["w_q", "scale", "zero"], ["w"], axis=axis),
        node("MatMul", ["x", "w"], ["y"], name="dense"),
    ]
    arrays = {"w_q": np.ones((4, 4), np.int8), "scale": floats(4), "zero": np.zeros(4, np.int8)}
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    assert ("dense.dequantise" in _by_name(graph)) == after
    assert graph.tensors["w_q"].element == "int8"
    assert graph.parameters == 20


def test_zero_points_are_not_left_out(save: Save) -> None:
    """One that is not 0 takes the sums of A's rows off the product."""
    node = helper.make_node
    nodes = [
        node("DequantizeLinear", ["w_q", "scale", "zero"], ["w"]),
        node("MatMul", ["x", "w"], ["y"], name="dense"),
    ]
    scalars = {"scale": np.array(1.0, np.float32), "zero": np.array(3, np.uint8)}
    path = save(nodes, {"x": ["batch", "seq", 4]}, ["y"], {"w_q": np.ones((4, 4), np.uint8), **scalars})
    graph = load_workload(path, ["seq=5"])
    assert _by_name(graph) == {
        "dense": ("matmul", "", ("x", "w_q")),
        "dense.row_sums": ("reduce", "mean", ("x",)),
        "dense.zero_points": ("elementwise", "add", ("dense", "dense.row_sums")),
        "dense.dequantise": ("elementwise", "scale", ("dense.zero_points",)),
    }


def test_a_product_that_is_put_out_is_not_hidden_in_its_bias(save: Save) -> None:
    """Both results are there."""
    node = helper.make_node
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Add", ["a", "bias"], ["y"])]
    arrays = {"w": floats(4, 4), "bias": floats(4)}
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["a", "y"], arrays), ["seq=5"])
    assert graph.outputs == ("a", "y")


def test_only_the_parts_of_a_split_that_are_read_are_work(save: Save) -> None:
    """One of three."""
    nodes = [helper.make_node("Split", ["x"], ["a", "b", "c"], axis=2, num_outputs=3)]
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 6]}, ["b"]), ["seq=5"])
    assert [(op.function, op.shape) for op in graph.operators] == [("slice", RowsShape(5, 2))]


def test_a_vision_models_patches_are_a_product(save: Save) -> None:
    """A convolution is windows side by side times its weight: b h w c k^2 MACs per channel out."""
    node = helper.make_node
    nodes = [node("Conv", ["x", "patch.weight", "patch.bias"], ["y"], kernel_shape=[4, 4], strides=[4, 4])]
    arrays = {"patch.weight": floats(10, 3, 4, 4), "patch.bias": floats(10)}
    graph = load_workload(save(nodes, {"x": ["batch", 3, 16, 16]}, ["y"], arrays), ["batch=2"])
    assert graph.macs == 2 * 16 * 3 * 16 * 10
    assert [op.function for op in graph.operators] == ["unfold", "transpose_b"]


def test_what_needs_no_input_is_no_work(save: Save) -> None:
    """A table that is sliced and looked up by constants is read; what nothing reads is left out."""
    node = helper.make_node
    arrays = {"table": floats(8, 4), "rows": np.arange(5), "w": floats(4, 4)}
    nodes = [
        node("Gather", ["table", "rows"], ["positions"]),
        node("Add", ["x", "positions"], ["y"]),
        node("MatMul", ["x", "w"], ["unread"]),
    ]
    graph = load_workload(save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays), ["seq=5"])
    assert [(op.kind, op.function) for op in graph.operators] == [("gather", "slice"), ("elementwise", "add")]


def test_all_that_is_not_understood_is_named(save: Save) -> None:
    """Every kind of operator and every form, each with a node, at once."""
    node = helper.make_node
    nodes = [
        node("Einsum", ["x", "w", "w"], ["a"], name="first", equation="bnd,de,ef->bnf"),
        node("Pow", ["a", "five"], ["p"], name="power"),
        node("Softmax", ["p"], ["s"], name="columns", axis=1),
        node("LongformerAttention", ["s", "w"], ["y"], name="long", domain="com.microsoft"),
    ]
    arrays = {"w": floats(4, 4), "five": np.array(5.0, np.float32)}
    path = save(nodes, {"x": ["batch", "seq", 4]}, ["y"], arrays)
    with pytest.raises(InputError) as caught:
        load_workload(path)
    assert str(caught.value).splitlines() == [
        f"{path}: operator Einsum has 3 operands (bnd,de,ef->bnf); one or two are known (first)",
        f"{path}: operator Pow has an exponent that is not 2, 3 or 0.5 (power)",
        f"{path}: operator Softmax is not along the last axis (columns)",
        f"{path}: operator com.microsoft.LongformerAttention is not understood (long)",
    ]


def test_sizes_that_depend_on_data_are_named(save: Save) -> None:
    """Nothing is guessed."""
    nodes = [helper.make_node("NonZero", ["x"], ["y"], name="find")]
    path = save(nodes, {"x": ["batch", "seq"]}, ["y"])
    with pytest.raises(
        InputError, match=r"operator NonZero has a result whose size depends on data \(find\)"
    ):
        load_workload(path)


@pytest.mark.parametrize(
    ("axes", "overrides", "message"),
    [
        ([2, 5, 4], ["seq=7"], "`seq` can't be set: the file fixes the sizes of its inputs"),
        ([2, 5, 4], ["batch=3"], "`batch` can't be set: the file fixes the sizes of its inputs"),
        (
            ["batch", "seq", 4],
            ["past=3"],
            "`past` can't be set: no input of the file has an open axis of cached tokens",
        ),
        (
            ["batch", "seq", "width"],
            [],
            "axis 2 of input 'x' (width) is neither the batch nor the sequence nor the cached tokens; "
            "export the model with that size fixed",
        ),
        (["batch", "seq", 9], [], "operator Add does not fit inputs of sizes (1, 128, 9) and (4,) (plus)"),
    ],
)
def test_sizes_that_do_not_fit_are_told(save: Save, axes: Axes, overrides: list[str], message: str) -> None:
    """The file, and what to do."""
    nodes = [helper.make_node("Add", ["x", "w"], ["y"], name="plus")]
    path = save(nodes, {"x": axes}, ["y"], {"w": floats(4)})
    with pytest.raises(InputError) as caught:
        load_workload(path, overrides)
    assert str(caught.value) == f"{path}: {message}"


def test_a_description_names_the_file(save: Save) -> None:
    """A file with fixed sizes needs no more; the description that `show` prints loads again."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = save(nodes, {"x": [2, 5, 4]}, ["y"], {"w": floats(4, 3)})
    assert describe_workload(path) == OnnxModel(name="m", file=path)
    assert load_workload(path).macs == 2 * 5 * 4 * 3
    again = Path(path).with_suffix(".yaml")
    again.write_text(f"family: onnx\nfile: {path}\n", encoding="utf-8")
    assert load_workload(again).macs == 2 * 5 * 4 * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xffnonsense", "is no ONNX file"), (b"", "is no ONNX file, or one without operators")],
)
def test_files_that_are_none_are_told(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, no traceback."""
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    assert execute(["show", str(path)]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err == f"error: {path}: {message}\n"


def test_without_the_package_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install; but a file that isn't there is said first."""
    path = tmp_path / "m.onnx"
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(InputError) as caught:
        load_workload(str(path))
    assert str(caught.value) == f"{path}: no such file"
    path.touch()
    with pytest.raises(InputError) as caught:
        load_workload(str(path))
    assert str(caught.value) == (
        f"{path}: reading ONNX files needs the package `onnx`: pip install onnx (in a clone: "
        ".venv/bin/pip install onnx)"
    )
