"""What each compression technique does to a graph, against closed forms on random sizes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import after, total_primitives
from tilewright.description.errors import InputError
from tilewright.workloads.bare import EncoderBlock
from tilewright.workloads.compression.chunked_ffn import ChunkedFfn
from tilewright.workloads.compression.prune_ffn import PruneFfn
from tilewright.workloads.compression.prune_heads import PruneHeads
from tilewright.workloads.compression.prune_layers import PruneLayers
from tilewright.workloads.compression.share_layers import ShareLayers
from tilewright.workloads.families.bert import Bert
from tilewright.workloads.families.llama import Llama
from tilewright.workloads.families.t5 import T5
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import load_workload
from tilewright.workloads.operators import Operator

small = st.integers(1, 5)
fractions = st.sampled_from([0.1, 0.25, 0.5, 0.7])


def named(graph: OperatorGraph, name: str) -> Operator:
    """The operator of that name."""
    return next(op for op in graph.operators if op.name == name)


@given(heads=st.integers(2, 8), width=small, n=small, layers=small, fraction=fractions)
def test_pruned_heads_leave_the_closed_form(
    heads: int, width: int, n: int, layers: int, fraction: float
) -> None:
    """With h of H heads of width w left, a layer of width d does 4 n d h w + 2 n^2 h w + 2 n d f MACs on
    4 d h w + 3 h w + d weights in its attention, and n^2 h exponentials."""
    d, f = heads * width, 7
    model = Bert(layers=layers, d=d, heads=heads, ffn=f, vocab=3, positions=9, seq=n, pooler=False)
    graph = model.lower()
    made = after(graph, PruneHeads(fraction=fraction))
    left = heads - round(heads * fraction)
    inner = left * width
    assert made.macs == layers * (4 * n * d * inner + 2 * n * n * inner + 2 * n * d * f)
    assert graph.parameters - made.parameters == layers * (4 * d + 3) * (d - inner)
    assert total_primitives(made)["exp"] == layers * left * n * n


@given(groups=st.integers(2, 5), queries=small, n=small, phase=st.sampled_from(["prefill", "decode"]))
def test_grouped_queries_go_with_their_keys(groups: int, queries: int, n: int, phase: str) -> None:
    """Key and value heads are pruned with all of their queries, and their caches shrink alike: what is left
    is the model that has as many heads to begin with."""
    sizes = {"layers": 2, "d": 8, "head_dim": 4, "ffn": 6, "vocab": 5, "seq": n, "qk_norm": True}
    left = groups - round(groups * 0.5)
    made = after(
        Llama(**sizes, heads=groups * queries, kv_heads=groups, phase=phase).lower(),
        PruneHeads(fraction=0.5),
    )
    fewer = Llama(**sizes, heads=left * queries, kv_heads=left, phase=phase).lower()
    assert made == fewer


def test_pruned_heads_of_an_encoder_decoder_are_those_of_a_smaller_one() -> None:
    """T5's position biases lose their heads as well, in encoder and decoder, over all steps."""
    sizes = {"layers": 2, "d": 6, "head_dim": 3, "ffn": 5, "vocab": 7, "seq": 4, "generate": 3}
    made = after(T5(**sizes, heads=4).lower(), PruneHeads(fraction=0.25))
    assert made == T5(**sizes, heads=3).lower()


@given(f=st.integers(2, 60), fraction=fractions, gated=st.booleans())
def test_pruned_columns_are_those_of_a_narrower_network(f: int, fraction: float, gated: bool) -> None:
    """A feed-forward network of width f without round(fraction f) columns is the one of the width left."""
    left = f - round(f * fraction)
    if gated:
        sizes = {"layers": 2, "d": 8, "heads": 2, "vocab": 5, "seq": 3, "ffn_bias": True}
        assert (
            after(Llama(**sizes, ffn=f).lower(), PruneFfn(fraction=fraction))
            == Llama(**sizes, ffn=left).lower()
        )
    else:
        block = EncoderBlock(d=8, heads=2, ffn=f, seq=5)
        narrow = EncoderBlock(d=8, heads=2, ffn=left, seq=5)
        assert after(block.lower(), PruneFfn(fraction=fraction)) == narrow.lower()


@given(layers=st.integers(2, 40), fraction=fractions)
def test_pruned_layers_are_those_of_a_shallower_model(layers: int, fraction: float) -> None:
    """A stack of L layers without round(fraction L) of them is the stack of those left."""
    sizes = {"d": 4, "heads": 2, "ffn": 8, "vocab": 5, "positions": 9, "seq": 3}
    left = layers - round(layers * fraction)
    made = after(Bert(layers=layers, **sizes).lower(), PruneLayers(fraction=fraction))
    assert made == Bert(layers=left, **sizes).lower()


@given(layers=st.integers(2, 20), n=small)
def test_shared_layers_count_once(layers: int, n: int) -> None:
    """All layers on one set of weights have the parameters of one layer, or of one of its halves, and do the
    same work."""
    sizes = {"d": 4, "heads": 2, "ffn": 8, "vocab": 5, "positions": 9, "seq": n}
    graph = Bert(layers=layers, **sizes).lower()
    attention, ffn, norms = 4 * (4 * 4 + 4), 2 * 4 * 8 + 8 + 4, 4 * 4
    saved = {"all": attention + ffn + norms, "attention": attention, "ffn": ffn}
    for share, size in saved.items():
        made = after(graph, ShareLayers(share=share))
        assert graph.parameters - made.parameters == (layers - 1) * size
        assert (made.macs, total_primitives(made)) == (graph.macs, total_primitives(graph))


