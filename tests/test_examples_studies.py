"""The shipped studies say what examples/README.md says of them.

Some are run with fewer values on an axis than the files have, to be quick; the tests say so. The files' own
fronts stand in examples/README.md, which test_documents keeps true.
"""

from pathlib import Path

import pandas as pd
import pytest

import tilewright as tw
from tilewright.explore.space.load import load_space

STUDIES = Path(__file__).resolve().parent.parent / "examples" / "studies"
SPACES = sorted(file.stem for file in STUDIES.glob("*.yaml") if file.stem != "decode_npu")


@pytest.mark.parametrize("name", SPACES)
def test_every_study_is_a_valid_space_and_told_of(name: str) -> None:
    """Each file loads with no mistake, has points, and has its place in the page of examples."""
    assert load_space(STUDIES / f"{name}.yaml").size >= 10
    assert f"studies/{name}.yaml" in (STUDIES.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> tw.Study:
    """Arrays of 16 rows or 32, 16 columns: 12 of the points, all of them simulated."""
    overrides = ["arch.array.rows=16,32", "arch.array.cols=16"]
    return tw.sweep(STUDIES / "edge-bert.yaml", tmp_path_factory.mktemp("edge"), overrides, jobs=1)


def test_edge_front_keeps_to_the_power_limit(edge: tw.Study) -> None:
    """Each point of the front draws less than 0.25 W; faster ones were simulated that draw more."""
    frame, front = edge.to_frame(), edge.front()
    simulated = frame[frame.fidelity == "event"]
    assert len(front) > 0
    assert (front["energy_j.total"] / front["latency_s"] < 0.25).all()
    refused = simulated[~simulated.feasible.astype(bool)]
    assert refused["latency_s"].min() < front["latency_s"].min()
    assert (refused["average_power_w"] >= 0.25).all()


def test_edge_dram_is_as_fast_at_any_clock(edge: tw.Study) -> None:
    """The first constraint pairs each clock with the bytes per cycle that are 6.4 GB/s."""
    frame = edge.to_frame()
    assert set(frame["arch.clock_mhz"]) == {250, 500, 1000}
    assert set(frame["arch.clock_mhz"] * frame["arch.dram.bytes_per_cycle"]) == {6400}


def test_edge_a_larger_buffer_pays_for_its_power(edge: tw.Study) -> None:
    """Of simulated machines that differ in the buffer alone, that with more saves DRAM traffic, time and
    energy."""
    frame = edge.to_frame()
    table = frame[frame.fidelity == "event"].pivot_table(
        index=["arch.array.rows", "arch.clock_mhz"],
        columns="arch.buffers.shram.capacity_bytes",
        values=["latency_s", "energy_j.total", "traffic_bytes.dram.read"],
    )
    pairs = table.dropna()
    assert len(pairs) > 0
    for figure in ("latency_s", "energy_j.total", "traffic_bytes.dram.read"):
        assert (pairs[figure][262144] < pairs[figure][65536]).all(), figure


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Latencies of five of the mechanisms, by kind, a column per length; conditional parameters kept."""
    kinds = "workload.attention.kind=dense,flash,longformer,linformer,reformer"
    out = tmp_path_factory.mktemp("attention")
    return tw.sweep(STUDIES / "long-context.yaml", out, [kinds], jobs=1).to_frame()


def latency(frame: pd.DataFrame, kind: str, length: str, **chosen: int) -> float:
    rows = frame[frame["workload.attention.kind"] == kind]
    for name, value in chosen.items():
        rows = rows[rows[f"workload.attention.{name}"] == value]
    assert len(rows) == 1
    return float(rows.iloc[0][f"{length}:latency_s"])


def test_parameters_vary_where_their_mechanism_is(attention: pd.DataFrame) -> None:
    """A window belongs to Longformer, rounds to Reformer: elsewhere the key is empty, and adds no points."""
    windows = attention.dropna(subset=["workload.attention.window"])
    assert set(windows["workload.attention.kind"]) == {"longformer"}
    assert attention["workload.attention.kind"].value_counts().to_dict() == {
        "dense": 1, "flash": 1, "longformer": 2, "linformer": 2, "reformer": 2,
    }  # fmt: skip


def test_quadratic_attention_grows_faster_than_the_others(attention: pd.DataFrame) -> None:
    """From 4 K to 32 K tokens, eight times as many: exact attention, whose scores grow 64-fold, takes
    more than 30 times as long; windows and projections 8 times; Reformer, which sorts, a little more."""
    growth = {
        kind: latency(attention, kind, "n32k", **own) / latency(attention, kind, "n4k", **own)
        for kind, own in {
            "dense": {}, "flash": {}, "longformer": {"window": 512}, "linformer": {"k": 256},
            "reformer": {"rounds": 4},
        }.items()
    }  # fmt: skip
    assert 30 < growth["flash"] < 64
    assert 30 < growth["dense"] < 64
    for kind in ("longformer", "linformer"):
        assert growth[kind] == pytest.approx(8, rel=0.05), kind
    assert 8 < growth["reformer"] < 9


def test_who_wins_depends_on_the_length(attention: pd.DataFrame) -> None:
    """At 512 tokens fused exact attention is faster than Longformer and Reformer; from 4 K on it is
    slower than everything but its own unfused form. Linformer, which does the least, is always first."""
    for length in ("n512", "n4k", "n32k"):
        exact = latency(attention, "flash", length)
        others = [
            latency(attention, "longformer", length, window=512),
            latency(attention, "reformer", length, rounds=2),
        ]
        assert all((each > exact) == (length == "n512") for each in others), length
        assert latency(attention, "dense", length) > exact
        best = attention.sort_values(f"{length}:latency_s").iloc[0]
        assert (best["workload.attention.kind"], best["workload.attention.k"]) == ("linformer", 128)


@pytest.fixture(scope="module")
def decode(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """64 columns alone; every point simulated, as no bound says how much a buffer helps."""
    out = tmp_path_factory.mktemp("decode")
    file = out / "llama-decode.yaml"
    text = (STUDIES / "llama-decode.yaml").read_text(encoding="utf-8")
    text = text.replace("decode_npu.yaml", str(STUDIES / "decode_npu.yaml"))
    file.write_text(text.replace("fidelity: ladder", "fidelity: event"), encoding="utf-8")
    return tw.sweep(file, out / "study", ["arch.array.cols=64"], jobs=1).to_frame()


def test_one_process_numbers_its_rows_in_the_order_of_the_grid(decode: pd.DataFrame) -> None:
    """The last parameter varies fastest, whatever was finished when."""
    assert list(decode["point"]) == list(range(1, len(decode) + 1))
    axes = ["arch.dram.bytes_per_cycle", "arch.buffers.weights.capacity_bytes"]
    chosen = list(decode[axes].itertuples(index=False, name=None))
    assert chosen == sorted(chosen)


def test_decoding_is_reading_the_weights(decode: pd.DataFrame) -> None:
    """With little bandwidth a token takes what its bytes take, to 1 %: the weights, two bytes each, and the
    cache. No point is faster than that."""
    moved = decode["traffic_bytes.dram.read"] + decode["traffic_bytes.dram.write"]
    floor_s = moved / (decode["arch.dram.bytes_per_cycle"] * 1e9)
    parameters = tw.load_workload("llama-3.2-1b").parameters
    assert moved.iloc[0] == pytest.approx(2 * parameters, rel=0.03)
    assert (decode["latency_s"] >= floor_s).all()
    slow = decode["arch.dram.bytes_per_cycle"] <= 50
    assert (decode["latency_s"] < 1.01 * floor_s)[slow].all()


def test_bandwidth_helps_until_the_array_can_take_no_more(decode: pd.DataFrame) -> None:
    """Latency falls with bandwidth up to 128 GB/s, which is 64 columns times two bytes a cycle; from
    200 GB/s to 400 nothing is gained, and the latency is that of 128 GB/s, to 5 %."""
    large = decode[decode["arch.buffers.weights.capacity_bytes"] == 262144]
    by_bandwidth = large.set_index("arch.dram.bytes_per_cycle")["latency_s"].sort_index()
    assert by_bandwidth.is_monotonic_decreasing
    assert by_bandwidth[50] / by_bandwidth[100] > 1.9
    assert by_bandwidth[200] == pytest.approx(by_bandwidth[400], rel=0.01)
    array_s = large["traffic_bytes.dram.read"].iloc[0] / (64 * 2 * 1e9)
    assert by_bandwidth[400] == pytest.approx(array_s, rel=0.05)


def test_a_larger_weight_buffer_helps_only_fast_dram(decode: pd.DataFrame) -> None:
    """Weights are used once: what a buffer brings is reading ahead, nothing to speak of at 25 and 50 GB/s,
    more than 1 % at 100 and 200."""
    table = decode.pivot_table(
        index="arch.dram.bytes_per_cycle", columns="arch.buffers.weights.capacity_bytes", values="latency_s"
    )
    gain = table[65536] / table[262144]
    assert (gain[[25, 50]] < 1.002).all()
    assert (gain[[100, 200]] > 1.01).all()
    assert decode["traffic_bytes.dram.read"].nunique() == 1


@pytest.fixture(scope="module")
def codesign(tmp_path_factory: pytest.TempPathFactory) -> tw.Study:
    """The networks of about 6 and 22 million parameters, on arrays of 16 x 32, all of them simulated."""
    networks = "autoformer-tiny,deit-tiny,vit-ti16,vit-s16"
    overrides = ["arch.buffers.shram.capacity_bytes=131072", "arch.array.rows=16", "arch.array.cols=32",
                 f"workload={networks}"]  # fmt: skip
    return tw.sweep(STUDIES / "codesign.yaml", tmp_path_factory.mktemp("codesign"), overrides, jobs=1)


def test_codesign_carries_what_was_published(codesign: tw.Study) -> None:
    """Each network has the accuracy of its source, and the machines are within the area."""
    front = codesign.front()
    accuracy = dict(zip(front["workload"], front["quality.ImageNet-1K"], strict=True))
    assert accuracy == {
        "vit-ti16": 72.2, "deit-tiny": 74.538, "autoformer-tiny": 74.7, "vit-s16": 79.9,
    }  # fmt: skip
    assert (front["area_mm2.total"] < 0.3).all()


def test_codesign_accuracy_has_its_price(codesign: tw.Study) -> None:
    """DeiT-Ti with distillation is faster and takes less energy than AutoFormer-T, which is better by less
    than 0.2 points; distillation itself costs 3 % of time at most."""
    rows = codesign.front().set_index("workload")
    price = ["latency_s", "energy_j.total"]
    assert (rows.loc["deit-tiny", price] < rows.loc["autoformer-tiny", price]).all()
    assert (rows.loc["vit-ti16", price] < rows.loc["deit-tiny", price]).all()
    times = rows["latency_s"]
    assert times["deit-tiny"] < 1.03 * times["vit-ti16"]
    gain = rows["quality.ImageNet-1K"]
    assert 0 < gain["autoformer-tiny"] - gain["deit-tiny"] < 0.2


def test_the_better_of_two_large_networks_does_less(tmp_path: Path) -> None:
    """AutoFormer-B is better than DeiT-B without distillation (which is ViT-B/16), and on every machine its
    bounds on time and energy are lower. (At `analytic`.)"""
    text = (STUDIES / "codesign.yaml").read_text(encoding="utf-8")
    file = tmp_path / "codesign.yaml"
    file.write_text(text.replace("fidelity: ladder", "fidelity: analytic"), encoding="utf-8")
    frame = tw.sweep(file, tmp_path / "study", ["workload=autoformer-base,vit-b16"], jobs=1).to_frame()
    frame = frame[frame["status"] == "done"]
    searched, uniform = (frame[frame["workload"] == name] for name in ("autoformer-base", "vit-b16"))
    assert len(searched) == len(uniform) > 10
    for figure in ("latency_s", "energy_j.total"):
        assert (searched[figure].to_numpy() < uniform[figure].to_numpy()).all(), figure
    assert set(searched["quality.ImageNet-1K"]) == {82.4}
    assert set(uniform["quality.ImageNet-1K"]) == {81.8}


def test_translation_gains_less_than_on_the_machine_it_was_cut_for(tmp_path: Path) -> None:
    """Every network of HAT is on the front, best BLEU slowest; from the first to the last a Raspberry Pi
    takes 1.97 times as long, an array less than 1.8 times. (16 rows alone.)"""
    study = tw.sweep(STUDIES / "codesign-translation.yaml", tmp_path, ["arch.array.rows=16"], jobs=1)
    front = study.front()
    assert list(front["quality.WMT14 En-De"]) == [25.8, 26.9, 27.8, 28.2, 28.4]
    assert (front["peak_power_w.total"] < 0.25).all()
    times = front["latency_s"]
    assert 1.3 < times.iloc[-1] / times.iloc[0] < 1.8 < 6.9 / 3.5


def test_sizes_that_nobody_published_are_on_no_front_of_quality(tmp_path: Path) -> None:
    """A network that was changed is evaluated, has no accuracy, and is left out where one is asked for."""
    overrides = ["arch.array.rows=16", "arch.array.cols=16", "arch.buffers.shram.capacity_bytes=262144",
                 "workload=autoformer-small", "workload.d=320"]  # fmt: skip
    study = tw.sweep(STUDIES / "codesign.yaml", tmp_path, overrides, jobs=1)
    frame = study.to_frame()
    assert set(frame["status"]) == {"done"}
    assert "quality.ImageNet-1K" not in frame
    assert study.front().empty
