"""ONNX operators one by one: Einsum, what ONNX Runtime's optimiser writes, quantised products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from tests.onnx_files import MICROSOFT, Load, floats, make_node, steps, write
from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import MatmulShape, RowsShape


def work(graph: OperatorGraph) -> primitives.Primitives:
    return primitives.add(*(op.primitives for op in graph.operators))


# Einsum


@pytest.mark.parametrize(
    ("equation", "left", "right", "shape", "function"),
    [
        ("bnd,de->bne", (2, 5, 4), (4, 3), MatmulShape(1, 10, 4, 3), ""),
        ("bnd,ed->bne", (2, 5, 4), (3, 4), MatmulShape(1, 10, 4, 3), "transpose_b"),
        ("...d,dhe->...he", (2, 5, 4), (4, 3, 6), MatmulShape(1, 10, 4, 18), ""),
        ("bnhe,hed->bnd", (2, 5, 3, 6), (3, 6, 4), MatmulShape(1, 10, 18, 4), ""),
        ("bhie,bhje->bhij", (2, 3, 5, 4), (2, 3, 7, 4), MatmulShape(6, 5, 4, 7), "transpose_b"),
        ("bhij,bhje->bihe", (2, 3, 5, 7), (2, 3, 7, 4), MatmulShape(6, 5, 7, 4), ""),
        ("i,j->ij", (5,), (7,), MatmulShape(1, 5, 1, 7), ""),
        ("bnd,d", (2, 5, 4), (4,), MatmulShape(1, 10, 4, 1), ""),
    ],
)
def test_contractions_are_products(
    onnx_graph: Load,
    equation: str,
    left: tuple[int, ...],
    right: tuple[int, ...],
    shape: MatmulShape,
    function: str,
) -> None:
    """Letters in both operands and the result are the batch, in both only k, in one only m and n."""
    graph = onnx_graph([make_node("Einsum", ["x", "z"], ["y"], equation=equation)], {"x": left, "z": right})
    (op,) = graph.operators
    assert (op.shape, op.function) == (shape, function)
    sizes = dict(zip(equation.partition(",")[0].replace("...", "bn"), left, strict=True))
    assert op.macs == np.prod(left) * np.prod(right) // np.prod([1, *_shared(equation, sizes, right)])


def _shared(equation: str, sizes: Mapping[str, int], right: Sequence[int]) -> list[int]:
    """Sizes of the axes that both operands have: each counts once."""
    letters = equation.partition(",")[2].partition("->")[0]
    return [size for letter, size in zip(letters, right, strict=True) if letter in sizes]


@given(sizes=st.tuples(*[st.integers(1, 5)] * 4), order=st.permutations("bmkn"))
def test_the_order_of_letters_changes_no_count(
    tmp_path_factory: pytest.TempPathFactory, sizes: tuple[int, int, int, int], order: list[str]
) -> None:
    """b m k n MACs however the axes of the operands and of the result are turned."""
    size = dict(zip("bmkn", sizes, strict=True))
    terms = ["".join(x for x in order if x in letters) for letters in ("bmk", "bkn", "bmn")]
    axes = {name: [size[x] for x in term] for name, term in zip("xz", terms[:2], strict=True)}
    node = make_node("Einsum", ["x", "z"], ["y"], equation=f"{terms[0]},{terms[1]}->{terms[2]}")
    path = write(tmp_path_factory.mktemp("onnx") / "m.onnx", [node], axes, ["y"], {})
    assert load_workload(path).macs == np.prod(sizes)


def test_a_weight_that_comes_first_is_b(onnx_graph: Load) -> None:
    """It is what stays, and counts as a weight."""
    node = make_node("Einsum", ["w", "x"], ["y"], equation="ed,bnd->bne")
    graph = onnx_graph([node], {"x": [2, 5, 4]}, w=floats(3, 4))
    assert graph.operators[0].inputs == ("x", "w")
    assert graph.operators[0].shape == MatmulShape(1, 10, 4, 3)
    assert graph.metadata["weight_macs"] == "120"


def test_einsum_transposes_sums_and_multiplies(onnx_graph: Load) -> None:
    """A transpose is addressing; sums and products element by element are work of the vector unit."""
    node = make_node
    nodes = [
        node("Einsum", ["x"], ["t"], equation="bnd->dnb"),
        node("Einsum", ["t"], ["s"], equation="dnb->nb"),
        node("Einsum", ["s", "v"], ["y"], equation="nb,b->nb"),
    ]
    graph = onnx_graph(nodes, {"x": [2, 5, 4], "v": [2]})
    assert [(op.kind, op.function, op.shape) for op in graph.operators] == [
        ("reduce", "sum", RowsShape(10, 4)),
        ("elementwise", "multiply", RowsShape(5, 2)),
    ]


@pytest.mark.parametrize(
    ("equation", "reason"),
    [
        ("bii,ij->bj", "takes a diagonal (bii,ij->bj)"),
        ("bij,kj->bik,", "has an equation that is none of its operands (bij,kj->bik,)"),
        ("bij,jk->bc", "does not fit inputs of sizes (2, 4, 4) and (4, 4)"),
        ("bij,bk->ijk", "broadcasts axis b (bij,bk->ijk)"),
    ],
)
def test_other_equations_are_named(onnx_graph: Load, equation: str, reason: str) -> None:
    """With the equation, or what did not fit."""
    node = make_node("Einsum", ["x", "z"], ["y"], name="odd", equation=equation)
    with pytest.raises(InputError) as caught:
        onnx_graph([node], {"x": [2, 4, 4], "z": [4, 4]})
    assert f"operator Einsum {reason} (odd)" in str(caught.value)


def test_attention_written_with_einsum_is_recognised(onnx_graph: Load) -> None:
    """Scores and context have their names."""
    node = make_node
    nodes = [
        node("Einsum", ["q", "k"], ["s"], name="/a/Einsum", equation="bhie,bhje->bhij"),
        node("Softmax", ["s"], ["p"], name="/a/Softmax", axis=-1),
        node("Einsum", ["p", "v"], ["y"], name="/a/Einsum_1", equation="bhij,bhje->bihe"),
    ]
    graph = onnx_graph(nodes, dict.fromkeys(("q", "k", "v"), (2, 3, 5, 4)))
    assert [op.name for op in graph.operators] == ["a.scores", "a.softmax", "a.context"]


# What ONNX Runtime's optimiser writes


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("batch", [0, 1])
def test_fused_matmul_reads_its_operands_turned(
    onnx_graph: Load, trans_a: int, trans_b: int, batch: int
) -> None:
    """The same product for every choice of orders; alpha is one multiplication per result."""
    sizes = {"b": 3, "m": 5, "k": 4, "n": 7}
    order_a = "bkm" if trans_a else "bmk"
    order_b = "bnk" if trans_b else "bkn"
    if batch:  # the first axis behind the batch
        order_a, order_b = (order[1] + order[0] + order[2] for order in (order_a, order_b))
    flags = {"transA": trans_a, "transB": trans_b, "transBatchA": batch, "transBatchB": batch}
    node = make_node("FusedMatMul", ["x", "z"], ["y"], domain=MICROSOFT, alpha=0.5, **flags)
    graph = onnx_graph([node], {"x": [sizes[x] for x in order_a], "z": [sizes[x] for x in order_b]})
    product, alpha = graph.operators
    assert product.shape == MatmulShape(3, 5, 4, 7)
    assert (product.function == "transpose_b") == bool(trans_b)
    assert (alpha.function, alpha.primitives) == ("scale", (("multiply", 105),))


@pytest.mark.parametrize(
    ("kind", "inputs", "function", "terms"),
    [
        ("SkipLayerNormalization", ["x", "z", "gamma", "beta"], "layernorm", 2),
        ("SkipLayerNormalization", ["x", "z", "gamma", "beta", "bias"], "layernorm", 3),
        ("SkipSimplifiedLayerNormalization", ["x", "z", "gamma"], "rmsnorm", 2),
        ("SkipSimplifiedLayerNormalization", ["x", "z", "gamma", "bias"], "rmsnorm", 3),
    ],
)
def test_a_norm_of_a_sum(onnx_graph: Load, kind: str, inputs: list[str], function: str, terms: int) -> None:
    """The sum, which is a result as well, and its norm: the work of both."""
    node = make_node(kind, inputs, ["y", "", "", "sum"], name="norm", domain=MICROSOFT)
    axes = {"x": [2, 5, 8], "z": [2, 5, 8]}
    graph = onnx_graph([node], axes, ["y", "sum"], gamma=floats(8), beta=floats(8), bias=floats(8))
    assert steps(graph) == [("norm.sum", "elementwise", "add"), ("norm", "norm", function)]
    assert graph.outputs == ("norm", "norm.sum")
    adds = primitives.totals({"add": 80 * (terms - 1)})
    assert work(graph) == primitives.add(adds, primitives.NORMS[function](10, 8))
    assert graph.parameters == 8 * (len(inputs) - 2)


@pytest.mark.parametrize("kind", ["RMSNormalization", "SimplifiedLayerNormalization"])
def test_rms_norms(onnx_graph: Load, kind: str) -> None:
    """ONNX's own and ONNX Runtime's, which has no domain."""
    graph = onnx_graph(
        [make_node(kind, ["x", "n.weight"], ["y"])], {"x": [2, 5, 8]}, **{"n.weight": floats(8)}
    )
    assert steps(graph) == [("n", "norm", "rmsnorm")]
    assert graph.operators[0].inputs == ("x", "n.weight")


def test_layers_that_share_a_norm_share_its_weights(onnx_graph: Load) -> None:
    """Parameters are counted once."""
    nodes = [
        make_node("LayerNormalization", [before, "n.weight", "n.bias"], [after])
        for before, after in (("x", "h"), ("h", "y"))
    ]
    arrays = {"n.weight": floats(8), "n.bias": floats(8)}
    assert onnx_graph(nodes, {"x": [2, 5, 8]}, **arrays).parameters == 16


def test_a_norm_without_bias_is_named(onnx_graph: Load) -> None:
    """Nothing is made up."""
    node = make_node("SkipLayerNormalization", ["x", "x", "g"], ["y"], name="n", domain=MICROSOFT)
    with pytest.raises(InputError, match=r"SkipLayerNormalization has no bias \(n\)"):
        onnx_graph([node], {"x": [2, 5, 8]}, g=floats(8))


def test_embeddings_with_their_norm(onnx_graph: Load) -> None:
    """Three tables, their sum, its norm, and the lengths that the mask has."""
    inputs = ["ids", "segments", "word", "position", "segment", "gamma", "beta", "mask"]
    node = make_node("EmbedLayerNormalization", inputs, ["y", "lengths"], name="e", domain=MICROSOFT)
    tables = {"word": floats(30, 8), "position": floats(16, 8), "segment": floats(2, 8)}
    norm = {"gamma": floats(8), "beta": floats(8)}
    axes = {name: ["batch", "seq"] for name in ("ids", "segments", "mask")}
    graph = onnx_graph([node], axes, ["y", "lengths"], "seq=5", "batch=2", **tables, **norm)
    assert steps(graph) == [
        ("e.word", "gather", "lookup"),
        ("e.position", "gather", "slice"),
        ("e.segment", "gather", "lookup"),
        ("e.sum", "elementwise", "add"),
        ("e.mask_index", "reduce", "sum"),
        ("e", "norm", "layernorm"),
    ]
    assert graph.parameters == 8 * (30 + 16 + 2 + 2)


@pytest.mark.parametrize(
    ("kind", "domain", "attributes", "function"),
    [
        ("Gelu", "", {}, "gelu"),
        ("Gelu", "", {"approximate": "tanh"}, "gelu_new"),
        ("Gelu", MICROSOFT, {}, "gelu"),
        ("FastGelu", MICROSOFT, {}, "gelu_new"),
        ("QuickGelu", MICROSOFT, {}, "quick_gelu"),
    ],
)
def test_gelus(onnx_graph: Load, kind: str, domain: str, attributes: dict[str, str], function: str) -> None:
    """By the approximation that each one is."""
    graph = onnx_graph([make_node(kind, ["x"], ["y"], domain=domain, **attributes)], {"x": [2, 5, 8]})
    assert [op.function for op in graph.operators] == [function]


@pytest.mark.parametrize("kind", ["BiasGelu", "FastGelu"])
def test_a_bias_before_a_gelu_belongs_to_the_product(onnx_graph: Load, kind: str) -> None:
    """Where there is one, else it is added by itself."""
    product = make_node("MatMul", ["x", "w"], ["h"], name="dense")
    act = make_node(kind, ["h", "b"], ["y"], name="act", domain=MICROSOFT)
    arrays = {"w": floats(8, 6), "b": floats(6)}
    graph = onnx_graph([product, act], {"x": [2, 5, 8]}, **arrays)
    assert [op.name for op in graph.operators] == ["dense", "act"]
    assert graph.operators[0].inputs == ("x", "w", "b")
    alone = onnx_graph([act], {"h": [2, 5, 6]}, **arrays)
    assert [op.name for op in alone.operators] == ["act.bias", "act"]
    assert work(alone) == work(graph)


# Quantised products


def quantised(*, zero: int) -> dict[str, np.ndarray]:
    return {
        "w": np.ones((8, 6), np.int8),
        "w_scale": floats(6),
        "w_zero": np.zeros(6, np.int8),
        "x_scale": np.array(0.1, np.float32),
        "x_zero": np.array(zero, np.uint8),
    }


def test_products_of_dynamically_quantised_activations(onnx_graph: Load) -> None:
    """The range of x, x in 8 bits, the integers' product less what the zero point adds, scaled afterwards."""
    node = make_node
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], name="quantise"),
        node("MatMulInteger", ["q", "w", "z", "w_zero"], ["i"], name="dense"),
        node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["s", "w_scale"], ["both"], name="scales"),
        node("Mul", ["f", "both"], ["y"], name="rescale"),
    ]
    graph = onnx_graph(nodes, {"x": [2, 5, 8]}, **quantised(zero=0))
    assert steps(graph) == [
        ("quantise.largest", "reduce", "max"),
        ("quantise.smallest", "reduce", "max"),
        ("quantise.scale", "elementwise", "add"),
        ("quantise", "elementwise", "round"),
        ("dense", "matmul", ""),
        ("dense.zero_points", "elementwise", "add"),
        ("scales", "elementwise", "multiply"),
        ("rescale", "elementwise", "multiply"),
    ]
    assert graph.macs == int(graph.metadata["weight_macs"]) == 10 * 8 * 6
    assert {graph.tensors[name].element for name in ("quantise", "w")} == {"int8"}
    rounding = primitives.elementwise("round", 80)
    ranges = primitives.totals({"compare": 2 * 79, "add": 1})
    results = primitives.totals({"add": 60, "multiply": 60 + 6})
    assert work(graph) == primitives.add(rounding, ranges, results)