def test_sharing_all_layers_of_bert_is_albert() -> None:
    """BERT on shared weights is ALBERT with embeddings of full width: the same MACs, and its parameters
    without the projection of the embeddings."""
    sizes = ["layers=3", "d=8", "heads=2", "ffn=16", "vocab=10"]
    shared = load_workload("bert-base", [*sizes, "compression=[{kind: share_layers}]"])
    albert = load_workload("albert-base", [*sizes, "embedding=8"])
    projection = 8 * 8 + 8
    assert albert.parameters - shared.parameters == projection


@given(n=st.integers(1, 30), chunk=st.integers(1, 30), batch=small)
def test_chunks_do_the_same_work_in_less_room(n: int, chunk: int, batch: int) -> None:
    """A feed-forward network chunk by chunk has the same MACs, weights and primitives, but for copying its
    result; its hidden layer holds `chunk` tokens at a time."""
    graph = EncoderBlock(d=6, heads=2, ffn=10, seq=n, batch=batch).lower()
    made = after(graph, ChunkedFfn(chunk=chunk))
    assert (made.macs, made.parameters) == (graph.macs, graph.parameters)
    copied = batch * n * 6 if chunk < n else 0
    assert total_primitives(made) - total_primitives(graph) == Counter({"move": copied} if copied else {})
    hidden = max(t.elements for t in made.tensors.values() if t.name.endswith("up"))
    assert hidden == batch * min(n, chunk) * 10
    ups = [op for op in made.operators if op.name.endswith(".up")]
    assert len(ups) == math.ceil(n / chunk)
    assert {op.inputs[1] for op in ups} == {"ffn.up.weight"}


def test_repeated_blocks_hold_their_chunks() -> None:
    """Layers stay a block that is held once, of as many operators as a layer has now."""
    graph = load_workload("bert-base", ["seq=128", "compression=[{kind: chunked_ffn, chunk: 32}]"])
    (repeat,) = graph.repeats
    assert repeat.times == 12
    names = [op.name for op in graph.operators[repeat.start : repeat.stop]]
    assert names.count("layers.{i}.ffn.chunk3.down") == 1
    assert names[-1] == "layers.{i}.ffn_norm"


NOTHING_TO_DO = [
    (
        "encoder_block",
        "{kind: prune_layers, fraction: 0.5}",
        "prune_layers: encoder_block has no stack of layers",
    ),
    (
        "attention",
        "{kind: prune_heads, fraction: 0.5}",
        "prune_heads: attention has no attention layer with projections",
    ),
    (
        "encoder_block",
        "{kind: share_layers}",
        "share_layers: encoder_block has no layers with weights of their own to share",
    ),
    (
        "mixtral-8x7b",
        "{kind: prune_ffn, fraction: 0.5}",
        "prune_ffn: mixtral-8x7b has no feed-forward network outside of experts",
    ),
    (
        "encoder_block",
        "{kind: prune_heads, fraction: 0.99}",
        "compression: a fraction of 0.99 leaves none of 12 heads in attention",
    ),
    (
        "encoder_block",
        "{kind: lora, where: ['*qry']}",
        "lora: no dense layer of encoder_block matches *qry",
    ),
    (
        "encoder_block",
        "{kind: sparse_weights, pattern: block, block: 100}",
        "sparse_weights: 768 x 768 weights of attention.query can't be cut into blocks of 100",
    ),
    (
        "encoder_block",
        "{kind: quantise, overrides: {'*wieght': int4}}",
        "quantise.overrides: no tensor of encoder_block matches '*wieght'; tensors are called 'x' and the "
        "like",
    ),
    (
        "bert-base",
        "{kind: quantise, overrides: {'layers*': int8}}",
        "quantise.overrides: layers take embeddings.norm (native) and hand on layers.{i}.ffn_norm (int8); "
        "give both one element type",
    ),
    (
        "encoder_block",
        "{kind: sparse_weights, pattern: n_m}, {kind: prune_ffn, fraction: 0.5}",
        "compression: prune ffn.up.weight before its weights are quantised or made sparse",
    ),
]


@pytest.mark.parametrize(("workload", "techniques", "message"), NOTHING_TO_DO)
def test_a_technique_says_what_it_misses(workload: str, techniques: str, message: str) -> None:
    """Where a technique finds nothing to work on, the error names it and what is missing."""
    with pytest.raises(InputError) as caught:
        load_workload(workload, [f"compression=[{techniques}]"])
    assert str(caught.value) == message


def test_other_attention_is_not_pruned() -> None:
    """Pruning heads understands dense attention alone, and says what stands in its way."""
    overrides = ["seq=512", "attention={kind: linformer}", "compression=[{kind: prune_heads, fraction: 0.5}]"]
    with pytest.raises(InputError, match=r"^prune_heads: works on dense attention only, and attention has "):
        load_workload("encoder_block", overrides)
