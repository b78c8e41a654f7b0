"""Which weights stay: magnitude pruning of a weight matrix W [k, n].

Unstructured (Han et al., arXiv:1506.02626), n of each m along a column (Mishra et al., arXiv:2104.08378), and
whole blocks by their L2 norm (Gray et al., "GPU Kernels for Block-Sparse Weights", 2017). True stays. Of
equal magnitudes the earlier ones go.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def largest(weights: Values, kept: int) -> Mask:
    """The `kept` weights of the largest magnitude."""
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    mask = np.ones(weights.size, dtype=bool)
    mask[order[: weights.size - kept]] = False
    return mask.reshape(weights.shape)


def n_of_m(weights: Values, n: int, m: int) -> Mask:
    """The `n` largest of each `m` weights that follow each other in a column; k is a multiple of `m`."""
    groups = np.abs(weights).reshape(-1, m, weights.shape[1])
    rank = np.argsort(np.argsort(groups, axis=1, kind="stable"), axis=1)
    return np.asarray(rank >= m - n).reshape(weights.shape)


def blocks(weights: Values, block: int, kept: int) -> Mask:
    """The `kept` blocks of `block` x `block` weights of the largest sum of squares; sizes are multiples."""
    rows, cols = (size // block for size in weights.shape)
    norms = (weights.reshape(rows, block, cols, block) ** 2).sum(axis=(1, 3))
    return largest(norms, kept).repeat(block, axis=0).repeat(block, axis=1)
