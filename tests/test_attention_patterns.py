"""Static patterns: runs, blocks and the lowering they share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.description.errors import InputError
from tilewright.workloads.attention import patterns
from tilewright.workloads.attention.patterns import Pattern, pattern_attention
from tilewright.workloads.builder import GraphBuilder
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads

Draw = Callable[[st.SearchStrategy[int]], int]
sizes = st.integers(1, 40)


def brute(tokens: int, sees: Callable[[int, int], bool]) -> np.ndarray:
    return np.array([[sees(i, j) for j in range(tokens)] for i in range(tokens)])


@given(n=sizes, back=st.integers(0, 45), ahead=st.integers(0, 45))
def test_a_band_is_a_band(n: int, back: int, ahead: int) -> None:
    """Query i sees i - back … i + ahead."""
    mask = brute(n, lambda i, j: -back <= j - i <= ahead)
    np.testing.assert_array_equal(patterns.band(n, back, ahead).dense(), mask)


@given(n=sizes, length=sizes, causal=st.booleans())
def test_block_diagonal_is_block_diagonal(n: int, length: int, causal: bool) -> None:
    """Query i sees its own block, up to itself if causal."""
    mask = brute(n, lambda i, j: i // length == j // length and (j <= i or not causal))
    np.testing.assert_array_equal(patterns.block_diagonal(n, length, causal=causal).dense(), mask)


@given(n=sizes, stride=sizes, back=st.integers(0, 9), ahead=st.integers(0, 9))
def test_strided_takes_every_strideth(n: int, stride: int, back: int, ahead: int) -> None:
    """Query i sees i + t stride, -back <= t <= ahead."""
    mask = brute(n, lambda i, j: (j - i) % stride == 0 and -back <= (j - i) // stride <= ahead)
    np.testing.assert_array_equal(patterns.strided(n, stride, back, ahead).dense(), mask)


@given(n=sizes, back=sizes, ahead=sizes, first=sizes, rows=st.booleans())
def test_globals_see_and_are_seen(n: int, back: int, ahead: int, first: int, rows: bool) -> None:
    """The first tokens are seen by all, and with `rows` see all, each pair once."""
    first = min(first, n)
    mask = brute(n, lambda i, j: -back <= j - i <= ahead or j < first or (rows and i < first))
    made = patterns.band_with_globals(n, back, ahead, first, rows=rows)
    np.testing.assert_array_equal(made.dense(), mask)


def some_pattern(draw: Callable[[st.SearchStrategy[int]], int]) -> Pattern:
    n, a, c = draw(sizes), draw(st.integers(0, 12)), draw(st.integers(0, 12))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return patterns.band(n, a, c)
    if kind == 1:
        return patterns.block_diagonal(n, a + 1, causal=bool(c % 2))
    if kind == 2:
        return patterns.strided(n, a + 1, c, a)
    if kind == 3:
        return patterns.band_with_globals(n, a, c, min(a, n))
    mask = np.random.default_rng(a).random((n, n)) < 0.2 + c / 16
    return patterns.from_mask(mask | np.eye(n, dtype=bool))


@given(data=st.data(), block=st.integers(1, 9))
def test_blocks_are_those_that_hold_a_pair(data: st.DataObject, block: int) -> None:
    """Row blocks, key blocks, stretches and pairs equal those of the dense mask, block by block."""
    pattern = some_pattern(data.draw)
    mask = pattern.dense()
    order = np.argsort(np.arange(pattern.queries) % pattern.stride, kind="stable")
    mask = mask[np.ix_(order, order)]
    blocks = pattern.blocks(block)
    for index, start in enumerate(range(0, pattern.queries, block)):
        rows = mask[start : start + block]
        hit = np.add.reduceat(rows.any(axis=0), np.arange(0, pattern.keys, block)) > 0
        assert blocks.rows[index] == len(rows)
        assert blocks.key_blocks[index] == hit.sum()
        assert blocks.stretches[index] == (np.diff(np.pad(hit.astype(int), 1)) == 1).sum()
        assert blocks.nnz[index] == rows.sum()
    assert pattern.nnz() == mask.sum()
    np.testing.assert_array_equal(
        pattern.blocked_keys(block), np.minimum(blocks.key_blocks * block, pattern.keys)
    )


def lowered(made: list[Pattern], heads: Heads, block: int, batch: int = 1) -> OperatorGraph:
    b = GraphBuilder("t")
    query = b.input("query", (batch, made[0].queries, heads.width))
    key = b.input("key", (batch, made[0].keys, heads.kv_width))
    value = b.input("value", (batch, made[0].keys, heads.kv_width))
    return b.finish(pattern_attention(b, query, key, value, heads, made, block))


@given(data=st.data(), block=st.integers(1, 9), batch=st.integers(1, 2), each=st.booleans())
def test_the_lowering_charges_blocks_and_calls_pairs_useful(
    data: st.DataObject, block: int, batch: int, each: bool
) -> None:
    """Useful MACs are 2 e h nnz, exactly; MACs and exponentials at least those of the blocks, at most 8/7 of
    them and a 32nd; only scattered keys are gathered."""
    one = some_pattern(data.draw)
    heads = Heads(4, 4 if each else 2, 3)
    graph = lowered([one] * 4 if each else [one], heads, block, batch)
    assert graph.useful_macs == batch * heads.heads * 2 * one.nnz() * 3
    blocks = one.blocks(block)
    worked = batch * heads.heads * int((blocks.rows * one.blocked_keys(block)).sum())
    exps = sum(dict(op.primitives).get("exp", 0) for op in graph.operators)
    assert graph.macs == 2 * exps * 3
    assert worked <= exps <= worked * 8 / 7 + batch * heads.heads * blocks.key_blocks.sum() * block**2 / 32
    gathered = sum(dict(op.primitives)["move"] for op in graph.operators if op.kind == "gather")
    if blocks.stretches.max() <= patterns.IN_PLACE:
        assert gathered == 0
    else:
        assert gathered > 0


def test_parts_are_put_in_place_by_moving_the_smaller_ones() -> None:
    """Rows of the largest matmul lie where they belong; those of the others are moved, each once."""
    made = patterns.band_with_globals(1024, 31, 31, 32)
    graph = lowered([made], Heads(2, 2, 4), 32)
    place = next(op for op in graph.operators if op.function == "place")
    assert dict(place.primitives) == {"move": 32 * 2 * 4}


def test_gathered_blocks_are_read_as_often_as_they_are_asked_for() -> None:
    """A gather of blocks reads from DRAM as many bytes as it writes, though its table is smaller, and where
    the table has no whole number of the result's rows."""
    b = GraphBuilder("t")
    table = b.input("table", (1, 50, 16))
    graph = b.finish(b.gather("gathered", "blocks", (table,), (3, 40, 16)))
    result = tw.simulate(tw.load_accelerator("gemmini-default"), graph)
    moved = result.traffic_bytes["dram"]
    assert (moved.read, moved.write) == (3 * 40 * 16, 3 * 40 * 16)


