"""BigBird: right numbers, and the costs of its closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.graphs import exps, one_layer
from tilewright.description.errors import InputError
from tilewright.workloads.attention.bigbird import MECHANISM, BigBird, draw, pattern, reference
from tilewright.workloads.layers import Heads

FROZEN = Path(__file__).parent / "data" / "oracles" / "bigbird.npz"
small = st.integers(1, 4)
lowered = partial(one_layer, MECHANISM, batch=2)


def test_reference_equals_the_public_implementation() -> None:
    """Frozen inputs, draw and output of BigBirdBlockSparseAttention in transformers 4.57.6, train() mode."""
    with np.load(FROZEN) as frozen:
        query, key, value, chosen, out = (frozen[part] for part in ("query", "key", "value", "chosen", "out"))
    made = reference(query, key, value, chosen, BigBird(block=4))
    np.testing.assert_allclose(made, out, rtol=0, atol=1e-14)


@given(r=st.integers(0, 3), more=st.integers(1, 20), seed=st.integers(0, 99))
def test_the_pattern_is_the_definition(r: int, more: int, seed: int) -> None:
    """Ends see all and are seen by all; others see neighbours and r more blocks, different and drawn anew for
    each seed."""
    blocks = 5 + 2 * r + more
    p = BigBird(block=1, random_blocks=r, seed=seed)
    mask, chosen = pattern(blocks, p).dense(), draw(blocks, p)
    i, j = np.mgrid[:blocks, :blocks]
    fixed = (abs(i - j) <= 1) | (i % (blocks - 1) == 0) | (j % (blocks - 1) == 0)
    assert mask[fixed].all()
    assert (mask & ~fixed).sum(axis=1).tolist() == [0, *[r] * (blocks - 2), 0]
    assert all((mask & ~fixed)[row + 1, chosen[row]].all() for row in range(blocks - 2))


def test_short_sequences_are_dense() -> None:
    """Up to 5 + 2 r blocks everything sees everything."""
    assert pattern(11 * 4, BigBird(block=4)).dense().all()
    assert not pattern(12 * 4, BigBird(block=4)).dense().all()


@given(r=st.integers(1, 3), more=st.integers(8, 20), block=small, group=small, kv=small, e=small)
def test_costs_have_the_closed_forms(r: int, more: int, block: int, group: int, kv: int, e: int) -> None:
    """Useful: 2 d [(n - 4b)(5 + r)b + 2b(4 + r)b + 2bn] MACs; worked: the two rows of 4 + r blocks padded to
    5 + r. Keys and values of the middle rows are gathered once for the heads that share them; the two outer
    rows' results are put in place."""
    n, heads = (5 + 2 * r + more) * block, Heads(group * kv, kv, e)
    d = heads.width
    graph = lowered(BigBird(block=block, random_blocks=r), heads, n)
    projections = 2 * n * d * d + 2 * n * d * heads.kv_width
    pairs = (n - 4 * block) * (5 + r) * block + 2 * block * (4 + r) * block + 2 * block * n
    assert graph.useful_macs == 2 * (projections + 2 * d * pairs)
    worked = (n - 2 * block) * (5 + r) * block + 2 * block * n
    assert graph.macs == 2 * (projections + 2 * d * worked)
    assert exps(graph) == 2 * heads.heads * worked
    gathered = sum(dict(op.primitives)["move"] for op in graph.operators if op.kind == "gather")
    assert gathered == 2 * 2 * (n - 2 * block) * (5 + r) * heads.kv_width
    placed = sum(dict(op.primitives)["move"] for op in graph.operators if op.function == "place")
    assert placed == 2 * 2 * block * d


def test_a_million_tokens_lower() -> None:
    """Nothing in the lowering grows with the square of the tokens."""
    assert len(lowered(BigBird(), Heads(2, 2, 8), 1 << 20).operators) < 30


def test_a_causal_one_is_refused() -> None:
    """Global blocks look ahead."""
    with pytest.raises(InputError) as error:
        lowered(BigBird(), Heads(1, 1, 4), 64, causal=True)
    assert str(error.value) == (
        "attention `bigbird` can't be causal: the first and the last block see all tokens"
    )
