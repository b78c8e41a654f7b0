"""Techniques that change what memory holds or add small matrices, against closed forms."""

from __future__ import annotations

from collections import Counter
from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import after, total_primitives
from tilewright.api import load_accelerator, simulate
from tilewright.sim.functional import run as compute
from tilewright.workloads.bare import EncoderBlock
from tilewright.workloads.compression.adapters import Adapters
from tilewright.workloads.compression.base import Technique
from tilewright.workloads.compression.lora import Lora
from tilewright.workloads.compression.quantise import Quantise
from tilewright.workloads.compression.sparse_weights import SparseWeights
from tilewright.workloads.families.bert import Bert
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import Tensor

small = st.integers(1, 6)


def stored_bits(tensor: Tensor, bits: int) -> int:
    """Bits that memory holds of a tensor."""
    return tensor.stored * bits + tensor.side_bits


@given(n=small, d=small, f=st.integers(1, 20), group=st.integers(1, 8))
def test_weight_only_quantisation_converts_what_it_reads(n: int, d: int, f: int, group: int) -> None:
    """4-bit weights beside wider activations take 4 bits each and a 16-bit scale per group of a column, and a
    multiply per weight as the matmul reads them; MACs and shapes stay."""
    graph = EncoderBlock(d=2 * d, heads=2, ffn=f, seq=n).lower()
    made = after(graph, Quantise(weights="int4", group=group))
    matrices = 4 * (2 * d) ** 2 + 2 * 2 * d * f
    assert total_primitives(made) - total_primitives(graph) == Counter({"multiply": matrices})
    weights = [t for t in made.tensors.values() if t.role == "weight" and len(t.shape) == 2]
    assert {t.element for t in weights} == {"int4"}
    scales = sum(t.shape[1] * ceil(t.shape[0] / group) for t in weights)
    assert sum(stored_bits(t, 4) for t in weights) == 4 * matrices + 16 * scales
    assert (made.macs, made.parameters) == (graph.macs, graph.parameters)
    others = {t.element for t in made.tensors.values() if t not in weights}
    assert others == {"native"}


@given(n=small, d=small)
def test_weights_and_activations_alike_need_no_conversion(n: int, d: int) -> None:
    """Where A and B have one element type, a matmul's work is what it was, and no scales are stored."""
    graph = EncoderBlock(d=2 * d, heads=2, ffn=7, seq=n).lower()
    made = after(graph, Quantise(weights="int8", activations="int8"))
    assert total_primitives(made) == total_primitives(graph)
    assert all(t.side_bits == 0 for t in made.tensors.values())
    assert {t.element for t in made.tensors.values() if len(t.shape) > 1} == {"int8"}


@given(seq=st.integers(2, 50))
def test_quantised_caches_are_converted_both_ways(seq: int) -> None:
    """An 8-bit KV cache takes a multiply per element written, and one per element read by a decode step."""
    sizes = ["layers=3", "d=8", "heads=4", "kv_heads=2", "head_dim=2", "ffn=4", "vocab=9"]
    sizes += [f"seq={seq}", "phase=decode"]
    graph = load_workload("llama-2-7b", sizes)
    made = after(graph, Quantise(kv_cache="int8"))
    token = 2 * 2 * 2  # keys and values, 2 heads, 2 wide
    extra = total_primitives(made) - total_primitives(graph)
    assert extra == Counter({"multiply": 3 * token * (1 + seq)})
    assert {t.element for t in made.tensors.values() if t.role == "kv_cache"} == {"int8"}


def test_quantised_tables_are_converted_by_the_row() -> None:
    """Looking up rows of a quantised embedding table takes a multiply per element that comes out."""
    model = Bert(layers=1, d=4, heads=2, ffn=4, vocab=50, positions=9, seq=3, segments=0, pooler=False)
    graph = model.lower()
    made = after(graph, Quantise(overrides={"embeddings.word.weight": "int8"}))
    assert total_primitives(made) - total_primitives(graph) == Counter({"multiply": 3 * 4})


def test_precision_is_mixed_by_name() -> None:
    """Overrides pick tensors by pattern, the last one that matches wins, and each matmul whose operands then
    differ converts its weights."""
    graph = EncoderBlock(d=4, heads=2, ffn=8, seq=3).lower()
    overrides = {"*ffn*": "int4", "ffn.down.weight": "int16"}
    made = after(graph, Quantise(weights="int8", overrides=overrides))
    elements = {name: tensor.element for name, tensor in made.tensors.items()}
    assert elements["attention.query.weight"] == "int8"
    assert elements["ffn.up.weight"] == elements["ffn.up"] == "int4"
    assert elements["ffn.down.weight"] == "int16"
    assert elements["x"] == elements["ffn.up.bias"].replace("int4", "native") == "native"