def test_a_padded_copy_streams() -> None:
    """A tensor far larger than the buffers is padded piece by piece, though its rows are not the result's."""
    b = GraphBuilder("t")
    x = b.input("x", (1, 99_999, 64))
    graph = b.finish(b.gather("padded", "pad", (x,), (1, 100_352, 64)))
    result = tw.simulate(tw.load_accelerator("gemmini-default"), graph)
    moved = result.traffic_bytes["dram"]
    assert 99_999 * 64 <= moved.read <= 100_352 * 64
    assert moved.write == 100_352 * 64


def test_a_blind_query_is_refused() -> None:
    """A mask that hides every key from a query has no softmax."""
    with pytest.raises(InputError) as error:
        patterns.from_mask(np.array([[True, False], [False, False]]))
    assert str(error.value) == ("the mask hides every key from query 1; let it see one, itself for instance")


def test_a_pair_in_two_runs_is_a_defect() -> None:
    """Runs that overlap would be counted twice, so `dense` refuses them."""
    twice = patterns.joined(patterns.runs(0, 4, 0, 2), patterns.runs(0, 4, 1, 3))
    with pytest.raises(ValueError, match="a pair is in two runs"):
        Pattern(4, 4, twice).dense()


@pytest.mark.parametrize("n", [65536, 1 << 20])
def test_a_million_tokens_are_few_runs(n: int) -> None:
    """A band with globals is held in three runs and lowered to a handful of operators."""
    made = patterns.band_with_globals(n, 256, 256, 64)
    assert len(made.runs) == 3
    graph = lowered([made], Heads(12, 12, 64), 64)
    assert len(graph.operators) < 20
    assert graph.useful_macs == 2 * 768 * made.nnz()
