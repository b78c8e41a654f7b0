"""Peak memory: the most bytes that are live at once."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.dataflows.footprint import peak_memory_bytes
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph


@pytest.fixture(scope="module")
def bytes_each() -> Accelerator:
    """A machine with elements of one byte."""
    return tw.load_accelerator("gemmini-default")


def chain(*widths: int) -> OperatorGraph:
    """Matrix products one after the other, 10 rows, with weights between neighbouring widths."""
    b = GraphBuilder("chain")
    x = b.input("x", (1, 10, widths[0]))
    for number, width in enumerate(widths[1:]):
        x = b.linear(f"step{number}", x, width, bias=False)
    return b.finish(x)


@given(st.lists(st.integers(1, 64), min_size=2, max_size=6))
def test_a_chain_holds_its_weights_and_one_products_two_ends(widths: list[int]) -> None:
    """In a chain, all weights are live, and of the activations those that one product reads and writes."""
    weights = sum(k * n for k, n in pairwise(widths))
    ends = max(10 * (k + n) for k, n in pairwise(widths))
    assert peak_memory_bytes(chain(*widths), tw.load_accelerator("gemmini-default")) == weights + ends


@pytest.mark.parametrize(("heads", "n"), [(2, 64), (12, 256), (4, 1000)])
def test_dense_attention_holds_scores_and_weights(bytes_each: Accelerator, heads: int, n: int) -> None:
    """Softmax reads h n^2 scores and writes as many weights, while the values wait: 2 h n^2 + n h e."""
    graph = tw.load_workload("attention", [f"heads={heads}", "head_dim=16", f"seq={n}"])
    assert peak_memory_bytes(graph, bytes_each) == 2 * heads * n**2 + n * heads * 16


def test_elements_count_in_their_width() -> None:
    """With nothing stored in another type, four times as wide elements take four times the memory."""
    graph = tw.load_workload("attention")
    one = tw.load_accelerator("gemmini-default")
    four = tw.load_accelerator("gemmini-default", ["array.operand=fp32", "array.accumulator=fp32"])
    assert peak_memory_bytes(graph, four) == 4 * peak_memory_bytes(graph, one)


def test_what_is_read_again_stays_live(bytes_each: Accelerator) -> None:
    """An activation lives until its last reader: a residual keeps the block's input beside its widest
    product."""
    b = GraphBuilder("residual")
    x = b.input("x", (1, 10, 8))
    wide = b.linear("up", x, 100, bias=False)
    narrow = b.linear("down", wide, 8, bias=False)
    graph = b.finish(b.elementwise("add", "add", x, narrow))
    weights, inside = 2 * 8 * 100, 10 * (8 + 100 + 8)
    assert peak_memory_bytes(graph, bytes_each) == weights + inside


@pytest.mark.parametrize(
    ("workload", "overrides"),
    [
        ("bert-base", ["layers=5"]),
        ("albert-base", ["layers=4"]),
        ("gpt2", ["layers=3", "seq=100", "generate=4"]),
        ("gpt2", ["layers=1", "seq=100", "phase=decode"]),
        ("t5-small", ["layers=5", "seq=40", "generate=3"]),
        ("mixtral-8x7b", ["layers=2", "seq=64"]),
        ("encoder_block", ["seq=512", "attention.kind=longformer"]),
    ],
)
def test_repeats_equal_the_copies_written_out(
    bytes_each: Accelerator, workload: str, overrides: list[str]
) -> None:
    """A repeated block counts as its copies written out: their weights all, their activations in turn."""
    graph = tw.load_workload(workload, overrides)
    assert peak_memory_bytes(graph, bytes_each) == peak_memory_bytes(graph.expand(), bytes_each)


def test_layers_add_their_weights_and_no_activations(bytes_each: Accelerator) -> None:
    """Every further layer costs its parameters, whatever the sequence."""
    few, many = (tw.load_workload("bert-base", [f"layers={layers}", "seq=512"]) for layers in (4, 12))
    more = peak_memory_bytes(many, bytes_each) - peak_memory_bytes(few, bytes_each)
    assert more == many.parameters - few.parameters


def test_a_generation_has_one_cache(bytes_each: Accelerator) -> None:
    """Decode steps work on one KV cache, which ends with all tokens but the last one in it."""
    lone = tw.load_workload("gpt2", ["seq=20", "phase=decode"])
    cache = 2 * 12 * 20 * 768  # keys and values of 12 layers
    activations = peak_memory_bytes(lone, bytes_each) - lone.parameters - cache
    assert 0 < activations < 100_000
    generation = tw.load_workload("gpt2", ["seq=1", "generate=20"])
    tokens = 19 * 4  # those put out so far, while the last step works out its logits
    assert peak_memory_bytes(generation, bytes_each) == lone.parameters + cache + activations + tokens


def test_the_result_carries_it(bytes_each: Accelerator) -> None:
    """The peak is in the result and its JSON object, the same at each fidelity and whatever stays on chip."""
    graph = tw.load_workload("attention", ["seq=256", "heads=2"])
    expected = 2 * 2 * 256**2 + 256 * 128
    roomy = bytes_each.model_copy(
        update={"mapper": bytes_each.mapper.model_copy(update={"resident_fractions": (0.0,)})}
    )
    for accelerator in (bytes_each, roomy):
        for fidelity in ("analytic", "event"):
            result = tw.simulate(accelerator, graph, fidelity=fidelity)
            assert result.peak_memory_bytes == result.to_dict()["peak_memory_bytes"] == expected


def test_pruned_weights_count_as_stored(bytes_each: Accelerator) -> None:
    """Of a sparse weight, the elements that are kept and their indices."""
    graph = chain(8, 8)
    name = next(name for name, tensor in graph.tensors.items() if tensor.role == "weight")
    sparse = replace(graph.tensors[name], kept=16, side_bits=64)
    pruned = replace(graph, tensors={**graph.tensors, name: sparse})
    saved = peak_memory_bytes(graph, bytes_each) - peak_memory_bytes(pruned, bytes_each)
    assert saved == 64 - (16 + 8)


@pytest.mark.parametrize("order", ["flat", "flash"])
def test_fused_scores_are_never_stored(order: str) -> None:
    """Where the mapper fuses attention, the n^2 scores of all heads are not in memory; the operands are."""
    graph = tw.load_workload("attention", ["heads=4", "seq=512", "head_dim=16"])
    unfused, fused = (
        tw.simulate(tw.load_accelerator("tpu-v3-core", [f"mapper.attention=[{each}]"]), graph)
        for each in ("unfused", order)
    )
    assert fused.peak_memory_bytes == 2 * 4 * 4 * 512 * 16  # bf16: queries, keys, values, results
    assert unfused.peak_memory_bytes >= 2 * 2 * 4 * 512 * 512  # scores and their softmax
