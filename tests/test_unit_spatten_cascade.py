"""SpAtten's cascade: what is pruned in a layer stays pruned, in attention and in everything beside it."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, exp
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tests.units import lawful
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.array import Array
from tilewright.arch.sparse_search import SpAtten
from tilewright.dataflows.sparse import spatten
from tilewright.dataflows.sparse.cascade import cascaded, schedule
from tilewright.dataflows.sparse.program import Chosen, choose
from tilewright.description.errors import InputError
from tilewright.sim.result import Result
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.operators import MatmulShape
from tilewright.workloads.pairs import Pairs

ARRAY = Array(rows=8, cols=4, dataflow="output_stationary")
LAYERS, TOKENS, WIDTH, HEADS, FFN = 6, 32, 32, 4, 48
BERT = [f"layers={LAYERS}", f"seq={TOKENS}", f"d={WIDTH}", f"heads={HEADS}", f"ffn={FFN}"]
LLAMA = [*BERT, "kv_heads=2", "head_dim=8"]


def unit(**settings_of: float) -> SpAtten:
    return SpAtten.model_validate({"kind": "spatten", **settings_of})


def machine(**settings_of: float) -> Accelerator:
    return tw.load_accelerator("spatten", [f"attention_unit.{k}={v}" for k, v in settings_of.items()])


def layers_of(graph: OperatorGraph) -> list[Pairs]:
    return [op.pairs for op in graph.operators if op.pairs is not None]


def run(graph: OperatorGraph, by: SpAtten) -> list[Chosen]:
    return [choose(by, pairs, ARRAY) for pairs in layers_of(cascaded(graph, by))]


def carried(chosen: Chosen) -> spatten.Carried:
    assert isinstance(chosen.carried, spatten.Carried)
    return chosen.carried


def real_scores(path: Path, *, values: bool, seed: int = 0) -> list[str]:
    """A workload whose layers have queries and keys, and maybe values, of their own, from a file."""
    rng = np.random.default_rng(seed)
    shape = (HEADS, TOKENS, WIDTH // HEADS)
    arrays = {f"{what}{n}": 2 * rng.standard_normal(shape) for n in range(LAYERS) for what in "qkv"}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    names = "query: 'q{layer}', key: 'k{layer}'" + (", value: 'v{layer}'" if values else "")
    return [*BERT, f"attention={{kind: dense, scores: {{path: {path}, {names}}}}}"]


@given(
    keep=st.floats(0.55, 1),
    front=st.floats(0, 0.4),
    fall=st.floats(0, 0.99),
    layers=st.integers(2, 40),
    total=st.integers(1, 600),
)
@settings(max_examples=150, deadline=None)
def test_the_schedule_falls_and_keeps_its_mean(
    keep: float, front: float, fall: float, layers: int, total: int
) -> None:
    """The first layers keep all, no layer more than the one before, and on average as many as asked, but for
    rounding up in each layer."""
    made = unit(token_keep=keep, token_front=front, head_keep=1, fall=fall)
    if ceil(front * layers) / layers >= keep:
        return
    counts = schedule(made, total, 5, layers).tokens
    assert len(counts) == layers
    assert set(counts[: max(1, ceil(round(front * layers, 9)))]) == {total}
    assert list(counts) == sorted(counts, reverse=True)
    assert keep * layers * total - 1e-6 <= sum(counts) <= keep * layers * total + layers
    assert schedule(made, total, 5, layers).heads == (5,) * layers


def test_the_schedule_of_twelve_layers() -> None:
    """Two of twelve layers are whole, the other ten have a mean of (0.526 x 12 - 2) / 10 = 0.4312 and lie
    half of it above and below at the ends; heads likewise after four layers."""
    made = schedule(unit(token_keep=0.526, head_keep=0.909), 1000, 12, 12)
    line = [0.4312 + 0.2156 * (9 - 2 * number) / 9 for number in range(10)]
    assert made.tokens == (1000, 1000, *(ceil(1000 * share) for share in line))
    rest = (0.909 * 12 - 4) / 8
    heads = [rest + (1 - rest) / 2 * (7 - 2 * number) / 7 for number in range(8)]
    assert made.heads == (12,) * 4 + tuple(ceil(12 * share) for share in heads)


def test_a_mean_that_few_layers_cannot_have_is_refused() -> None:
    """The message names the key, the value, the layers that keep all, and what would do."""
    with pytest.raises(
        InputError,
        match=r"attention_unit\.token_keep: a mean of 0\.4 over 2 layers can't be had, of which the first 1 "
        r"keeps all; give more than 0\.5, or a smaller `token_front`",
    ):
        tw.simulate(machine(token_keep=0.4), tw.load_workload("bert-base", [*BERT, "layers=2"]))


def softmax_rows(scores: NDArray[np.float64], alive: list[int]) -> NDArray[np.float64]:
    found = np.zeros(scores.shape)
    for q in alive:
        raised = {k: exp(scores[q, k]) for k in alive}
        for k, value in raised.items():
            found[q, k] = value / sum(raised.values())
    return found


@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_tokens_and_heads_fall_out_by_importance_added_up_over_layers(
    tmp_path: Path, seed: int, values: bool
) -> None:
    """Layer by layer, in plain Python: softmax among those that are left, importance added up, the least
    important taken out until as many are left as the next layer has. Queries and keys are a file's; so may
    values be, and heads then count by the sum of their output's magnitudes."""
    path = tmp_path / "scores.npz"
    graph = tw.load_workload("bert-base", real_scores(path, values=values, seed=seed))
    by = unit(token_keep=0.6, head_keep=0.7, msb_bits=16, lsb_bits=0)
    plan, arrays = schedule(by, TOKENS, HEADS, LAYERS), np.load(path)
    tokens, heads = list(range(TOKENS)), list(range(HEADS))
    given_to, put_out = dict.fromkeys(tokens, 0.0), dict.fromkeys(heads, 0.0)
    for number, chosen in enumerate(run(graph, by)):
        tokens = sorted(sorted(tokens, key=lambda t: -given_to[t])[: plan.tokens[number]])
        heads = sorted(sorted(heads, key=lambda h: -put_out[h])[: plan.heads[number]])
        left = carried(chosen)
        assert np.flatnonzero(left.tokens_left).tolist() == tokens
        assert np.flatnonzero(left.heads_left).tolist() == heads
        assert [bool(each.pieces) for each in chosen.heads] == [h in heads for h in range(HEADS)]
        for h in heads:
            scores = arrays[f"q{number}"][h] @ arrays[f"k{number}"][h].T / (WIDTH / HEADS) ** 0.5
            weights = softmax_rows(scores, tokens)
            for t in tokens:
                given_to[t] += weights[:, t].sum()
            if values:
                put_out[h] += float(np.abs(weights @ arrays[f"v{number}"][h]).sum())
            else:
                put_out[h] += sum(float(np.linalg.norm(row)) for row in weights)
    assert plan.tokens[-1] < plan.tokens[2] < TOKENS


