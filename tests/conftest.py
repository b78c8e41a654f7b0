"""Fixtures that several test modules share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tilewright.sim.result import CounterSample, OperatorRow, Result, Slice, Traffic
from tilewright.workloads.pairs import Head

if TYPE_CHECKING:
    from tilewright.workloads.graph import OperatorGraph

with suppress(ModuleNotFoundError):  # the environment of tests/oracles has no property tests
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # machines are noisy
    settings.load_profile("untimed")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # as a script's background jobs do; what the tests start would inherit it, and could not be interrupted
    signal.signal(signal.SIGINT, signal.default_int_handler)

# name, kind, MACs, busy cycles of array, vector and DRAM, shape, bound
_GATHER = ("embeddings.gather", "gather", 0, 0, 0, 500, "64 x 50", "dram")
_LAYER = (
    ("attention.query", "matmul", 160_000, 700, 0, 300, "64 x 50 x 50", "array"),
    ("attention.softmax", "softmax", 0, 0, 900, 100, "64 x 64", "vector"),
    ("ffn.up", "matmul", 640_000, 2600, 0, 2900, "64 x 50 x 200", "dram"),
)
_SOURCES = (
    {
        "constant": "arithmetic.int8.multiply.energy_pj",
        "value": 0.25,
        "unit": "pJ",
        "node_nm": 28.0,
        "scaled_from": "45 nm",
        "source": "A & B, table <1>",
        "confidence": "high",
    },
    {
        "constant": "dram.ddr4.read_pj_per_bit",
        "value": 4.0,
        "unit": "pJ/bit",
        "node_nm": None,
        "scaled_from": "",
        "source": "my-tech.yaml: <own> measurement",
        "confidence": "user",
    },
)
_COUNTERS = (CounterSample("scratchpad bytes", 0, 0), CounterSample("scratchpad bytes", 150, 4096))


def make_result(layers: int = 12, *, traced: bool = False) -> Result:
    """A made-up run of a gather and `layers` layers; every law of a result's bookkeeping holds."""
    rows = _rows(layers)
    now = rows[-1].end
    units = {unit: _states(sum(_busy(row)[unit] for row in rows), now) for unit in _busy(rows[0])}
    parts = ("array", "dram", "leakage")
    return Result(
        accelerator="toy",
        workload="toy-bert",
        fidelity="event",
        cycles=now,
        clock_mhz=500.0,
        parameters=1_234_567,
        macs=sum(row.macs for row in rows),
        useful_macs=sum(row.useful_macs for row in rows),
        peak_memory_bytes=3 * 2**20,
        peak_macs_per_cycle=256,
        units=units,
        stalls={state: n for state, n in units["array"].items() if state != "busy"},
        traffic_bytes={
            "dram": Traffic(sum(r.dram_read_bytes for r in rows), sum(r.dram_write_bytes for r in rows)),
            "scratchpad": Traffic(3_000_000, 1_000_000),
        },
        operators=rows,
        provenance={"version": "0.1.0", "config_hash": "abc123", "seed": 0, "accelerator": {"name": "<toy>"}},
        peak_dram_bytes_per_cycle=16.0,
        energy_j=_with_total({part: 1e-12 * sum(row.energy_pj[part] for row in rows) for part in parts}),
        area_mm2=_with_total({"array": 0.5, "scratchpad": 1.5}),
        sources=_SOURCES,
        slices=_slices(rows) if traced else (),
        counters=_COUNTERS if traced else (),
    )


def _rows(layers: int) -> tuple[OperatorRow, ...]:
    """One operator after another, each begun 50 cycles before the last one ends."""
    repeated = [(f"layers.{i}.{each[0]}", *each[1:]) for i in range(layers) for each in _LAYER]
    rows: list[OperatorRow] = []
    now = 0
    for name, kind, macs, array, vector, dram, shape, bound in (_GATHER, *repeated):
        cycles = max(array, vector, dram) + 100
        rows.append(
            OperatorRow(
                name=name, kind=kind, start=max(0, now - 50), end=now + cycles, cycles=cycles,
                macs=macs, useful_macs=macs,
                array_busy_cycles=array, vector_busy_cycles=vector, dram_busy_cycles=dram,
                dram_read_bytes=dram * 12, dram_write_bytes=dram * 4, bound=bound, shape=shape,
                energy_pj=_with_total({"array": macs / 2, "dram": dram * 512.0, "leakage": cycles * 4.0}),
            )
        )  # fmt: skip
        now += cycles
    return tuple(rows)


