"""ViTCoD's unit against its authors' formulas, on their masks and on drawn ones."""

from __future__ import annotations

from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.sparse_split import ViTCoD
from tilewright.dataflows.sparse import vitcod
from tilewright.dataflows.sparse.base import Piece, Selection
from tilewright.dataflows.sparse.program import side_by_side
from tilewright.description.errors import InputError
from tilewright.workloads.pairs import Head

GLOBAL_TOKENS = Path(__file__).parent / "data" / "masks" / "vitcod-deit-tiny-0.95-global-tokens.npy"
IDEAL = ["vector.lanes=1000000", "vector.startup_cycles=0", "buffers={}", "dram.latency_cycles=0"]
SHIPPED = "path: vitcod-deit-tiny-0.95, marks: hidden, layer: all, kernel: masked"

MASK_OF_A_LAYER = "path: vitcod-deit-tiny-0.95, marks: hidden, layer: 2, head: 0, kernel: masked"

Mask = NDArray[np.bool_]


def shipped_masks() -> Mask:
    """Who sees whom, [12, 3, 197, 197]."""
    folder = Path(__file__).parents[1] / "workloads" / "attention" / "masks"
    hidden: NDArray[np.generic] = np.load(folder / "vitcod-deit-tiny-0.95.npy")
    return np.asarray(hidden == 0)


def machine(*overrides: str) -> Accelerator:
    return tw.load_accelerator("vitcod", [*IDEAL, *overrides])


def run(masks: str, heads: int, tokens: int, *overrides: str, fidelity: str = "event") -> tw.Result:
    workload = tw.load_workload(
        "attention",
        [f"heads={heads}", f"seq={tokens}", "head_dim=64", f"attention={{kind: mask_file, {masks}}}"],
    )
    return tw.simulate(machine(*overrides), workload, fidelity=fidelity)  # type: ignore[arg-type]


def formulas(seen: Mask, height: int, above: int = 50) -> tuple[int, int, int]:
    """Cycles of loading, decoding and computing of one layer, as the authors' ViTCoD.py counts them, from the
    mask of its first head; at least one global token."""
    n, e, head, width, ratio = len(seen), 64, 3, 64, 2 / 3
    rows = 76.8 * 2**30 / 500e6  # bytes a cycle
    global_tokens = int((seen.sum(axis=0) > above).sum())
    scattered = int(seen[:, seen.sum(axis=0) <= above].sum())
    loading = decoding = computing = 0
    for _ in range(2 * n):  # queries, and keys of both parts
        loading += ceil(head * ratio * e / rows)
        decoding += ceil(head * ratio * e / int(width * height / head))
    loading += 3  # decoders
    for _ in range(n):
        loading += ceil(head * e / rows)
    dense = int(width * (global_tokens * n / (scattered + global_tokens * n)))
    sparse = width - dense
    step = ceil(e / (height / head))
    computing += max(global_tokens * ceil(n / dense) * step, ceil(scattered / sparse) * step if sparse else 0)
    computing += max(
        ceil(n * e * global_tokens / int(dense * height / head)),
        ceil(scattered * e / int(sparse * height / head)) if sparse else 0,
    )
    return loading, decoding, computing


@pytest.mark.parametrize("height", [8, 64])
def test_the_units_work_as_the_authors_formulas_say(height: int) -> None:
    """On the shipped masks, each layer's first head standing for three: cycles of loading, decoding and
    computing equal the formulas'; with 64 x 64 PEs they are the logged ones; the bound is the largest."""
    result = run(
        f"{SHIPPED}, head: 0", 36, 197, f"array.cols={height}", "attention_unit.stores_context=false"
    )
    masks = shipped_masks()
    layers = [formulas(layer[0], height) for layer in masks]
    loading, decoding, computing = (sum(part) for part in zip(*layers, strict=True))

    busy = {unit: states["busy"] for unit, states in result.units.items()}
    assert (busy["dram"], busy["predictor"], busy["array"]) == (loading, decoding, computing)
    if height == 64:
        assert (loading, decoding, computing) == (9492, 4728, 4709)
    bound = run(
        f"{SHIPPED}, head: 0",
        36,
        197,
        f"array.cols={height}",
        "attention_unit.stores_context=false",
        fidelity="analytic",
    )
    assert bound.cycles == max(loading, decoding, computing) <= result.cycles