@given(
    token_keep=st.floats(0.4, 1), head_keep=st.floats(0.6, 1), seed=st.integers(0, 99), causal=st.booleans()
)
@settings(max_examples=15, deadline=None)
def test_what_is_gone_stays_gone(token_keep: float, head_keep: float, seed: int, causal: bool) -> None:
    """Each layer's tokens and heads are some of those of the layer before, as many as the schedule says; a
    causal model's last token is one of them."""
    by = unit(token_keep=token_keep, head_keep=head_keep, seed=seed)
    sizes = ["heads=4", "d=32", "seq=32", "ffn=48", "layers=6"]
    chosen = run(tw.load_workload("gpt2" if causal else "bert-base", sizes), by)
    if token_keep == head_keep == 1:
        return
    plan = schedule(by, TOKENS, HEADS, LAYERS)
    left = [carried(each) for each in chosen]
    assert tuple(int(each.tokens_left.sum()) for each in left) == plan.tokens
    assert tuple(int(each.heads_left.sum()) for each in left) == plan.heads
    for before, after in pairwise(left):
        assert not (after.tokens_left & ~before.tokens_left).any()
        assert not (after.heads_left & ~before.heads_left).any()
    if causal:
        assert all(each.tokens_left[-1] for each in left)


def test_the_choice_does_not_depend_on_the_order() -> None:
    """The last layer first, or the layers in order: the same tokens, heads and pieces."""
    by = unit(token_keep=0.6, head_keep=0.8, value_keep=0.5)
    graph = tw.load_workload("bert-base", BERT)
    choose.cache_clear()
    forward = run(graph, by)
    choose.cache_clear()
    backward = [choose(by, pairs, ARRAY) for pairs in reversed(layers_of(cascaded(graph, by)))][::-1]
    for one, other in zip(forward, backward, strict=True):
        assert (carried(one).tokens_left == carried(other).tokens_left).all()
        assert (carried(one).tokens == carried(other).tokens).all()
        assert [each.pieces for each in one.heads] == [each.pieces for each in other.heads]


