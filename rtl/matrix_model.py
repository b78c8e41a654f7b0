"""The matrix unit's numbers, bit for bit, and its streams' beats (docs/matrix-unit.md)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tilewright.arch.matrix_unit import MatrixJob, MatrixUnit

Matrix = NDArray[np.int64]


def model(x: Matrix, w: Matrix) -> Matrix:
    """y: exact sums, for the accumulators hold them."""
    return x @ w


def x_beats(unit: MatrixUnit, job: MatrixJob, x: Matrix) -> Matrix:
    """The beats [beat, cols] of `x` [m, k], zeros beyond k."""
    padded = np.pad(x, ((0, 0), (0, job.k_tiles * unit.cols - x.shape[1])))
    tiles = padded.reshape(job.m, job.k_tiles, unit.cols)
    return np.concatenate([tiles[rows, k_tile] for rows, k_tile, _ in _passes(job)])


def w_beats(unit: MatrixUnit, job: MatrixJob, w: Matrix) -> Matrix:
    """The beats [beat, rows] of `w` [k, n]."""
    k, n = w.shape
    padded = np.pad(w, ((0, job.k_tiles * unit.cols - k), (0, job.n_tiles * unit.rows - n)))
    tiles = padded.reshape(job.k_tiles, unit.cols, job.n_tiles, unit.rows)
    return np.concatenate([tiles[k_tile, :, n_tile] for _, k_tile, n_tile in _passes(job)])


def y_matrix(unit: MatrixUnit, job: MatrixJob, beats: Matrix, n: int) -> Matrix:
    """y [m, n] from its beats [beat, rows]."""
    y = np.zeros((job.m, job.n_tiles * unit.rows), dtype=np.int64)
    first = 0
    for rows, k_tile, n_tile in _passes(job):
        if k_tile == job.k_tiles - 1:
            count = rows.stop - rows.start
            y[rows, n_tile * unit.rows : (n_tile + 1) * unit.rows] = beats[first : first + count]
            first += count
    return y[:, :n]


def _passes(job: MatrixJob) -> Iterator[tuple[slice, int, int]]:
    """Rows of y, tile of k, tile of n."""
    first = 0
    for size in job.block_sizes():
        for n_tile in range(job.n_tiles):
            for k_tile in range(job.k_tiles):
                yield slice(first, first + size), k_tile, n_tile
        first += size