@given(rows=small, n=st.integers(1, 40))
def test_integer_softmax_has_no_exponentials(rows: int, n: int) -> None:
    """A row of n takes n compare, 8 n add, 4 n multiply and 1 divide (I-BERT, arXiv:2101.01321, algorithm 2,
    shifts counted as adds), and no exponential."""
    graph = load_workload("attention", ["heads=1", f"seq={rows}", f"kv_seq={n}"])
    made = after(graph, Quantise(softmax="integer"))
    (op,) = (op for op in made.operators if op.kind == "softmax")
    work = {"compare": rows * n, "add": 8 * rows * n, "multiply": 4 * rows * n, "divide": rows}
    assert dict(op.primitives) == work


def test_the_integer_exponential_is_close() -> None:
    """I-BERT's polynomial with a shift, whose operations are counted here, is within 2.2e-3 of exp on
    [-10, 0]."""
    x = np.linspace(-10, 0, 2001)
    z = np.floor(-x / np.log(2))
    p = x + z * np.log(2)
    approximated = (0.3585 * (p + 1.353) ** 2 + 0.344) / 2**z
    assert np.abs(approximated - np.exp(x)).max() < 2.2e-3


@given(k=st.integers(1, 40), n=st.integers(1, 6), m=st.integers(1, 8), tokens=small)
def test_n_of_m_weights_are_kept(k: int, n: int, m: int, tokens: int) -> None:
    """Of each m weights along a column n are kept, with ceil(log2 m) index bits each; the matmul's shape
    stays, its useful MACs shrink."""
    n = min(n, m)
    graph = EncoderBlock(d=k, heads=1, ffn=5, seq=tokens).lower()
    made = after(graph, SparseWeights(pattern="n_m", n=n, m=m, where=("ffn.up",)))
    kept = sum(min(n, m, k - start) for start in range(0, k, m)) * 5
    weight = made.tensors["ffn.up.weight"]
    assert (weight.stored, weight.side_bits) == (kept, kept * ceil(np.log2(m)))
    assert made.macs == graph.macs
    assert graph.macs - made.useful_macs == tokens * (k * 5 - kept)
    assert graph.parameters - made.parameters == k * 5 - kept


@given(rows=small, cols=small, block=st.integers(1, 4), density=st.sampled_from([0.1, 0.5, 1.0]))
def test_blocks_are_kept_whole(rows: int, cols: int, block: int, density: float) -> None:
    """Kept blocks are stored in full with a 32-bit index each."""
    graph = EncoderBlock(d=rows * block, heads=1, ffn=cols * block, seq=2).lower()
    made = after(graph, SparseWeights(pattern="block", block=block, density=density, where=("ffn.up",)))
    blocks = max(1, round(density * rows * cols))
    weight = made.tensors["ffn.up.weight"]
    assert (weight.stored, weight.side_bits) == (blocks * block * block, 32 * blocks)


@given(k=st.integers(1, 30), n=st.integers(1, 30), density=st.sampled_from([0.05, 0.5, 1.0]))
def test_unstructured_zeros_need_an_index(k: int, n: int, density: float) -> None:
    """A bitmap takes a bit per weight; compressed rows take a column index per kept weight and a 32-bit
    pointer per row and one more. With `unpack: vector` each kept weight is one move."""
    graph = EncoderBlock(d=k, heads=1, ffn=n, seq=2).lower()
    kept = ceil(density * k * n)
    bitmap = SparseWeights(pattern="unstructured", density=density, where=("ffn.up",), unpack="vector")
    made = after(graph, bitmap)
    assert (made.tensors["ffn.up.weight"].stored, made.tensors["ffn.up.weight"].side_bits) == (kept, k * n)
    assert total_primitives(made) - total_primitives(graph) == Counter({"move": kept})
    made = after(
        graph,
        SparseWeights(pattern="unstructured", density=density, index="csr", index_bits=8, where=("ffn.up",)),
    )
    assert made.tensors["ffn.up.weight"].side_bits == 8 * kept + 32 * (k + 1)


