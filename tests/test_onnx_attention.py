"""Attention in one ONNX operator, and KV caches that go in and come out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from tests.onnx_files import MICROSOFT, Axes, Load, floats, make_node, steps, write
from tilewright.description.errors import InputError
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.onnx_attention import seen_pairs
from tilewright.workloads.operators import MatmulShape

PAST: dict[str, Axes] = {name: ["batch", 2, "past_length", 4] for name in ("past_key", "past_value")}


def names(graph: OperatorGraph) -> list[str]:
    return [op.name for op in graph.operators]


def shape(graph: OperatorGraph, name: str) -> MatmulShape:
    found = next(op.shape for op in graph.operators if op.name == name)
    assert isinstance(found, MatmulShape)
    return found


@given(
    tokens=st.integers(1, 12), before=st.integers(0, 12), left=st.integers(-1, 14), right=st.integers(-1, 14)
)
def test_pairs_of_a_window_are_those_of_its_mask(tokens: int, before: int, left: int, right: int) -> None:
    """Query i stands at `before + i` and sees keys from `left` before to `right` after it."""
    context = before + tokens
    place, key = np.arange(before, context)[:, None], np.arange(context)[None]
    mask = ((left < 0) | (key >= place - left)) & ((right < 0) | (key <= place + right))
    assert seen_pairs(tokens, context, left, right) == mask.sum()


# ONNX Runtime's Attention and QAttention


@given(
    batch=st.integers(1, 3),
    n=st.integers(1, 40),
    heads=st.integers(1, 4),
    e=st.integers(1, 8),
    causal=st.booleans(),
)
def test_costs_of_attention_with_its_projections(
    tmp_path_factory: pytest.TempPathFactory, batch: int, n: int, heads: int, e: int, causal: bool
) -> None:
    """3 n d^2 with weights and 2 n^2 d without, of which n (n + 1) d are useful if it is causal; h n^2
    exponentials; 3 d (d + 1) parameters."""
    d = heads * e
    node = make_node(
        "Attention", ["x", "w", "b"], ["y"], domain=MICROSOFT, num_heads=heads, unidirectional=int(causal)
    )
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    arrays = {"w": floats(d, 3 * d), "b": floats(3 * d)}
    graph = load_workload(write(path, [node], {"x": [batch, n, d]}, ["y"], arrays))
    assert graph.metadata["weight_macs"] == str(batch * 3 * n * d * d)
    assert graph.metadata["activation_macs"] == str(batch * 2 * n * n * d)
    useful = n * (n + 1) * d if causal else 2 * n * n * d
    assert graph.useful_macs == batch * (3 * n * d * d + useful)
    assert sum(dict(op.primitives).get("exp", 0) for op in graph.operators) == batch * heads * n * n
    assert graph.parameters == 3 * d * (d + 1)


def test_attention_reads_its_mask_and_its_bias(onnx_graph: Load) -> None:
    """Flags choose, numbers are added; the projections have the bias in."""
    node = make_node(
        "Attention", ["x", "w", "b", "mask", "", "bias"], ["y"], name="a", domain=MICROSOFT, num_heads=2
    )
    axes = {"x": [3, 5, 8], "mask": [3, 5], "bias": [1, 2, 5, 5]}
    graph = onnx_graph([node], axes, w=floats(8, 24), b=floats(24))
    assert steps(graph) == [
        *((f"a.{part}", "matmul", "") for part in ("query", "key", "value")),
        ("a.scores", "matmul", "transpose_b"),
        ("a.scale", "elementwise", "scale"),
        ("a.mask", "elementwise", "where"),
        ("a.mask_2", "elementwise", "add"),
        ("a.softmax", "softmax", ""),
        ("a.context", "matmul", ""),
    ]
    assert graph.operators[0].inputs == ("x", "w.query", "b.query")


def test_layers_that_share_a_merged_weight_share_its_parts(onnx_graph: Load) -> None:
    """Parameters are counted once."""
    nodes = [
        make_node("Attention", [before, "w", "b"], [after], domain=MICROSOFT, num_heads=2)
        for before, after in (("x", "h"), ("h", "y"))
    ]
    assert onnx_graph(nodes, {"x": [1, 5, 8]}, w=floats(8, 24), b=floats(24)).parameters == 8 * 24 + 24


def test_quantised_attention(onnx_graph: Load) -> None:
    """QAttention: weights in 8 bits, each projection less the zero point's part, scaled, and its bias."""
    inputs = ["q8", "w", "b", "x_scale", "w_scale", "", "x_zero"]
    node = make_node("QAttention", inputs, ["y"], name="a", domain=MICROSOFT, num_heads=2)
    arrays = {
        "w": np.ones((8, 24), np.int8),
        "b": floats(24),
        "x_scale": np.array(0.1, np.float32),
        "w_scale": floats(24),
        "x_zero": np.array(3, np.uint8),
    }
    graph = onnx_graph([node], {"q8": [1, 5, 8]}, **arrays)
    assert names(graph)[:4] == ["a.query", "a.query.zero_points", "a.query.dequantise", "a.query.add_bias"]
    assert graph.tensors["w.query"].element == "int8"
    assert graph.macs == 3 * 5 * 8 * 8 + 2 * 5 * 5 * 8


