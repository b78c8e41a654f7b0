"""Mechanisms layer by layer and head by head, in encoders, decoders and decode steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tilewright as tw
from tilewright.description.errors import InputError
from tilewright.sim import functional
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import MatmulShape, Operator
from tilewright.workloads.rules import check

ENCODER = ("bert-base", "seq=48", "d=24", "heads=4", "ffn=32", "vocab=50")
DECODER = ("llama-3.2-1b", "seq=48", "d=32", "heads=4", "kv_heads=2", "head_dim=8", "ffn=32", "vocab=50")
T5 = ("t5-small", "seq=300", "d=32", "heads=4", "head_dim=8", "ffn=32", "vocab=50")

CHOICES = (
    "{kind: dense}",
    "{kind: sliding_window, window: 8, block: 8}",
    "{kind: sliding_window, window: 16, block: 8}",
    "{kind: performer, features: 8}",
)


def load(model: tuple[str, ...], *overrides: str) -> OperatorGraph:
    """The graph of a small model."""
    return load_workload(model[0], [*model[1:], *overrides])


def per_layer(*entries: str) -> str:
    """The override for a list of choices."""
    return f"attention={{kind: per_layer, layers: [{', '.join(entries)}]}}"


def per_head(*groups: str) -> str:
    """The override for groups of heads."""
    return f"attention={{kind: per_head, groups: [{', '.join(groups)}]}}"


def with_key(choice: str, text: str) -> str:
    """A choice with one key more."""
    return f"{choice[:-1]}, {text}}}"


def layer(graph: OperatorGraph, number: int) -> list[Operator]:
    """Operators of a layer of a written-out graph, under the names that they would have in layer 0, without
    their operands."""
    prefix = f"layers.{number}."
    return [
        replace(op, name=op.name.removeprefix(prefix), inputs=(), outputs=())
        for op in graph.operators
        if op.name.startswith(prefix)
    ]


def layer_weights(graph: OperatorGraph, number: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and caches of a layer of a written-out graph."""
    prefix = f"layers.{number}."
    return {
        name.removeprefix(prefix): tensor.shape
        for name, tensor in graph.tensors.items()
        if name.startswith(prefix) and tensor.role in ("weight", "kv_cache")
    }


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(CHOICES), st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(1, 3))
def test_equal_entries_are_the_single_choice(choice: str, counts: list[int], cycles: int) -> None:
    """A list of one and the same choice, however it is cut into counts, is that choice: one block, the same
    operators."""
    layers = sum(counts) * cycles
    entries = [with_key(choice, f"count: {count}") for count in counts]
    several = load(ENCODER, f"layers={layers}", per_layer(*entries))
    single = load(ENCODER, f"layers={layers}", f"attention={choice}")
    assert several.operators == single.operators
    assert several.repeats == single.repeats
    assert (several.macs, several.parameters) == (single.macs, single.parameters)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from((ENCODER, DECODER)),
    st.lists(st.tuples(st.sampled_from(CHOICES), st.integers(1, 3)), min_size=1, max_size=4),
    st.integers(1, 3),
)
def test_each_layer_is_lowered_as_if_alone(
    model: tuple[str, ...], entries: list[tuple[str, int]], cycles: int
) -> None:
    """Written out, layer k has the operators, weights and caches that a model of one layer with the k-th
    choice has, under its own number; nothing else is there, and all layers are a chain."""
    order = [choice for choice, count in entries for _ in range(count)] * cycles
    text = per_layer(*(with_key(choice, f"count: {count}") for choice, count in entries))
    graph = load(model, f"layers={len(order)}", text)
    plain = graph.expand()
    check(plain)
    assert (plain.macs, plain.useful_macs) == (graph.macs, graph.useful_macs)
    assert plain.parameters == graph.parameters
    alone = {choice: load(model, "layers=1", f"attention={choice}").expand() for choice in set(order)}
    for number, choice in enumerate(order):
        assert layer(plain, number) == layer(alone[choice], 0)
        assert layer_weights(plain, number) == layer_weights(alone[choice], 0)
    others = [op.name for op in plain.operators if not op.name.startswith("layers.")]
    assert others == [op.name for op in alone[order[0]].operators if not op.name.startswith("layers.")]
    by_output = {name: op.name for op in plain.operators for name in op.outputs}
    norm = "attention_norm" if model is DECODER else "attention.query"
    chain = [op for op in plain.operators if op.name.endswith(norm)]
    for number, op in enumerate(chain[1:], start=1):
        assert by_output[op.inputs[0]].startswith(f"layers.{number - 1}.ffn")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(CHOICES[:3]), min_size=1, max_size=6), st.integers(1, 6))