def test_sparse_weights_save_bytes_and_no_cycles_of_the_array() -> None:
    """On an array that does not skip zeros, 2:4 weights take as many cycles as dense ones where memory is
    free; where it is not, DRAM reads shrink by exactly what is not stored: of 8-bit weights 3/8."""
    sizes = ["d=64", "heads=2", "ffn=128", "seq=16"]
    sparse = [*sizes, "compression=[{kind: sparse_weights, pattern: n_m}]"]
    plain, pruned = load_workload("encoder_block", sizes), load_workload("encoder_block", sparse)
    bare = load_accelerator("bare-array")
    assert simulate(bare, pruned).cycles == simulate(bare, plain).cycles
    npu = load_accelerator("edge-npu-large")
    read = [simulate(npu, graph).traffic_bytes["dram"].read for graph in (plain, pruned)]
    weights = 4 * 64 * 64 + 2 * 64 * 128
    assert read[0] - read[1] == weights * 3 // 8


def test_sparse_weights_can_be_quantised_too() -> None:
    """What is converted is what is kept, and scales are stored beside the index."""
    techniques = "{kind: sparse_weights, pattern: n_m}, {kind: quantise, weights: int4}"
    sizes = ["d=8", "heads=2", "ffn=16", "seq=4"]
    graph = load_workload("encoder_block", sizes)
    made = load_workload("encoder_block", [*sizes, f"compression=[{techniques}]"])
    weight = made.tensors["ffn.up.weight"]
    assert (weight.element, weight.stored) == ("int4", 64)
    assert weight.side_bits == 2 * 64 + 16 * 16
    kept = (4 * 8 * 8 + 2 * 8 * 16) // 2
    assert total_primitives(made) - total_primitives(graph) == Counter({"multiply": kept})


@given(n=small, d=small, rank=small, layers=small)
def test_low_rank_terms_have_the_closed_form(n: int, d: int, rank: int, layers: int) -> None:
    """LoRA on queries and values adds 2 r (d + d) parameters and n times as many MACs a layer, and an add per
    element of both; merged it changes nothing."""
    model = Bert(layers=layers, d=2 * d, heads=2, ffn=7, vocab=3, positions=9, seq=n)
    graph = model.lower()
    made = after(graph, Lora(rank=rank))
    weights = layers * 2 * rank * (2 * d + 2 * d)
    assert made.parameters - graph.parameters == weights
    assert made.macs - graph.macs == n * weights
    assert total_primitives(made) - total_primitives(graph) == Counter({"add": layers * 2 * n * 2 * d})
    assert Lora(rank=rank, merged=True).transform(graph) == graph


def test_low_rank_terms_equal_merged_weights() -> None:
    """Run on numbers, x W + (x A) B is x (W + A B)."""
    graph = EncoderBlock(d=6, heads=2, ffn=8, seq=5).lower()
    made = after(graph, Lora(rank=2))
    rng = np.random.default_rng(1)
    produced = {name for op in made.operators for name in op.outputs}
    values = {n: rng.standard_normal(t.shape) for n, t in made.tensors.items() if n not in produced}
    merged = {name: value for name, value in values.items() if name in graph.tensors}
    for each in ("query", "value"):
        stem = f"attention.{each}"
        low_rank = values[f"{stem}.lora_a.weight"] @ values[f"{stem}.lora_b.weight"]
        merged[f"{stem}.weight"] = merged[f"{stem}.weight"] + low_rank
    (name,) = graph.outputs
    np.testing.assert_allclose(compute(made, values)[name], compute(graph, merged)[name], rtol=1e-9)


@given(n=small, d=small, width=small, layers=small)
def test_adapters_have_the_closed_form(n: int, d: int, width: int, layers: int) -> None:
    """Two adapters a layer, each 2 d m + m + d parameters and 2 n d m MACs (Houlsby et al.,
    arXiv:1902.00751, section 2.1)."""
    model = Bert(layers=layers, d=2 * d, heads=2, ffn=7, vocab=3, positions=9, seq=n)
    graph = model.lower()
    made = after(graph, Adapters(width=width))
    assert made.parameters - graph.parameters == layers * 2 * (2 * 2 * d * width + width + 2 * d)
    assert made.macs - graph.macs == layers * 2 * 2 * n * 2 * d * width
    extra = total_primitives(made) - total_primitives(graph)
    assert extra["tanh"] == layers * 2 * n * width


@pytest.mark.parametrize("technique", [Lora(rank=2), Adapters(width=2)])
def test_added_weights_are_shared_by_all_steps(technique: Technique) -> None:
    """Generating tokens uses one set of added weights, however many steps there are."""
    sizes = ["layers=2", "d=8", "heads=2", "kv_heads=2", "head_dim=4", "ffn=4", "vocab=9", "seq=3"]
    once = after(load_workload("llama-2-7b", sizes), technique)
    often = after(load_workload("llama-2-7b", [*sizes, "generate=3"]), technique)
    assert often.parameters == once.parameters