def test_one_operator_for_all_of_that(onnx_graph: Load) -> None:
    """DynamicQuantizeMatMul: the same, the scales in one operator."""
    inputs = ["x", "w", "w_scale", "w_zero", "bias"]
    node = make_node("DynamicQuantizeMatMul", inputs, ["y"], name="d", domain=MICROSOFT)
    graph = onnx_graph([node], {"x": [2, 5, 8]}, bias=floats(6), **quantised(zero=0))
    assert [name for name, _, _ in steps(graph)] == [
        *("d.quantise.largest", "d.quantise.smallest", "d.quantise.scale", "d.quantise"),
        *("d", "d.zero_points", "d.dequantise", "d.add_bias"),
    ]


@pytest.mark.parametrize("zero", [0, 128])
def test_a_linear_product_of_integers(onnx_graph: Load, zero: int) -> None:
    """QLinearMatMul: 8 bits in, 8 bits out, one rounding per result; a zero point of 0 is no work."""
    node = make_node
    inputs = ["q", "x_scale", "x_zero", "w", "w_scale", "w_zero", "x_scale", "x_zero"]
    nodes = [
        node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["q"], name="in"),
        node("QLinearMatMul", inputs, ["p"], name="dense"),
        node("DequantizeLinear", ["p", "x_scale", "x_zero"], ["f"]),
        node("Relu", ["f"], ["y"], name="relu"),
    ]
    graph = onnx_graph(nodes, {"x": [2, 5, 8]}, **quantised(zero=zero))
    offset = [("dense.zero_points", "elementwise", "add")] if zero else []
    back = [("f.zero_point", "elementwise", "add")] if zero else []
    assert steps(graph) == [
        ("in", "elementwise", "round"),
        ("dense", "matmul", ""),
        *offset,
        ("dense.requantise", "elementwise", "round"),
        *back,
        ("f.dequantise", "elementwise", "scale"),
        ("relu", "elementwise", "relu"),
    ]
    assert {graph.tensors[name].element for name in ("in", "w", "dense.requantise")} == {"int8"}