def test_layers_are_held_once(order: list[str], cycles: int) -> None:
    """A graph holds no more layers than the list, and none twice in a row."""
    graph = load(ENCODER, f"layers={len(order) * cycles}", per_layer(*order))
    held = sum("attention_norm" in op.name for op in graph.operators)
    changes = 1 + sum(a != b for a, b in zip(order * cycles, (order * cycles)[1:], strict=False))
    assert held <= min(len(order), changes)
    assert sum(repeat.times for repeat in graph.repeats) <= len(order) * cycles


def test_gpt_oss_alternates_in_one_block() -> None:
    """36 layers, every other one with a window of 128 (gpt-oss-120b), are one block of two, 18 times; layers
    have their own numbers, and a ring of 128 or a cache of all tokens."""
    sizes = ("layers=36", "d=2880", "heads=64", "kv_heads=8", "head_dim=64", "seq=4096")
    alternating = per_layer("{kind: sliding_window, window: 128}", "{kind: dense}")
    graph = load_workload("llama-3-8b", [*sizes, alternating])
    (repeat,) = graph.repeats
    assert repeat.times == 18
    names = {op.name for op in graph.operators}
    assert {"layers.{2i}.attention.query", "layers.{2i+1}.attention.query"} <= names
    plain = graph.expand()
    rooms = [plain.tensors[f"layers.{number}.attention.key_cache"].shape[1] for number in range(36)]
    assert rooms == [128, 4096] * 18
    assert graph.parameters == load_workload("llama-3-8b", list(sizes)).parameters


def test_longformer_widens_its_window_from_layer_to_layer() -> None:
    """Growing windows (Longformer's character models, section 4.1 of the paper) are a block each, with
    counts."""
    windows = (32, 64, 128)
    entries = [f"{{kind: longformer, window: {window}, count: 2}}" for window in windows]
    graph = load(ENCODER, "seq=512", "layers=6", per_layer(*entries))
    assert [repeat.times for repeat in graph.repeats] == [2, 2, 2]
    names = [op.name for op in graph.operators if op.name.endswith("attention.query")]
    assert names == [f"layers.{name}.attention.query" for name in ("{i}", "{i+2}", "{i+4}")]
    plain = graph.expand()
    work = [
        sum(op.useful_macs or 0 for op in plain.operators if op.name.startswith(f"layers.{number}."))
        for number in range(6)
    ]
    assert work == sorted(work)
    assert work[0] == work[1] < work[2] == work[3] < work[4] == work[5]


def test_simulated_layers_have_their_own_numbers() -> None:
    """A run reports each layer of an alternating stack under its number; skipping equal copies changes
    nothing."""
    machine = tw.load_accelerator("gemmini-default")
    graph = load(ENCODER, "layers=6", per_layer(CHOICES[0], CHOICES[1]))
    result = tw.simulate(machine, graph)
    rows = [op.name for op in result.operators if op.name.endswith("attention.query")]
    assert rows == [f"layers.{number}.attention.query" for number in range(6)]
    assert result.cycles == tw.simulate(machine, graph, fast_forward=False).cycles
    assert result.macs == graph.expand().macs


