"""Closed forms of one tile against counted runs and against the array stepped PE by PE."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.arrays import SCALE_SIM, arrays
from tilewright.arch.array import Array
from tilewright.dataflows.program import Tick
from tilewright.dataflows.schedule import region_cycles
from tilewright.dataflows.systolic import tile_cycles
from tilewright.sim.pe_array import PeArray

extents = st.integers(1, 14)


@pytest.mark.parametrize("row", SCALE_SIM, ids=lambda row: "-".join(list(row.values())[:6]))
def test_bare_array_takes_the_published_cycles(row: dict[str, str]) -> None:
    """The bare machine's closed form is what SCALE-Sim v3 counts, ragged shapes included."""
    array = Array.model_validate({key: row[f"arch.array.{key}"] for key in ("rows", "cols", "dataflow")})

    cycles = tile_cycles(array, *(int(row[f"workload.{key}"]) for key in "mkn"))

    assert cycles.total == int(row["measured"])


@given(array=arrays, m=extents, k=extents, n=extents)
@settings(max_examples=150, deadline=None)
def test_closed_form_equals_the_stepped_array(array: Array, m: int, k: int, n: int) -> None:
    """Every form of overlap takes the cycles that stepping every PE takes."""
    stepped = PeArray(array)
    stepped.start(np.ones((m, k), dtype=np.int64), np.ones((k, n), dtype=np.int64))
    while stepped.step():
        pass

    cycles = tile_cycles(array, m, k, n)

    assert cycles.total == stepped.cycles
    assert cycles.total == cycles.streaming + cycles.shift + cycles.skew
    assert cycles.stream == cycles.streaming + cycles.stream_shift + cycles.stream_skew
    assert min(cycles.streaming, cycles.shift, cycles.skew, cycles.stream_shift) >= 0


@given(array=arrays, tiles=st.lists(st.tuples(extents, extents, extents), min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_recurrence_equals_the_stepped_array_tile_behind_tile(
    array: Array, tiles: list[tuple[int, int, int]]
) -> None:
    """A run of tiles whose operands are all there takes what stepping takes, and overlap only gains."""
    random = np.random.default_rng(len(tiles))
    operands = [(random.integers(-8, 8, (m, k)), random.integers(-8, 8, (k, n))) for m, k, n in tiles]
    stepped = PeArray(array)
    queued = [stepped.queue(a, b) for a, b in operands]
    for tile in queued:
        tile.weight_ready = tile.may_stream = True
    while stepped.step():
        pass

    parts = [tile_cycles(array, *tile) for tile in tiles]
    program = tuple(
        Tick(
            array=cycles.stream,
            array_preload=cycles.preload,
            array_swap=cycles.swap,
            array_shadow=cycles.shadow,
            array_latency=cycles.latency,
        )
        for cycles in parts
    )

    assert region_cycles(program, 0, 0, (0, 0)) == stepped.cycles
    for tile, (a, b) in zip(queued, operands, strict=True):
        assert np.array_equal(tile.result, a @ b)
    assert stepped.cycles <= sum(cycles.total for cycles in parts)


@given(array=arrays, shape=st.lists(st.tuples(extents, extents, extents), min_size=1, max_size=5))
def test_closed_form_is_the_same_on_columns_of_candidates(
    array: Array, shape: list[tuple[int, int, int]]
) -> None:
    """Numpy columns give what single numbers give."""
    m, k, n = (np.array(column, dtype=np.int64) for column in zip(*shape, strict=True))

    together = tile_cycles(array, m, k, n)

    assert list(together.total) == [tile_cycles(array, *each).total for each in shape]
    assert list(together.shift) == [tile_cycles(array, *each).shift for each in shape]
