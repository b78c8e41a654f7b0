"""Memory-compressed attention: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.workloads.attention.memory_compressed import (
    MECHANISM,
    MemoryCompressed,
    compress,
    compressed_pattern,
    reference,
)
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "memory_compressed.npz"
small = st.integers(1, 4)
sizes = st.integers(1, 40)
lowered = partial(one_layer, MECHANISM, batch=2)


def by_head(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), 2, -1).swapaxes(0, 1)


@pytest.mark.parametrize(("name", "causal"), [("both", False), ("causal", True), ("whole", True)])
def test_reference_equals_the_public_implementation(name: str, causal: bool) -> None:
    """Frozen inputs and outputs of MemoryCompressedAttention in memory-compressed-attention 0.0.7."""
    with np.load(FROZEN) as frozen:
        case = {key.removeprefix(f"{name}_"): frozen[key] for key in frozen if key.startswith(name)}
    key, value = (
        by_head(compress(case[part], case["kernel"], case["bias"], case[f"null_{part}"]))
        for part in ("key", "value")
    )
    made = reference(by_head(case["query"]), key, value, MemoryCompressed(), causal=causal)
    np.testing.assert_allclose(made, by_head(case["out"]), rtol=0, atol=1e-14)


@given(n=sizes, c=st.integers(1, 9))
def test_the_compressed_pattern_is_the_definition(n: int, c: int) -> None:
    """The null key always; key t, which covers c positions of the left-padded sequence, once query i is not
    before the last of them."""
    padding = -n % c
    i, t = np.mgrid[:n, : (n + padding) // c]
    mask = np.concatenate((np.ones((n, 1), dtype=bool), c * t + c - 1 - padding <= i), axis=1)
    np.testing.assert_array_equal(compressed_pattern(n, MemoryCompressed(compression=c)).dense(), mask)


@given(n=sizes, c=small, group=small, kv=small, e=small, causal=st.booleans(), grouped=st.booleans())
def test_a_compressed_layer_has_the_closed_form(
    n: int, c: int, group: int, kv: int, e: int, causal: bool, grouped: bool
) -> None:
    """Convolutions 2 c m d_kv^2 / groups, core 2 n (m + 1) d, exponentials h n (m + 1), m = ceil(n / c);
    causal, 2 d per pair is useful. One null row is put before keys and one before values."""
    heads = Heads(group * kv, kv, e)
    d, width, m = heads.width, heads.kv_width, -(-n // c)
    p = MemoryCompressed(compression=c, grouped=grouped, block=1000)
    graph = lowered(p, heads, n, causal=causal)
    linear = 2 * n * d * d + 2 * n * d * width + 2 * c * m * width * width // (kv if grouped else 1)
    assert graph.macs == 2 * (linear + 2 * n * (m + 1) * d)
    assert exps(graph) == 2 * heads.heads * n * (m + 1)
    pairs = sum(1 + (i + 1 + -n % c) // c for i in range(n)) if causal else n * (m + 1)
    assert graph.useful_macs == 2 * (linear + 2 * d * pairs)
    placed = [dict(op.primitives)["move"] for op in graph.operators if op.function == "place"]
    assert placed == [2 * width, 2 * width]


@given(blocks=small, length=small, h=small, e=small, causal=st.booleans())
def test_a_local_layer_has_the_closed_form(blocks: int, length: int, h: int, e: int, causal: bool) -> None:
    """2 n b d MACs and h n b exponentials, causal the half and the diagonal useful."""
    n, d = blocks * length, h * e
    graph = lowered(MemoryCompressed(layer="local", local_block=length), Heads(h, h, e), n, causal=causal)
    assert graph.macs == 2 * (4 * n * d * d + 2 * n * length * d)
    assert exps(graph) == 2 * h * n * length
    pairs = n * (length + 1) // 2 if causal else n * length
    assert graph.useful_macs == 2 * (4 * n * d * d + 2 * d * pairs)


def test_heads_of_a_grouped_convolution_have_their_own_weights() -> None:
    """d^2 c weights, or with groups d^2 c / heads, for keys and for values."""
    plain, grouped = (
        lowered(MemoryCompressed(grouped=grouped), Heads(4, 4, 2), 9, batch=1).parameters
        for grouped in (False, True)
    )
    assert plain - grouped == 2 * 3 * (8 * 8 - 8 * 2)


def test_long_sequences_lower() -> None:
    """A local layer of a million tokens, and a causal compressed one of 16,384, are few operators."""
    local = lowered(MemoryCompressed(layer="local"), Heads(2, 2, 8), 1 << 20, causal=True)
    assert len(local.operators) < 20
    assert len(lowered(MemoryCompressed(), Heads(2, 2, 8), 1 << 14, causal=True).operators) < 400