STACK_ERRORS = {
    ("bert-base", per_layer("{kind: dense, count: 5}")): "attention.layers: are 5 layers, counts included, "
    "which do not go into the 12 layers of this stack; make their number a divisor of 12",
    ("encoder_block", per_layer("{kind: dense}", "{kind: topk}")): "attention.layers: are 2 layers, counts "
    "included, which do not go into the 1 layer of this stack; make their number a divisor of 1",
    ("t5-small", f"decoder_{per_layer('{kind: dense, count: 4}')}"): "decoder_attention.layers: are 4 "
    "layers, counts included, which do not go into the 6 layers of this stack; make their number a "
    "divisor of 6",
    ("whisper-tiny", "decoder_attention={kind: bigbird}"): "decoder_attention.kind: bigbird can't be causal, "
    "as this model's attention is; BigBird looks at the whole sequence",
    ("albert-base", per_layer("{kind: dense}", "{kind: topk}")): "attention.layers: layers that share their "
    "weights share their attention; albert's change group by group, 12 layers at a time",
    ("bert-base", per_head("{kind: dense, heads: 5}", "{kind: topk, heads: 6}")): "attention.groups: have 11 "
    "heads together, this model's layers have 12",
    ("llama-3-8b", per_head("{kind: dense, heads: 2}", "{kind: topk, heads: 30}")): "attention.groups.0."
    "heads: 2 query heads can't be a group, 4 of them share a key and value head",
    ("bert-base", per_head("{kind: dense, heads: 6}", "{kind: h2o, heads: 6}")): "attention.kind: h2o is "
    "causal, this model's attention looks both ways",
}


@pytest.mark.parametrize(("where", "message"), STACK_ERRORS.items())
def test_what_does_not_go_into_a_stack_is_explained(where: tuple[str, str], message: str) -> None:
    """Lists and groups that do not fit the model are refused with both numbers and what to do."""
    with pytest.raises(InputError) as caught:
        load_workload(where[0], [where[1]])
    assert str(caught.value) == message


def test_albert_changes_group_by_group() -> None:
    """Where layers share their weights, each group of them has one mechanism."""
    graph = load_workload(
        "albert-base", ["groups=2", per_layer("{kind: dense, count: 6}", "{kind: topk, count: 6}")]
    )
    chosen = {op.name.split(".")[0] for op in graph.operators if "block" in op.name}
    assert chosen == {"group1"}


def test_groups_of_heads_compute_the_whole_layer() -> None:
    """On numbers: dense attention with its heads cut into groups of 1 and 3, each with its columns of the
    projections and rows of the output's, is dense attention of all four heads."""
    sizes = ("seq=6", "d=16", "heads=4", "ffn=8")
    whole = load_workload("encoder_block", [*sizes])
    cut = load_workload(
        "encoder_block", [*sizes, per_head("{kind: dense, heads: 1}", "{kind: dense, heads: 3}")]
    )
    values = functional.random_inputs(whole, seed=1)
    pieces = {k: v for k, v in values.items() if not k.startswith("attention.") or k.count(".") != 2}
    for group, columns in enumerate((slice(0, 4), slice(4, 16))):
        for name in ("query", "key", "value"):
            pieces[f"attention.heads.{group}.{name}.weight"] = values[f"attention.{name}.weight"][:, columns]
            pieces[f"attention.heads.{group}.{name}.bias"] = values[f"attention.{name}.bias"][columns]
        pieces[f"attention.heads.{group}.output.weight"] = values["attention.output.weight"][columns]
    pieces["attention.heads.0.output.bias"] = values["attention.output.bias"]
    expected = functional.run(whole, values)[whole.outputs[0]]
    np.testing.assert_allclose(functional.run(cut, pieces)[cut.outputs[0]], expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.booleans())
def test_groups_of_dense_heads_cost_the_whole_layer(sizes: list[int], decode: bool) -> None:
    """Groups of dense heads do the MACs and have the parameters of one layer of them all, and n d additions
    more for each group but the first."""
    heads, run = 2 * sum(sizes), ("phase=decode",) if decode else ()
    assume(heads > 0)
    shape = ("layers=1", f"heads={heads}", f"kv_heads={heads // 2}", *run)
    groups = [f"{{kind: dense, heads: {2 * size}}}" for size in sizes]
    cut = load(DECODER, *shape, per_head(*groups))
    whole = load(DECODER, *shape, "attention.kind=dense")
    assert (cut.macs, cut.parameters) == (whole.macs, whole.parameters)
    added = sum(dict(op.primitives)["add"] for op in cut.operators if op.name.endswith("attention.sum"))
    assert added == (len(sizes) - 1) * 32 * (1 if decode else 48)