# ONNX Runtime's MultiHeadAttention


@pytest.mark.parametrize(
    ("inputs", "axes"),
    [
        (["q", "k", "v"], {"q": [2, 5, 8], "k": [2, 7, 8], "v": [2, 7, 8]}),
        (["q", "k"], {"q": [2, 5, 8], "k": [2, 7, 2, 2, 4]}),
        (["q", "k", "v"], {"q": [2, 5, 8], "k": [2, 2, 7, 4], "v": [2, 2, 7, 4]}),
        (["q"], {"q": [2, 7, 2, 3, 4]}),
    ],
)
def test_heads_in_every_layout(onnx_graph: Load, inputs: list[str], axes: Mapping[str, Axes]) -> None:
    """Side by side, packed in one tensor or two, or as a cache holds them: the same products."""
    node = make_node("MultiHeadAttention", inputs, ["y"], name="a", domain=MICROSOFT, num_heads=2)
    graph = onnx_graph([node], axes)
    tokens = 5 if len(inputs) > 1 else 7
    assert shape(graph, "a.scores") == MatmulShape(4, tokens, 4, 7)
    assert shape(graph, "a.context") == MatmulShape(4, tokens, 7, 4)
    copied = 8 * 14 * {1: 3, 2: 2}.get(len(inputs), 0)
    assert sum(dict(op.primitives).get("move", 0) for op in graph.operators) == copied


def test_a_decode_step_of_multi_head_attention(onnx_graph: Load) -> None:
    """New keys and values are biased, written to the caches, and the caches read."""
    inputs = ["q", "k", "v", "b", "", "", "past_key", "past_value"]
    results = ["y", "present_key", "present_value"]
    node = make_node("MultiHeadAttention", inputs, results, name="a", domain=MICROSOFT, num_heads=2)
    axes = {name: ["batch", "seq", 8] for name in "qkv"} | PAST
    graph = onnx_graph([node], axes, results, "past=9", "batch=3", b=floats(24))
    assert steps(graph)[3:5] == [("a.key_cache", "scatter", "append"), ("a.value_cache", "scatter", "append")]
    assert graph.tensors["a.key_cache"].role == "kv_cache"
    assert graph.tensors["a.key_cache"].shape == (6, 10, 4)
    assert shape(graph, "a.scores") == MatmulShape(6, 1, 4, 10)
    assert graph.outputs == ("a.context",)


# ONNX Runtime's GroupQueryAttention


GROUPED: dict[str, Any] = {"name": "a", "domain": MICROSOFT, "num_heads": 6, "kv_num_heads": 2}


def grouped(packed: bool, **attributes: float) -> onnx.NodeProto:
    new = ["q", "", ""] if packed else ["q", "k", "v"]
    inputs = [*new, "past_key", "past_value", "lengths", "total", "cos", "sin"]
    results = ["y", "present_key", "present_value"]
    return make_node("GroupQueryAttention", inputs, results, **GROUPED, **attributes)


