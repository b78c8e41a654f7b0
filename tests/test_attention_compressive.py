"""Compressive Transformer: right numbers, and the costs of its closed forms, over segments and decoding."""

from __future__ import annotations

from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.graphs import elements, exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.base import Site
from tilewright.workloads.attention.compressive import MECHANISM, Compressive, reference, remember
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import ALL_BIASES, Heads

FIXTURE = Path(__file__).parent / "data" / "oracles" / "compressive.npz"
small = st.integers(1, 5)
lowered = partial(one_layer, MECHANISM, causal=True)


def test_reference_equals_the_public_implementation() -> None:
    """The reference agrees with compressive-transformer-pytorch 0.4.0 on frozen inputs and outputs."""
    case = np.load(FIXTURE)
    actual = reference(case["query"], case["key"], case["value"], case["positions"])
    np.testing.assert_allclose(actual, case["expected"], rtol=0, atol=1e-14)


def test_memories_equal_the_public_implementations() -> None:
    """Both memories after the segment agree with the package's, compression included."""
    case = np.load(FIXTURE)
    memory, compressed = remember(
        *(case[name] for name in ("memory", "compressed", "segment", "weight", "bias"))
    )
    np.testing.assert_allclose(memory, case["new_memory"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(compressed, case["new_compressed"], rtol=0, atol=1e-14)


@given(
    n=st.integers(1, 60), pieces=small, rate=st.integers(1, 3), memory=st.integers(1, 12),
    compressed=st.integers(0, 8), kv=small, group=small, width=small, batch=small,
)  # fmt: skip
def test_costs_have_the_closed_forms(
    n: int, pieces: int, rate: int, memory: int, compressed: int, kv: int, group: int, width: int, batch: int
) -> None:
    """Each of s segments: L d q + 2 T d k + 3 L T q; the output; d^2 for every token that leaves the memory
    in whole groups. h s L T exponentials and as many elements shifted, s T d copied into windows."""
    heads, d = Heads(kv * group, kv, width), 6
    p = Compressive(segment=pieces * rate, memory=memory, compressed=compressed, rate=rate)
    graph = lowered(p, heads, n, d, batch=batch)
    length = min(p.segment, n)
    s = ceil(n / length)
    m = min(memory, (s - 1) * length)
    c = min(compressed, ((s - 1) * length - m) // rate)
    t, left = c + m + length, max(0, n - memory) // rate * rate if compressed else 0
    projections = s * length * d * heads.width + 2 * s * t * d * heads.kv_width + n * d * heads.width
    assert graph.macs == batch * (projections + 3 * s * length * t * heads.width + left * d * d)
    seen = sum(c + m + i % length + 1 for i in range(n))
    assert graph.macs - graph.useful_macs == batch * 3 * (s * length * t - seen) * heads.width
    assert exps(graph) == batch * heads.heads * s * length * t
    assert elements(graph, "gather", "relative_shift") == (exps(graph) if length > 1 else 0)
    assert elements(graph, "gather", "concat") == (batch * s * t * d if m else 0)
    assert elements(graph, "gather", "slice") == batch * left * d


@given(
    context=st.integers(1, 60), rate=st.integers(1, 3), memory=st.integers(1, 12),
    compressed=st.integers(0, 8), kv=small, group=small, width=small, batch=small,
)  # fmt: skip
def test_a_decode_step_is_a_segment_of_one(
    context: int, rate: int, memory: int, compressed: int, kv: int, group: int, width: int, batch: int
) -> None:
    """T = C + M + 1 keys: 2 d q + 2 T d k + 3 T q MACs, and rate d^2 when a group has left the memory."""
    heads, d = Heads(kv * group, kv, width), 6
    p = Compressive(segment=rate, memory=memory, compressed=compressed, rate=rate)
    graph = lowered(p, heads, context, d, batch=batch, decode=True)
    m = min(memory, context - 1)
    t = min(compressed, (context - 1 - m) // rate) + m + 1
    compresses = compressed > 0 and context > memory and (context - memory) % rate == 0
    macs = 2 * d * heads.width + 2 * t * d * heads.kv_width + 3 * t * heads.width
    assert graph.macs == batch * (macs + (rate * d * d if compresses else 0))
    assert exps(graph) == batch * heads.heads * t


def test_a_run_compresses_as_many_rows_as_its_steps() -> None:
    """A prefill and the decode steps after it stand in one graph, and compress together what the same tokens
    would in one prefill."""
    p, heads = Compressive(segment=4, memory=3, compressed=5, rate=2), Heads(3, 3, 4)
    b, outputs = GraphBuilder("t"), []
    for name, tokens, context in [("prefill", 6, 6), *((f"decode{i}", 1, 6 + i) for i in range(1, 8))]:
        x = b.input(name, (2, tokens, 12))
        with b.scope(name, weights=""):
            site = Site(heads, ALL_BIASES, causal=True, context=context, decode=tokens == 1)
            outputs.append(MECHANISM.lower(b, x, site, p))
    graph = b.finish(*outputs)

    def rows(of: OperatorGraph) -> int:
        return sum(of.tensors[op.outputs[0]].shape[1] for op in of.operators if op.name.endswith("compress"))

    assert rows(graph) == rows(lowered(p, heads, 13, 12)) == 5
    assert graph.parameters == 4 * 12 * 13 + 2 * 12 * 12 + 12 + 3 * 12 * 4


def test_compression_without_weights_has_none() -> None:
    """Mean and maximum take no MACs and no parameters."""
    sizes = {"segment": 4, "memory": 4, "compressed": 4, "rate": 2}
    macs = {}
    for compression in ("conv", "mean", "max"):
        p = Compressive.model_validate(sizes | {"compression": compression})
        graph = lowered(p, Heads(2, 2, 3), 16, 6)
        macs[compression] = graph.macs, graph.parameters
    conv = macs["conv"]
    assert macs["mean"] == macs["max"] == (conv[0] - 12 * 6 * 6, conv[1] - 2 * 6 * 6 - 6)


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    n, d, t = 1 << 20, 64, 512 * 3
    graph = lowered(Compressive(segment=512, memory=512, compressed=512, rate=2), Heads(2, 2, 32), n, d)
    each = 2 * 512 * d * d + 2 * t * d * d + 3 * 512 * t * d
    assert graph.macs == n // 512 * each + (n - 512) * d * d
    assert len(graph.operators) < 30


def test_impossible_combinations_say_why() -> None:
    """Looking both ways, rotary positions and ragged compression are refused, with the reason."""
    with pytest.raises(InputError) as both:
        lowered(Compressive(), Heads(2, 2, 4), 6, 8, causal=False)
    assert str(both.value) == (
        "attention `compressive` can't look both ways: its memories are what came before"
    )
    b = GraphBuilder("t")
    x, angles = b.input("x", (1, 6, 8)), b.input("angles", (6, 4))
    with pytest.raises(InputError) as rotary:
        MECHANISM.lower(b, x, Site(Heads(2, 2, 4), ALL_BIASES, True, 6, rope=angles), Compressive())
    assert str(rotary.value) == (
        "attention `compressive` can't have rotary positions: it has relative positions of its own"
    )
    with pytest.raises(ValidationError, match=r"`segment` \(5\) must be a multiple of `rate` \(2\)"):
        Compressive(segment=5, rate=2)