def test_routing_transformer_has_local_and_routed_heads() -> None:
    """Half of the heads local, half routed (Roy et al., arXiv:2003.05997, section 5), causally: but for the
    projections' other side, each group does what a layer of half the width and heads does."""
    sizes = ("causal=true", "seq=256")
    groups = ("{kind: sliding_window, window: 32, heads: 6}", "{kind: routing, heads: 6}")
    both = load_workload("encoder_block", [*sizes, per_head(*groups)])
    for number, alone in enumerate(("{kind: sliding_window, window: 32}", "{kind: routing}")):
        half = load_workload("encoder_block", [*sizes, "d=384", "heads=6", f"attention={alone}"])
        mine, theirs = attention_work(both, f"attention.heads.{number}."), attention_work(half, "attention.")
        assert mine == theirs


def attention_work(graph: OperatorGraph, scope: str) -> list[tuple[str, Any]]:
    """Names and shapes of what a scope does; of projections, the names alone."""
    outer = {"query", "key", "value", "query_key", "output"}
    inside = [op for op in graph.operators if op.name.startswith(scope)]
    names = [op.name.removeprefix(scope) for op in inside]
    return [(name, None if name in outer else op.shape) for name, op in zip(names, inside, strict=True)]


def test_t5_with_dense_named_is_t5() -> None:
    """Naming the default changes nothing, biases by position included."""
    named = load(T5, "attention.kind=dense", "decoder_attention.kind=dense", "generate=3", "target_seq=9")
    assert named.operators == load(T5, "generate=3", "target_seq=9").operators


def test_t5_has_local_attention_with_biases() -> None:
    """LongT5's local attention: T5's encoder within a radius of 127 (Guo et al., arXiv:2112.07916, section
    3.1.1). Biases are added to the computed scores only, from a table that never grows with n^2; nothing is
    scaled; the parameters are T5's."""
    graph = load(T5, "seq=4096", "target_seq=64", "attention={kind: sliding_window, window: 254}")
    mine = {op.name: op for op in graph.operators if op.name.startswith("encoder.layers")}
    biases = [op for name, op in mine.items() if name.endswith("score_bias")]
    scores = [op for name, op in mine.items() if name.endswith("scores")]
    assert len(biases) == len(scores) >= 1
    for bias, product in zip(biases, scores, strict=True):
        assert isinstance(product.shape, MatmulShape)
        assert graph.tensors[bias.inputs[0]].name == product.outputs[0]
        rows, keys = product.shape.m, product.shape.n
        assert graph.tensors[bias.inputs[1]].shape == (4, rows, keys)
    assert not any("scale" in op.function for op in mine.values())
    assert not any(op.name == "encoder.position_bias" for op in graph.operators)
    assert graph.parameters == load(T5, "seq=4096", "target_seq=64").parameters


def test_t5_alternates_local_and_dense() -> None:
    """The dense layers of a mixed stack share one table of biases for all pairs."""
    graph = load(T5, per_layer("{kind: sliding_window, window: 64}", "{kind: dense}"))
    names = [op.name for op in graph.operators]
    assert names.count("encoder.position_bias") == 1
    dense = next(op for op in graph.operators if op.name == "encoder.layers.{2i+1}.attention.score_bias")
    assert dense.inputs[1] == "encoder.position_bias"