@pytest.mark.parametrize("packed", [False, True])
def test_a_decode_step_of_grouped_queries(onnx_graph: Load, packed: bool) -> None:
    """Three query heads are stacked on each key head; queries and keys are rotated first."""
    width = {"q": (6 + 4) * 4} if packed else {"q": 24, "k": 8, "v": 8}
    axes = {name: ["batch", "seq", size] for name, size in width.items()} | PAST | {"lengths": ["batch"]}
    arrays = {"total": np.array(12, np.int32), "cos": floats(32, 2), "sin": floats(32, 2)}
    graph = onnx_graph([grouped(packed, do_rotary=1)], axes, ["y"], "past=11", "batch=2", **arrays)
    parts = ["a.query", "a.key", "a.value"] if packed else []
    assert [name for name in names(graph) if not name.endswith(".rows")] == [
        *parts,
        *("a.query_rope", "a.key_rope", "a.key_cache", "a.value_cache"),
        *("a.scores", "a.scale_mask", "a.softmax", "a.context"),
    ]
    assert shape(graph, "a.scores") == MatmulShape(4, 3, 4, 12)
    assert graph.macs == graph.useful_macs == 2 * 2 * 12 * 24
    assert graph.parameters == 0, "angles are no parameters"


def test_a_prefill_of_grouped_queries_reads_the_new_keys(onnx_graph: Load) -> None:
    """The caches are written; a window leaves that many keys per query, itself included."""
    axes = {"q": [1, 8, 24], "k": [1, 8, 8], "v": [1, 8, 8], "lengths": [1]}
    node = grouped(packed=False, local_window_size=3)
    node.input[3], node.input[4] = "", ""
    arrays = {"total": np.array(8, np.int32), "cos": floats(32, 2), "sin": floats(32, 2)}
    graph = onnx_graph([node], axes, ["y", "present_key", "present_value"], **arrays)
    assert names(graph)[:3] == ["a.key_cache", "a.value_cache", "a.scores"]
    assert graph.operators[2].inputs == ("q", "k")
    assert graph.macs == 2 * 8 * 8 * 24
    assert graph.useful_macs == 2 * (1 + 2 + 6 * 3) * 24


def test_lengths_that_are_worked_out_are_read_with_the_mask(onnx_graph: Load) -> None:
    """As ONNX Runtime's models have them: the sum of the flags of tokens, less one."""
    nodes = [
        make_node("ReduceSum", ["mask", "axis"], ["sums"], name="sums", keepdims=0),
        make_node("Sub", ["sums", "one"], ["less"], name="less"),
        make_node("Cast", ["less"], ["lengths"], to=TensorProto.INT32),
        grouped(packed=False),
    ]
    axes: dict[str, Axes] = {"q": [2, 1, 24], "k": [2, 1, 8], "v": [2, 1, 8], "mask": [2, 12]}
    arrays = {"total": np.array(12, np.int32), "cos": floats(32, 2), "sin": floats(32, 2)}
    arrays |= {"axis": np.array([1]), "one": np.array([1], np.int32)}
    graph = onnx_graph(nodes, axes | PAST, ["y"], "past=11", "batch=2", **arrays)
    masked = next(op for op in graph.operators if op.name == "a.scale_mask")
    assert masked.inputs == ("a.scores", "less")


def test_what_nothing_reads_is_noted(onnx_graph: Load) -> None:
    """A mask of which the embeddings need only the lengths, and nobody those."""
    inputs = ["mask", "", "word", "position", "", "gamma", "beta", "flags"]
    nodes = [
        make_node("Neg", ["mask"], ["flags"], name="flags"),
        make_node("EmbedLayerNormalization", inputs, ["y", "lengths"], name="e", domain=MICROSOFT),
    ]
    arrays = {"word": floats(9, 4), "position": floats(9, 4), "gamma": floats(4), "beta": floats(4)}
    graph = onnx_graph(nodes, {"mask": [2, 5]}, **arrays)
    assert graph.metadata["unread"] == "flags"
    assert "flags" not in names(graph)


# ONNX's own Attention and RotaryEmbedding


