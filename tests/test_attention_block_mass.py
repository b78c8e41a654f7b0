"""Blocks by mass: its reference against frozen results, its costs from the blocks that data choose."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tests.graphs import one_layer, work
from tilewright.description.errors import InputError
from tilewright.workloads import primitives
from tilewright.workloads.attention.block_mass import MECHANISM, BlockMass, chosen, reference
from tilewright.workloads.attention.scores import Scores, draw
from tilewright.workloads.graph import OperatorGraph
from tilewright.workloads.layers import Heads
from tilewright.workloads.load import load_workload

FROZEN = Path(__file__).parent / "data" / "oracles" / "block_mass.npz"
lowered = partial(one_layer, MECHANISM)


@pytest.mark.parametrize("name", ["encoder", "causal", "rows", "short"])
def test_reference_equals_the_public_implementation(name: str) -> None:
    """PyTorch's pooling, sorting and masked attention give the same numbers, in float64."""
    with np.load(FROZEN) as frozen:
        case = {key.removeprefix(f"{name}_"): frozen[key] for key in frozen if key.startswith(f"{name}_")}
    p = BlockMass.model_validate({key: case[key].item() for key in ("block", "mass", "over")})
    out = reference(case["query"], case["key"], case["value"], p, causal=bool(case["causal"]))
    np.testing.assert_allclose(out, case["out"], rtol=0, atol=1e-14)


def core(graph: OperatorGraph) -> list[Any]:
    """The matmuls of the attention itself."""
    return [op for op in graph.operators if op.name.split(".")[-1] in ("scores", "context")]