@pytest.mark.parametrize("model", ["t5-small", "whisper-tiny"])
def test_a_decoder_with_a_window_reads_a_ring(model: str) -> None:
    """`decoder_attention` is the decoder's alone: its decode step reads a ring of the window, attention to
    the encoder stays dense, and the encoder does not change."""
    window = "decoder_attention={kind: sliding_window, window: 16}"
    step = load_workload(model, ["phase=decode", "target_seq=100", window])
    dense = load_workload(model, ["phase=decode", "target_seq=100"])
    own = {op.name: op for op in step.operators if ".attention." in op.name}
    (scores,) = (op for name, op in own.items() if name.endswith("scores"))
    assert isinstance(scores.shape, MatmulShape)
    assert scores.shape.n == 16

    def cross(graph: OperatorGraph) -> list[Operator]:
        return [op for op in graph.operators if ".cross_attention." in op.name]

    assert cross(step) == cross(dense)
    prompt = ["target_seq=100", "seq=200"]
    encoders = [
        [op for op in load_workload(model, [*prompt, *more]).operators if op.name.startswith("encoder")]
        for more in ([], [window])
    ]
    assert encoders[0] == encoders[1]


def test_a_bare_causal_block_decodes() -> None:
    """A causal block keeps keys and values, and takes one token against them, from the cache of prefill."""
    sizes = ("causal=true", "seq=64", "d=32", "heads=4", "ffn=64")
    prefill, step = (load_workload("encoder_block", [*sizes, f"phase={p}"]) for p in ("prefill", "decode"))
    for name in ("attention.key_cache", "attention.value_cache"):
        assert prefill.tensors[name].shape == step.tensors[name].shape == (4, 64, 8)
    assert step.parameters == prefill.parameters
    assert step.macs == 4 * 32 * 32 + 2 * 64 * 32 + 2 * 32 * 64
    assert any(op.function == "scale_mask" for op in prefill.operators)
    window = load_workload(
        "encoder_block", [*sizes, "phase=decode", "attention={kind: sliding_window, window: 8}"]
    )
    assert step.macs - window.macs == 2 * (64 - 8) * 32


def test_only_a_causal_block_decodes() -> None:
    """A block that looks both ways has no next token."""
    with pytest.raises(
        InputError, match="phase: only a causal layer takes one token at a time; set `causal`"
    ):
        load_workload("encoder_block", ["causal=false", "phase=decode"])
    assert load_workload("encoder_block", ["phase=decode"]) == load_workload(
        "encoder_block", ["causal=true", "phase=decode"]
    )


def test_norms_on_queries_and_keys_stay() -> None:
    """Qwen3's norms on queries and keys stand before any mechanism's scores."""
    graph = load_workload("qwen3-8b", ["seq=64", "attention={kind: sliding_window, window: 16}"])
    names = [op.name for op in graph.operators]
    for name in ("query", "key"):
        stem = f"layers.{{i}}.attention.{name}"
        assert names.index(stem) < names.index(f"{stem}_norm") < names.index(f"{stem}_rope")
    assert graph.parameters == load_workload("qwen3-8b", ["seq=64"]).parameters


def test_mobilebert_tiny_takes_a_mechanism() -> None:
    """Where all projections read the narrow input, a mechanism works at that width."""
    graph = load_workload("mobilebert-tiny", ["attention.kind=dense"])
    assert graph.macs == load_workload("mobilebert-tiny").macs
    assert graph.parameters == load_workload("mobilebert-tiny").parameters


def test_compression_works_on_an_alternating_stack() -> None:
    """Passes over layers take cycles out of an alternating stack, and one set of weights can serve all."""
    alternating = per_layer("{kind: sliding_window, window: 8}", "{kind: dense}")
    pruned = load(ENCODER, alternating, "compression=[{kind: prune_layers, fraction: 0.5}]")
    assert [repeat.times for repeat in pruned.repeats] == [3]
    shared = load(ENCODER, alternating, "compression=[{kind: share_layers}]")
    weights = [name for name, t in shared.tensors.items() if t.role == "weight" and "layers." in name]
    assert weights
    assert all(name.startswith("layers.shared.") for name in weights)
    mixed = per_layer("{kind: routing, clusters: 4}", "{kind: routing, clusters: 8}")
    with pytest.raises(
        InputError, match=r"can't share layers\.shared\.attention\.centroids, which is of shape"
    ):
        load(ENCODER, mixed, "compression=[{kind: share_layers}]")
