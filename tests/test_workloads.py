"""Parameters and MACs of the models, against published and computed figures and against closed forms."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.workloads.families.bert import Bert
from tilewright.workloads.families.llama import Llama
from tilewright.workloads.families.moe import MixtureOfExperts, even_split
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.load import describe_workload, load_workload, preset_names
from tilewright.workloads.operators import MatmulShape

with (Path(__file__).parent / "data" / "model_counts.csv").open() as stream:
    COUNTS = list(csv.DictReader(stream))

small = st.integers(1, 6)


@pytest.mark.parametrize("row", COUNTS, ids=lambda row: f"{row['preset']} {row['overrides']}")
def test_parameters_and_macs_equal_the_reference(row: dict[str, str]) -> None:
    """Every preset has exactly the parameters, and does exactly the MACs, of the model in transformers."""
    graph = load_workload(row["preset"], row["overrides"].split())
    assert graph.parameters == int(row["parameters"])
    if row["macs"]:
        assert graph.macs == int(row["macs"])


def test_the_reference_covers_every_kind_of_model() -> None:
    """Each family of models has at least one row in the table of reference counts."""
    families = {describe_workload(row["preset"]).model_dump()["family"] for row in COUNTS}
    bare = {
        "gemm",
        "gemms",
        "layer_stack",
        "gemm_chain",
        "softmax",
        "layernorm",
        "attention",
        "encoder_block",
    }
    bare |= {"autoformer", "hat"}  # no library has them: test_compression_search.py
    assert families == {describe_workload(name).model_dump()["family"] for name in preset_names()} - bare


@given(layers=small, n=st.integers(1, 64), heads=small, width=small, ffn=st.integers(1, 64), batch=small)
def test_encoder_layers_have_the_closed_form(
    layers: int, n: int, heads: int, width: int, ffn: int, batch: int
) -> None:
    """A dense encoder layer does 4 n d^2 + 2 n^2 d + 2 n d f MACs (Vaswani et al. 2017) for each sequence."""
    d = heads * width
    model = Bert(layers=layers, d=d, heads=heads, ffn=ffn, vocab=7, seq=n, batch=batch, pooler=False)
    assert model.lower().macs == batch * layers * (4 * n * d * d + 2 * n * n * d + 2 * n * d * ffn)


@given(heads=small, group=small, width=small, n=st.integers(1, 40), batch=small, layers=small)
def test_decode_has_the_closed_form(
    heads: int, group: int, width: int, n: int, batch: int, layers: int
) -> None:
    """A decode step reads n cached tokens: 2 d q + 2 d k + 2 q n + 3 d f a layer, and d V for the logits."""
    q, k, d = heads * group * 2 * width, heads * 2 * width, 12
    model = Llama(
        layers=layers, d=d, heads=heads * group, kv_heads=heads, head_dim=2 * width, ffn=5, vocab=11,
        seq=n, batch=batch, phase="decode",
    )  # fmt: skip
    layer = 2 * d * q + 2 * d * k + 2 * q * n + 3 * d * 5
    assert model.lower().macs == batch * (layers * layer + d * 11)


@given(n=st.integers(1, 20), generate=st.integers(1, 6))
def test_generation_is_a_prefill_and_decode_steps(n: int, generate: int) -> None:
    """Generating g tokens does the MACs of one prefill, of which only the last position's logits are wanted,
    and of decode steps over caches of n + 1 … n + g - 1 tokens."""
    sizes = ["layers=2", "d=8", "heads=2", "kv_heads=1", "head_dim=4", "ffn=16", "vocab=32"]
    together = load_workload("llama-2-7b", [*sizes, f"seq={n}", f"generate={generate}"])
    prefill = load_workload("llama-2-7b", [*sizes, f"seq={n}"]).macs - (n - 1) * 8 * 32
    steps = (
        load_workload("llama-2-7b", [*sizes, "phase=decode", f"seq={n + t}"]) for t in range(1, generate)
    )
    assert together.macs == prefill + sum(step.macs for step in steps)
    assert together.parameters == load_workload("llama-2-7b", sizes).parameters
    assert len(together.outputs) == generate


@pytest.mark.parametrize("preset", ["t5-small", "whisper-tiny", "gpt2"])
def test_encoder_decoders_and_gpt2_generate(preset: str) -> None:
    """Weights are counted once however many steps use them, and each step's operators bear its name."""
    alone, many = load_workload(preset), load_workload(preset, ["generate=3"])
    assert many.parameters == alone.parameters
    scopes = {op.name.split(".")[0] for op in many.operators}
    assert {"prefill", "decode1", "decode2"} <= scopes
    assert "decode3" not in scopes


def cached_elements(graph: OperatorGraph) -> int:
    """Elements of the KV caches that one step reads or writes, all layers together."""
    return sum(
        graph.tensors[op.outputs[0]].elements * graph.times(index)
        for index, op in enumerate(graph.operators)
        if op.function == "append"
    )


def written_elements(graph: OperatorGraph) -> int:
    """Elements that the appends write."""
    return sum(
        op.shape.rows * op.shape.cols * graph.times(index)
        for index, op in enumerate(graph.operators)
        if op.function == "append" and not isinstance(op.shape, MatmulShape)
    )