def test_the_same_seed_gives_the_same_bytes() -> None:
    """A run is repeated with nothing remembered, and its JSON is the same."""
    texts = []
    for _ in range(2):
        choose.cache_clear()
        result = tw.simulate(machine(), tw.load_workload("bert-base", BERT))
        texts.append(repr(result.to_dict()))
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("accelerator", "overrides"),
    [
        ("spatten", ["attention_unit.token_keep=1", "attention_unit.head_keep=1"]),
        ("spatten", ["attention_unit=null"]),
        ("sanger", []),
    ],
)
def test_where_nothing_cascades_the_graph_is_left_alone(accelerator: str, overrides: list[str]) -> None:
    """With all kept, and for every other unit, equal layers stay one block with a count."""
    graph = tw.load_workload("bert-base", BERT)
    assert cascaded(graph, tw.load_accelerator(accelerator, overrides).attention_unit) is graph


def test_keeping_all_is_the_dense_model() -> None:
    """With every share at 1 all multiply-accumulates of the model are carried out, and no others."""
    graph = tw.load_workload("bert-base", BERT)
    result = tw.simulate(machine(token_keep=1, head_keep=1, value_keep=1, requantize_below=0), graph)
    assert result.macs == result.useful_macs == graph.macs


def macs_by_layer(result: Result, *names: str) -> list[int]:
    of = {row.name: row.macs for row in result.operators}
    return [sum(of[f"layers.{n}.{name}"] for name in names) for n in range(LAYERS)]


def test_projections_and_feed_forward_networks_shrink() -> None:
    """A layer projects and attends with the tokens and heads that it has; what follows its attention has the
    tokens of the next layer, the last one's its own. All parameters are still the model's."""
    graph = tw.load_workload("bert-base", BERT)
    accelerator = machine(token_keep=0.6, head_keep=0.7, value_keep=1, requantize_below=0)
    result = tw.simulate(accelerator, graph)
    assert isinstance(accelerator.attention_unit, SpAtten)
    plan = schedule(accelerator.attention_unit, TOKENS, HEADS, LAYERS)
    after, share = (*plan.tokens[1:], plan.tokens[-1]), WIDTH // HEADS
    for name in ("attention.query", "attention.key", "attention.value"):
        expected = [t * WIDTH * h * share for t, h in zip(plan.tokens, plan.heads, strict=True)]
        assert macs_by_layer(result, name) == expected
    core = [2 * t * t * h * share for t, h in zip(plan.tokens, plan.heads, strict=True)]
    assert macs_by_layer(result, "attention.scores", "attention.context") == core
    taken = [t * WIDTH * h * share for t, h in zip(after, plan.heads, strict=True)]
    assert macs_by_layer(result, "attention.output") == taken
    assert macs_by_layer(result, "ffn.up", "ffn.down") == [2 * t * WIDTH * FFN for t in after]
    assert result.parameters == graph.parameters
    assert plan.heads[-1] < HEADS