@given(seed=st.integers(0, 10**6), n=st.integers(20, 60), density=st.floats(0.02, 0.3))
@settings(max_examples=25, deadline=None)
def test_any_mask_takes_what_the_formulas_say(seed: int, n: int, density: float) -> None:
    """The same for drawn masks with some global tokens, whatever the order of the keys: reordering is
    addressing."""
    rng = np.random.default_rng(seed)
    seen = (rng.random((n, n)) < density) | np.eye(n, dtype=bool)
    seen[:, : 1 + n // 20] = True
    unit = ViTCoD(kind="vitcod", dense_above=n - 1, encoded=2, keys=8)

    for mask in (seen, seen[:, rng.permutation(n)]):
        pieces = selected(unit, mask).pieces
        _, decoding, computing = formulas(mask, 8, above=n - 1)
        assert sum(piece.array_cycles for piece in pieces) == computing
        assert sum(piece.predict_cycles for piece in pieces) == decoding


def selected(unit: ViTCoD, mask: Mask) -> Selection:
    head = Head(np.zeros((len(mask), 64)), np.zeros((mask.shape[1], 64)), mask)
    return vitcod.select(unit, head, machine().array)


def test_global_tokens_are_the_authors() -> None:
    """Head by head as many as their file says, 274 in all, and no pair of the masks is lost."""
    counted = np.load(GLOBAL_TOKENS).astype(int)
    masks = shipped_masks()
    unit = ViTCoD(kind="vitcod")
    found = [[selected(unit, mask).global_tokens for mask in layer] for layer in masks]
    np.testing.assert_array_equal(found, counted)

    quality = run(SHIPPED, 36, 197).sparse_attention["scores"]
    assert quality["global_tokens"] == counted.sum() == 274
    assert quality["kept"] == masks.sum()


def test_heads_abreast_wait_for_the_slowest() -> None:
    """Three heads share the array: loads and work add up, cycles are the largest."""
    heads: list[tuple[Piece, ...]] = [
        (Piece(queries=4, array_cycles=5, predict_cycles=2, macs=10, loads_keys=3, request_rows=1),),
        (Piece(queries=4, array_cycles=9, predict_cycles=1, macs=20, loads_keys=3, request_rows=1),),
    ]
    (both,) = side_by_side(heads)
    assert (both.array_cycles, both.predict_cycles, both.macs) == (9, 2, 30)
    assert (both.loads_keys, both.request_rows, both.query_rows, both.result_rows) == (6, 2, 8, 8)

    alike = run(f"{SHIPPED}, head: 0", 36, 197).units["array"]["busy"]
    apart = run(SHIPPED, 36, 197).units["array"]["busy"]
    assert apart > alike


def test_compressed_queries_and_keys_are_read_as_such() -> None:
    """Two of three heads' worth of Q and K, all of V, and decoders of 6 bytes each; without an auto-encoder
    all of them; the context is stored once, or not at all."""
    each = 36 * 197 * 64
    encoded = run(f"{SHIPPED}, head: 0", 36, 197)
    plain = run(f"{SHIPPED}, head: 0", 36, 197, "attention_unit.encoded=null")
    kept = run(f"{SHIPPED}, head: 0", 36, 197, "attention_unit.stores_context=false")

    assert encoded.traffic_bytes["dram"].read == 2 * (2 * each // 3) + each + 12 * 3 * 6
    assert plain.traffic_bytes["dram"].read == 3 * each
    assert plain.units["predictor"]["busy"] == 0
    assert encoded.traffic_bytes["dram"].write == each
    assert kept.traffic_bytes["dram"].write == 0
    assert kept.cycles < encoded.cycles


@pytest.mark.parametrize("overrides", [[], ["attention_unit.keys=200"], ["cores=2", "attention_unit.keys=7"]])
def test_the_machine_stays_consistent(overrides: list[str]) -> None:
    """Each unit's cycles add up to the total, no answer is below the bound, and fast-forwarding changes
    nothing: with the preset's own buffers and latencies."""
    accelerator = tw.load_accelerator("vitcod", overrides)
    workload = tw.load_workload(
        "attention", ["heads=6", "seq=197", f"attention={{kind: mask_file, {MASK_OF_A_LAYER}}}"]
    )
    event = tw.simulate(accelerator, workload)
    slow = tw.simulate(accelerator, workload, fast_forward=False)

    assert event.cycles == slow.cycles
    assert tw.simulate(accelerator, workload, fidelity="analytic").cycles <= event.cycles
    for states in event.units.values():
        assert sum(states.values()) == event.cycles


def test_linear_layers_take_what_the_authors_script_counts() -> None:
    """Query, key and value token by token on a head's share of the PEs, the output projection head by head,
    the feed-forward network on all PEs, as ViT_FFN.py has them, with its truncations."""
    n, d, heads, pes = 197, 192, 3, 512
    share = pes // heads
    block = tw.load_workload("encoder_block", [f"d={d}", f"heads={heads}", "ffn=768", f"seq={n}"])
    busy = {row.name: row.array_busy_cycles for row in tw.simulate(machine(), block).operators}
    expected = {
        **dict.fromkeys(["attention.query", "attention.key", "attention.value"], n * (d * 64 // share)),
        "attention.output": n * d * 64 // share,
        **dict.fromkeys(["ffn.up", "ffn.down"], n * d * 4 * d // pes),
    }

    assert {name: busy[name] for name in expected} == expected
    assert 12 * sum(expected.values()) == 2_043_156


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "attention_unit.encoded=3",
            "`encoded` (3) must be less than `abreast` (3); leave it out if Q and K are stored as they are",
        ),
        ("array.rows=1", "attention_unit: `vitcod` needs two rows of PEs at least, one for each part"),
    ],
)
def test_a_unit_that_can_not_be_is_refused(override: str, message: str) -> None:
    """What is wrong is said."""
    with pytest.raises(InputError) as error:
        run(SHIPPED, 36, 197, override)
    assert message in str(error.value)


def test_the_shipped_suite_is_exact_but_for_what_it_explains() -> None:
    """Every case of `vitcod` is exact, or says why not."""
    frame = tw.validate("vitcod").to_frame()
    off = frame[frame["predicted"] != frame["measured"]]
    assert len(frame) - len(off) == 8
    assert set(off["case"]) == {"attention, in time"}
    assert all(off["note"])
