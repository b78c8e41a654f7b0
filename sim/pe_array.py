"""The systolic array stepped clock by clock, PE by PE, with real data: the proof behind the closed forms.

A tile C[m, n] (+)= A[m, k] B[k, n] is cut into folds of at most `rows` x `cols`, dealt out round robin
among the equal arrays of a core. Nothing here knows how many cycles a fold takes: every PE register is
updated once per clock from its neighbours' previous values, and a fold starts when the registers that it
needs are free. The grids themselves are in `tilewright.sim.pe_grids`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.arch.accelerator import Array
from tilewright.sim.pe_grids import Grid, OutputStationaryGrid, Padded, StationaryGrid

Matrix = npt.NDArray[Any]


class PeArray:
    """The arrays of one core, working on one tile at a time.

    `start` hands over a tile, `step` is one clock, `result` the product once `step` has returned False:

        pe.start(a, b)
        while pe.step():
            yield env.timeout(1)

    Integer operands are multiplied and summed exactly in int64, all others in float64.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self._grids: list[Grid] = []
        self._product = Padded.zeros(0, 0, 1, 1, np.dtype(np.int64))
        self._transposed = array.dataflow == "input_stationary"
        self.cycles = 0
        """Clocks since `start`."""
        self.mac_cycles = 0
        """Useful multiply-accumulates since `start`, over all PEs; padding at ragged edges is not useful."""
        self.active_cycles = 0
        """Clocks in which at least one PE did a useful multiply-accumulate."""

    def start(self, a: Matrix, b: Matrix, accumulate: Matrix | None = None) -> None:
        """Begin C[m, n] = A[m, k] B[k, n], or C = `accumulate` + A B; the tile in work, if any, is dropped.

        Raises ValueError if the shapes do not fit together or one of them is zero.
        """
        _check_shapes(a, b, accumulate)
        exact = all(np.issubdtype(x.dtype, np.integer) for x in (a, b, accumulate) if x is not None)
        dtype: np.dtype[Any] = np.dtype(np.int64 if exact else np.float64)
        a, b = a.astype(dtype), b.astype(dtype)
        if self._transposed:  # C^T = B^T A^T on a weight-stationary array, whose weights are A^T
            a, b = b.T, a.T
            accumulate = None if accumulate is None else accumulate.T
        self.cycles = self.mac_cycles = self.active_cycles = 0
        self._product, self._grids = self._deal_out(a, b)
        if accumulate is not None:
            self._product.values[: a.shape[0], : b.shape[1]] += accumulate.astype(dtype)

    def step(self) -> bool:
        """One clock. True if the arrays were at work in it, False (and no clock counted) if all were done."""
        macs = 0
        busy = False
        for grid in self._grids:
            if not grid.done:
                busy = True
                macs += grid.clock()
        if busy:
            self.cycles += 1
            self.mac_cycles += macs
            self.active_cycles += macs > 0
        return busy

    @property
    def result(self) -> Matrix:
        """C[m, n] as far as it has left the arrays."""
        product = self._product.content
        return product.T if self._transposed else product

    def _deal_out(self, a: Matrix, b: Matrix) -> tuple[Padded, list[Grid]]:
        """The product's accumulators, and a grid for each array that gets a fold."""
        array, stationary = self._array, self._array.dataflow != "output_stationary"
        (m, k), n = a.shape, b.shape[1]
        streamed = Padded.of(a if stationary else a.T, 1, array.rows)
        columns = Padded.of(b, array.rows if stationary else 1, array.cols)
        product = Padded.zeros(m, n, 1 if stationary else array.rows, array.cols, a.dtype)
        folds = _folds(k if stationary else m, n, array)
        make: type[StationaryGrid | OutputStationaryGrid]
        make = StationaryGrid if stationary else OutputStationaryGrid
        dealt = (folds[first :: array.count] for first in range(array.count))
        return product, [make(array, streamed, columns, product, own) for own in dealt if len(own)]


def _folds(height: int, width: int, array: Array) -> npt.NDArray[np.int64]:
    """(row block, column block) of all folds of a height x width operand, down the columns first."""
    row_blocks, col_blocks = -(-height // array.rows), -(-width // array.cols)
    grid = np.indices((col_blocks, row_blocks)).reshape(2, -1)
    return np.stack([grid[1], grid[0]], axis=1).astype(np.int64)


def _check_shapes(a: Matrix, b: Matrix, accumulate: Matrix | None) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[0] or 0 in (*a.shape, *b.shape):
        raise ValueError(f"a tile is A[m, k] times B[k, n], none of them zero; got {a.shape} times {b.shape}")
    if accumulate is not None and accumulate.shape != (a.shape[0], b.shape[1]):
        expected = (a.shape[0], b.shape[1])
        raise ValueError(f"the sums to accumulate onto must be {expected}, not {accumulate.shape}")