def test_vector_work_shrinks_with_the_tokens() -> None:
    """Norms and residuals work on the rows that are left, and biases on the elements that are made."""
    graph = tw.load_workload("bert-base", BERT)
    by = unit(token_keep=0.6, head_keep=0.7)
    left, before = cascaded(graph, by), {op.name: op for op in graph.expand().operators}
    plan = schedule(by, TOKENS, HEADS, LAYERS)
    found = {op.name: op for op in left.operators}
    for number in range(LAYERS):
        tokens = plan.tokens[min(number + 1, LAYERS - 1)]
        for name in ("attention_residual", "attention_norm", "ffn.act", "ffn_norm"):
            old, new = (ops[f"layers.{number}.{name}"] for ops in (before, found))
            assert new.shape.rows * TOKENS == old.shape.rows * tokens  # type: ignore[union-attr]
            assert [(n, c * tokens // TOKENS) for n, c in old.primitives] == list(new.primitives)
        query = found[f"layers.{number}.attention.query"]
        assert isinstance(query.shape, MatmulShape)
        assert dict(query.primitives)["add"] == query.shape.m * query.shape.n


def test_shared_keys_stay_as_long_as_a_head_needs_them() -> None:
    """With grouped queries a pruned head's query columns go, keys and values are projected whole, and the
    cache gets the rows that are left."""
    by = unit(token_keep=0.6, head_keep=0.7)
    plan = schedule(by, TOKENS, HEADS, LAYERS)
    left = {op.name: op for op in cascaded(tw.load_workload("llama-3.2-1b", LLAMA), by).operators}
    last = f"layers.{LAYERS - 1}.attention"
    query, key = left[f"{last}.query"].shape, left[f"{last}.key"].shape
    assert isinstance(query, MatmulShape)
    assert isinstance(key, MatmulShape)
    assert (query.m, query.n) == (plan.tokens[-1], plan.heads[-1] * 8)
    assert (key.m, key.n) == (plan.tokens[-1], 16)
    assert left[f"{last}.query_rope"].shape.cols == plan.heads[-1] * 8  # type: ignore[union-attr]
    assert left[f"{last}.key_cache"].shape.rows == plan.tokens[-1]  # type: ignore[union-attr]


def test_a_decode_step_prunes_what_it_reads_of_the_cache() -> None:
    """Its one token stays; later layers read fewer keys and values, and projections have fewer heads."""
    graph = tw.load_workload("gpt2", ["layers=6", "heads=4", "d=32", "ffn=48", "seq=64", "phase=decode"])
    by = unit(token_keep=0.5, head_keep=0.7)
    plan = schedule(by, 64, 4, 6)
    chosen = run(graph, by)
    for each, tokens, heads in zip(chosen, plan.tokens, plan.heads, strict=True):
        working = [head for head in each.heads if head.pieces]
        assert len(working) == heads
        assert [sum(p.queries for p in head.pieces) for head in working] == [1] * heads
        assert all(head.pieces[0].scores <= 2 * tokens for head in working)
    before = {op.name: op.shape for op in graph.expand().operators}
    for op in cascaded(graph, by).operators:
        if ".ffn." in op.name:
            assert op.shape == before[op.name]


def test_tokens_that_may_be_mixed_are_left_in() -> None:
    """Where tokens go to experts, which are dealt them by number, only the attention cores and the columns of
    heads shrink."""
    sizes = ["layers=4", "seq=16", "d=32", "heads=4", "kv_heads=4", "expert_ffn=32", "head_dim=8"]
    graph = tw.load_workload("mixtral-8x7b", sizes)
    by = unit(token_keep=0.6, head_keep=0.7)
    before = {op.name: op for op in graph.expand().operators}
    changed = {
        op.name.split(".")[-1] for op in cascaded(graph, by).operators if op.shape != before[op.name].shape
    }
    cached = {"query_rope", "key_rope", "key_cache", "value_cache"}
    assert changed == {"query", "key", "value", "output", *cached}
    for op in cascaded(graph, by).operators:
        if isinstance(op.shape, MatmulShape):
            assert op.shape.m == before[op.name].shape.m  # type: ignore[union-attr]


def test_steps_have_cascades_of_their_own() -> None:
    """A generated token's layers start with all that the cache holds; a prefill's choice isn't taken over."""
    graph = tw.load_workload("gpt2", ["layers=4", "heads=4", "d=32", "ffn=48", "seq=16", "generate=3"])
    found = layers_of(cascaded(graph, unit(token_keep=0.6)))
    assert [(pairs.keys, pairs.layer, pairs.layers) for pairs in found] == [
        (keys, number, 4) for keys in (16, 17, 18) for number in range(4)
    ]


@pytest.mark.parametrize("name", ["bert-base", "gpt2"])
def test_the_laws_hold_for_a_cascade(name: str) -> None:
    """analytic <= event, states add up, MACs fit into the cycles, and more pruning never adds any."""
    graph = tw.load_workload(name, BERT)
    macs = []
    for keep in (0.9, 0.7, 0.5):
        event = lawful(machine(token_keep=keep, head_keep=keep), graph)
        assert len(event.sparse_attention) == LAYERS
        macs.append(event.macs)
    assert macs == sorted(macs, reverse=True)
