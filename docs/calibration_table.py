"""The tables of docs/calibration.md: how much the three calibrated figures of `tpu-v3-core` carry.

python -m docs.calibration_table

The figures are fitted anew, to least squares of relative errors, with one measurement left out at a time.
Cycles are taken as linear in the figures, which they are but for changes of tiling.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import tilewright as tw
from tilewright.arch.accelerator import Accelerator
from tilewright.arch.load import load_accelerator
from tilewright.explore.validation.load import ResolvedCase, load_suite

Floats = NDArray[np.float64]

FIGURES = ("dram.latency_cycles", "vector.cycles.row_sum", "vector.cycles.exp")
STEPS = (100.0, 2.0, 1.0)
"""By how much each is moved to see what it does; whole cycles where these are counted."""
NOT_CALIBRATED_ON = "attention"


@dataclass(frozen=True)
class Left:
    """A measurement left out, and what the others say of it."""

    case: str
    measured: float
    predicted: float
    """By the preset."""
    left_out: float
    """With figures fitted to the other measurements."""
    figures: tuple[float, ...]

    def error(self, value: float) -> float:
        """In per cent."""
        return 100 * (value / self.measured - 1)


def cycles(case: ResolvedCase, accelerator: Accelerator) -> float:
    """Of a case of the suite, on another accelerator."""
    overrides = [text.removeprefix("workload.") for text in case.overrides]
    return tw.simulate(accelerator, tw.load_workload(case.workload or "", overrides)).cycles


def fitted(at: Floats, slopes: Floats, measured: Floats, start: Floats, rows: Sequence[int]) -> Floats:
    """The figures of least squares of relative errors over some of the cases."""
    chosen = list(rows)
    weights = 1 / measured[chosen]
    moved, *_ = np.linalg.lstsq(
        slopes[chosen] * weights[:, None], (measured - at)[chosen] * weights, rcond=None
    )
    return np.asarray(start + moved, dtype=np.float64)


def leave_one_out() -> list[Left]:
    """For each case of the suite."""
    cases = load_suite("tpu-v3-operators").cases
    preset = load_accelerator("tpu-v3-core")
    costs = preset.vector.cycles
    assert preset.dram.kind == "flat"
    assert costs.row_sum is not None
    start = np.array([preset.dram.latency_cycles, costs.row_sum, costs.exp], dtype=np.float64)
    measured = np.array([case.measured for case in cases])
    at = np.array([cycles(case, preset) for case in cases])
    slopes = np.zeros((len(cases), len(FIGURES)))
    for column, (key, step) in enumerate(zip(FIGURES, STEPS, strict=True)):
        moved = load_accelerator("tpu-v3-core", [f"{key}={start[column] + step:g}"])
        slopes[:, column] = (np.array([cycles(case, moved) for case in cases]) - at) / step
    usable = [i for i, case in enumerate(cases) if case.workload != NOT_CALIBRATED_ON]
    found = []
    for number, case in enumerate(cases):
        figures = fitted(at, slopes, measured, start, [i for i in usable if i != number])
        predicted = float(at[number] + slopes[number] @ (figures - start))
        assert not isinstance(case.measured, str), "this suite's figures were measured by others"
        found.append(Left(case.name, case.measured, float(at[number]), predicted, tuple(figures)))
    return found


def main() -> int:
    """Print the table."""
    rows = leave_one_out()
    width = max(len(row.case) for row in rows)
    heads = ("measured", "preset", "error", "left out", "error", "latency", "row_sum", "exp")
    print(f"{'case':{width}}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        values = [f"{row.measured:,.0f}", f"{row.predicted:,.0f}", f"{row.error(row.predicted):+.1f} %"]
        values += [f"{row.left_out:,.0f}", f"{row.error(row.left_out):+.1f} %"]
        values += [f"{row.figures[0]:,.0f}", *(f"{figure:.1f}" for figure in row.figures[1:])]
        print(f"{row.case:{width}}" + "".join(f"{value:>10}" for value in values))
    means = [
        sum(abs(row.error(value)) for row, value in zip(rows, values, strict=True)) / len(rows)
        for values in ([row.predicted for row in rows], [row.left_out for row in rows])
    ]
    print(f"{'mean absolute error':{width}}{means[0]:>28.1f} %{means[1]:>18.1f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
