"""What the tests of systolic arrays share: small arrays, and the published cycles of bare ones."""

from __future__ import annotations

import csv
from pathlib import Path

from hypothesis import strategies as st

from tilewright.arch.array import Array, Dataflow

# SCALE-Sim v3 (PyPI scalesim 3.0.0, MIT licence), runs of single GEMMs; it reports one cycle less, the last
# index instead of the count.
_RUNS = Path(__file__).parent.parent / "explore" / "suites" / "bare-arrays.csv"
SCALE_SIM = list(csv.DictReader(_RUNS.read_text().splitlines()))

DATAFLOWS: tuple[Dataflow, ...] = ("weight_stationary", "input_stationary", "output_stationary")

arrays = st.builds(
    Array,
    rows=st.integers(1, 6),
    cols=st.integers(1, 6),
    count=st.integers(1, 3),
    dataflow=st.sampled_from(DATAFLOWS),
    fold_overlap=st.booleans(),
    stationary_buffers=st.sampled_from([1, 2]),
    output_drain=st.sampled_from(["ideal", "exposed", "shadow"]),
)
