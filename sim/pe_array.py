"""The systolic array stepped clock by clock, PE by PE, with real data: the proof behind the closed forms.

A tile C[m, n] (+)= A[m, k] B[k, n] is cut into folds of at most `rows` x `cols`, dealt out round robin
among the equal arrays of a core. Nothing here knows how many cycles a fold or a tile takes: every PE register
is updated once per clock from its neighbours' previous values, and a fold starts when the registers that it
needs are free. The grids themselves are in `tilewright.sim.pe_stationary` and `tilewright.sim.pe_output`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.arch.array import Array
from tilewright.sim.pe_grids import Grid, Job, Padded, Permits
from tilewright.sim.pe_output import OutputStationaryGrid
from tilewright.sim.pe_stationary import StationaryGrid

Matrix = npt.NDArray[Any]


class Tile:
    """A tile on its way through the arrays of a core. The permits are the caller's to give."""

    def __init__(self, product: Padded, transposed: bool) -> None:
        self.weight_ready = False
        """Whether its stationary operand may be shifted in."""
        self.may_stream = False
        """Whether its other operands may follow when the registers are free."""
        self.product = product
        self.permits = Permits()
        self.jobs: list[tuple[Grid, int]] = []
        self._transposed = transposed

    @property
    def shifted(self) -> bool:
        """Whether every array has the stationary operand of its first fold."""
        return all(grid.shifted(number) for grid, number in self.jobs)

    @property
    def streamed(self) -> bool:
        """Whether every array has taken all operands, and could take the next tile's."""
        return all(grid.streamed(number) for grid, number in self.jobs)

    @property
    def done(self) -> bool:
        """Whether every sum has left the arrays."""
        return all(grid.done(number) for grid, number in self.jobs)

    @property
    def result(self) -> Matrix:
        """C[m, n] as far as it has left the arrays."""
        product = self.product.content
        return product.T if self._transposed else product


class PeArray:
    """The arrays of one core, working on one tile after another.

    `queue` takes on a tile, `step` is one clock. A tile's operands enter when it has its permits and all
    arrays have taken those of the tile before. One tile alone, with all permits:

        pe.start(a, b)
        while pe.step():
            yield env.timeout(1)

    after which `result` is its product. Integer operands are multiplied and summed exactly in int64, all
    others in float64.
    """

    def __init__(self, array: Array) -> None:
        self._array = array
        self._grids: list[Grid] = []
        self._dtype: np.dtype[Any] = np.dtype(np.int64)
        self._tiles: deque[Tile] = deque()  # that are not done
        self._latest = Tile(Padded.zeros(0, 0, 1, 1, self._dtype), False)
        self._transposed = array.dataflow == "input_stationary"
        self.cycles = 0
        """Clocks with a tile in work, since `start`."""
        self.mac_cycles = 0
        """Useful multiply-accumulates since `start`, over all PEs; padding at ragged edges is not useful."""
        self.active_cycles = 0
        """Clocks in which at least one PE did a useful multiply-accumulate."""

    def start(self, a: Matrix, b: Matrix, accumulate: Matrix | None = None) -> Tile:
        """Begin C[m, n] = A[m, k] B[k, n], or C = `accumulate` + A B; tiles in work, if any, are dropped.

        Raises ValueError if the shapes do not fit together or one of them is zero.
        """
        _check_shapes(a, b, accumulate)
        self._tiles.clear()
        self._grids = []
        self.cycles = self.mac_cycles = self.active_cycles = 0
        tile = self.queue(a, b, accumulate)
        tile.weight_ready = tile.may_stream = True
        return tile

    def queue(self, a: Matrix, b: Matrix, accumulate: Matrix | None = None) -> Tile:
        """Take on one more tile, without any permit yet.

        Raises ValueError as `start` does, and if floating-point numbers follow on integers in work.
        """
        _check_shapes(a, b, accumulate)
        exact = all(np.issubdtype(x.dtype, np.integer) for x in (a, b, accumulate) if x is not None)
        self._make_grids(np.dtype(np.int64 if exact else np.float64))
        a, b = a.astype(self._dtype), b.astype(self._dtype)
        if self._transposed:  # C^T = B^T A^T on a weight-stationary array, whose weights are A^T
            a, b = b.T, a.T
            accumulate = None if accumulate is None else accumulate.T
        tile = self._latest = self._deal_out(a, b)
        self._tiles.append(tile)
        if accumulate is not None:
            tile.product.values[: a.shape[0], : b.shape[1]] += accumulate.astype(self._dtype)
        return tile

    def step(self) -> bool:
        """One clock. True if there was a tile in work in it, False (and no clock counted) if not."""
        if not self._tiles:
            return False
        self._grant()
        macs = sum(grid.clock() for grid in self._grids)
        self.cycles += 1
        self.mac_cycles += macs
        self.active_cycles += macs > 0
        while self._tiles and self._tiles[0].done:
            self._tiles.popleft()
        return True

    @property
    def moving(self) -> bool:
        """Whether anything is under way in the registers. If not, neither before a clock nor after it, no
        further clock will change anything until a permit is given."""
        return bool(self._tiles) and any(grid.moving for grid in self._grids)

    @property
    def result(self) -> Matrix:
        """C[m, n] of the latest tile as far as it has left the arrays."""
        return self._latest.result

    def _make_grids(self, dtype: np.dtype[Any]) -> None:
        """New grids, if the ones there are do not hold such numbers."""
        if self._grids and self._dtype == np.result_type(self._dtype, dtype):
            return
        if self._tiles:
            raise ValueError("floats can't follow on integers in work")
        make: type[StationaryGrid | OutputStationaryGrid]
        output_stationary = self._array.dataflow == "output_stationary"
        make = OutputStationaryGrid if output_stationary else StationaryGrid
        self._dtype = dtype
        self._grids = [make(self._array, dtype) for _ in range(self._array.count)]

    def _grant(self) -> None:
        """Hand the permits on to the grids. They stream a tile after all have streamed the one before."""
        before = True
        for tile in self._tiles:
            tile.permits.weight_ready = tile.weight_ready
            tile.permits.stream = tile.may_stream and before
            before = before and tile.streamed

    def _deal_out(self, a: Matrix, b: Matrix) -> Tile:
        """The tile, with a job for each array that gets a fold."""
        array, stationary = self._array, self._array.dataflow != "output_stationary"
        (m, k), n = a.shape, b.shape[1]
        streamed = Padded.of(a if stationary else a.T, 1, array.rows)
        columns = Padded.of(b, array.rows if stationary else 1, array.cols)
        product = Padded.zeros(m, n, 1 if stationary else array.rows, array.cols, a.dtype)
        tile = Tile(product, self._transposed)
        folds = _folds(k if stationary else m, n, array)
        for first, grid in enumerate(self._grids):
            own = folds[first :: array.count]
            if len(own):
                job = Job(streamed, columns, product, own, tile.permits)
                tile.jobs.append((grid, grid.queue(job)))
        return tile


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