@pytest.mark.parametrize("four", [False, True])
def test_the_standard_attention(onnx_graph: Load, four: bool) -> None:
    """Opset 23, heads side by side or apart; causal, capped and with a mask."""
    attributes = {"is_causal": 1, "softcap": 30.0}
    axes: dict[str, Axes] = {"q": [2, 6, 5, 4], "k": [2, 2, 5, 4], "v": [2, 2, 5, 3]}
    if not four:
        axes = {"q": [2, 5, 24], "k": [2, 5, 8], "v": [2, 5, 6]}
        attributes |= {"q_num_heads": 6, "kv_num_heads": 2}
    node = make_node("Attention", ["q", "k", "v", "bias"], ["y"], name="a", **attributes)
    graph = onnx_graph([node], axes | {"bias": [5, 5]})
    assert [function or kind for _, kind, function in steps(graph)] == [
        *("transpose_b", "scale_mask", "tanh", "scale", "add", "softmax", "matmul"),
    ]
    assert shape(graph, "a.scores") == MatmulShape(4, 15, 4, 5)
    assert shape(graph, "a.context") == MatmulShape(4, 15, 5, 3)
    assert graph.useful_macs == 2 * 6 * 15 * (4 + 3)


def test_a_decode_step_of_the_standard_attention(onnx_graph: Load) -> None:
    """Keys and values go to the caches' end."""
    inputs, results = ["q", "k", "v", "", *PAST], ["y", "present_key", "present_value"]
    node = make_node("Attention", inputs, results, name="a")
    axes: dict[str, Axes] = {"q": ["batch", 6, "seq", 4]}
    axes |= PAST | {name: ["batch", 2, "seq", 4] for name in "kv"}
    graph = onnx_graph([node], axes, results, "past=20")
    assert graph.tensors["a.value_cache"].shape == (2, 21, 4)
    assert graph.macs == 2 * 21 * 24


@pytest.mark.parametrize(
    ("domain", "inputs"),
    [("", ["x", "cos", "sin", "positions"]), (MICROSOFT, ["x", "positions", "cos", "sin"])],
)
@pytest.mark.parametrize("partly", [False, True])
def test_rotations(onnx_graph: Load, domain: str, inputs: list[str], partly: bool) -> None:
    """2 multiplications and 1 addition per rotated element; rows of angles are looked up once."""
    attributes = {"num_heads": 2, "rotary_embedding_dim": 4} if partly else {"num_heads": 2}
    nodes = [
        make_node("RotaryEmbedding", inputs, ["r"], name="rope", domain=domain, **attributes),
        make_node("RotaryEmbedding", ["r", *inputs[1:]], ["y"], domain=domain, **attributes),
    ]
    nodes.insert(0, make_node("Cast", ["mask"], ["positions"], to=TensorProto.INT64))
    width = 2 if partly else 4
    graph = onnx_graph(nodes, {"x": [3, 5, 16], "mask": [3, 5]}, cos=floats(64, width), sin=floats(64, width))
    rotations = [op for op in graph.operators if op.function == "rope"]
    rotated = 3 * 5 * 2 * 2 * width
    assert [op.primitives for op in rotations] == [(("add", rotated), ("multiply", 2 * rotated))] * 2
    assert [op.function for op in graph.operators].count("lookup") == 2
    assert [op.function for op in graph.operators].count("place") == (2 if partly else 0)


# Caches that are concatenated


def decoder(axis: int = 2) -> list[onnx.NodeProto]:
    """Attention of one token as exporters write it, one key head for two query heads."""
    node = make_node
    return [
        node("Concat", ["past_key_values.0.key", "k"], ["present.0.key"], name="keys", axis=axis),
        node("Concat", ["past_key_values.0.value", "v"], ["present.0.value"], name="values", axis=2),
        node("Unsqueeze", ["present.0.key", "two"], ["k5"]),
        node("Expand", ["k5", "sizes"], ["k_all"]),
        node("Reshape", ["k_all", "flat"], ["k4"]),
        node("Transpose", ["k4"], ["kt"], perm=[0, 1, 3, 2]),
        node("MatMul", ["q", "kt"], ["s"], name="/a/MatMul"),
        node("Softmax", ["s"], ["p"], name="/a/Softmax", axis=-1),
        node("MatMul", ["p", "present.0.value"], ["y"], name="/a/MatMul_1"),
    ]


DECODER = {
    "q": ["batch", 2, "seq", 4],
    "k": ["batch", 1, "seq", 4],
    "v": ["batch", 2, "seq", 4],
    "past_key_values.0.key": ["batch", 1, "past_sequence_length", 4],
    "past_key_values.0.value": ["batch", 2, "past_sequence_length", 4],
}
PRESENT = ["y", "present.0.key", "present.0.value"]
ARRAYS = {"two": np.array([2]), "sizes": np.array([1, 1, 2, 1, 1]), "flat": np.array([0, 2, -1, 4])}