def _busy(row: OperatorRow) -> dict[str, int]:
    return {"array": row.array_busy_cycles, "vector": row.vector_busy_cycles, "dram": row.dram_busy_cycles}


def _slices(rows: tuple[OperatorRow, ...]) -> tuple[Slice, ...]:
    """What each unit does for each operator, from 50 cycles after the operator before has ended."""
    begun = ((row, row.end - row.cycles + 50) for row in rows)
    return tuple(
        Slice(unit, row.name, at, at + n) for row, at in begun for unit, n in _busy(row).items() if n
    )


def _with_total(parts: dict[str, float]) -> dict[str, float]:
    return {"total": sum(parts.values()), **parts}


def _states(busy: int, total: int) -> dict[str, int]:
    waiting = (total - busy) * 3 // 4
    return {"busy": busy, "non_matrix": total - busy - waiting, "weight_stall": waiting}


@pytest.fixture
def result() -> Result:
    """The made-up run of 12 layers, without a trace."""
    return make_result()


@pytest.fixture
def result_of() -> Callable[..., Result]:
    """`make_result(layers, traced=…)`."""
    return make_result


@pytest.fixture(scope="session")
def random_head() -> Callable[..., Head]:
    """`random_head(seed, queries, keys, width, causal=…, scale=…)`: normally distributed, queries times
    `scale`; a causal one's last query sees all keys."""

    def make(
        seed: int, queries: int, keys: int, width: int, *, causal: bool = False, scale: float = 1.0
    ) -> Head:
        rng = np.random.default_rng(seed)
        query, key = scale * rng.standard_normal((queries, width)), rng.standard_normal((keys, width))
        seen = np.tri(queries, keys, keys - queries, dtype=bool) if causal else np.ones((queries, keys), bool)
        return Head(query, key, seen)

    return make


STUDIED = """
accelerator: gemmini-default
workloads:
  - {workload: encoder_block, name: short, overrides: [workload.seq=16, &small workload.d=64, workload.heads=2, workload.ffn=128]}
  - {workload: encoder_block, name: long, overrides: [workload.seq=64, *small, workload.heads=2, workload.ffn=128], weight: 2}
parameters:
  arch.array.rows: {values: [4, 8, 16]}
  arch.array.cols: {values: [8, 16]}
  arch.clock_mhz: {values: [500, 1000]}
  arch.array.dataflow: {values: [weight_stationary, output_stationary]}
constraints: [area_mm2.total < 0.42]
objectives: [{name: latency_s, goal: minimize}, {name: area_mm2.total, goal: minimize}]
fidelity: analytic
"""  # noqa: E501


def make_study(folder: Path) -> Path:
    """A finished grid of 24 points over two workloads, four of which break the constraint."""
    from tilewright.explore.evaluation.evaluate import evaluate_chunk
    from tilewright.explore.evaluation.points import grid, keys, model_version
    from tilewright.explore.space.load import definition_text, load_space
    from tilewright.explore.sweep.store import SpaceRecord, Store

    file = folder / "small.yaml"
    file.write_text(STUDIED)
    loaded = load_space(file)
    points = list(grid(loaded.axes))
    key = keys(loaded.digest, "analytic")
    found = evaluate_chunk(loaded.base, points, "analytic", model_version())
    with Store(folder, create=True) as store:
        record = SpaceRecord(
            loaded.digest, definition_text(loaded), str(file), str(folder), "base", model_version()
        )
        number, _ = store.use(record)
        texts = [point.canonical for point in points]
        rows = enumerate(zip(texts, found, strict=True), 1)
        store.put(number, "analytic", [(key(text), n, text, each) for n, (text, each) in rows])
    return folder


@pytest.fixture(scope="session")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_study`; tests leave it as it is."""
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def space(tmp_path: Path) -> Path:
    """The file `space.yaml` in the test's folder, with the space of `tests.sweeps`."""
    from tests.sweeps import SPACE

    path = tmp_path / "space.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture
def onnx_graph(tmp_path: Path) -> Callable[..., OperatorGraph]:
    """The graph of a file with these nodes, inputs by their axes, outputs and arrays."""
    import onnx

    from tests.onnx_files import Axes, write
    from tilewright.workloads.load import load_workload

    def read(
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, Axes],
        outputs: Sequence[str] = ("y",),
        *overrides: str,
        **arrays: np.ndarray,
    ) -> OperatorGraph:
        return load_workload(write(tmp_path / "m.onnx", nodes, inputs, outputs, arrays), overrides)

    return read
