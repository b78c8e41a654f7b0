"""The gather unit: what it gathers, against brute force, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.arch.array import Array
from tilewright.arch.sparse_gather import Gather
from tilewright.dataflows.sparse.gather import gather_cycles, select
from tilewright.dataflows.sparse.quality import quality
from tilewright.sim.result import Fidelity, Result
from tilewright.workloads.pairs import Head

ARRAY = Array.model_validate({"rows": 8, "cols": 8, "dataflow": "weight_stationary"})


def head(seed: int, queries: int, keys: int, *, width: int = 6, seen: float = 0.7) -> Head:
    """Random queries and keys, of which each query may see some and at least the first."""
    random = np.random.default_rng(seed)
    mask = random.random((queries, keys)) < seen
    mask[:, 0] = True
    return Head(random.standard_normal((queries, width)), random.standard_normal((keys, width)), mask)


def unit(**parameters: float) -> Gather:
    return Gather.model_validate({"kind": "gather", **parameters})


sizes = st.integers(1, 20)


@given(seed=st.integers(0, 99), queries=sizes, keys=sizes, rows=st.integers(1, 6))
def test_all_that_may_be_seen_is_kept(seed: int, queries: int, keys: int, rows: int) -> None:
    """Without `keep` nothing is left out; each block computes the union of its queries' keys."""
    one = head(seed, queries, keys, seen=0.3)
    chosen = select(unit(rows=rows), one, ARRAY)
    assert (chosen.kept == one.seen).all()
    assert not chosen.predicts
    for number, piece in enumerate(chosen.pieces):
        block = one.seen[number * rows : (number + 1) * rows]
        assert piece.scores == len(block) * len({key for row in block for key in np.flatnonzero(row)})
        assert piece.queries == len(block)


@given(seed=st.integers(0, 99), queries=sizes, keys=sizes, rows=st.integers(1, 6), keep=st.integers(1, 8))
def test_the_likeliest_are_kept(seed: int, queries: int, keys: int, rows: int, keep: int) -> None:
    """Of a block the keys with the highest products with the sum of its queries, one by one; and for a query
    that sees none of them, its own best."""
    one = head(seed, queries, keys)
    chosen = select(unit(rows=rows, keep=keep), one, ARRAY)
    for start in range(0, queries, rows):
        block = range(start, min(start + rows, queries))
        some = [key for key in range(keys) if any(one.seen[query, key] for query in block)]
        total = sum(one.query[query] for query in block)
        best = set(sorted(some, key=lambda key: float(-one.key[key] @ total))[:keep])
        shared = frozenset(best)
        for query in block:
            mine = [key for key in range(keys) if one.seen[query, key]]
            if not shared & set(mine):
                best |= {max(mine, key=lambda key: float(one.key[key] @ one.query[query]))}
        for query in block:
            assert set(np.flatnonzero(chosen.kept[query])) == best & set(np.flatnonzero(one.seen[query]))


@given(seed=st.integers(0, 99), keep=st.integers(1, 6))
def test_a_query_alone_gets_its_true_top_k(seed: int, keep: int) -> None:
    """With blocks of one query the ranking is that of the scores: recall is 1."""
    one = head(seed, 12, 16)
    assert quality([(one, select(unit(rows=1, keep=keep), one, ARRAY))]).recall == 1.0


@given(seed=st.integers(0, 9), rate=st.sampled_from([1.0, 3.0, 8.0]), keep=st.integers(1, 20))
def test_gathering_takes_its_bandwidth(seed: int, rate: float, keep: int) -> None:
    """Two rows of 6 bytes for each key that is gathered, in whole cycles, besides the ranking."""
    one = head(seed, 8, 20)
    for piece in select(unit(rows=4, keep=keep, gather_bytes_per_cycle=rate), one, ARRAY).pieces:
        ranked = piece.predictor_macs // 6
        ranking = -(-piece.predictor_macs // 256) + -(-ranked // 4)
        gathered = piece.scores // piece.queries
        assert piece.predict_cycles == ranking + 2 * gathered * -(-6 // int(rate))
        assert piece.macs == 2 * 6 * piece.scores
    assert gather_cycles(ARRAY, rate, 0, 6) == 0


def run(attention_unit: str, fidelity: Fidelity = "event") -> Result:
    machine = tw.load_accelerator("edge-npu-small", [f"attention_unit={attention_unit}"])
    return tw.simulate(machine, tw.load_workload("attention", ["heads=2", "seq=96", "head_dim=16"]), fidelity)


@pytest.mark.parametrize("more", ["", ", keep: 16", ", keep: 16, from_dram: true", ", keep: 4, rows: 1"])
def test_the_bound_stays_below(more: str) -> None:
    """The analytic answer never exceeds the simulated one, and the array's cycles add up."""
    event = run(f"{{kind: gather{more}}}")
    assert run(f"{{kind: gather{more}}}", "analytic").cycles <= event.cycles
    assert sum(event.units["array"].values()) == event.cycles


def test_fewer_keys_take_fewer_cycles_and_dram_rows_are_dear() -> None:
    """Down to where ranking the keys is what takes longest; and fetching chosen rows for each block costs
    more than keeping all on chip."""
    cycles = [
        run(f"{{kind: gather, keep: {keep}, select_keys: 64, predictor_macs: 4096}}").cycles
        for keep in (64, 32, 16)
    ]
    assert cycles == sorted(cycles, reverse=True)
    assert cycles[0] > cycles[-1]
    assert run("{kind: gather, keep: 32, from_dram: true}").cycles > run("{kind: gather, keep: 32}").cycles


def test_a_slow_gather_engine_stalls_the_array() -> None:
    """At a byte a cycle the array waits for the gathering most of the time."""
    slow = run("{kind: gather, gather_bytes_per_cycle: 1}")
    assert slow.stalls["prediction_stall"] > slow.cycles / 2
    assert slow.cycles > 2 * run("{kind: gather, gather_bytes_per_cycle: 64}").cycles