def test_pairs_around_a_product_make_it_one_of_integers(onnx_graph: Load) -> None:
    """QuantizeLinear and DequantizeLinear on both sides: operands stay in 8 bits, results are scaled once."""
    node = make_node
    nodes = [
        node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["q"], name="in"),
        node("DequantizeLinear", ["q", "x_scale", "x_zero"], ["a"]),
        node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["b"], axis=1),
        node("MatMul", ["a", "b"], ["y"], name="dense"),
    ]
    graph = onnx_graph(nodes, {"x": [2, 5, 8]}, **quantised(zero=0))
    assert [(op.name, op.inputs) for op in graph.operators] == [
        ("in", ("x",)),
        ("dense", ("in", "w")),
        ("dense.dequantise", ("dense", "w_scale")),
    ]


@pytest.mark.parametrize(("bits", "element"), [(4, "int4"), (8, "int8")])
def test_weights_scaled_by_block(onnx_graph: Load, bits: int, element: str) -> None:
    """MatMulNBits: K N parameters in their own type, a 16-bit scale and a zero point per block beside them,
    one multiplication per element as it comes in."""
    attributes = {"K": 64, "N": 6, "bits": bits, "block_size": 16}
    node = make_node("MatMulNBits", ["x", "w", "s", "z"], ["y"], domain=MICROSOFT, **attributes)
    arrays = {"w": np.zeros((6, 4, 2 * bits), np.uint8), "s": floats(24), "z": np.zeros(24, np.uint8)}
    graph = onnx_graph([node], {"x": [2, 5, 64]}, **arrays)
    (op,) = graph.operators
    assert (op.shape, op.function) == (MatmulShape(1, 10, 64, 6), "transpose_b")
    assert op.primitives == (("multiply", 64 * 6),)
    weight = graph.tensors["w"]
    assert (weight.element, weight.side_bits, graph.parameters) == (element, 24 * (16 + bits), 64 * 6)
    node.output[0] = "h"
    nodes = [node, make_node("Add", ["h", "bias"], ["y"])]
    (biased,) = onnx_graph(nodes, {"x": [2, 5, 64]}, **arrays, bias=floats(6)).operators
    assert biased.primitives == (("add", 60), ("multiply", 64 * 6))


def test_inputs_that_do_not_fit_are_told(onnx_graph: Load) -> None:
    """Of ONNX Runtime's operators as of ONNX's own."""
    node = make_node("FusedMatMul", ["x", "z"], ["y"], name="f", domain=MICROSOFT)
    with pytest.raises(InputError) as caught:
        onnx_graph([node], {"x": [2, 5, 8], "z": [2, 7, 8]})
    message = "operator com.microsoft.FusedMatMul does not fit inputs of sizes (2, 5, 8) and (2, 7, 8) (f)"
    assert message in str(caught.value)
