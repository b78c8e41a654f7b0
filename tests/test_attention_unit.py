"""The streaming attention unit (docs/attention-unit.md): a closed form, a recurrence, SimPy, and registers
stepped one by one, which know nothing of one another, say the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import tilewright as tw
from tilewright.arch.streaming_unit import UnitSizes
from tilewright.cli import ExitCode, execute
from tilewright.dataflows.attention_jobs import IDEAL, Job, Timing, causal, unmasked
from tilewright.dataflows.attention_region import masked
from tilewright.dataflows.attention_unit import cycles, is_exact, least_cycles, period, visits
from tilewright.description.errors import InputError
from tilewright.sim.attention_beats import Tensors
from tilewright.sim.attention_numbers import Numbers, host_scale
from tilewright.sim.attention_stepped import step_jobs
from tilewright.sim.attention_unit import run_jobs
from tilewright.workloads.attention import sliding_window
from tilewright.workloads.attention.sliding_window import SlidingWindow

STREAMS = ("command", "bitmap", "q", "k", "v", "o")
SHIPPED = UnitSizes(rows=16, cols=16, head_dim=64)
FSA_CYCLES = 5 * 128 + 11
"""Of a 128 x 128 tile with a head of 128 (SystolicAttention, Lin et al., arXiv:2507.11331): 5 N + 11."""


@st.composite
def units(draw: st.DrawFn, largest: int = 20) -> UnitSizes:
    dim = draw(st.integers(4, largest))
    return UnitSizes(
        rows=draw(st.integers(1, 9)),
        cols=draw(st.sampled_from([4, 8, 16])),
        head_dim=dim,
        fifo_depth=draw(st.integers(2, 4)),
        output_columns=dim + draw(st.sampled_from([0, 1, dim, 2 * dim, 50])),
        score_banks=draw(st.sampled_from([2, 4])),
        max_keys=4096,
    )


@st.composite
def jobs(draw: st.DrawFn, sizes: UnitSizes, most: int) -> Job:
    queries, keys = draw(st.integers(1, 3 * sizes.rows)), draw(st.integers(1, most))
    if draw(st.booleans()):
        low, high = -queries, keys
    else:
        low, high = draw(st.integers(-queries - 3, keys)), draw(st.integers(-queries, keys + 3))
    tiles, rows = -(-keys // sizes.cols), -(-queries // sizes.rows)
    bits = st.integers(0, 2**tiles - 1) | st.just(2**tiles - 1)
    bitmap = draw(st.none() | st.lists(bits, min_size=rows, max_size=rows).map(tuple))
    return Job(queries, keys, low, high, bitmap)


@st.composite
def timings(draw: st.DrawFn) -> Timing:
    gaps = {}
    for stream in STREAMS:
        seed, most = draw(st.integers(0, 2**16)), draw(st.sampled_from([0, 0, 1, 5, 60]))
        random = np.random.default_rng(seed)
        pauses = random.integers(0, most + 1, 800) * (random.random(800) < draw(st.floats(0, 0.7)))
        gaps[stream] = tuple(int(n) for n in pauses) if most else ()
    return Timing(gaps)


@given(data=st.data(), sizes=units())
@settings(max_examples=60, deadline=None)
def test_simpy_takes_the_cycles_of_the_recurrence(data: st.DataObject, sizes: UnitSizes) -> None:
    """Whatever the unit, the masks, the bitmaps, the jobs, and the pauses of the six streams: the same ends,
    visits and causes of waiting."""
    work = data.draw(st.lists(jobs(sizes, 90), min_size=1, max_size=3))
    timing = data.draw(timings())
    assert run_jobs(sizes, work, timing) == cycles(sizes, work, timing)


@given(data=st.data(), sizes=units())
@settings(max_examples=60, deadline=None)
def test_skipping_is_exact(data: st.DataObject, sizes: UnitSizes) -> None:
    """With ideal streams, skipping steady states and equal heads changes nothing, in neither model."""
    work = data.draw(st.lists(jobs(sizes, 60 * sizes.cols), min_size=1, max_size=2))
    work = work * data.draw(st.integers(1, 2))
    whole = cycles(sizes, work, fast_forward=False)
    assert cycles(sizes, work) == whole
    assert run_jobs(sizes, work) == whole
    assert run_jobs(sizes, work, fast_forward=False) == whole


@given(data=st.data(), sizes=units(largest=40))
@settings(max_examples=150, deadline=None)
def test_closed_form(data: st.DataObject, sizes: UnitSizes) -> None:
    """It never exceeds the recurrence, and equals it where `is_exact` says so; busy and waits add up."""
    work = data.draw(st.lists(jobs(sizes, 300), min_size=1, max_size=3))
    run = cycles(sizes, work)
    least = least_cycles(sizes, work)
    assert least <= run.cycles
    if all(is_exact(sizes, job) for job in work):
        assert least == run.cycles
    assert run.tiles == sum(visits(sizes, job) for job in work)
    assert run.tiles * sizes.score_beats + sum(run.stalls.values()) == run.cycles
    assert min(run.stalls.values()) >= 0


def test_where_the_closed_form_is_exact() -> None:
    """For the shipped unit on any dense or causal head of at least two tiles, and there a tile takes as long
    as a head is wide; a tile of a head as narrow as the array takes longer than its slowest stage."""
    assert period(SHIPPED) == 64
    for job in (unmasked(1024, 1024), causal(1024, 1024), unmasked(1, 32)):
        assert is_exact(SHIPPED, job)
    narrow = UnitSizes(rows=16, cols=16, head_dim=16)
    job = unmasked(1024, 1024)
    assert not is_exact(narrow, job)
    assert cycles(narrow, [job]).cycles > 64 * 64 * period(narrow) * 1.2


def test_fewest_cycles_by_hand() -> None:
    """One query, one key, on the least unit: the chain of docs/attention-unit.md, added up by hand. Q is
    there in cycle 5 (popped 1 to 4); K beats 5 to 8; exponentials from 8 + 4 + 7 = 19; V beats 26 to 29; the
    last column enters at 29 + 4 + 1 + 6 = 40 and is taken at 42, in the 43rd cycle."""
    sizes = UnitSizes(rows=1, cols=4, head_dim=4, output_columns=4)
    for run in (cycles(sizes, [unmasked(1, 1)]), run_jobs(sizes, [unmasked(1, 1)])):
        assert (run.cycles, run.ends, run.tiles) == (43, (42,), 1)


def test_late_values() -> None:
    """Where a head is narrower than the array, value passes keep C cycles apart also when V comes late: the
    second tile's O leaves, in all three models, 16 cycles (and its 4 columns) after the first one's pass."""
    sizes = UnitSizes(rows=1, cols=16, head_dim=4, output_columns=8, max_keys=64)
    late, job = Timing({"v": (500,)}), unmasked(1, 32)
    run = cycles(sizes, [job], late)
    assert run.ends == (501 + 16 + 3 + 16 + 1 + 8,)
    assert run_jobs(sizes, [job], late) == run
    assert step_jobs(sizes, [job], [tensors(sizes, job, 1e-4, 0)], late)[0] == run


def tensors(sizes: UnitSizes, job: Job, factor: float, seed: int) -> Tensors:
    random, most = np.random.default_rng(seed), 2 ** (sizes.operand_bits - 1)
    q, k, v = (
        random.integers(-most, most, (rows, sizes.head_dim)) for rows in (job.queries, job.keys, job.keys)
    )
    return Tensors(q, k, v, host_scale(sizes, factor))


def seen(sizes: UnitSizes, job: Job) -> NDArray[np.bool_]:
    """Pair by pair, as the page defines it."""
    i, j = np.indices((job.queries, job.keys))
    window = (i + job.low <= j) & (j < i + job.high)
    if job.bitmap is not None:
        tiles = np.array([[bits >> t & 1 for t in range(-(-job.keys // sizes.cols))] for bits in job.bitmap])
        window &= tiles[i // sizes.rows, j // sizes.cols] == 1
    return np.asarray(window)


def exact(sizes: UnitSizes, job: Job, data: Tensors, factor: float) -> NDArray[np.float64]:
    """Softmax attention in float64; nothing for a query that sees nothing."""
    scores = np.where(seen(sizes, job), data.q @ data.k.T * factor, -np.inf)
    top = scores.max(axis=1, keepdims=True)
    weights = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = weights.sum(axis=1, keepdims=True)
    return np.asarray(weights @ data.v / np.where(total > 0, total, 1))


@given(data=st.data(), sizes=units(largest=12))
@settings(max_examples=20, deadline=None)
def test_stepped_registers(data: st.DataObject, sizes: UnitSizes) -> None:
    """Registers stepped on real data take the same cycles, for the same causes, and come out with attention:
    within 4 units of the last place of int8 for 8-bit probabilities."""
    work = data.draw(st.lists(jobs(sizes, 40), min_size=1, max_size=2))
    factor = data.draw(st.sampled_from([5e-5, 1e-4, 3e-4]))
    inputs = [tensors(sizes, job, factor, seed) for seed, job in enumerate(work)]
    timing = data.draw(st.just(IDEAL) | timings())
    run, outs = step_jobs(sizes, work, inputs, timing)
    assert run == cycles(sizes, work, timing)
    for job, each, out in zip(work, inputs, outs, strict=True):
        assert np.abs(out - exact(sizes, job, each, factor)).max() <= 4


@pytest.mark.parametrize(("operand_bits", "probability_bits", "fraction", "most"), [
    (4, 4, 4, 1.6), (8, 8, 6, 1.6), (8, 12, 10, 1.0), (16, 16, 10, 60),
])  # fmt: skip
def test_stepped_widths(operand_bits: int, probability_bits: int, fraction: int, most: float) -> None:
    """Operands of 4, 8 and 16 bits come out as near as their probabilities let them; scores of 2^8 keys with
    one favourite keep a 16-bit result within some 10 of 32768."""
    sizes = UnitSizes(
        rows=4, cols=8, head_dim=16, operand_bits=operand_bits, probability_bits=probability_bits,
        exponent_fraction_bits=fraction, max_keys=256,
    )  # fmt: skip
    job, factor = causal(12, 24), 1.5 / 4**operand_bits
    data = tensors(sizes, job, factor, seed=1)
    _, (out,) = step_jobs(sizes, [job], [data])
    assert np.abs(out - exact(sizes, job, data, factor)).max() <= most


def test_sums_fit_at_their_edge() -> None:
    """As many keys as the unit is built for, all equally likely, with the largest operands there are: sums
    stay within their widths (which the stepped model asserts), and the result is the operand."""
    sizes = UnitSizes(rows=2, cols=4, head_dim=4, max_keys=64)
    job, low = unmasked(2, 64), np.full((64, 4), -128)
    _, (out,) = step_jobs(sizes, [job], [Tensors(low[:2], low, low, host_scale(sizes, 1e-4))])
    assert (out == -128).all()


def test_tables() -> None:
    """The tables are those of the page, worked out anew with whole numbers: powers of two to the nearest, and
    inverses within 17 bits."""
    numbers = Numbers(SHIPPED)
    assert (numbers.powers[0], numbers.powers[32], numbers.powers[63]) == (512, 362, 259)
    assert (numbers.inverses[0], numbers.inverses[32], numbers.inverses[64]) == (2**17 - 1, 87381, 2**16)
    length, inverse = numbers.reciprocal(np.array([0, 2**15, 3 * 2**14]))
    assert length.tolist() == [8, 16, 16]
    assert inverse.tolist() == [0, 2**17 - 1, 87381]


def test_utilisation_of_the_shipped_unit() -> None:
    """A head of 64 over 1,024 tokens keeps both 16 x 16 arrays at useful work for more than 90 % of the
    cycles (aim of the project: 90; FSA's schedule of one array: 39)."""
    result = tw.simulate(tw.load_accelerator("attention-unit"), attention("seq=1024", "heads=1"))
    fsa = 2 * 128**3 / (128**2 * FSA_CYCLES)
    print(f"utilization: {result.utilization:.4f}, FSA {fsa:.4f}")
    assert result.cycles == 262_342
    assert result.utilization == pytest.approx(2 * 1024 * 1024 * 64 / (512 * 262_342))
    assert result.utilization > 0.99 > 0.4 > fsa


def attention(*overrides: str) -> tw.OperatorGraph:
    return tw.load_workload("attention", ["head_dim=64", *overrides])


SMALL = (
    "array.rows=4", "array.cols=8", "attention_unit.head_dim=16", "attention_unit.output_columns=32",
)  # fmt: skip


@pytest.mark.parametrize("overrides", [
    ("seq=20",), ("seq=20", "mask=causal"), ("seq=9", "kv_seq=30", "mask=causal", "head_dim=11"),
    ("seq=8", "heads=4", "kv_heads=2", "batch=2"), ("seq=40", "mask=causal", "window=9"),
    ("seq=12", "kv_seq=30", "window=8"), ("seq=20", "window=100"),
])  # fmt: skip
def test_fidelities_agree(overrides: tuple[str, ...]) -> None:
    """On the machine: `cycle` and `event` are equal in everything but the numbers they carry, `analytic` is
    at most as many cycles; heads narrower than the unit cost as much as full ones; laws hold."""
    machine = tw.load_accelerator("attention-unit", SMALL)
    graph = tw.load_workload("attention", ["heads=2", "head_dim=16", *overrides])
    event, cycle, analytic = (tw.simulate(machine, graph, f) for f in ("event", "cycle", "analytic"))
    same = [{**r.to_dict(), "fidelity": "", "outputs": ""} for r in (event, cycle)]
    assert same[0] == same[1]
    assert analytic.cycles <= event.cycles
    whole = tw.simulate(machine, tw.load_workload("attention", ["heads=2", "head_dim=16", *overrides[:-1]]))
    assert overrides[-1] != "head_dim=11" or whole.cycles == event.cycles
    for result in (event, analytic):
        assert result.units["array"]["busy"] + sum(result.stalls.values()) == result.cycles
        assert result.useful_macs == graph.useful_macs
        assert result.useful_macs <= result.macs <= result.peak_macs_per_cycle * result.cycles
        assert result.energy_j["total"] > 0
        assert result.traffic_bytes["dram"].write >= graph.tensors[graph.outputs[0]].elements


@pytest.mark.parametrize("mask", ["none", "causal"])
def test_a_window_is_a_commands(mask: str) -> None:
    """It is the tightest one around the pairs of the mechanism `sliding_window`, sent without a bitmap, and
    tiles beyond it take no cycles."""
    whole, part = (attention("heads=1", "seq=512", f"mask={mask}", *more) for more in ((), ("window=64",)))
    pairs = next(op.pairs for op in part.operators if op.pairs)
    seen = sliding_window.pattern(512, SlidingWindow(window=64), causal=mask == "causal").dense()
    np.testing.assert_array_equal(pairs.seen(), seen)
    sizes = UnitSizes(16, 16, 64)
    job = masked(sizes, seen)
    assert (job.low, job.high, job.bitmap) == (*pairs.bounds, None)
    assert pairs.count() == seen.sum()
    machine = tw.load_accelerator("attention-unit")
    result = tw.simulate(machine, part)
    assert result.macs == 2 * visits(sizes, job) * 16 * 16 * 64
    assert result.cycles == cycles(sizes, [job]).cycles < 0.5 * tw.simulate(machine, whole).cycles


def test_a_window_wants_a_key_for_each_query() -> None:
    """The last query stands at the last key, so that there must be as many."""
    with pytest.raises(InputError, match=r"`window` needs `kv_seq` \(4\) to be at least `seq` \(8\)"):
        attention("seq=8", "kv_seq=4", "window=2")


def test_cycle_fidelity_computes_attention() -> None:
    """Its output is softmax attention of its inputs, head by head, in the layout of the workload."""
    graph = tw.load_workload("attention", ["heads=4", "kv_heads=2", "head_dim=16", "seq=12", "mask=causal"])
    result = tw.simulate(tw.load_accelerator("attention-unit", SMALL), graph, "cycle")
    query, key, value = (result.outputs[name].astype(float) for name in ("query", "key", "value"))
    out = result.outputs[graph.outputs[0]]
    factor = 12 / 4**8 / 16**0.5
    for head in range(4):
        mine, shared = slice(16 * head, 16 * head + 16), slice(16 * (head // 2), 16 * (head // 2) + 16)
        scores = query[0, :, mine] @ key[0, :, shared].T * factor
        weights = np.exp(np.where(np.tri(12, dtype=bool), scores, -np.inf))
        expected = weights / weights.sum(axis=1, keepdims=True) @ value[0, :, shared]
        assert np.abs(out[0, :, mine] - expected).max() <= 4


def test_masks_become_windows_and_bitmaps() -> None:
    """A mask is a window where it can be, else whole tiles within the tightest window; what is neither is
    refused, with a pair that shows it."""
    sizes = UnitSizes(rows=4, cols=8, head_dim=16)
    i, j = np.indices((16, 32))
    band = (i - 2 <= j) & (j < i + 5)
    assert masked(sizes, band) == Job(16, 32, -2, 5)
    blocks = (i // 4 + j // 8) % 2 == 0
    assert (seen(sizes, masked(sizes, blocks)) == blocks).all()
    assert (seen(sizes, masked(sizes, blocks & band)) == (blocks & band)).all()
    assert masked(sizes, np.zeros((16, 32), dtype=bool)).bitmap == (0, 0, 0, 0)
    spots = np.zeros((16, 32), dtype=bool)
    spots[0, 0] = spots[3, 7] = spots[0, 7] = True
    with pytest.raises(InputError, match="head 3's mask hides key 1 from query 0 within a tile of 4 x 8"):
        masked(sizes, spots, head=3)


def test_mask_file(tmp_path: Path) -> None:
    """Tiles without a pair take no time; each head has its own."""
    masks = np.zeros((2, 32, 32), dtype=bool)
    masks[0, :, :8] = True
    masks[1] = np.indices((32, 32))[0] // 8 == np.indices((32, 32))[1] // 8
    np.save(tmp_path / "masks.npy", masks)
    choice = f"attention={{kind: mask_file, kernel: masked, path: {tmp_path / 'masks.npy'}}}"
    graph = tw.load_workload("attention", ["heads=2", "head_dim=16", "seq=32", choice])
    machine = tw.load_accelerator("attention-unit", SMALL)
    dense = tw.load_workload("attention", ["heads=2", "head_dim=16", "seq=32"])
    event, cycle, full = (
        tw.simulate(machine, graph), tw.simulate(machine, graph, "cycle"), tw.simulate(machine, dense)
    )  # fmt: skip
    assert event.cycles == cycle.cycles
    assert event.units["array"]["busy"] == full.units["array"]["busy"] / 4
    assert event.useful_macs == 2 * 16 * int(masks.sum())


def test_layers_around_it() -> None:
    """In a whole encoder layer the unit runs attention, and the arrays everything else, as without it."""
    graph = tw.load_workload("encoder_block", ["seq=64", "d=128", "heads=2", "ffn=256"])
    machine, plain = (tw.load_accelerator("attention-unit", o) for o in ((), ("attention_unit=null",)))
    rows, others = (
        {row.name: row.cycles for row in tw.simulate(each, graph).operators} for each in (machine, plain)
    )
    (scores,) = (name for name in rows if name.endswith("scores"))
    assert {name: n for name, n in rows.items() if "attention." not in name} == {
        name: n for name, n in others.items() if "attention." not in name
    }
    job = unmasked(64, 64)
    assert rows[scores] == cycles(SHIPPED, [job, job]).cycles


@pytest.mark.parametrize(("overrides", "says"), [
    (["arch.array.cols=12"], "`array.cols` must be a power of two of at least 4 (keys of a tile), not 12"),
    (["arch.array.operand=bf16"], "`array.operand` must be int4, int8, int16, not bf16"),
    (["arch.array.count=1"], "`array.count` must be 2, not 1"),
    (["arch.attention_unit.output_columns=32"], "`output_columns` (32) must be at least `head_dim` (64)"),
    (["arch.attention_unit.head_dim=3"], "attention_unit.head_dim"),
    (["arch.attention_unit.score_banks=3"], "attention_unit.score_banks"),
    (["arch.attention_unit.exponent_fraction_bits=11"], "attention_unit.exponent_fraction_bits"),
    (["arch.attention_unit.fifo_depth=1"], "attention_unit.fifo_depth"),
    (["arch.attention_unit.probability_bits=3"], "attention_unit.probability_bits"),
    (["arch.attention_unit.max_keys=16", "arch.attention_unit.probability_bits=4"],
     "the sum of probabilities has 16 bits and the reciprocal takes 17: raise `probability_bits` (4)"),
    (["arch.array.operand=int16", "arch.attention_unit.probability_bits=16",
      "arch.attention_unit.max_keys=131072"], "the output accumulator would have 49 bits, more than 48"),
    (["arch.cores=2"], "a streaming unit is one core fed by ideal streams"),
    (["workload.head_dim=128"],
     "heads are 128 wide, the unit is built for 64; set arch.attention_unit.head_dim=128"),
    (["workload.seq=70000"], "a head has 70000 queries or keys, the unit is built for 65536; set "
     "arch.attention_unit.max_keys=131072"),
])  # fmt: skip
def test_what_cannot_be_built_is_refused(
    overrides: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the reason, the value, and what to do."""
    assert execute(["run", "attention-unit", "attention", *overrides]) == ExitCode.BAD_INPUT
    assert says in capsys.readouterr().err


def test_extras_on_scores_are_refused() -> None:
    """What the unit does not do is not left out silently."""
    with pytest.raises(InputError, match=r"score_bias' \(add\) is neither; leave it out"):
        tw.simulate(tw.load_accelerator("attention-unit"), tw.load_workload("t5-small"))


def test_cycle_fidelity_steps_the_unit_alone() -> None:
    """And not for long."""
    machine = tw.load_accelerator("attention-unit")
    layer = tw.load_workload("encoder_block", ["seq=16", "d=64", "heads=1", "ffn=64"])
    with pytest.raises(InputError, match="steps the streaming attention unit alone: take the workload `att"):
        tw.simulate(machine, layer, "cycle")
    with pytest.raises(InputError, match=r"takes 3,147,444 cycles, more than the 200,000 that are practical"):
        tw.simulate(machine, attention("seq=1024"), "cycle")


def test_run_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The preset through the command line: cycles, causes and traffic of the streams."""
    line = "run attention-unit attention workload.seq=64 workload.heads=1 --format json"
    assert execute(line.split()) == ExitCode.OK
    said = json.loads(capsys.readouterr().out)
    assert said["cycles"] == 4 * 4 * 64 + 65 + 5 - 5 + 133
    beats = 4 * 64 * 16 + 16 * 2 * 64 * 16  # Q once, K and V for each of 4 Q tiles
    assert said["traffic_bytes"]["dram"] == {"read": beats + 16, "write": 4 * 64 * 16}