@pytest.mark.parametrize(
    ("preset", "tokens", "per_token"),
    [
        ("llama-3-8b", 100, 2 * 8 * 128 * 32),
        ("llama-2-7b", 100, 2 * 32 * 128 * 32),
        ("mistral-7b", 4096, 2 * 8 * 128 * 32),
        ("gpt2", 64, 2 * 768 * 12),
    ],
)
def test_kv_cache_per_token(preset: str, tokens: int, per_token: int) -> None:
    """The KV cache holds 2 x KV heads x head width x layers elements a token (DeepSeek-V2, arXiv:2405.04434,
    table 1); a decode step adds one token's."""
    prefill = load_workload(preset, [f"seq={tokens}"])
    decode = load_workload(preset, [f"seq={tokens}", "phase=decode"])
    assert cached_elements(prefill) == written_elements(prefill) == tokens * per_token
    assert cached_elements(decode) == tokens * per_token
    assert written_elements(decode) == per_token


def test_mistral_keeps_a_rolling_cache() -> None:
    """Mistral's cache stops growing at its window of 4,096 tokens (arXiv:2310.06825, section 2)."""
    assert cached_elements(load_workload("mistral-7b", ["seq=32768", "phase=decode"])) == 65536 * 4096


@given(
    n=st.integers(1, 30),
    experts=st.integers(1, 9),
    choices=st.integers(1, 9),
    layers=small,
    shared=st.booleans(),
)
def test_mixtures_of_experts_have_the_closed_form(
    n: int, experts: int, choices: int, layers: int, shared: bool
) -> None:
    """However choices and experts divide, a layer does n d E + 3 n k d f MACs, n d (3 s + 1) more with a
    shared expert; and all experts' weights are parameters."""
    choices = min(choices, experts)
    sizes: dict[str, int] = {"layers": layers, "d": 4, "heads": 2, "vocab": 3, "seq": n}
    d, f, s = 4, 5, 6
    dense = Llama(**sizes, ffn=1).lower()
    model = MixtureOfExperts(
        **sizes, experts=experts, active_experts=choices, expert_ffn=f, shared_ffn=s if shared else None
    )
    graph = model.lower()
    network = n * d * experts + 3 * n * choices * d * f + shared * n * d * (3 * s + 1)
    assert graph.macs - dense.macs == layers * (network - 3 * n * d)
    weights = d * experts + 3 * experts * d * f + shared * d * (3 * s + 1)
    assert graph.parameters - dense.parameters == layers * (weights - 3 * d)


@given(choices=st.integers(1, 500), experts=st.integers(1, 64))
def test_the_even_split_serves_every_choice_once(choices: int, experts: int) -> None:
    """Tokens per expert differ by one at most, add up to all choices, and no expert serves twice."""
    groups = even_split(choices, experts)
    assert sum(count * rows for count, rows, _ in groups) == choices
    assert sum(count for count, _, _ in groups) == min(choices, experts)
    assert max(rows for _, rows, _ in groups) - min(rows for _, rows, _ in groups) <= 1


def test_a_decode_step_reads_two_of_eight_experts() -> None:
    """One token of Mixtral runs through two experts' weights, out of a tensor that holds all eight."""
    graph = load_workload("mixtral-8x7b", ["phase=decode"])
    gate = next(op for op in graph.operators if op.name == "layers.{i}.moe.gate")
    assert gate.shape == MatmulShape(batch=2, m=1, k=4096, n=14336)
    assert graph.tensors[gate.inputs[1]].shape == (8, 4096, 14336)


def test_grouped_queries_share_keys() -> None:
    """Scores of grouped-query attention are one product per KV head, its query heads stacked."""
    graph = load_workload(
        "attention", ["heads=8", "kv_heads=2", "head_dim=16", "seq=10", "kv_seq=30", "batch=3"]
    )
    scores, _, _, context = graph.operators
    assert scores.shape == MatmulShape(batch=6, m=40, k=16, n=30)
    assert context.shape == MatmulShape(batch=6, m=40, k=30, n=16)


def test_names_of_operators() -> None:
    """Operators are named by place: the step where there are several, the layer, the part."""
    one = load_workload("llama-2-7b", ["seq=8"]).expand()
    assert "layers.31.attention.query" in {op.name for op in one.operators}
    many = load_workload("llama-2-7b", ["seq=8", "generate=3"])
    names = {op.name for op in many.operators}
    assert {"prefill.layers.{i}.attention.query", "decode2.layers.{i}.attention.query"} <= names
    by_name = {op.name: op for op in many.operators}
    weights = {
        by_name[f"{step}.layers.{{i}}.attention.query"].inputs[1]
        for step in ("prefill", "decode1", "decode2")
    }
    assert weights == {"layers.{i}.attention.query.weight"}


def test_albert_shares_its_layers() -> None:
    """ALBERT's layers use one set of weights, group by group, and do BERT's work."""
    sizes = ["layers=6", "d=8", "heads=2", "ffn=16", "vocab=10", "embedding=8"]
    one = load_workload("albert-base", sizes)
    three = load_workload("albert-base", [*sizes, "groups=3"])
    layer = 4 * (8 * 8 + 8) + 2 * 8 * 16 + 16 + 8 + 4 * 8
    assert three.macs == one.macs
    assert three.parameters - one.parameters == 2 * layer


def test_long_generation_stays_small() -> None:
    """127 decode steps of a 32-layer model are about 3,000 operators, not 100,000: layers are held once."""
    graph = load_workload("llama-2-7b", ["seq=2048", "generate=128"])
    assert len(graph.operators) < 3500
    assert {repeat.times for repeat in graph.repeats} == {32}
