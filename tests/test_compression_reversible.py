"""Reversible layers: what they compute, that they can be undone, and what training on them keeps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import total_primitives
from tilewright.api import load_accelerator, simulate
from tilewright.description.errors import InputError
from tilewright.sim.functional import Values, random_inputs, run
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.compression.reversible import Reversible
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, prenorm_encoder_layer
from tilewright.workloads.load import load_workload
from tilewright.workloads.rules import check
from tilewright.workloads.training_memory import STRATEGIES, training_memory

HEADS, WIDTH, HIDDEN, TOKENS = 2, 8, 12, 5


def stack(layers: int) -> OperatorGraph:
    """Pre-norm layers and nothing around them."""
    b = GraphBuilder("stack")
    heads = Heads(HEADS, HEADS, WIDTH // HEADS)
    x = b.input("x", (1, TOKENS, WIDTH))
    y = b.repeat(layers, "layers.{i}", x, lambda z: prenorm_encoder_layer(b, z, heads, HIDDEN, "relu"))
    return b.finish(y)


def reversible(graph: OperatorGraph) -> OperatorGraph:
    """The graph with two streams, checked."""
    made = Reversible().transform(graph)
    check(made)
    return made


class Layer:
    """A layer's two branches in plain numpy."""

    def __init__(self, values: dict[str, Values], number: int) -> None:
        prefix = f"layers.{number}."
        self.weights = {n.removeprefix(prefix): v for n, v in values.items() if n.startswith(prefix)}

    def linear(self, name: str, x: Values) -> Values:
        return np.asarray(x @ self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])

    def norm(self, name: str, x: Values) -> Values:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return np.asarray(scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"])

    def attention(self, x: Values) -> Values:
        x = self.norm("attention_norm", x)
        q, k, v = (
            self.linear(f"attention.{name}", x).reshape(TOKENS, HEADS, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )
        weights = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(WIDTH // HEADS))
        context = weights / weights.sum(axis=-1, keepdims=True) @ v
        return self.linear("attention.output", context.swapaxes(0, 1).reshape(TOKENS, WIDTH))

    def ffn(self, x: Values) -> Values:
        hidden = np.maximum(self.linear("ffn.up", self.norm("ffn_norm", x)), 0)
        return self.linear("ffn.down", hidden)


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_of_two_streams_can_be_undone(layers: int) -> None:
    """y1 = x1 + Attention(x2), y2 = x2 + FFN(y1), layer by layer; from the last two streams alone the input
    comes back (Kitaev et al., arXiv:2001.04451, equations 8 and 9), and the result is their mean."""
    graph = reversible(stack(layers))
    values = run(graph, random_inputs(graph, 1))
    first = values[f"layers.{layers - 1}.attention_residual"][0]
    second = values[f"layers.{layers - 1}.ffn_residual"][0]
    np.testing.assert_allclose(values[graph.outputs[0]][0], (first + second) / 2, rtol=1e-12)
    for number in reversed(range(layers)):
        layer = Layer(values, number)
        second = second - layer.ffn(first)
        first = first - layer.attention(second)
    np.testing.assert_allclose(first, values["x"][0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(second, values["x"][0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("workload", ["gpt2", "vit-b16", "llama-3.2-1b"])
def test_reversible_models_do_the_same_work_and_a_mean(workload: str) -> None:
    """Weights, MACs and primitives are those of the plain model, and one mean of the streams comes on top."""
    plain = load_workload(workload)
    made = load_workload(workload, ["compression=[{kind: reversible}]"])
    assert (made.macs, made.parameters) == (plain.macs, plain.parameters)
    extra = total_primitives(made) - total_primitives(plain)
    (mean,) = (op for op in made.operators if op.name.endswith(".mean"))
    assert extra == Counter(dict(mean.primitives))


def test_each_step_of_a_run_has_its_streams() -> None:
    """Prefill and decode steps have stacks of their own; what follows each reads its mean."""
    sizes = ["layers=2", "d=8", "heads=2", "kv_heads=2", "head_dim=4", "ffn=4", "vocab=9", "seq=3"]
    graph = reversible(load_workload("llama-2-7b", [*sizes, "generate=2"]))
    means = {op.outputs[0] for op in graph.operators if op.name.endswith(".mean")}
    assert len(means) == 2
    assert {op.inputs[0] for op in graph.operators if op.name.endswith((".norm",))} == means


@given(layers=st.integers(1, 6))
def test_training_keeps_two_activations_whatever_the_depth(layers: int) -> None:
    """Training on the rewritten graph keeps and works out again exactly what the strategy `reversible` says
    of the plain one."""
    plain = stack(layers)
    made = reversible(plain)
    strategies = {each.name: each for each in STRATEGIES}
    keep, inverted = training_memory(made), training_memory(plain, strategies["reversible"])
    assert (keep.kept_bytes, keep.working_bytes, keep.recomputed_macs) == (
        inverted.kept_bytes,
        inverted.working_bytes,
        inverted.recomputed_macs,
    )
    assert keep.kept_bytes == 2 * 2 * TOKENS * WIDTH
    chunked = strategies["reversible_chunked"]
    assert training_memory(made, chunked) == training_memory(plain, chunked)


def test_inference_costs_what_it_did() -> None:
    """On the array of the ideal machine, not a cycle more; on one with memory, the mean and the longer life
    of a stream."""
    sizes = ["layers=2", "d=32", "heads=2", "ffn=64", "seq=16", "vocab=50"]
    made = ["compression=[{kind: reversible}]"]
    plain, two = load_workload("gpt2", sizes), load_workload("gpt2", [*sizes, *made])
    bare = load_accelerator("bare-array")
    assert simulate(bare, two).units["array"]["busy"] == simulate(bare, plain).units["array"]["busy"]
    npu = load_accelerator("edge-npu-large")
    assert simulate(npu, two).cycles > simulate(npu, plain).cycles


REFUSED = {
    "bert-base": "reversible: layers.* of bert-base ends with more than a residual sum (a post-norm layer?), "
    "which can't be undone; pre-norm models such as gpt2 and vit-b16 can be reversible",
    "t5-small": "reversible: decoder.layers.* of t5-small has 3 sublayers, not 2",
    "autoformer-tiny": "reversible: autoformer-tiny has no stack of equal layers",
    "encoder_block": "reversible: encoder_block has no stack of equal layers",
}


@pytest.mark.parametrize(("workload", "message"), REFUSED.items())
def test_layers_that_cannot_be_undone_are_refused(workload: str, message: str) -> None:
    """The error says which layers, and why."""
    with pytest.raises(InputError) as caught:
        load_workload(workload, ["compression=[{kind: reversible}]"])
    assert str(caught.value) == message