def test_new_keys_are_written_to_the_cache(onnx_graph: Load) -> None:
    """A Concat with a past is an append; heads that share keys read them once, their queries stacked."""
    graph = onnx_graph(decoder(), DECODER, PRESENT, "past=30", "batch=3", **ARRAYS)
    assert steps(graph) == [
        ("keys", "scatter", "append"),
        ("values", "scatter", "append"),
        ("a.scores", "matmul", "transpose_b"),
        ("a.softmax", "softmax", ""),
        ("a.context", "matmul", ""),
    ]
    assert {graph.tensors[name].role for name in ("keys", "values")} == {"kv_cache"}
    assert shape(graph, "a.scores") == MatmulShape(3, 2, 4, 31)
    assert shape(graph, "a.context") == MatmulShape(6, 1, 31, 4)
    assert (graph.inputs, graph.outputs) == (("k", "v", "q"), ("a.context",))


def test_without_a_past_the_new_keys_are_read(onnx_graph: Load) -> None:
    """`past=0` is a prefill: the caches are written, and nobody waits for them."""
    graph = onnx_graph(decoder(), DECODER, PRESENT, "past=0", "seq=6", **ARRAYS)
    assert shape(graph, "a.scores") == MatmulShape(1, 12, 4, 6)
    assert graph.operators[2].inputs == ("q", "k")


def test_a_cache_that_is_only_read(onnx_graph: Load) -> None:
    """Keys of an encoder's output: in memory from before, and no input to load."""
    node = make_node("MatMul", ["q", "past_key_values.0.encoder.key"], ["y"], name="scores")
    axes = {"q": [1, 2, 1, 4], "past_key_values.0.encoder.key": [1, 2, 4, 9]}
    graph = onnx_graph([node], axes)
    assert graph.inputs == ("q",)
    assert graph.tensors["past_key_values.0.encoder.key"].role == "kv_cache"


def test_sizes_of_a_decode_step(onnx_graph: Load) -> None:
    """One token and 128 in the cache by default; sums of lengths add up."""
    node = make_node("Add", ["x", "flags"], ["y"])
    keys = make_node("Concat", ["past_key", "k"], ["present"], axis=2)
    axes = {
        "x": ["batch_size", "past_sequence_length + 1"],
        "flags": ["batch_size", "total_sequence_length"],
        "k": ["batch_size", 2, "sequence_length", 4],
        "past_key": ["batch_size", 2, "past_sequence_length", 4],
    }
    graph = onnx_graph([node, keys], axes, ["y", "present"])
    assert graph.tensors["x"].shape == graph.tensors["flags"].shape == (1, 129)
    assert graph.tensors["k"].shape == (1, 2, 1, 4)


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "reason"),
    [
        ("Attention", ["x", "w"], {"do_rotary": 1}, "has do_rotary"),
        (
            "Attention",
            ["x", "w"],
            {"qkv_hidden_sizes": [8, 4, 12]},
            "has queries and keys of different widths",
        ),
        ("Attention", ["x", "z"], {}, "has weights that are computed (z)"),
        ("MultiHeadAttention", ["x", "x", "x", "", "", "", "p", "p"], {}, "has a past that is computed"),
        (
            "GroupQueryAttention",
            ["x", "x", "x"],
            {"kv_num_heads": 2, "smooth_softmax": 1},
            "has smooth_softmax",
        ),
    ],
)
def test_what_attention_has_beside_that_is_named(
    onnx_graph: Load, kind: str, inputs: list[str], attributes: dict[str, object], reason: str
) -> None:
    """Each form by itself."""
    nodes = [
        make_node("Relu", ["past_key"], ["p"]),
        make_node(kind, inputs, ["y"], name="a", domain=MICROSOFT, num_heads=2, **attributes),
    ]
    axes = {"x": [1, 5, 8], "past_key": [1, 2, 3, 4], "z": [8, 24]}
    with pytest.raises(InputError) as caught:
        onnx_graph(nodes, axes, w=floats(8, 24))
    assert f"operator com.microsoft.{kind} {reason} (a)" in str(caught.value)