@given(
    batch=st.integers(1, 2),
    g=st.integers(1, 2),
    share=st.integers(1, 2),
    n=st.integers(1, 40),
    b=st.integers(2, 6),
    mass=st.floats(0.2, 1),
    over=st.sampled_from(["head", "row"]),
    causal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_costs_are_those_of_the_chosen_blocks(
    batch: int, g: int, share: int, n: int, b: int, mass: float, over: str, causal: bool, seed: int
) -> None:
    """Scores of blocks, sorts, running sums, gathers, and per block of queries exactly its own blocks; useful
    are the pairs of the mask."""
    e, h = 3, g * share
    d, blocks = h * e, -(-n // b)
    scores = Scores(seed=seed, shortest=2, longest=20)
    p = BlockMass.model_validate({"block": b, "mass": mass, "over": over, "scores": scores})
    graph = lowered(p, Heads(h, g, e), n, batch=batch, causal=causal)
    sees = chosen(*draw(scores, h, g, n, e), p, causal=causal)
    kept, rows = int(sees.sum()), blocks * b
    projections = rows * d * (d + 2 * g * e) + n * d * d
    assert graph.macs == batch * (projections + blocks * blocks * d + 2 * kept * b * b * e)
    assert work(graph, "softmax")["exp"] == batch * (h * blocks * blocks + kept * b * b)
    sorts = (h, blocks * blocks) if over == "head" else (h * blocks, blocks)
    assert work(graph, "sort") == dict(primitives.sort(batch * sorts[0], sorts[1]))
    assert work(graph, "scan") == {"add": batch * h * blocks * blocks}
    padding = 0 if rows == n else rows * d
    moved = h * blocks * blocks + kept + 2 * kept * b * e + padding
    assert work(graph, "gather")["move"] == batch * moved
    mask = sees.repeat(b, axis=1).repeat(b, axis=2)[:, :n, :n]
    pairs = int((mask & (np.tri(n, dtype=bool) | (not causal))).sum())
    assert sum(op.useful_macs for op in core(graph)) == batch * 2 * pairs * e
    assert graph.metadata["chosen_pairs"].startswith(f"{pairs} ")


def test_lengths_of_the_matmuls_are_those_of_the_data() -> None:
    """Blocks of queries that see equally many blocks of keys share a matmul; none is evened out."""
    p = BlockMass(block=4, scores=Scores(shortest=2, longest=30))
    graph = lowered(p, Heads(4, 4, 4), 64, causal=True)
    counts = Counter(chosen(*draw(p.scores, 4, 4, 64, 4), p, causal=True).sum(axis=-1).ravel().tolist())
    assert len(counts) > 4
    matmuls = {op.shape.n // 4: op.shape.batch for op in core(graph) if op.function == "transpose_b"}
    assert matmuls == counts


def test_uniform_scores_choose_evenly() -> None:
    """Without locality and sinks, all of a row's blocks weigh the same: imbalance 1, and all the mass."""
    p = BlockMass(block=4, mass=1, over="row", scores=Scores(sharpness=0, sinks=0, sink_logit=0))
    graph = lowered(p, Heads(2, 2, 4), 64)
    assert graph.metadata["chosen_imbalance"].startswith("1.000 ")
    assert graph.metadata["kept_softmax"].startswith("1.0000 ")
    local = lowered(BlockMass(block=4, mass=0.5, scores=Scores(longest=8)), Heads(2, 2, 4), 256)
    assert float(local.metadata["chosen_imbalance"].split()[0]) > 1


def test_equal_seeds_equal_graphs() -> None:
    """The same seed gives the same graph, another one another."""
    first, again, other = (
        lowered(BlockMass(block=4, mass=0.6, scores=Scores(seed=seed, longest=64)), Heads(2, 2, 4), 128)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.operators != other.operators


def test_a_decode_step_is_dense() -> None:
    """One token against m: 2 m d MACs, nothing chosen."""
    graph = lowered(BlockMass(), Heads(4, 2, 3), 77, batch=2, causal=True, decode=True)
    assert graph.macs == 2 * (2 * 12 * 12 + 2 * 12 * 6 + 2 * 77 * 12)
    assert work(graph, "sort") == {}


def test_real_queries_and_keys_from_a_file(tmp_path: Path) -> None:
    """Each layer of a model takes its own tensors, and costs what they choose."""
    rng = np.random.default_rng(0)
    tensors = {f"{name}.{layer}": rng.normal(size=(2, 32, 8)) * 3 for name in "qk" for layer in range(2)}
    np.savez(tmp_path / "qk.npz", **tensors)  # type: ignore[arg-type]
    choice = (
        f"attention={{kind: block_mass, block: 4, mass: 0.5, scores: {{path: {tmp_path / 'qk.npz'}, "
        "query: 'q.{layer}', key: 'k.{layer}'}}"
    )
    sizes = ["layers=2", "d=16", "heads=2", "ffn=32", "seq=32"]
    graph = load_workload("bert-base", [*sizes, choice]).expand()
    for layer in range(2):
        sees = chosen(
            tensors[f"q.{layer}"], tensors[f"k.{layer}"], BlockMass(block=4, mass=0.5), causal=False
        )
        mine = [op for op in core(graph) if op.name.startswith(f"layers.{layer}.")]
        assert sum(op.macs for op in mine) == 2 * sees.sum() * 4 * 4 * 8


def test_many_different_numbers_are_rounded_up_to_32() -> None:
    """Where more than 32 numbers of blocks differ, they are rounded up to 32nds of the largest: at most 32
    lengths, none below its own; what is useful stays exact."""
    p = BlockMass(block=2, mass=0.99, scores=Scores(shortest=4, longest=100))
    graph = lowered(p, Heads(4, 4, 4), 256, causal=True)
    sees = chosen(*draw(p.scores, 4, 4, 256, 4), p, causal=True)
    counts = sees.sum(axis=-1)
    assert len(np.unique(counts)) > 32
    matmuls = [op for op in core(graph) if op.function == "transpose_b"]
    assert len(matmuls) <= 32
    least = int(counts.sum()) * 4 * 4
    assert least <= sum(op.macs for op in matmuls) <= least + counts.size * (counts.max() // 32) * 4 * 4
    mask = sees.repeat(2, axis=1).repeat(2, axis=2) & np.tri(256, dtype=bool)
    assert sum(op.useful_macs or 0 for op in matmuls) == mask.sum() * 4


def test_too_many_blocks_are_refused() -> None:
    """Blocks are chosen from pair by pair, so that their number has a limit; what to do is said."""
    with pytest.raises(InputError, match=r"attention\.block: 1,048,576 tokens .* use larger blocks"):
        tw.load_workload("encoder_block", ["seq=1048576", "attention.kind=block_mass"])
