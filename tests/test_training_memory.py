"""Training memory: published tables and formulas, and what each strategy must save."""

import csv
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.cli import ExitCode, execute
from tilewright.workloads.attention.choice import mechanisms
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads, prenorm_encoder_layer
from tilewright.workloads.load import load_workload
from tilewright.workloads.training_memory import (
    STRATEGIES,
    Kernel,
    Strategy,
    attention_memory,
    training_memory,
    training_report,
)

TABLE_21 = Path(__file__).parent / "data" / "flashattention_table21.csv"
MIB = 2**20
BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}


def test_attention_memory_is_flashattentions_table_21() -> None:
    """Every length of the three exact kernels, to the MiB that the paper prints."""
    with TABLE_21.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    for row in rows:
        kernel: Kernel = "flash" if row["method"] == "FlashAttention" else "materialised"
        held = attention_memory(kernel, 16, 8, int(row["tokens"]))
        total = sum(part.tensors * part.bytes_each for part in held)
        assert total // MIB == int(row["memory_mib"]), row


def _stack(layers: int, batch: int, tokens: int, heads: int, head_dim: int) -> OperatorGraph:
    """Pre-norm layers with a feed-forward network of four times the width, and nothing around them."""
    width = heads * head_dim
    b = GraphBuilder("stack")
    x = b.input("x", (batch, tokens, width))
    shape = Heads(heads, heads, head_dim)
    y = b.repeat(layers, "layers.{i}", x, lambda z: prenorm_encoder_layer(b, z, shape, 4 * width, "gelu"))
    return b.finish(y)


SIZES = {
    "layers": st.integers(1, 5),
    "batch": st.integers(1, 3),
    "tokens": st.integers(1, 40).map(lambda n: 8 * n),
    "heads": st.integers(1, 6),
    "head_dim": st.integers(1, 32),
}


@given(**SIZES)
def test_what_is_kept_is_the_published_formula(
    layers: int, batch: int, tokens: int, heads: int, head_dim: int
) -> None:
    """Korthikanti et al. (arXiv:2205.05198), equation 1: a layer keeps s b h (34 + 5 a s / h) bytes; without
    the masks and the outputs of its three dropouts, s b h (32 + 2 a s / h)."""
    memory = training_memory(_stack(layers, batch, tokens, heads, head_dim))
    rows = batch * tokens
    width = heads * head_dim
    assert memory.kept_bytes == layers * (32 * rows * width + 2 * rows * heads * tokens)
    assert (memory.working_bytes, memory.recomputed_macs) == (0, 0)


@given(**SIZES)
def test_strategies_keep_their_closed_forms(
    layers: int, batch: int, tokens: int, heads: int, head_dim: int
) -> None:
    """A layer's input each when recomputed, two streams whatever the depth when reversible; and one layer's
    activations at work, of which eight chunks shrink the feed-forward part."""
    graph = _stack(layers, batch, tokens, heads, head_dim)
    rows, width = batch * tokens, heads * head_dim
    stream = 2 * rows * width
    scores, inside = 2 * rows * heads * tokens, 8 * rows * width * 2
    layer = 15 * stream + scores  # less its input, which is what the first norm reads
    found = {name: training_memory(graph, strategy) for name, strategy in BY_NAME.items()}
    assert found["recompute"].kept_bytes == layers * stream
    assert found["reversible"].kept_bytes == 2 * stream
    assert found["recompute"].working_bytes == found["reversible"].working_bytes == layer
    assert found["reversible_chunked"].working_bytes == layer - inside + inside // 8
    assert found["chunked_ffn"].total_bytes == layers * (layer + stream - inside) + inside // 8
    assert found["fused_attention"].kept_bytes == layers * (16 * stream + 4 * rows * heads)
    assert found["recompute"].recomputed_macs == found["reversible_chunked"].recomputed_macs == graph.macs
    assert found["chunked_ffn"].recomputed_macs == layers * 4 * rows * width * width
    assert found["fused_attention"].recomputed_macs == layers * rows * tokens * width


def test_fused_attention_takes_the_square_out_of_the_memory() -> None:
    """Twice the tokens, twice what is kept."""
    sizes = [
        training_memory(_stack(2, 1, tokens, 4, 16), BY_NAME["fused_attention"]).total_bytes
        for tokens in (256, 512, 1024)
    ]
    assert all(second == 2 * first for first, second in pairwise(sizes))


def _kinds() -> list[str]:
    """Those that look both ways and have a default for every parameter."""
    return [
        kind
        for kind, each in mechanisms().items()
        if each.encode and not any(field.is_required() for field in each.parameters.model_fields.values())
    ]


@pytest.mark.parametrize("kind", _kinds())
def test_every_attention_mechanism_has_a_report(kind: str) -> None:
    """Each strategy keeps no more than keeping all, and no mechanism keeps nothing."""
    graph = load_workload("encoder_block", ["seq=1024", f"attention={{kind: {kind}}}"])
    keep, *others = training_report(graph)
    assert keep.kept_bytes > 0
    assert all(other.kept_bytes <= keep.kept_bytes for other in others)


def test_chunks_are_counted_from_one() -> None:
    """None at all is a mistake of the caller."""
    with pytest.raises(ValueError, match="ffn_chunks must be 1 or more, not 0"):
        training_memory(_stack(1, 1, 8, 1, 1), Strategy("none", ffn_chunks=0))


def test_show_prints_the_strategies(capsys: pytest.CaptureFixture[str]) -> None:
    """One line each, in bytes that add up, with what is worked out twice."""
    assert execute(["show", "gpt2", "workload.seq=64", "--training-memory"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", *BY_NAME]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gemmini-default"], "--training-memory is of a workload, and without --source"),
        (["gpt2", "--source"], "--training-memory is of a workload, and without --source"),
        (["gpt2", "workload.phase=decode"], "gpt2: training has no decode steps; leave out `generate` and"),
    ],
)
def test_show_says_what_has_no_training_memory(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line."""
    assert execute(["show", *arguments, "--training-memory"]) == ExitCode.BAD_INPUT
    assert message in capsys.readouterr().err
